//! What the targets of a repository say, and whether it fits together.

use super::{RepositoryError, client, files};
use release::{Channel, Index, Release, pack_path};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// What the targets of a repository say, by the names of the targets.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Channels, by their own names.
    pub channels: BTreeMap<String, Channel>,
    /// Releases.
    pub releases: BTreeMap<String, Release>,
    /// Indexes.
    pub indexes: BTreeMap<String, Index>,
    /// All of them as they are written.
    pub bytes: BTreeMap<String, Vec<u8>>,
}

/// A pack, and how much of it is known.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Its file.
    pub path: PathBuf,
    /// Where the last chunk ends.
    pub end: u64,
}

impl Contents {
    /// What is published.
    pub async fn published(
        dir: &Path,
        loaded: &tough::Repository,
    ) -> Result<Self, RepositoryError> {
        let mut contents = Self::default();
        for name in loaded.targets().signed.targets.keys() {
            contents.put(name.raw(), client::read(dir, loaded, name).await?)?;
        }
        Ok(contents)
    }

    /// Adds a target, in the place of an older one of its name.
    pub fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), RepositoryError> {
        let inner = |prefix| name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".json"));
        if let Some(channel) = inner("channel-") {
            self.channels.insert(channel.into(), Channel::parse(channel, &bytes)?);
        } else if name.starts_with("release-") {
            self.releases.insert(name.into(), Release::parse(name, &bytes)?);
        } else if name.starts_with("part-") {
            self.indexes.insert(name.into(), Index::parse(name, &bytes)?);
        } else {
            return Err(RepositoryError::Stranger { name: name.into() });
        }
        self.bytes.insert(name.into(), bytes);
        Ok(())
    }

    /// Adds all targets of another.
    pub fn put_all(&mut self, other: Self) {
        self.channels.extend(other.channels);
        self.releases.extend(other.releases);
        self.indexes.extend(other.indexes);
        self.bytes.extend(other.bytes);
    }

    /// The release of a bundle, and the name of its target.
    pub fn release_of(&self, bundle: &str) -> Option<(&String, &Release)> {
        self.releases.iter().find(|(_, release)| release.bundle == bundle)
    }

    /// Takes the releases of these bundles out, and the indexes that only they need. Returns the names of what is out.
    pub fn retire(&mut self, bundles: &[String]) -> Result<Vec<String>, RepositoryError> {
        let mut gone = vec![];
        for bundle in bundles {
            let release = self.release_of(bundle).map(|(name, _)| name.clone());
            let name = release.ok_or_else(|| RepositoryError::NoBundle(bundle.clone()))?;
            if let Some(channel) = self.channels.values().find(|channel| channel.release == name) {
                let channel = channel.channel.clone();
                return Err(RepositoryError::Offered { bundle: bundle.clone(), channel });
            }
            self.releases.remove(&name);
            gone.push(name);
        }
        if gone.is_empty() {
            return Ok(gone);
        }
        let files = self.releases.values().flat_map(|release| &release.files);
        let needed: BTreeSet<String> = files.map(release::File::index).collect();
        gone.extend(self.indexes.keys().filter(|name| !needed.contains(*name)).cloned());
        self.indexes.retain(|name, _| needed.contains(name));
        self.bytes.retain(|name, _| !gone.contains(name));
        Ok(gone)
    }

    /// Whether everything that is named is there: the releases of channels, the indexes of releases.
    pub fn hang_together(&self) -> Result<(), RepositoryError> {
        let loose = |name: &str, by: String| RepositoryError::Loose { name: name.into(), by };
        for channel in self.channels.values() {
            let release = self.releases.get(&channel.release);
            if release.is_none_or(|release| release.bundle != channel.bundle) {
                return Err(loose(&channel.release, Channel::target(&channel.channel)));
            }
        }
        for (name, release) in &self.releases {
            for file in &release.files {
                let index = self.indexes.get(&file.index());
                if index.is_none_or(|index| index.bytes != file.bytes) {
                    return Err(loose(&file.index(), name.clone()));
                }
            }
        }
        Ok(())
    }

    /// All packs that are named, in `folder`.
    pub fn packs(&self, folder: &Path) -> Vec<Pack> {
        let mut ends = HashMap::<_, u64>::new();
        for chunk in self.indexes.values().flat_map(|index| &index.chunks) {
            let end = ends.entry(chunk.pack).or_default();
            *end = chunk.end().max(*end);
        }
        let pack = |(name, end)| Pack { path: folder.join(pack_path(&name)), end };
        let mut packs: Vec<Pack> = ends.into_iter().map(pack).collect();
        packs.sort_by(|a, b| a.path.cmp(&b.path));
        packs
    }

    /// Bytes of all packs that are named, if they are there.
    pub fn packs_are_there(&self, folder: &Path) -> Result<u64, RepositoryError> {
        let mut bytes = 0;
        for pack in self.packs(folder) {
            bytes += pack.check()?;
        }
        Ok(bytes)
    }

    /// Whether all chunks of all packs are what they are to be.
    pub fn hash_packs(&self, folder: &Path) -> Result<(), RepositoryError> {
        for Pack { path, .. } in self.packs(folder) {
            let pack = files::read(&path)?;
            let name = pack_path(&blake3::hash(&pack));
            if path != folder.join(&name) {
                return Err(RepositoryError::Pack { path, what: "was altered" });
            }
            let chunks = self.indexes.values().flat_map(|index| &index.chunks);
            for chunk in chunks.filter(|chunk| pack_path(&chunk.pack) == name) {
                // Checked to be inside just before; a pack is at most 32 MiB.
                let stored = pack.get(chunk.offset as usize..chunk.end() as usize);
                if stored.is_none_or(|stored| chunk.open(stored).is_err()) {
                    return Err(RepositoryError::Pack { path, what: "is not what an index says" });
                }
            }
        }
        Ok(())
    }
}

impl Pack {
    /// Its length, if it is there and holds all chunks.
    pub fn check(&self) -> Result<u64, RepositoryError> {
        let wrong = |what| Err(RepositoryError::Pack { path: self.path.clone(), what });
        match fs::metadata(&self.path) {
            Ok(file) if file.len() >= self.end => Ok(file.len()),
            Ok(_) => wrong("is cut off"),
            Err(_) => wrong("is missing"),
        }
    }
}
