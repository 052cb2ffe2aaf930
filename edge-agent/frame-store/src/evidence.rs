//! Evidence: the frames that one event cites, in a file of their own.
//!
//! The file is written under another name, made durable, renamed, and its name made durable,
//! before [`FrameStore::pin`](crate::FrameStore::pin) returns: it is there whole or not at all.

use crate::error::Context;
use crate::file::{self, BadRecord, FileWriter};
use crate::format::{self, BadHeader, FileKey, FileKind, Header, Located, Record};
use crate::{Access, Fs, FsFile, PinId, StoreError, StoreId, StoredFrame, recovery};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All pinned frames of `pin` in the store in `dir`, in order of id, without opening the store: for
/// a reader beside the process that has it open.
///
/// # Errors
/// As [`FrameStore::read_pinned`](crate::FrameStore::read_pinned); [`StoreError::Corrupt`] also if
/// the directory's identity cannot be read.
pub fn read_pinned_in(dir: &Path, pin: PinId, fs: &dyn Fs) -> Result<Vec<StoredFrame>, StoreError> {
    let path = dir.join(recovery::IDENTITY);
    let (store, _) = recovery::read_identity(fs, dir)
        .context("read", &path)?
        .ok_or_else(|| corrupt(&path, None, "it is no store's identity"))?;
    read(fs, dir, store, pin)
}

pub(crate) fn file_name(pin: PinId) -> String {
    format!("{:016x}.evidence", pin.0)
}

/// The pin that an evidence file is of.
pub(crate) fn pin_of(name: &str) -> Option<PinId> {
    let digits = name.strip_suffix(".evidence").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(PinId).filter(|&pin| file_name(pin) == name)
}

/// Length of the evidence file of `records`.
pub(crate) fn file_bytes(records: &[Record]) -> u64 {
    let frames: u64 = records.iter().map(|record| record.bytes().len() as u64).sum();
    format::HEADER_BYTES + frames + format::footer_bytes(records.len() as u64)
}

/// Writes `records`, which must be in order of id, and makes them durable. After an error the name
/// may or may not be there.
pub(crate) fn write(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    pin: PinId,
    records: &mut [Record],
) -> io::Result<()> {
    let key = key(store, pin);
    let count = u32::try_from(records.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let first_id = records.first().map_or(0, |record| record.head.id.0);
    let header = Header { key, epoch: pin.epoch(), first_id, step_us: 0, count };
    let unfinished = unfinished(dir);
    let mut writer = FileWriter::create(fs, &unfinished, &header, 0)?;
    for record in records {
        record.move_to(key);
        writer.push(record)?;
    }
    writer.finish()?;
    fs.rename(&unfinished, &dir.join(file_name(pin)))?;
    fs.sync_dir(dir)
}

/// The name under which evidence is written. One for all, so that failed attempts do not add up.
pub(crate) fn unfinished(dir: &Path) -> PathBuf {
    dir.join("evidence.tmp")
}

/// Whether the file's header and footer are sound: what is checked of all evidence at every open.
/// The frames are checked when they are read.
pub(crate) fn looks_whole(fs: &dyn Fs, dir: &Path, store: StoreId, pin: PinId) -> bool {
    outline(fs, dir, store, pin).is_ok()
}

/// The frames of `pin`, with every byte of the file checked.
pub(crate) fn read(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    pin: PinId,
) -> Result<Vec<StoredFrame>, StoreError> {
    let path = dir.join(file_name(pin));
    let Outline { file, entries, end } = outline(fs, dir, store, pin)?;
    let mut at = format::HEADER_BYTES;
    let mut frames = Vec::with_capacity(entries.len());
    for entry in entries {
        let damaged = |reason| corrupt(&path, Some(entry), reason);
        let record = match file::read_record(&*file, key(store, pin), at, end) {
            Ok(record) => record,
            Err(BadRecord::Io(error)) => return Err(error).context("read", &path),
            Err(BadRecord::Damaged) => return Err(damaged("its checksum does not match")),
        };
        let head = &record.head;
        if (head.id, head.media_time, head.camera, at)
            != (entry.id, entry.media_time, entry.camera, u64::from(entry.offset))
        {
            return Err(damaged("it is not the frame that the file's index lists"));
        }
        if !record.hash_matches() {
            return Err(damaged("the picture does not match its hash"));
        }
        at += record.bytes().len() as u64;
        frames.push(StoredFrame::from(record));
    }
    if at != end {
        return Err(corrupt(&path, None, "there is more in it than its index lists"));
    }
    Ok(frames)
}

/// What an evidence file says that it holds.
struct Outline {
    file: Arc<dyn FsFile>,
    entries: Vec<Located>,
    /// Where the records end.
    end: u64,
}

fn outline(fs: &dyn Fs, dir: &Path, store: StoreId, pin: PinId) -> Result<Outline, StoreError> {
    let path = dir.join(file_name(pin));
    let key = key(store, pin);
    let file = match fs.open(&path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::UnknownPin { pin, dir: dir.into() });
        }
        opened => opened.context("open", &path)?,
    };
    let bytes = file.size().context("read", &path)?;
    if bytes < format::HEADER_BYTES {
        return Err(corrupt(&path, None, "it is shorter than a header"));
    }
    let header = file::read_header(&*file).context("read", &path)?.map_err(|bad| match bad {
        BadHeader::Damaged => corrupt(&path, None, "its header does not match its checksum"),
        BadHeader::Newer(_) => corrupt(&path, None, "a later version of the store wrote it"),
    })?;
    if header.key != key {
        return Err(corrupt(&path, None, "it is the evidence of another store or pin"));
    }
    let footer = file::read_footer_offset(&*file, bytes)
        .and_then(|end| Some((file::read_footer(&*file, bytes, key, end)?, end)));
    match footer {
        Some((entries, end)) if entries.len() == header.count as usize => {
            Ok(Outline { file, entries, end })
        }
        _ => Err(corrupt(&path, None, "its index does not match its checksum")),
    }
}

fn key(store: StoreId, pin: PinId) -> FileKey {
    FileKey { store, kind: FileKind::Evidence, number: pin.0 }
}

fn corrupt(path: &Path, frame: Option<Located>, reason: &str) -> StoreError {
    StoreError::Corrupt { path: path.into(), frame: frame.map(|f| f.id), reason: reason.into() }
}
