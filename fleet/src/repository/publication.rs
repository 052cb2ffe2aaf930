//! Signing what is prepared, and making it visible.

use super::change::{Change, Files, STAGED, target_path};
use super::contents::Contents;
use super::keys::KeyFolder;
use super::metadata::{self, Dated, Lifetimes};
use super::{Repository, RepositoryError, client, files, rollout, staging};
use release::{METADATA, PACKS};
use serde::Serialize;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tough::schema::{self, RoleType, Targets};
use tough::{ExpirationEnforcement, TargetName};

/// Keys that are offline take their time to be fetched.
const OFFLINE_SOON: Duration = Duration::from_secs(30 * 86_400);

/// What was signed.
#[derive(Clone, Debug, Serialize)]
pub struct Signed {
    /// Version of the targets.
    pub version: u64,
    /// Where they are, signed.
    pub file: PathBuf,
    /// Names of the targets that are new or changed.
    pub targets: Vec<String>,
    /// Names of the targets that are there no more.
    pub retired: Vec<String>,
}

/// What is visible now.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    /// Version of the targets.
    pub targets_version: u64,
    /// Version of the snapshot.
    pub snapshot_version: u64,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// Names of the targets that are new or changed; none if the signatures were only renewed.
    pub targets: Vec<String>,
    /// What expires within a month and is not renewed by publishing: targets, root.
    pub expiring: Vec<&'static str>,
}

/// Signs the targets that there are and those that are prepared. Needs the key of the targets only; packs need
/// not be there.
///
/// # Errors
/// [`RepositoryError`]; nothing is signed then.
pub async fn sign(
    repository: &Repository,
    keys: &Path,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Signed, RepositoryError> {
    sign_without(repository, keys, &[], lifetimes, now).await
}

/// The same, without the releases of the bundles `retired`, which no channel may offer any more. When that is
/// published, [`prune`](super::prune()) removes what only they needed.
///
/// # Errors
/// [`RepositoryError`]; nothing is signed then.
pub async fn sign_without(
    repository: &Repository,
    keys: &Path,
    retired: &[String],
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Signed, RepositoryError> {
    let dir = repository.dir();
    let loaded = client::load(dir, ExpirationEnforcement::Unsafe).await?;
    let root = &loaded.root().signed;
    let key = KeyFolder::of(keys, dir, root)?.role(RoleType::Targets, root)?;
    let staged = staging::staged(dir)?;
    let mut contents = Contents::published(dir, &loaded).await?;
    for (name, channel) in &staged.channels {
        rollout::follows(contents.channels.get(name), channel)?;
    }
    contents.put_all(staged.clone());
    let gone = contents.retire(retired)?;
    contents.hang_together()?;

    let mut targets = loaded.targets().signed.clone();
    targets.version = metadata::next(targets.version);
    targets.expires = metadata::expiry(now, lifetimes.targets)?;
    for (name, bytes) in &staged.bytes {
        targets.targets.insert(target_name(name)?, metadata::target(bytes));
    }
    for name in &gone {
        targets.targets.remove(&target_name(name)?);
    }
    let version = targets.version;
    let signed = metadata::signed(targets, root, &[key]).await?;
    let path = dir.join(STAGED).join(format!("{version}.targets.json"));
    for (name, other) in files::list(&dir.join(STAGED))? {
        if name.ends_with(".targets.json") && other != path {
            files::remove(&other)?;
        }
    }
    files::write(&path, &signed)?;
    let targets = staged.bytes.into_keys().collect();
    Ok(Signed { version: version.get(), file: path, targets, retired: gone })
}

/// Makes what is signed visible, and renews snapshot and timestamp, whose two keys it needs.
///
/// # Errors
/// [`RepositoryError`]; if it did not become visible, nothing of it did.
pub async fn publish(
    repository: &Repository,
    keys: &Path,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Published, RepositoryError> {
    let (change, published) = prepare(repository, keys, lifetimes, now).await?;
    change.finish()?;
    forget_old_snapshots(repository.dir(), published.snapshot_version)?;
    Ok(published)
}

/// Decides on what [`publish`] makes visible: from then on it will be.
///
/// # Errors
/// [`RepositoryError`]; then it will not.
pub async fn prepare(
    repository: &Repository,
    keys: &Path,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<(Change, Published), RepositoryError> {
    let dir = repository.dir();
    let loaded = client::load(dir, ExpirationEnforcement::Unsafe).await?;
    let root = &loaded.root().signed;
    let folder = KeyFolder::of(keys, dir, root)?;
    let keys = [folder.role(RoleType::Snapshot, root)?, folder.role(RoleType::Timestamp, root)?];
    let snapshot_before = &loaded.snapshot().signed;

    let (mut changed, mut names) = (Files::new(), vec![]);
    let mut targets_version = loaded.targets().signed.version;
    let mut targets_expire: SystemTime = loaded.targets().signed.expires.into();
    let mut listed = snapshot_before.meta.get("targets.json").cloned().ok_or_else(|| {
        RepositoryError::Unsound { dir: dir.into(), why: "its snapshot names no targets".into() }
    })?;
    if let Some(news) = News::find(dir, &loaded).await? {
        targets_version = news.version;
        targets_expire = news.expires;
        listed = metadata::metafile(&news.signed, news.version);
        names.extend(news.targets.keys().cloned());
        let files = news.targets.iter();
        changed.extend(files.map(|(name, bytes)| (target_path(name, bytes), bytes.clone())));
        changed.insert(format!("{METADATA}/{}.targets.json", news.version), news.signed);
    }
    let ends_soon = |expires: SystemTime| expires < now + OFFLINE_SOON;
    let expiring =
        [(ends_soon(targets_expire), "targets"), (ends_soon(root.expires.into()), "root")];
    let dated = Dated {
        snapshot: metadata::next(snapshot_before.version),
        timestamp: metadata::next(loaded.timestamp().signed.version),
        listed,
        lifetimes,
        now,
    };
    let published = Published {
        targets_version: targets_version.get(),
        snapshot_version: dated.snapshot.get(),
        timestamp_version: dated.timestamp.get(),
        targets: names,
        expiring: expiring.into_iter().filter(|(soon, _)| *soon).map(|(_, role)| role).collect(),
    };
    for (name, bytes) in metadata::dated(dated, root, &keys).await? {
        changed.insert(format!("{METADATA}/{name}"), bytes);
    }
    Ok((Change::decide(dir, &changed)?, published))
}

/// What is signed and not yet visible.
struct News {
    version: NonZeroU64,
    expires: SystemTime,
    signed: Vec<u8>,
    targets: BTreeMap<String, Vec<u8>>,
}

impl News {
    /// Finds it in the repository `dir`; it must be all that is prepared, and fit together.
    async fn find(dir: &Path, loaded: &tough::Repository) -> Result<Option<Self>, RepositoryError> {
        let staged = staging::staged(dir)?;
        let unsigned =
            |what: String| Err(RepositoryError::NotSigned { what, staged: dir.join(STAGED) });
        let version = metadata::next(loaded.targets().signed.version);
        let name = format!("{version}.targets.json");
        let path = dir.join(STAGED).join(&name);
        if !path.exists() {
            return match staged.bytes.keys().next() {
                Some(first) => unsigned(format!("'{first}'")),
                None => Ok(None),
            };
        }
        let signed = files::read(&path)?;
        let Some(targets) = verified(&signed, loaded) else { return unsigned(format!("'{name}'")) };
        if targets.version != version {
            return unsigned(format!("'{name}'"));
        }
        for (name, bytes) in &staged.bytes {
            let listed = targets.targets.get(&target_name(name)?);
            if listed != Some(&metadata::target(bytes)) {
                return unsigned(format!("'{name}'"));
            }
        }
        let before = &loaded.targets().signed.targets;
        let differs =
            |(name, target): &(&TargetName, &schema::Target)| before.get(name) != Some(target);
        for (name, _) in targets.targets.iter().filter(differs) {
            if !staged.bytes.contains_key(name.raw()) {
                let by = format!("{STAGED}/{version}.targets.json");
                return Err(RepositoryError::Loose { name: name.raw().into(), by });
            }
        }
        let mut contents = Contents::published(dir, loaded).await?;
        contents.put_all(staged.clone());
        contents.hang_together()?;
        contents.packs_are_there(&dir.join(PACKS))?;
        Ok(Some(Self { version, expires: targets.expires.into(), signed, targets: staged.bytes }))
    }
}

/// The targets, if the root trusts their signatures.
fn verified(signed: &[u8], loaded: &tough::Repository) -> Option<Targets> {
    let signed: schema::Signed<Targets> = serde_json::from_slice(signed).ok()?;
    loaded.root().signed.verify_role(&signed).ok()?;
    Some(signed.signed)
}

fn target_name(name: &str) -> Result<TargetName, RepositoryError> {
    TargetName::new(name).map_err(|_| RepositoryError::Stranger { name: name.into() })
}

/// A timestamp that is renewed every day would leave a snapshot behind each time. Whoever is fetching by the
/// timestamp of just before still finds its own.
fn forget_old_snapshots(dir: &Path, newest: u64) -> Result<(), RepositoryError> {
    /// Some more than the one before, for caches that are late.
    const KEPT: u64 = 8;
    for (name, path) in files::list(&dir.join(METADATA))? {
        let version = name.strip_suffix(".snapshot.json").and_then(|n| n.parse::<u64>().ok());
        if version.is_some_and(|version| version.saturating_add(KEPT) <= newest) {
            files::remove(&path)?;
        }
    }
    Ok(())
}
