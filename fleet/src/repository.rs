//! The repository of policies and systems: a folder of plain files that cameras update from, signed as TUF asks.
//!
//! Any web server can serve the folder, and a stick can carry it; no camera believes anything of it that is
//! not signed. What lies where is told in the crate `release`. Beside that, a repository has `staged/`: what
//! is prepared and not yet visible, targets by their plain names, and the signed `N.targets.json`.
//!
//! A policy goes the way add → sign → publish, each a command of its own, because the keys lie in different
//! places: [`add`], [`add_system`] and [`redirect`] need none, [`sign`] the key of the targets, which is best kept offline,
//! and [`publish`] the two that a machine may hold which renews the timestamp by itself. [`rotate`] replaces a
//! key; [`overview`] says how everything stands; [`prune`] removes what nothing refers to.
//!
//! What holds:
//! - At every moment, whatever is cut off, a camera finds files that fit together: those of before or those
//!   of after ([`Change`]). The one exception is told in `rotation.rs`: the key that is replaced was lost.
//! - Keys are never inside the folder.
//! - A channel's number rises with each change, its floor never falls.
//! - Nothing is signed that names what is not there.

mod change;
mod client;
mod contents;
mod error;
mod files;
mod keys;
mod metadata;
mod overview;
mod prune;
mod publication;
mod rauc_bundle;
mod rollout;
mod rotation;
mod staging;

pub use change::{Change, Step};
pub use error::RepositoryError;
pub use metadata::Lifetimes;
pub use overview::{BundleState, ChannelState, Hashing, Overview, PackState, RoleState, overview};
pub use prune::{Pruned, prune};
pub use publication::{Published, Signed, prepare, publish, sign, sign_without};
pub use rollout::{Pause, Terms, start, waves};
pub use rotation::{Decided, Rotated, Rotation, prepare_rotation, rotate};
pub use staging::{Added, Packing, Redirection, add, add_system, redirect};

use keys::KeyFolder;
use release::METADATA;
use serde::Serialize;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The first root, which cameras are given when they are made.
const FIRST_ROOT: &str = "1.root.json";

/// A repository that nobody else changes at the same time.
pub struct Repository {
    dir: PathBuf,
    /// Held until the end.
    _lock: File,
}

/// How many keys a root has, and how many of them must sign.
#[derive(Clone, Copy, Debug)]
pub struct RootKeys {
    /// All of them.
    pub keys: u64,
    /// So many are enough.
    pub threshold: u64,
}

/// What a new repository consists of.
#[derive(Clone, Debug, Serialize)]
pub struct Begun {
    /// The root that cameras are to trust.
    pub root: PathBuf,
    /// Keys that belong on no machine with a network.
    pub offline: Vec<PathBuf>,
    /// Keys that publishing needs.
    pub online: Vec<PathBuf>,
}

impl Repository {
    /// Opens the repository in `dir`, and finishes what was cut off when it was last changed.
    ///
    /// # Errors
    /// [`RepositoryError`]
    pub fn open(dir: &Path) -> Result<Self, RepositoryError> {
        if !is_repository(dir) {
            return Err(RepositoryError::NoRepository { dir: dir.into() });
        }
        let failed = |source| RepositoryError::file("opening", dir, source);
        let lock = File::open(dir).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RepositoryError::Busy { dir: dir.into() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        if let Some(change) = Change::unfinished(dir) {
            change.finish()?;
        }
        Ok(Self { dir: dir.into(), _lock: lock })
    }

    /// Makes a repository without any policy in `dir`, and its keys in `keys`.
    ///
    /// # Errors
    /// [`RepositoryError`], if there is one already, or keys, or they would lie inside.
    pub async fn init(
        dir: &Path,
        keys: &Path,
        roots: RootKeys,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Begun, RepositoryError> {
        if dir.join(METADATA).exists() {
            return Err(RepositoryError::Exists { dir: dir.into() });
        }
        if !(1..=roots.keys).contains(&roots.threshold) || roots.keys > 32 {
            let RootKeys { keys, threshold } = roots;
            return Err(RepositoryError::Threshold { keys, threshold });
        }
        let folder = KeyFolder::outside(keys, dir)?;
        let root_keys = (1..=roots.keys).map(|n| folder.draw(&format!("root-{n}")));
        let root_keys = root_keys.collect::<Result<Vec<_>, _>>()?;
        let others = ["targets", "snapshot", "timestamp"].map(|name| folder.draw(name));
        let [targets, snapshot, timestamp] = others;
        let (targets, snapshot, timestamp) = (targets?, snapshot?, timestamp?);
        let roles = [&targets, &snapshot, &timestamp];
        let first = metadata::first(&root_keys, roots.threshold, roles, lifetimes, now).await?;
        for key in root_keys.iter().chain(roles) {
            folder.keep(key)?;
        }
        // The folder appears with all that is in it.
        let part = dir.join("metadata.part");
        files::remove_folder(&part)?;
        for (name, bytes) in first {
            files::write(&part.join(name), &bytes)?;
        }
        files::rename(&part, &dir.join(METADATA))?;
        let path = |key: &keys::SigningKey| key.path().to_owned();
        Ok(Begun {
            root: dir.join(METADATA).join(FIRST_ROOT),
            offline: root_keys.iter().chain([&targets]).map(path).collect(),
            online: [&snapshot, &timestamp].into_iter().map(path).collect(),
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn is_repository(dir: &Path) -> bool {
    fs::metadata(dir.join(METADATA).join(FIRST_ROOT)).is_ok_and(|file| file.is_file())
}
