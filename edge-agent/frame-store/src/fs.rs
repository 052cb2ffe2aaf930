//! The few things the store asks of a file system, as a trait, and the real one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new and empty file, for reading and writing; what had the name before is emptied.
    Create,
}

/// A plain file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A file system. Nothing is promised to survive a power cut except what [`FsFile::sync`] (the
/// bytes of a file) and [`Fs::sync_dir`] (which names there are) have made durable.
pub trait Fs: Send + Sync {
    /// Makes `dir` and its parents; no error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The plain files in `dir`, in any order. Names that are no Unicode are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Opens or creates a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FsFile>>;
    /// Gives a file another name, atomically replacing what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Whoever has it open can read on.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file `path` for this process until the result is dropped.
    /// `ErrorKind::WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;
}

/// An open file, read and written by offset.
pub trait FsFile: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; `ErrorKind::UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. After an error any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves `bytes` of disk and makes the file that long, reading as zeros.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts or extends the file to `bytes`.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable. After an error what was written before may be
    /// lost even if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that is held until dropped.
pub trait FsLock: Send + Sync {}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(DirEntry { name, bytes: metadata.len() });
            }
        }
        Ok(files)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FsFile>> {
        let mut how = OpenOptions::new();
        how.read(true).write(access != Access::Read);
        how.create(access == Access::Create).truncate(access == Access::Create);
        Ok(Arc::new(how.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl FsFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        use rustix::io::Errno;
        loop {
            match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // FAT, NFS and some overlays cannot reserve: there the disk fills up at a write
                // instead of at the start of a segment, which the store also survives.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return File::set_len(self, bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: it leaves out the times of the file, not its length.
        self.sync_data()
    }
}

impl FsLock for File {}
