//! What a disk would hold after a power cut: the account of what a program did, played on the disk of `faultfs`.

use faultfs::{FaultFs, Survival};
use frame_store::{Access, Fs};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One entry of an account.
pub struct Entry {
    /// Its kind, as `preload.c` writes it.
    kind: u8,
    /// The number of the operation.
    pub number: u64,
    value: u64,
    path: PathBuf,
    to: PathBuf,
    bytes: Vec<u8>,
}

impl Entry {
    /// The account in the file; what a kill cut off at its end is left out.
    pub fn read(account: &Path) -> Vec<Self> {
        let bytes = fs::read(account).unwrap_or_default();
        let mut rest = &bytes[..];
        std::iter::from_fn(|| Self::next(&mut rest)).collect()
    }

    fn next(rest: &mut &[u8]) -> Option<Self> {
        let kind = take(rest, 1)?[0];
        let mut number = || Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?));
        let (operation, value) = (number()?, number()?);
        let lengths = [number()?, number()?, number()?];
        let [path, to, bytes] =
            lengths.map(|length| take(rest, length as usize).map(<[u8]>::to_vec));
        let path_of = |bytes: Vec<u8>| PathBuf::from(String::from_utf8(bytes).unwrap());
        let (path, to) = (path_of(path?), path_of(to?));
        Some(Self { kind, number: operation, value, path, to, bytes: bytes? })
    }

    /// What the program said, if this is that.
    pub fn sentence(&self) -> Option<String> {
        (self.kind == b'M').then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// A folder as it lies on a disk.
pub struct Before {
    files: Vec<(PathBuf, Vec<u8>)>,
    folders: BTreeSet<PathBuf>,
}

impl Before {
    /// As it is now, and durable.
    pub fn of(root: &Path) -> Self {
        let mut before = Self { files: vec![], folders: BTreeSet::new() };
        before.walk(root, root);
        before
    }

    fn walk(&mut self, root: &Path, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let inside = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                self.folders.insert(inside);
                self.walk(root, &path);
            } else {
                self.files.push((inside, fs::read(path).unwrap()));
            }
        }
    }

    /// Writes to `to` what is found there after a program with this account, whose own folder is `root`, was met by a
    /// power cut.
    pub fn after_power_cut(&self, account: &[Entry], root: &Path, survival: Survival, to: &Path) {
        let disk = FaultFs::new();
        for (path, bytes) in &self.files {
            disk.put(path, bytes.clone());
        }
        let mut folders = self.folders.clone();
        for entry in account {
            play(entry, &disk, &mut folders, root);
        }
        let after = disk.after_crash(survival);
        for folder in &folders {
            fs::create_dir_all(to.join(folder)).unwrap();
        }
        for path in after.paths() {
            let target = to.join(&path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, after.contents(&path).unwrap()).unwrap();
        }
    }
}

fn play(entry: &Entry, disk: &FaultFs, folders: &mut BTreeSet<PathBuf>, root: &Path) {
    let inside = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let (path, to) = (inside(&entry.path), inside(&entry.to));
    let file = || disk.open(&path, Access::Write).unwrap();
    match entry.kind {
        b'c' => drop(disk.open(&path, Access::Create).unwrap()),
        b'w' => file().write_at(&entry.bytes, entry.value).unwrap(),
        b't' => file().set_len(entry.value).unwrap(),
        b's' => file().sync().unwrap(),
        b'd' => disk.sync_dir(&path).unwrap(),
        b'l' => disk.link(&path, &to).unwrap(),
        b'u' => disk.remove(&path).unwrap(),
        b'r' if folders.contains(&path) => {
            let moved: Vec<PathBuf> =
                folders.iter().filter(|folder| folder.starts_with(&path)).cloned().collect();
            for folder in moved {
                folders.remove(&folder);
                folders.insert(to.join(folder.strip_prefix(&path).unwrap()));
            }
            disk.rename_dir(&path, &to).unwrap();
        }
        b'r' => disk.rename(&path, &to).unwrap(),
        b'm' => drop(folders.insert(path)),
        b'x' => drop(folders.remove(&path)),
        _ => {}
    }
}
