//! The files of bundles on disk: each once, by its hash, however many bundles have it.

use crate::fsync;
use blake3::{Hash, Hasher};
use bundle::{Bundle, BundleError};
use release::{Chunk, File, Index, PackError, Release, cut};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Beside what is to be fetched so much stays free, for footage and events that come meanwhile.
const RESERVE_BYTES: u64 = 64 << 20;

/// Why files could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The disk fails.
    #[error("cannot {what} '{}' ({source})", path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room.
    #[error(
        "the update needs {} MB on the disk of '{}', and {} MB are free beside what footage and events need: \
         give footage less ([store] bytes_max_mb)",
        needed >> 20, path.display(), free >> 20
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free for it.
        free: u64,
    },
    /// All chunks are there, and they are not the file.
    #[error("'{file}' of the update was put together wrongly: publish it anew")]
    Wrong {
        /// The file.
        file: String,
    },
    /// What was laid out is no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl From<PackError> for PartsError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Read { path, source } => Self::Disk { what: "read", path, source },
            PackError::Write { path, source } => Self::Disk { what: "write", path, source },
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PartsError {
    let path = path.to_owned();
    move |source| PartsError::Disk { what, path, source }
}

/// The folders in which an updater keeps what it fetched.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Files by their hash; unfinished ones end in `.part`.
    parts: PathBuf,
    /// Bundles by their id, of links to those files.
    bundles: PathBuf,
}

impl Parts {
    /// In `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`PartsError::Disk`]
    pub fn open(folder: &Path) -> Result<Self, PartsError> {
        let (parts, bundles) = (folder.join("parts"), folder.join("bundles"));
        for path in [&parts, &bundles] {
            fs::create_dir_all(path).map_err(failed("make", path))?;
        }
        Ok(Self { parts, bundles })
    }

    /// Where the bundle of this id is or will be.
    pub fn bundle(&self, id: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        self.bundles.join(id.chars().map(plain).collect::<String>())
    }

    /// Where the file is or will be.
    pub fn path(&self, file: &File) -> PathBuf {
        self.whole(&file.blake3)
    }

    fn whole(&self, hash: &str) -> PathBuf {
        self.parts.join(hash)
    }

    /// Whether the file is there, and whole: it got its name when its hash was right.
    pub fn has(&self, file: &File) -> bool {
        fs::metadata(self.whole(&file.blake3)).is_ok_and(|found| found.len() == file.bytes)
    }

    /// Begins or goes on with a file: whatever of it is there already, or in any file of `others`, is not
    /// missing.
    ///
    /// # Errors
    /// [`PartsError`]
    pub fn begin(&self, index: &Index, others: &[PathBuf]) -> Result<Partial, PartsError> {
        let path = self.parts.join(format!("{}.part", index.blake3.to_hex()));
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(failed("write", &path))?;
        let had = file.metadata().map_err(failed("read", &path))?.len();
        let mut partial =
            Partial { path, file, index: index.clone(), missing: vec![], length: had };
        partial.look_through()?;
        if !partial.missing.is_empty() {
            partial.take_from(&self.kept(others)?)?;
        }
        Ok(partial)
    }

    /// Refuses if there is no room for so many bytes more.
    ///
    /// # Errors
    /// [`PartsError::Full`]
    pub fn make_sure_of(&self, needed: u64) -> Result<(), PartsError> {
        let found = rustix::fs::statvfs(&self.parts)
            .map_err(|error| failed("look at", &self.parts)(error.into()))?;
        let free = (found.f_bavail * found.f_frsize).saturating_sub(RESERVE_BYTES);
        match needed <= free {
            true => Ok(()),
            false => Err(PartsError::Full { path: self.parts.clone(), needed, free }),
        }
    }

    /// Where in local files chunks lie, by id.
    fn kept(&self, others: &[PathBuf]) -> Result<HashMap<Hash, (PathBuf, u64, u32)>, PartsError> {
        let mut kept = HashMap::new();
        let own = fs::read_dir(&self.parts).map_err(failed("read", &self.parts))?;
        let own = own.filter_map(|entry| Some(entry.ok()?.path()));
        for path in own.chain(others.iter().cloned()) {
            // What is left of a version that never came whole serves, too. A file that cannot be read is of no use here, and no reason to stop.
            let _ = cut(&path, |at, piece| {
                let found = (path.clone(), at, piece.len() as u32);
                kept.insert(blake3::hash(&piece), found);
                Ok::<(), PartsError>(())
            });
        }
        Ok(kept)
    }

    /// Lays the release out as a bundle, of which every file is there, and opens it.
    ///
    /// # Errors
    /// [`PartsError`]
    pub fn lay_out(&self, release: &Release) -> Result<Bundle, PartsError> {
        let dir = self.bundle(&release.bundle);
        if let Ok(bundle) = Bundle::open(&dir)
            && bundle.id() == release.bundle
        {
            return Ok(bundle);
        }
        let staging = dir.with_extension("staging");
        for old in [&staging, &dir] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", old)(error));
                }
                _ => {}
            }
        }
        fs::create_dir_all(&staging).map_err(failed("make", &staging))?;
        // A link is there after a power cut only if its folder was synced, and a folder only if the one above was.
        let mut folders = BTreeSet::from([staging.clone()]);
        for file in &release.files {
            let (from, to) = (self.whole(&file.blake3), staging.join(&file.file));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(failed("make", folder))?;
                let above = folder.ancestors().take_while(|above| **above != *staging);
                folders.extend(above.map(Path::to_owned));
            }
            // Some file systems of sticks and cards know no links.
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).map_err(failed("write", &to))?;
                fsync(&to).map_err(failed("write", &to))?;
            }
        }
        let opened = Bundle::open(&staging)?;
        if opened.id() != release.bundle {
            return Err(PartsError::Wrong { file: release.bundle.clone() });
        }
        for folder in &folders {
            fsync(folder).map_err(failed("write", folder))?;
        }
        fs::rename(&staging, &dir).map_err(failed("write", &dir))?;
        fsync(&self.bundles).map_err(failed("write", &self.bundles))?;
        Ok(Bundle::open(&dir)?)
    }

    /// Removes everything that is neither a file of `releases` nor one of their bundles.
    ///
    /// # Errors
    /// [`PartsError::Disk`]
    pub fn keep_only(&self, releases: &[&Release]) -> Result<(), PartsError> {
        let hashes: BTreeSet<&str> =
            releases.iter().flat_map(|r| &r.files).map(|f| f.blake3.as_str()).collect();
        let bundles: BTreeSet<PathBuf> = releases.iter().map(|r| self.bundle(&r.bundle)).collect();
        for path in entries(&self.parts)? {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if !hashes.contains(name) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        for path in entries(&self.bundles)?.into_iter().filter(|path| !bundles.contains(path)) {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PartsError> {
    let found = fs::read_dir(folder).map_err(failed("read", folder))?;
    Ok(found.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// A file that is being put together.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: fs::File,
    index: Index,
    /// Chunks that are missing, with where they begin in the file.
    missing: Vec<(u64, Chunk)>,
    length: u64,
}

impl Partial {
    /// What is missing, each chunk once, by id.
    pub fn missing(&self) -> BTreeMap<[u8; 32], Chunk> {
        self.missing.iter().map(|(_, chunk)| (*chunk.id.as_bytes(), *chunk)).collect()
    }

    /// Whether the chunk of this id is missing.
    pub fn misses(&self, id: &Hash) -> bool {
        self.missing.iter().any(|(_, chunk)| chunk.id == *id)
    }

    /// Puts a piece whose hash is right where the chunk of that id is missing. It is durable when the file's
    /// [`Unsynced`] was synced, or the file finished.
    ///
    /// # Errors
    /// [`PartsError::Disk`]
    pub fn put(&mut self, id: &Hash, piece: &[u8]) -> Result<(), PartsError> {
        self.write(id, piece)
    }

    /// What makes durable what was put, from another thread.
    ///
    /// # Errors
    /// [`PartsError::Disk`]
    pub fn unsynced(&self) -> Result<Unsynced, PartsError> {
        let file = self.file.try_clone().map_err(failed("write", &self.path))?;
        Ok(Unsynced { path: self.path.clone(), file })
    }

    fn write(&mut self, id: &Hash, piece: &[u8]) -> Result<(), PartsError> {
        let mut left = vec![];
        for (at, chunk) in std::mem::take(&mut self.missing) {
            if chunk.id != *id {
                left.push((at, chunk));
                continue;
            }
            self.file.write_all_at(piece, at).map_err(failed("write", &self.path))?;
            self.length = self.length.max(at + piece.len() as u64);
        }
        self.missing = left;
        Ok(())
    }

    /// Finds what is there from before, by reading it: no journal could lie about it.
    fn look_through(&mut self) -> Result<(), PartsError> {
        let mut at = 0;
        for chunk in &self.index.chunks {
            let end = at + u64::from(chunk.bytes);
            let mut piece = vec![0; chunk.bytes as usize];
            let there = end <= self.length
                && self.file.read_exact_at(&mut piece, at).is_ok()
                && blake3::hash(&piece) == chunk.id;
            if !there {
                self.missing.push((at, *chunk));
            }
            at = end;
        }
        Ok(())
    }

    /// Copies what other files have.
    fn take_from(&mut self, kept: &HashMap<Hash, (PathBuf, u64, u32)>) -> Result<(), PartsError> {
        let ids: BTreeSet<[u8; 32]> = self.missing().into_keys().collect();
        for id in ids.into_iter().map(Hash::from_bytes) {
            let Some((path, at, bytes)) = kept.get(&id) else { continue };
            let mut piece = vec![0; *bytes as usize];
            let read = fs::File::open(path).and_then(|file| file.read_exact_at(&mut piece, *at));
            if read.is_ok() && blake3::hash(&piece) == id {
                self.write(&id, &piece)?;
            }
        }
        self.file.sync_data().map_err(failed("write", &self.path))
    }

    /// Bytes that are still to be written.
    pub fn to_write(&self) -> u64 {
        self.missing.iter().map(|(_, chunk)| u64::from(chunk.bytes)).sum()
    }

    /// Gives the file its name, if it is whole.
    ///
    /// # Errors
    /// [`PartsError`]
    pub fn finish(mut self) -> Result<(), PartsError> {
        self.file.set_len(self.index.bytes).map_err(failed("write", &self.path))?;
        let mut hasher = Hasher::new();
        let (mut at, mut piece) = (0, vec![0; 1 << 20]);
        while at < self.index.bytes {
            let length = piece.len().min((self.index.bytes - at) as usize);
            let read = self.file.read_exact_at(&mut piece[..length], at);
            read.map_err(failed("read", &self.path))?;
            hasher.update(&piece[..length]);
            at += length as u64;
        }
        if hasher.finalize() != self.index.blake3 {
            // What came whole and is wrong together cannot be mended by fetching it again.
            self.missing.clear();
            fs::remove_file(&self.path).map_err(failed("remove", &self.path))?;
            return Err(PartsError::Wrong { file: self.index.target() });
        }
        self.file.sync_all().map_err(failed("write", &self.path))?;
        let whole = self.path.with_extension("");
        fs::rename(&self.path, &whole).map_err(failed("write", &whole))?;
        whole.parent().map_or(Ok(()), |folder| fsync(folder).map_err(failed("write", folder)))
    }
}

/// The pieces of a file that are not durable yet.
#[derive(Debug)]
pub struct Unsynced {
    path: PathBuf,
    file: fs::File,
}

impl Unsynced {
    /// Makes them durable.
    ///
    /// # Errors
    /// [`PartsError::Disk`]; it is told once, and what was put before is not to be relied on.
    pub fn sync(&self) -> Result<(), PartsError> {
        self.file.sync_data().map_err(failed("write", &self.path))
    }
}

/// Reads exactly so many bytes.
pub(crate) fn read_exactly(reader: &mut dyn Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    reader.read_exact(&mut read)?;
    Ok(read)
}
