//! Removing what nothing refers to.

use super::contents::Contents;
use super::{Repository, RepositoryError, client, files, staging};
use crate::repository::change::target_path;
use release::{METADATA, PACKS, TARGETS};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tough::ExpirationEnforcement;

/// A camera that began just before the last publications still finds what it was told of.
const METADATA_KEPT: u64 = 8;

/// What was removed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pruned {
    /// Files of targets: channels, releases and indexes as they were.
    pub targets: usize,
    /// Packs.
    pub packs: usize,
    /// Old metadata.
    pub metadata: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Removes targets and packs that neither what is published nor what is prepared refers to, and metadata that is
/// older than what any camera can be in the midst of. It needs no key: a release that is published keeps all of its
/// packs; `sign` with a release to retire takes it out of the targets first.
///
/// # Errors
/// [`RepositoryError`]; what was removed is not needed.
pub async fn prune(repository: &Repository) -> Result<Pruned, RepositoryError> {
    let dir = repository.dir();
    let loaded = client::load(dir, ExpirationEnforcement::Unsafe).await?;
    let mut contents = Contents::published(dir, &loaded).await?;
    let published: BTreeSet<PathBuf> =
        contents.bytes.iter().map(|(name, bytes)| dir.join(target_path(name, bytes))).collect();
    // By their own indexes, not by those of the same name that are prepared.
    let mut packs: BTreeSet<PathBuf> = paths(&contents, dir);
    contents = staging::staged(dir)?;
    packs.extend(paths(&contents, dir));

    let mut pruned = Pruned::default();
    for (_, path) in files::list(&dir.join(TARGETS))? {
        if !published.contains(&path) {
            pruned.bytes += remove(&path)?;
            pruned.targets += 1;
        }
    }
    for (name, path) in files::list(&dir.join(PACKS))? {
        if name.ends_with(".pack") && !packs.contains(&path) {
            pruned.bytes += remove(&path)?;
            pruned.packs += 1;
        }
    }
    let newest = [
        (".targets.json", loaded.targets().signed.version.get()),
        (".snapshot.json", loaded.snapshot().signed.version.get()),
    ];
    for (name, path) in files::list(&dir.join(METADATA))? {
        let is_old = newest.iter().any(|(suffix, newest)| {
            let version = name.strip_suffix(suffix).and_then(|version| version.parse::<u64>().ok());
            version.is_some_and(|version| version.saturating_add(METADATA_KEPT) <= *newest)
        });
        if is_old {
            pruned.bytes += remove(&path)?;
            pruned.metadata += 1;
        }
    }
    Ok(pruned)
}

fn paths(contents: &Contents, dir: &Path) -> BTreeSet<PathBuf> {
    contents.packs(&dir.join(PACKS)).into_iter().map(|pack| pack.path).collect()
}

/// Removes a file; its bytes.
fn remove(path: &Path) -> Result<u64, RepositoryError> {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    files::remove(path)?;
    Ok(bytes)
}
