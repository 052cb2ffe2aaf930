//! Replacing a key.
//!
//! The new root is signed by enough of the old root's keys and of its own. What the replaced key had signed
//! is signed anew by both, and put into place before the root, so that it is good under the one and the
//! other. Only if the replaced key is lost is there a moment, between timestamp and root, in which cameras
//! find what they do not trust yet, and try again.

use super::change::{Change, Files};
use super::keys::{KeyFolder, SigningKey};
use super::metadata::{self, Dated, Lifetimes};
use super::{Repository, RepositoryError, client, files};
use release::METADATA;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tough::ExpirationEnforcement;
use tough::schema::{RoleType, Root};

/// Whose key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rotation {
    /// The oldest of the root's.
    Root,
    /// That of the targets.
    Targets,
    /// That of the snapshot.
    Snapshot,
    /// That of the timestamp.
    Timestamp,
}

/// What was replaced.
#[derive(Clone, Debug, Serialize)]
pub struct Rotated {
    /// Whose key.
    pub role: String,
    /// Version of the root that trusts the new one.
    pub root_version: u64,
    /// The new key.
    pub key: PathBuf,
    /// The old key, if it was there.
    pub retired: Option<PathBuf>,
}

/// A rotation that was decided on; what is left is to give the keys their names.
pub struct Decided {
    role: RoleType,
    version: u64,
    folder: KeyFolder,
    next: PathBuf,
    name: String,
    /// Name of the key that is replaced, if its file is known.
    old: Option<String>,
}

impl Rotation {
    fn role(self) -> RoleType {
        match self {
            Self::Root => RoleType::Root,
            Self::Targets => RoleType::Targets,
            Self::Snapshot => RoleType::Snapshot,
            Self::Timestamp => RoleType::Timestamp,
        }
    }
}

/// Replaces a key. Needs enough keys of the root; but for a key of the root also those of snapshot and
/// timestamp. The key that is replaced may be lost.
///
/// # Errors
/// [`RepositoryError`]; if the new key is not trusted, nothing was changed but for a `.pem.next`.
pub async fn rotate(
    repository: &Repository,
    keys: &Path,
    rotation: Rotation,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Rotated, RepositoryError> {
    let (change, decided) = prepare_rotation(repository, keys, rotation, lifetimes, now).await?;
    change.finish()?;
    decided.finish()
}

/// Decides on a rotation: from then on it will happen.
///
/// # Errors
/// [`RepositoryError`]; then it will not.
pub async fn prepare_rotation(
    repository: &Repository,
    keys: &Path,
    rotation: Rotation,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<(Change, Decided), RepositoryError> {
    let dir = repository.dir();
    let loaded = client::load(dir, ExpirationEnforcement::Unsafe).await?;
    let before = &loaded.root().signed;
    let folder = KeyFolder::of(keys, dir, before)?;
    let role = rotation.role();
    let mut signers = folder.roots(before)?;
    let old = match rotation {
        Rotation::Root => {
            let oldest = before.roles.get(&role).and_then(|keys| keys.keyids.first());
            signers.iter().find(|key| Some(key.id()) == oldest).cloned()
        }
        _ => match folder.role(role, before) {
            Err(RepositoryError::KeyMissing { .. }) => None,
            other => Some(other?),
        },
    };
    let mut online = vec![];
    if rotation != Rotation::Root {
        for other in [RoleType::Snapshot, RoleType::Timestamp] {
            if other != role {
                online.push(folder.role(other, before)?);
            }
        }
    }
    let name = match rotation {
        Rotation::Root => next_root_name(before),
        _ => role.to_string(),
    };
    let new = folder.next(&name)?;
    let mut after = replaced(before, role, &new);
    after.expires = metadata::expiry(now, lifetimes.root)?;
    let either = either(before, &after);

    let mut changed = Files::new();
    online.extend(old.clone());
    online.push(new.clone());
    if rotation != Rotation::Root {
        for (name, bytes) in resigned(&loaded, role, &either, &online, lifetimes, now).await? {
            changed.insert(format!("{METADATA}/{name}"), bytes);
        }
    }
    signers.push(new.clone());
    let version = after.version;
    let root = metadata::signed(after, &either, &signers).await?;
    changed.insert(format!("{METADATA}/{version}.root.json"), root);
    let change = Change::decide(dir, &changed)?;
    let old = old.and_then(|key| stem(key.path()));
    let next = new.path().to_owned();
    Ok((change, Decided { role, version: version.get(), folder, next, name, old }))
}

impl Decided {
    /// Gives the keys their names, once the root is in place.
    ///
    /// # Errors
    /// [`RepositoryError`]; the next command that needs the keys tries again.
    pub fn finish(self) -> Result<Rotated, RepositoryError> {
        let Self { role, version, folder, next, name, old } = self;
        let retired = match old {
            Some(old) => folder.retire(&old, version - 1)?,
            None => None,
        };
        let key = folder.dir().join(format!("{name}.pem"));
        files::rename(&next, &key)?;
        Ok(Rotated { role: role.to_string(), root_version: version, key, retired })
    }
}

/// `root-3` of `KEYS/root-3.pem`.
fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned())
}

/// A number that no root key has had: there is at most one new key in each version.
fn next_root_name(root: &Root) -> String {
    let keys = root.roles.get(&RoleType::Root).map_or(0, |keys| keys.keyids.len() as u64);
    format!("root-{}", keys.saturating_add(root.version.get()))
}

/// The next root, in which `new` has the place of the oldest key of `role`.
fn replaced(before: &Root, role: RoleType, new: &SigningKey) -> Root {
    let mut after = before.clone();
    after.version = metadata::next(before.version);
    if let Some(keys) = after.roles.get_mut(&role) {
        if !keys.keyids.is_empty() {
            keys.keyids.remove(0);
        }
        keys.keyids.push(new.id().clone());
    }
    after.keys.insert(new.id().clone(), new.public().clone());
    let roles = &after.roles;
    after.keys.retain(|id, _| roles.values().any(|keys| keys.keyids.contains(id)));
    after
}

/// A root that trusts whom either of two trusts, to sign by: what it signs is good under both.
fn either(before: &Root, after: &Root) -> Root {
    let mut either = after.clone();
    either.keys.extend(before.keys.iter().map(|(id, key)| (id.clone(), key.clone())));
    for (role, keys) in &mut either.roles {
        let others = before.roles.get(role).map_or(&[][..], |keys| &keys.keyids);
        let missing: Vec<_> =
            others.iter().filter(|id| !keys.keyids.contains(id)).cloned().collect();
        keys.keyids.extend(missing);
    }
    either
}

/// What the key of `role` has signed, signed anew, and what names it.
async fn resigned(
    loaded: &tough::Repository,
    role: RoleType,
    either: &Root,
    keys: &[SigningKey],
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Vec<(String, Vec<u8>)>, RepositoryError> {
    let snapshot = &loaded.snapshot().signed;
    let mut changed = vec![];
    let mut listed = snapshot.meta.get("targets.json").cloned();
    if role == RoleType::Targets || listed.is_none() {
        let mut targets = loaded.targets().signed.clone();
        targets.version = metadata::next(targets.version);
        targets.expires = metadata::expiry(now, lifetimes.targets)?;
        let version = targets.version;
        let signed = metadata::signed(targets, either, keys).await?;
        listed = Some(metadata::metafile(&signed, version));
        changed.push((format!("{version}.targets.json"), signed));
    }
    if let Some(listed) = listed {
        let dated = Dated {
            snapshot: metadata::next(snapshot.version),
            timestamp: metadata::next(loaded.timestamp().signed.version),
            listed,
            lifetimes,
            now,
        };
        changed.extend(metadata::dated(dated, either, keys).await?);
    }
    Ok(changed)
}
