//! How a repository stands.

use super::change::Change;
use super::contents::Contents;
use super::{RepositoryError, client, files, staging};
use crate::moment;
use release::{Channel, Kind, PACKS};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tough::ExpirationEnforcement;
use tough::schema::{Role, RoleType, Root};

/// What expires within this is told.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Whether packs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// Their lengths are enough.
    Lengths,
    /// Every chunk of them.
    Chunks,
}

/// How a repository stands; all of it was verified.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// Root, targets, snapshot, timestamp.
    pub roles: Vec<RoleState>,
    /// The channels.
    pub channels: Vec<ChannelState>,
    /// The bundles.
    pub bundles: Vec<BundleState>,
    /// The packs.
    pub packs: PackState,
    /// Names of the targets that are prepared.
    pub staged: Vec<String>,
    /// A publication was cut off; the next command finishes it.
    pub unfinished: bool,
}

/// A role of TUF.
#[derive(Clone, Debug, Serialize)]
pub struct RoleState {
    /// Its name.
    pub role: &'static str,
    /// Version of its newest metadata.
    pub version: u64,
    /// When that expires, RFC 3339.
    pub expires: String,
    /// Within a week.
    pub expires_soon: bool,
    /// How many keys are trusted for it.
    pub keys: usize,
    /// How many of them must sign.
    pub threshold: u64,
}

/// A channel.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelState {
    /// As cameras read it.
    #[serde(flatten)]
    pub channel: Channel,
    /// When its waves begin, RFC 3339.
    pub start: String,
}

/// A bundle, or a system.
#[derive(Clone, Debug, Serialize)]
pub struct BundleState {
    /// Which of them.
    pub kind: Kind,
    /// Its id.
    pub bundle: String,
    /// The target of its release.
    pub release: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many files.
    pub files: usize,
}

/// All packs.
#[derive(Clone, Debug, Serialize)]
pub struct PackState {
    /// How many.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether every chunk was read and hashed.
    pub hashed: bool,
}

/// How the repository in `dir` stands, as a camera that trusts its first root would find it.
///
/// # Errors
/// [`RepositoryError`] if such a camera would refuse anything of it.
pub async fn overview(
    dir: &Path,
    hashing: Hashing,
    now: SystemTime,
) -> Result<Overview, RepositoryError> {
    let loaded = client::load(dir, ExpirationEnforcement::Safe).await?;
    let contents = Contents::published(dir, &loaded).await?;
    contents.hang_together()?;
    let packs = dir.join(PACKS);
    let bytes = contents.packs_are_there(&packs)?;
    if hashing == Hashing::Chunks {
        contents.hash_packs(&packs)?;
    }
    let root = &loaded.root().signed;
    let roles = vec![
        role(root, root, now),
        role(root, &loaded.targets().signed, now),
        role(root, &loaded.snapshot().signed, now),
        role(root, &loaded.timestamp().signed, now),
    ];
    let channels = contents.channels.values().map(|channel| ChannelState {
        channel: channel.clone(),
        start: moment_of(channel.start_unix_s),
    });
    let bundles = contents.releases.iter().map(|(name, release)| BundleState {
        kind: release.kind,
        bundle: release.bundle.clone(),
        release: name.clone(),
        bytes: release.bytes(),
        files: release.files.len(),
    });
    let mut staged: Vec<String> = staging::staged(dir)?.bytes.into_keys().collect();
    let signed = files::list(&dir.join(super::change::STAGED))?.into_iter().map(|(name, _)| name);
    staged.extend(signed.filter(|name| name.ends_with(".targets.json")));
    let count = contents.packs(&packs).len();
    Ok(Overview {
        roles,
        channels: channels.collect(),
        bundles: bundles.collect(),
        packs: PackState { count, bytes, hashed: hashing == Hashing::Chunks },
        staged,
        unfinished: Change::unfinished(dir).is_some(),
    })
}

fn role<T: Role>(root: &Root, role: &T, now: SystemTime) -> RoleState {
    let expires = SystemTime::from(role.expires());
    let keys = root.roles.get(&T::TYPE);
    RoleState {
        role: match T::TYPE {
            RoleType::Root => "root",
            RoleType::Targets | RoleType::DelegatedTargets => "targets",
            RoleType::Snapshot => "snapshot",
            RoleType::Timestamp => "timestamp",
        },
        version: role.version().get(),
        expires: moment::rfc3339(expires),
        expires_soon: expires < now + SOON,
        keys: keys.map_or(0, |keys| keys.keyids.len()),
        threshold: keys.map_or(0, |keys| keys.threshold.get()),
    }
}

fn moment_of(unix_s: i64) -> String {
    let distance = Duration::from_secs(unix_s.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if unix_s < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    time.map_or_else(|| unix_s.to_string(), moment::rfc3339)
}
