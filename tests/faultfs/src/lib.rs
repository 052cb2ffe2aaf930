//! A file system that fails on purpose: error, short write, full disk, crash at the Nth operation.
//!
//! [`FaultFs`] implements the frame store's [`Fs`] in memory. It counts every operation, and makes
//! the Nth fail in a chosen way. After a crash, [`FaultFs::after_crash`] gives what the disk would
//! hold: bytes that were not synced and names whose directory was not synced may be there, be gone,
//! or (bytes) be there in part, by 512-byte sectors. That is as harsh as a real disk may be:
//!
//! * Unsynced writes survive or vanish independently of each other and of their order.
//! * A created, renamed or removed name survives or not, each on its own, until its directory is
//!   synced. A rename is atomic: never both names, never none of the two files.
//! * After a failed fsync the pages count as written although they are not, so a second fsync that
//!   succeeds saves nothing of them. Linux behaves like that.
//! * A removed file stays readable for whoever has it open.
#![forbid(unsafe_code)]

mod disk;

use disk::{Disk, NameChange};
use frame_store::{Access, DirEntry, Fs, FsFile, FsLock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In which way an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO, with nothing done.
    Error,
    /// A write that writes its first half and then fails; another operation fails with EIO.
    ShortWrite,
    /// ENOSPC from whatever takes room: creating, writing, growing. Others are not affected.
    NoSpace,
    /// The power goes: the operation is done but not durable, and fails, as do all later ones.
    Crash,
}

/// Whether the fault goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Only the Nth operation fails.
    Once,
    /// The Nth and all later ones fail.
    Sticky,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation at which it comes, counted from 0.
    pub at: u64,
    /// How it shows.
    pub kind: FaultKind,
    /// Whether it stays.
    pub repeat: Repeat,
}

/// What of the bytes and names that were not synced survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing: the disk's cache was lost.
    Nothing,
    /// Everything: only the process died.
    Everything,
    /// Some, drawn from this seed, and torn at sectors.
    Some(u64),
}

/// A file system in memory that fails on purpose. Clones are the same file system.
#[derive(Clone)]
pub struct FaultFs(Arc<Mutex<State>>);

struct State {
    disk: Disk,
    ops: u64,
    fault: Option<Fault>,
    /// Whether the fault was met.
    hit: bool,
    crashed: bool,
    capacity: Option<u64>,
    peak_of: fn(&str) -> bool,
    peak_bytes: u64,
    locked: Vec<PathBuf>,
}

/// What the state says to an operation.
enum Verdict {
    Go,
    /// Do it, then fail: the power went while it was under way.
    CrashAfter,
    ShortWrite,
    Fail(io::Error),
}

impl Default for FaultFs {
    fn default() -> Self {
        Self::on(Disk::default())
    }
}

impl FaultFs {
    /// An empty file system on which nothing fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the next operation on, counted anew from 0, `fault` is to come.
    pub fn set_fault(&self, fault: Fault) {
        let mut state = self.state();
        (state.ops, state.hit, state.fault) = (0, false, Some(fault));
    }

    /// Nothing fails any more (a crash cannot be undone).
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Files together may have this many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// Operations since the fault was set, or since the beginning.
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Whether the fault was met.
    pub fn was_hit(&self) -> bool {
        self.state().hit
    }

    /// Whether the power is gone.
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// From now on the peak is that of the files whose name `counts`.
    pub fn count_peak_of(&self, counts: fn(&str) -> bool) {
        let mut state = self.state();
        state.peak_of = counts;
        state.peak_bytes = state.disk.bytes(counts);
    }

    /// The most bytes that all files, or those chosen, had together so far.
    pub fn peak_bytes(&self) -> u64 {
        self.state().peak_bytes
    }

    /// Bytes of the files whose name `counts`.
    pub fn bytes(&self, counts: impl Fn(&str) -> bool) -> u64 {
        self.state().disk.bytes(counts)
    }

    /// Takes the power away now.
    pub fn crash(&self) {
        self.state().crashed = true;
    }

    /// The file system as it is found after a crash.
    pub fn after_crash(&self, survival: Survival) -> FaultFs {
        Self::on(self.state().disk.after_crash(survival))
    }

    /// The bytes of a file, for a test that looks or damages; `None` if there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().disk.contents(path)
    }

    /// Puts a file there, durably, as if it had always been so.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.state().disk.put(path, bytes);
    }

    /// Gives a file one name more.
    ///
    /// # Errors
    /// If there is no such file, or a fault is met.
    pub fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Some(0), |state| {
            let file = state.disk.find(from).ok_or(io::ErrorKind::NotFound)?;
            state.disk.change(NameChange::Create { path: to.into(), file });
            Ok(())
        })
    }

    /// Gives a folder another name, and with it all that is in it.
    ///
    /// # Errors
    /// If a fault is met.
    pub fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(None, |state| {
            state.disk.change(NameChange::RenameDir { from: from.into(), to: to.into() });
            Ok(())
        })
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().disk.paths()
    }

    fn on(disk: Disk) -> Self {
        let peak_bytes = disk.bytes(|_| true);
        Self(Arc::new(Mutex::new(State {
            disk,
            ops: 0,
            fault: None,
            hit: false,
            crashed: false,
            capacity: None,
            peak_of: |_| true,
            peak_bytes,
            locked: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation that takes up to `grows` more bytes of disk (`None`: takes none).
    fn run<T>(
        &self,
        grows: Option<u64>,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        match state.judge(grows) {
            Verdict::Go => {
                let result = work(&mut state);
                state.peak_bytes = state.peak_bytes.max(state.disk.bytes(state.peak_of));
                result
            }
            Verdict::CrashAfter => {
                let _ = work(&mut state);
                Err(power_is_gone())
            }
            Verdict::ShortWrite => Err(input_output_error()),
            Verdict::Fail(error) => Err(error),
        }
    }
}

impl State {
    fn judge(&mut self, grows: Option<u64>) -> Verdict {
        let op = self.ops;
        self.ops += 1;
        if self.crashed {
            return Verdict::Fail(power_is_gone());
        }
        let due = self.fault.filter(|fault| match fault.repeat {
            Repeat::Once => op == fault.at,
            Repeat::Sticky => op >= fault.at,
        });
        if let Some(fault) = due {
            self.hit = true;
            match fault.kind {
                FaultKind::Error => return Verdict::Fail(input_output_error()),
                FaultKind::ShortWrite => return Verdict::ShortWrite,
                FaultKind::NoSpace if grows.is_some() => return Verdict::Fail(disk_full()),
                FaultKind::NoSpace => {}
                FaultKind::Crash => {
                    self.crashed = true;
                    return Verdict::CrashAfter;
                }
            }
        }
        let used = || self.disk.bytes(|_| true);
        match (self.capacity, grows) {
            (Some(capacity), Some(more)) if used() + more > capacity => Verdict::Fail(disk_full()),
            _ => Verdict::Go,
        }
    }
}

fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn disk_full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl Fs for FaultFs {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        // Directories are taken as there: only the files in them are modelled.
        self.run(None, |_| Ok(()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.run(None, |state| {
            let of_dir = |path: &PathBuf| path.parent() == Some(dir);
            let entry = |path: PathBuf| {
                let name = path.file_name()?.to_str()?.to_owned();
                Some(DirEntry { name, bytes: state.disk.contents(&path)?.len() as u64 })
            };
            Ok(state.disk.paths().into_iter().filter(of_dir).filter_map(entry).collect())
        })
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FsFile>> {
        let grows = (access == Access::Create).then_some(0);
        let file = self.run(grows, |state| {
            if access == Access::Create {
                return Ok(state.disk.create(path));
            }
            state.disk.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        Ok(Arc::new(OpenFile { fs: self.clone(), file, writable: access != Access::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(None, |state| {
            let file = state.disk.find(from).ok_or(io::ErrorKind::NotFound)?;
            state.disk.change(NameChange::Rename { from: from.into(), to: to.into(), file });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(None, |state| {
            state.disk.find(path).ok_or(io::ErrorKind::NotFound)?;
            state.disk.change(NameChange::Remove { path: path.into() });
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(None, |state| {
            if !state.crashed {
                state.disk.sync_dir(dir);
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        self.run(None, |state| {
            if state.locked.iter().any(|locked| locked == path) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state.locked.push(path.into());
            Ok(())
        })?;
        Ok(Box::new(Locked { fs: self.clone(), path: path.into() }))
    }
}

struct OpenFile {
    fs: FaultFs,
    file: usize,
    writable: bool,
}

impl OpenFile {
    fn growth(&self, to: u64) -> Option<u64> {
        Some(to.saturating_sub(self.fs.state().disk.size(self.file)))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl FsFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        self.fs.run(None, |state| Ok(state.disk.size(self.file)))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.fs.run(None, |state| state.disk.read(self.file, buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let grows = self.growth(offset + bytes.len() as u64);
        let mut done = false;
        let result = self.fs.run(grows, |state| {
            done = true;
            state.disk.write(self.file, bytes, offset);
            Ok(())
        });
        let mut state = self.fs.state();
        let short = state.fault.is_some_and(|fault| fault.kind == FaultKind::ShortWrite);
        if result.is_err() && !done && short && !state.crashed {
            state.disk.write(self.file, &bytes[..bytes.len() / 2], offset);
        }
        result
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        self.fs.run(self.growth(bytes), |state| {
            state.disk.set_len(self.file, bytes);
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        let grows = self.growth(bytes).filter(|&more| more > 0);
        self.fs.run(grows, |state| {
            state.disk.set_len(self.file, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut done = false;
        let result = self.fs.run(None, |state| {
            done = true;
            if !state.crashed {
                state.disk.sync(self.file);
            }
            Ok(())
        });
        let mut state = self.fs.state();
        if result.is_err() && !done && !state.crashed {
            state.disk.forget_unsynced(self.file);
        }
        result
    }
}

struct Locked {
    fs: FaultFs,
    path: PathBuf,
}

impl FsLock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        self.fs.state().locked.retain(|locked| locked != &self.path);
    }
}
