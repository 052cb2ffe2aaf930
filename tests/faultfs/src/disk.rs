//! Files in memory: what programs see, and what would be found after a crash.

use crate::Survival;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names whose directory was not synced since.
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<ByteChange>,
}

#[derive(Clone)]
enum ByteChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

pub(crate) enum NameChange {
    Create { path: PathBuf, file: usize },
    Rename { from: PathBuf, to: PathBuf, file: usize },
    Remove { path: PathBuf },
    RenameDir { from: PathBuf, to: PathBuf },
}

impl Disk {
    /// A new file under `path`, or the file there, emptied.
    pub(crate) fn create(&mut self, path: &Path) -> usize {
        if let Some(file) = self.find(path) {
            self.set_len(file, 0);
            return file;
        }
        let file = self.files.len();
        self.files.push(File::default());
        self.change(NameChange::Create { path: path.into(), file });
        file
    }

    pub(crate) fn find(&self, path: &Path) -> Option<usize> {
        self.names.get(path).copied()
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    pub(crate) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.find(path).map(|file| self.files[file].bytes.clone())
    }

    pub(crate) fn put(&mut self, path: &Path, bytes: Vec<u8>) {
        let file = self.files.len();
        self.files.push(File { durable: bytes.clone(), bytes, unsynced: Vec::new() });
        self.names.insert(path.into(), file);
        self.durable_names.insert(path.into(), file);
    }

    /// Bytes of all files whose name `counts`.
    pub(crate) fn bytes(&self, counts: impl Fn(&str) -> bool) -> u64 {
        let is_counted =
            |path: &Path| path.file_name().and_then(|n| n.to_str()).is_some_and(&counts);
        let of_file = |(_, &file): (_, &usize)| self.files[file].bytes.len() as u64;
        self.names.iter().filter(|(path, _)| is_counted(path)).map(of_file).sum()
    }

    pub(crate) fn size(&self, file: usize) -> u64 {
        self.files[file].bytes.len() as u64
    }

    pub(crate) fn read(&self, file: usize, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start.saturating_add(buffer.len());
        let bytes = self.files[file].bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn write(&mut self, file: usize, bytes: &[u8], offset: u64) {
        self.apply(file, ByteChange::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn set_len(&mut self, file: usize, bytes: u64) {
        self.apply(file, ByteChange::SetLen(bytes));
    }

    pub(crate) fn sync(&mut self, file: usize) {
        let file = &mut self.files[file];
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable, |_| true);
        }
    }

    /// What a failed fsync leaves: programs see the bytes, the disk never will.
    pub(crate) fn forget_unsynced(&mut self, file: usize) {
        self.files[file].unsynced.clear();
    }

    pub(crate) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(crate) fn sync_dir(&mut self, dir: &Path) {
        for change in std::mem::take(&mut self.unsynced_names) {
            if change.dir() == Some(dir) {
                change.apply(&mut self.durable_names);
                if let NameChange::RenameDir { from, to } = &change {
                    // What was done in the folder before it got its name is in it wherever it is now.
                    self.unsynced_names.iter_mut().for_each(|earlier| earlier.move_to(from, to));
                }
            } else {
                self.unsynced_names.push(change);
            }
        }
    }

    pub(crate) fn after_crash(&self, survival: Survival) -> Disk {
        let mut random = Random(match survival {
            Survival::Some(seed) => seed,
            _ => 0,
        });
        let mut survives = || match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Some(_) => random.coin(),
        };
        let mut names = self.durable_names.clone();
        for change in &self.unsynced_names {
            if survives() {
                change.apply(&mut names);
            }
        }
        let mut disk = Disk::default();
        for (path, file) in names {
            let file = &self.files[file];
            // Bytes that only programs could see are still there if only the process died.
            let mut bytes = match survival {
                Survival::Everything => file.bytes.clone(),
                _ => file.durable.clone(),
            };
            for change in &file.unsynced {
                if survives() {
                    change.apply(&mut bytes, |_| survives());
                }
            }
            disk.put(&path, bytes);
        }
        disk
    }

    fn apply(&mut self, file: usize, change: ByteChange) {
        let file = &mut self.files[file];
        change.apply(&mut file.bytes, |_| true);
        file.unsynced.push(change);
    }
}

impl ByteChange {
    /// Makes the change, of a write only the sectors that are `kept`.
    fn apply(&self, bytes: &mut Vec<u8>, mut kept: impl FnMut(usize) -> bool) {
        match self {
            ByteChange::SetLen(length) => bytes.resize(*length as usize, 0),
            ByteChange::Write { offset, bytes: written } => {
                let (mut at, mut rest) = (*offset as usize, &written[..]);
                while !rest.is_empty() {
                    let in_sector = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len());
                    let (sector, others) = rest.split_at(in_sector);
                    if kept(at / SECTOR_BYTES) {
                        bytes.resize(bytes.len().max(at + in_sector), 0);
                        bytes[at..at + in_sector].copy_from_slice(sector);
                    }
                    (at, rest) = (at + in_sector, others);
                }
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            NameChange::Remove { path } => {
                names.remove(path);
            }
            NameChange::RenameDir { from, to } => {
                let moved = |path: &PathBuf| Some(to.join(path.strip_prefix(from).ok()?));
                let all = std::mem::take(names);
                names.extend(
                    all.into_iter().map(|(path, file)| (moved(&path).unwrap_or(path), file)),
                );
            }
        }
    }

    fn move_to(&mut self, old: &Path, new: &Path) {
        let follow = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(old) {
                *path = new.join(rest);
            }
        };
        match self {
            NameChange::Create { path, .. } | NameChange::Remove { path } => follow(path),
            NameChange::Rename { from, to, .. } | NameChange::RenameDir { from, to } => {
                follow(from);
                follow(to);
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        let (NameChange::Create { path, .. }
        | NameChange::Rename { to: path, .. }
        | NameChange::RenameDir { to: path, .. }
        | NameChange::Remove { path }) = self;
        path.parent()
    }
}

/// SplitMix64: enough to choose what survives, and the same every time.
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_and_unsynced_ones_only_by_chance() {
        let path = Path::new("/d/file");
        let mut disk = Disk::default();
        let file = disk.create(path);
        disk.write(file, b"durable", 0);
        disk.sync(file);
        assert!(
            disk.after_crash(Survival::Nothing).find(path).is_none(),
            "its name was not synced"
        );
        disk.sync_dir(Path::new("/d"));
        disk.write(file, &[b'x'; 2000], 0);
        let found = |survival| disk.after_crash(survival).contents(path).unwrap();
        assert_eq!(found(Survival::Nothing), b"durable");
        assert_eq!(found(Survival::Everything), [b'x'; 2000]);
        let torn = (0..50).map(|seed| found(Survival::Some(seed)));
        assert!(torn.filter(|bytes| bytes.len() == 2000 && bytes.contains(&0)).count() > 5);
    }

    #[test]
    fn a_failed_sync_loses_what_a_later_sync_seems_to_save() {
        let path = Path::new("/d/file");
        let mut disk = Disk::default();
        let file = disk.create(path);
        disk.sync_dir(Path::new("/d"));
        disk.write(file, b"lost", 0);
        disk.forget_unsynced(file);
        disk.sync(file);
        assert_eq!(disk.contents(path).unwrap(), b"lost");
        assert_eq!(disk.after_crash(Survival::Some(1)).contents(path).unwrap(), b"");
    }

    #[test]
    fn a_folder_that_is_renamed_takes_what_of_it_was_durable_along() {
        let (from, to) = (Path::new("/d/new"), Path::new("/d/old"));
        let mut disk = Disk::default();
        let kept = disk.create(&from.join("kept"));
        disk.sync_dir(from);
        disk.create(&from.join("lost"));
        disk.change(NameChange::Create { path: from.join("link"), file: kept });
        disk.change(NameChange::RenameDir { from: from.into(), to: to.into() });
        assert_eq!(disk.paths(), ["kept", "link", "lost"].map(|name| to.join(name)));
        let paths = |survival| disk.after_crash(survival).paths();
        assert_eq!(paths(Survival::Nothing), [from.join("kept")]);
        disk.sync_dir(Path::new("/d"));
        assert_eq!(disk.after_crash(Survival::Nothing).paths(), [to.join("kept")]);
        for seed in 0..20 {
            assert!(
                disk.after_crash(Survival::Some(seed)).paths().iter().all(|p| p.starts_with(to))
            );
        }
    }

    #[test]
    fn a_rename_survives_whole_or_not_at_all() {
        let (from, to) = (Path::new("/d/new"), Path::new("/d/old"));
        let mut disk = Disk::default();
        disk.put(to, b"old".into());
        let file = disk.create(from);
        disk.write(file, b"new", 0);
        disk.sync(file);
        disk.sync_dir(Path::new("/d"));
        disk.change(NameChange::Rename { from: from.into(), to: to.into(), file });
        for seed in 0..20 {
            let after = disk.after_crash(Survival::Some(seed));
            match (after.contents(from), after.contents(to)) {
                (Some(new), Some(old)) => {
                    assert_eq!((&new[..], &old[..]), (&b"new"[..], &b"old"[..]))
                }
                (None, Some(renamed)) => assert_eq!(renamed, b"new"),
                other => panic!("{other:?}"),
            }
        }
    }
}
