//! What becomes visible at once.
//!
//! A change is first written to `staged/ready/`, and happens from the moment when that folder has its name:
//! whoever opens the repository next finishes it. Its files are then put into place in an order in which a
//! camera finds what fits together after each of them: targets, `N.targets.json`, `N.snapshot.json`, which
//! nothing names yet, then `timestamp.json`, which names them, and a new root last.

use super::{RepositoryError, files};
use crate::secret::{hex, sha256};
use release::{METADATA, TARGETS};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of what is prepared.
pub const STAGED: &str = "staged";
const READY: &str = "staged/ready";
const PART: &str = "staged/ready.part";
const DONE: &str = "staged/ready.done";

/// A change that will happen.
#[derive(Clone, Debug)]
pub struct Change {
    dir: PathBuf,
}

/// A part of a change; to take one again does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file gets its place.
    Put {
        /// Where it was written.
        from: PathBuf,
        /// Where cameras look for it.
        to: PathBuf,
    },
    /// What was prepared is needed no more.
    Forget(PathBuf),
    /// The change is over.
    End {
        /// The repository.
        dir: PathBuf,
    },
}

/// The files of a change, by their paths inside the repository.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Where a target lies.
pub fn target_path(name: &str, bytes: &[u8]) -> String {
    format!("{TARGETS}/{}.{name}", hex(&sha256(bytes)))
}

impl Change {
    /// Decides on a change of the repository in `dir`.
    pub fn decide(dir: &Path, changed: &Files) -> Result<Self, RepositoryError> {
        files::remove_folder(&dir.join(PART))?;
        files::remove_folder(&dir.join(DONE))?;
        for (path, bytes) in changed {
            files::write(&dir.join(PART).join(path), bytes)?;
        }
        files::rename(&dir.join(PART), &dir.join(READY))?;
        Ok(Self { dir: dir.into() })
    }

    /// The change of the repository in `dir` that was decided on and is not finished.
    pub fn unfinished(dir: &Path) -> Option<Self> {
        dir.join(READY).is_dir().then(|| Self { dir: dir.into() })
    }

    /// All there is to do, in order.
    ///
    /// # Errors
    /// [`RepositoryError`]
    pub fn steps(&self) -> Result<Vec<Step>, RepositoryError> {
        let (mut steps, mut forget) = (vec![], vec![]);
        for (name, from) in files::list(&self.dir.join(READY).join(TARGETS))? {
            let staged = name.split_once('.').map(|(_, plain)| self.dir.join(STAGED).join(plain));
            let ours = files::read(&from)?;
            // It may have been staged anew in the meantime.
            forget.extend(staged.filter(|path| fs::read(path).is_ok_and(|theirs| theirs == ours)));
            steps.push(Step::Put { from, to: self.dir.join(TARGETS).join(name) });
        }
        let mut metadata = files::list(&self.dir.join(READY).join(METADATA))?;
        metadata.sort_by_key(|(name, _)| rank(name));
        for (name, from) in metadata {
            forget.push(self.dir.join(STAGED).join(&name));
            steps.push(Step::Put { from, to: self.dir.join(METADATA).join(name) });
        }
        steps.extend(forget.into_iter().filter(|path| path.exists()).map(Step::Forget));
        steps.push(Step::End { dir: self.dir.clone() });
        Ok(steps)
    }

    /// Takes all steps.
    ///
    /// # Errors
    /// [`RepositoryError`]; whoever opens the repository next tries again.
    pub fn finish(self) -> Result<(), RepositoryError> {
        self.steps()?.iter().try_for_each(Step::take)
    }
}

/// The order in which metadata gets its place.
fn rank(name: &str) -> u8 {
    match name.rsplit('.').nth(1) {
        Some("targets") => 0,
        Some("snapshot") => 1,
        Some("timestamp") => 2,
        _ => 3,
    }
}

impl Step {
    /// Does it.
    ///
    /// # Errors
    /// [`RepositoryError`]
    pub fn take(&self) -> Result<(), RepositoryError> {
        match self {
            Self::Put { from, to } => files::write(to, &files::read(from)?),
            Self::Forget(path) => files::remove(path),
            Self::End { dir } => {
                files::rename(&dir.join(READY), &dir.join(DONE))?;
                files::remove_folder(&dir.join(DONE))
            }
        }
    }
}
