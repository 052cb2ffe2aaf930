//! Preparing: what is packed and staged, and not yet visible.

use super::change::STAGED;
use super::contents::Contents;
use super::rauc_bundle::RaucBundle;
use super::rollout::{self, Pause, Terms};
use super::{Repository, RepositoryError, client, files};
use bundle::{Bundle, GOLDEN, Version};
use release::{Channel, Index, Kind, PACKS, Release, is_label, pack, pack_path};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tough::ExpirationEnforcement;

/// What was prepared of a bundle, or of a system.
#[derive(Clone, Debug, Serialize)]
pub struct Added {
    /// Which of them.
    pub kind: Kind,
    /// Its id.
    pub bundle: String,
    /// The target of its release.
    pub release: String,
    /// The channel that will offer it, as it will be.
    pub channel: Channel,
    /// Bytes of it.
    pub bytes: u64,
    /// Bytes of the packs that were written for it.
    pub new_bytes: u64,
    /// Whether it brings answers that cameras compare theirs with before they take it.
    pub golden: bool,
}

/// A change of a channel.
#[derive(Clone, Debug, Default)]
pub struct Redirection {
    /// What its waves, its start and its floor should be.
    pub terms: Terms,
    /// Whether it is halted.
    pub pause: Option<Pause>,
    /// Id of another bundle of the repository to offer.
    pub to: Option<String>,
}

/// Packs the bundle in `bundle`, and prepares that `channel` offers it. `progress` is told how many bytes there
/// are to be packed, and of each piece that is done.
///
/// # Errors
/// [`RepositoryError`]; nothing is prepared then.
pub async fn add(
    repository: &Repository,
    bundle: &Path,
    channel: &str,
    terms: &Terms,
    now: SystemTime,
    progress: impl FnMut(Packing),
) -> Result<Added, RepositoryError> {
    let bundle = Bundle::open(bundle)?;
    label("the bundle's name", &bundle.manifest.name)?;
    label("the bundle's version", &bundle.manifest.version)?;
    let manifest = bundle.dir.join(bundle::MANIFEST);
    let release = Release::of(&bundle)
        .map_err(|source| RepositoryError::file("reading", &manifest, source))?;
    let path = |file: &release::File| bundle.dir.join(&file.file);
    let added = add_release(repository, &release, path, channel, terms, now, progress).await?;
    Ok(Added { golden: bundle.manifest.parts.contains_key(GOLDEN), ..added })
}

/// Packs the RAUC bundle in `file`, a system for machines of the kind `compatible`, and prepares that `channel` offers
/// it under `version`; the rest is as with [`add`].
///
/// # Errors
/// [`RepositoryError`]; nothing is prepared then.
pub async fn add_system(
    repository: &Repository,
    (file, compatible, version): (&Path, &str, &str),
    channel: &str,
    terms: &Terms,
    now: SystemTime,
    progress: impl FnMut(Packing),
) -> Result<Added, RepositoryError> {
    label("the kind of machine", compatible)?;
    if Version::parse(version).is_none() {
        return Err(RepositoryError::Version(version.into()));
    }
    RaucBundle::open(file)?.is_of(compatible, version)?;
    let release = Release::of_system(file, compatible, version)
        .map_err(|source| RepositoryError::file("reading", file, source))?;
    add_release(repository, &release, |_| file.into(), channel, terms, now, progress).await
}

async fn add_release(
    repository: &Repository,
    release: &Release,
    path: impl Fn(&release::File) -> PathBuf,
    channel: &str,
    terms: &Terms,
    now: SystemTime,
    mut progress: impl FnMut(Packing),
) -> Result<Added, RepositoryError> {
    label("the channel's name", channel)?;
    let dir = repository.dir();
    let contents = prospective(dir).await?;
    let target = release.target();
    let written = json(&target, release)?;
    Release::parse(&target, &written)?;
    let before = contents.channels.get(channel);
    let offer = (target.as_str(), release);
    is_of_its_kind(&contents, before, release)?;
    let after = rollout::offered(channel, before, offer, terms, unix_s(now))?;

    // What lies in a pack that is lost counts as new.
    let packs = dir.join(PACKS);
    let lost: BTreeSet<PathBuf> = contents
        .packs(&packs)
        .into_iter()
        .filter(|pack| pack.check().is_err())
        .map(|pack| pack.path)
        .collect();
    let is_whole = |index: &&Index| {
        index.chunks.iter().all(|chunk| !lost.contains(&packs.join(pack_path(&chunk.pack))))
    };
    let mut known: Vec<Index> = contents.indexes.values().filter(is_whole).cloned().collect();
    let is_known = |file: &release::File| known.iter().any(|i| i.target() == file.index());
    let new: Vec<_> = release.files.iter().filter(|file| !is_known(file)).collect();
    progress(Packing::Begin { bytes: new.iter().map(|file| file.bytes).sum() });
    let there = files::list(&packs)?;
    let paths: Vec<PathBuf> = new.iter().map(|file| path(file)).collect();
    let cut = pack(&packs, &paths, &known, |bytes| progress(Packing::Done { bytes }))?;
    if let Some((file, _)) = new.iter().zip(&cut).find(|(file, cut)| file.index() != cut.target()) {
        let (name, by) = (file.file.clone(), path(file).display().to_string());
        return Err(RepositoryError::Loose { name, by });
    }
    let new_bytes = if paths.is_empty() {
        0
    } else {
        files::sync(&packs)?;
        let mut written = files::list(&packs)?;
        written.retain(|pack| !there.contains(pack) && pack.0.ends_with(".pack"));
        written.iter().map(|(_, path)| fs::metadata(path).map_or(0, |file| file.len())).sum()
    };
    known.extend(cut.iter().cloned());

    // The channel last: what it names is there when it is.
    for index in &cut {
        stage(dir, &contents, &index.target(), index.to_json())?;
    }
    stage(dir, &contents, &target, written)?;
    stage_channel(dir, &contents, &after)?;
    let (kind, bundle, bytes) = (release.kind, release.bundle.clone(), release.bytes());
    let (channel, golden) = (after, false);
    Ok(Added { kind, bundle, release: target, channel, bytes, new_bytes, golden })
}

/// A camera that follows a channel for policies takes no system from it, and the other way round.
fn is_of_its_kind(
    contents: &Contents,
    before: Option<&Channel>,
    release: &Release,
) -> Result<(), RepositoryError> {
    let Some(before) = before else { return Ok(()) };
    let offered = contents.releases.get(&before.release).map_or(release.kind, |found| found.kind);
    if offered == release.kind {
        return Ok(());
    }
    let why = format!(
        "it offers {}, which is a {}, and {} is a {}: give the other kind a channel of its own",
        before.bundle,
        offered.word(),
        release.bundle,
        release.kind.word()
    );
    Err(RepositoryError::Rule { channel: before.channel.clone(), why })
}

/// How packing goes on.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    /// So much there is.
    Begin {
        /// Bytes of all files that are new.
        bytes: u64,
    },
    /// So much more is done.
    Done {
        /// Bytes of a piece.
        bytes: u64,
    },
}

/// Prepares a change of a channel.
///
/// # Errors
/// [`RepositoryError`]; nothing is prepared then.
pub async fn redirect(
    repository: &Repository,
    channel: &str,
    redirection: &Redirection,
    now: SystemTime,
) -> Result<Channel, RepositoryError> {
    let contents = prospective(repository.dir()).await?;
    let before = contents.channels.get(channel);
    let before = before.ok_or_else(|| RepositoryError::NoChannel(channel.into()))?;
    let Redirection { terms, pause, to } = redirection;
    let bundle = to.as_ref().unwrap_or(&before.bundle);
    let (target, release) =
        contents.release_of(bundle).ok_or_else(|| RepositoryError::NoBundle(bundle.clone()))?;
    is_of_its_kind(&contents, Some(before), release)?;
    let mut after = match to {
        None => rollout::adjusted(before, release, terms, *pause)?,
        Some(_) => rollout::offered(channel, Some(before), (target, release), terms, unix_s(now))?,
    };
    after.halted |= *pause == Some(Pause::Halt);
    stage_channel(repository.dir(), &contents, &after)?;
    Ok(after)
}

/// What is prepared in the repository `dir`.
pub fn staged(dir: &Path) -> Result<Contents, RepositoryError> {
    let mut contents = Contents::default();
    for (name, path) in files::list(&dir.join(STAGED))? {
        if !name.ends_with(".targets.json") {
            contents.put(&name, files::read(&path)?)?;
        }
    }
    Ok(contents)
}

/// What will be published when what is prepared is.
async fn prospective(dir: &Path) -> Result<Contents, RepositoryError> {
    let loaded = client::load(dir, ExpirationEnforcement::Unsafe).await?;
    let mut contents = Contents::published(dir, &loaded).await?;
    contents.put_all(staged(dir)?);
    Ok(contents)
}

fn stage_channel(dir: &Path, there: &Contents, channel: &Channel) -> Result<(), RepositoryError> {
    let target = Channel::target(&channel.channel);
    stage(dir, there, &target, json(&target, channel)?)
}

/// Prepares a target, unless it is there as it is to be.
fn stage(dir: &Path, there: &Contents, name: &str, bytes: Vec<u8>) -> Result<(), RepositoryError> {
    match there.bytes.get(name) == Some(&bytes) {
        true => Ok(()),
        false => files::write(&dir.join(STAGED).join(name), &bytes),
    }
}

fn json(name: &str, value: &impl Serialize) -> Result<Vec<u8>, RepositoryError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| RepositoryError::Signing { what: name.into(), why: error.to_string() })?;
    json.push(b'\n');
    Ok(json)
}

fn label(what: &'static str, text: &str) -> Result<(), RepositoryError> {
    match is_label(text) {
        true => Ok(()),
        false => Err(RepositoryError::Label { what, text: text.into() }),
    }
}

fn unix_s(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
