//! TUF's four roles: what they say, and their signatures.

use super::keys::SigningKey;
use super::{FIRST_ROOT, RepositoryError};
use crate::secret::sha256;
use aws_lc_rs::rand::SystemRandom;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tough::editor::signed::SignedRole;
use tough::key_source::KeySource;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Snapshot, Target, Targets,
    Timestamp,
};

const SPECIFICATION: &str = "1.0.0";
const DAY: Duration = Duration::from_secs(86_400);

/// How many days signatures are good.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of the root, whose keys are hardest to bring together.
    pub root: u32,
    /// Of the targets: a release stands for a year without anybody fetching the offline key.
    pub targets: u32,
    /// Of the snapshot.
    pub snapshot: u32,
    /// Of the timestamp: for so long a camera can be kept from noticing what is new. The double of a week, so
    /// that what renews it weekly may fail once.
    pub timestamp: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: 5 * 365, targets: 365, snapshot: 30, timestamp: 14 }
    }
}

/// When what is signed now for `days` expires. The type is jiff's, which nothing here needs to name.
pub fn expiry<T: TryFrom<SystemTime>>(now: SystemTime, days: u32) -> Result<T, RepositoryError> {
    let too_far = || RepositoryError::Days { days };
    // In whole seconds, as the specification writes it.
    let now = Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let after = DAY.checked_mul(days).and_then(|after| after.checked_add(now));
    let then = after.and_then(|after| UNIX_EPOCH.checked_add(after)).ok_or_else(too_far)?;
    T::try_from(then).map_err(|_| too_far())
}

/// The next version.
pub fn next(version: NonZeroU64) -> NonZeroU64 {
    version.saturating_add(1)
}

/// A role with the signatures of those of `keys` that `root` trusts for it.
pub async fn signed<T: Role>(
    role: T,
    root: &Root,
    keys: &[SigningKey],
) -> Result<Vec<u8>, RepositoryError> {
    let sources: Vec<Box<dyn KeySource>> =
        keys.iter().map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect();
    let holder = KeyHolder::Root(root.clone());
    let signed = SignedRole::new(role, &holder, &sources, &SystemRandom::new()).await;
    let failed = |error: tough::error::Error| RepositoryError::Signing {
        what: format!("{}.json", T::TYPE),
        why: error.to_string(),
    };
    Ok(signed.map_err(failed)?.buffer().clone())
}

/// The entry of a target in the targets.
pub fn target(bytes: &[u8]) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: hashes(bytes),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    }
}

/// The entry of a role's file in the role that names it.
pub fn metafile(bytes: &[u8], version: NonZeroU64) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(bytes)),
        version,
        _extra: HashMap::new(),
    }
}

fn hashes(bytes: &[u8]) -> Hashes {
    Hashes { sha256: sha256(bytes).to_vec().into(), _extra: HashMap::new() }
}

/// Names and contents of the metadata of a new repository. `roles`: the keys of targets, snapshot and
/// timestamp.
pub async fn first(
    roots: &[SigningKey],
    threshold: u64,
    roles: [&SigningKey; 3],
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Vec<(String, Vec<u8>)>, RepositoryError> {
    let trusted = |keys: &[&SigningKey], threshold| RoleKeys {
        keyids: keys.iter().map(|key| key.id().clone()).collect(),
        threshold: NonZeroU64::new(threshold).unwrap_or(NonZeroU64::MIN),
        _extra: HashMap::new(),
    };
    let all: Vec<SigningKey> = roots.iter().chain(roles).cloned().collect();
    let root = Root {
        spec_version: SPECIFICATION.into(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: expiry(now, lifetimes.root)?,
        keys: all.iter().map(|key| (key.id().clone(), key.public().clone())).collect(),
        roles: HashMap::from([
            (RoleType::Root, trusted(&roots.iter().collect::<Vec<_>>(), threshold)),
            (RoleType::Targets, trusted(&[roles[0]], 1)),
            (RoleType::Snapshot, trusted(&[roles[1]], 1)),
            (RoleType::Timestamp, trusted(&[roles[2]], 1)),
        ]),
        _extra: HashMap::new(),
    };
    let version = NonZeroU64::MIN;
    let mut targets = Targets::new(SPECIFICATION.into(), version, expiry(now, lifetimes.targets)?);
    targets.delegations = None;
    let targets = signed(targets, &root, &all).await?;
    let listed = metafile(&targets, version);
    let [snapshot, timestamp] =
        dated(Dated { snapshot: version, timestamp: version, listed, lifetimes, now }, &root, &all)
            .await?;
    // As many signatures as are needed, and not one more that would tell which keys are at hand.
    let enough = usize::try_from(threshold).unwrap_or(usize::MAX).min(roots.len());
    let signed_root = signed(root.clone(), &root, &roots[..enough]).await?;
    let targets = ("1.targets.json".to_owned(), targets);
    Ok(vec![(FIRST_ROOT.into(), signed_root), targets, snapshot, timestamp])
}

/// What a snapshot and a timestamp are to say.
pub struct Dated {
    /// Version of the snapshot.
    pub snapshot: NonZeroU64,
    /// Version of the timestamp.
    pub timestamp: NonZeroU64,
    /// The targets that they stand for.
    pub listed: Metafile,
    /// How long they are good.
    pub lifetimes: Lifetimes,
    /// From when on.
    pub now: SystemTime,
}

/// Names and contents of a snapshot and of the timestamp that names it.
pub async fn dated(
    dated: Dated,
    root: &Root,
    keys: &[SigningKey],
) -> Result<[(String, Vec<u8>); 2], RepositoryError> {
    let Dated { snapshot: version, timestamp, listed, lifetimes, now } = dated;
    let expires = expiry(now, lifetimes.snapshot)?;
    let mut snapshot = Snapshot::new(SPECIFICATION.into(), version, expires);
    snapshot.meta.insert("targets.json".into(), listed);
    let snapshot = signed(snapshot, root, keys).await?;
    let expires = expiry(now, lifetimes.timestamp)?;
    let mut timestamp = Timestamp::new(SPECIFICATION.into(), timestamp, expires);
    timestamp.meta.insert("snapshot.json".into(), metafile(&snapshot, version));
    let timestamp = signed(timestamp, root, keys).await?;
    Ok([(format!("{version}.snapshot.json"), snapshot), ("timestamp.json".into(), timestamp)])
}
