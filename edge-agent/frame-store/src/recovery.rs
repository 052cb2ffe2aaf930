//! Opening: which store a directory holds, what is in it, and what was lost.

use crate::error::Context;
use crate::file::{self, Contents, Damage, Foreign, Source};
use crate::format::{self, FileKey, FileKind};
use crate::index::{Index, SegmentInfo};
use crate::{Access, DirEntry, FrameId, Fs, PinId, StoreError, StoreId, evidence};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) const IDENTITY: &str = "store.identity";
pub(crate) const LOCK: &str = "store.lock";

/// What opening a store found, and what it did not find again. A loss is said again at the next
/// open until [`sync`](crate::FrameStore::sync) or [`close`](crate::FrameStore::close) is called:
/// record it before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Which store it is.
    pub store: StoreId,
    /// Whether the directory was empty and the store is new.
    pub created: bool,
    /// The boot epoch that begins now.
    pub epoch: u32,
    /// Segment files.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Pieces of evidence.
    pub pins: u64,
    /// Frames that were there and are no longer. Frames appended after the last sync of which no
    /// byte reached the disk leave no trace and cannot be counted; `unclosed_segments` says that
    /// there may be such.
    pub frames_lost: u64,
    /// Bytes of frames that could not be recovered.
    pub bytes_lost: u64,
    /// Segments in which something was torn or damaged.
    pub torn_segments: u64,
    /// Segments that were being written when the store went down.
    pub unclosed_segments: u64,
    /// Evidence whose header or index is damaged.
    pub pins_damaged: u64,
    /// Each of these in a sentence.
    pub notes: Vec<String>,
}

impl Recovery {
    /// Whether the store was closed in order and everything is there.
    pub fn is_clean(&self) -> bool {
        self.notes.is_empty()
    }
}

/// What a directory holds.
pub(crate) struct Recovered {
    pub store: StoreId,
    pub epoch: u32,
    pub index: Index,
    pub next_segment: u32,
    /// Evidence with the bytes of its files.
    pub pins: BTreeMap<PinId, u64>,
    pub recovery: Recovery,
}

/// Which store `dir` holds, without changing anything: `None` if it holds none.
pub(crate) fn identify(
    fs: &dyn Fs,
    dir: &Path,
    expected: Option<StoreId>,
) -> Result<Option<StoreId>, StoreError> {
    let files = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.context("list", dir)?,
    };
    let by_file = files
        .iter()
        .any(|file| file.name == IDENTITY)
        .then(|| read_identity(fs, dir).ok().flatten())
        .flatten()
        .map(|(store, _)| store);
    let found = by_file.or_else(|| files.iter().find_map(|file| store_of(fs, dir, file)));
    match expected {
        Some(expected) if found != Some(expected) => Err(StoreError::WrongStore {
            dir: dir.into(),
            expected,
            found: found.map_or("none".into(), |found| found.to_string()),
        }),
        _ => Ok(found),
    }
}

/// The identity file's store and epoch; `None` if it is damaged.
pub(crate) fn read_identity(fs: &dyn Fs, dir: &Path) -> io::Result<Option<(StoreId, u32)>> {
    let mut bytes = [0; format::IDENTITY_BYTES];
    fs.open(&dir.join(IDENTITY), Access::Read)?.read_at(&mut bytes, 0)?;
    Ok(format::decode_identity(&bytes))
}

/// Writes the identity file anew, durably.
pub(crate) fn write_identity(
    fs: &dyn Fs,
    dir: &Path,
    store: StoreId,
    epoch: u32,
) -> io::Result<()> {
    let unfinished = dir.join("identity.tmp");
    let file = fs.open(&unfinished, Access::Create)?;
    file.write_at(&format::encode_identity(store, epoch), 0)?;
    file.sync()?;
    fs.rename(&unfinished, &dir.join(IDENTITY))?;
    fs.sync_dir(dir)
}

/// Reads what the store in `dir` holds, and removes files that were never finished. `found` is what
/// [`identify`] said. Segments that a crash left open stay so until the first sync, so that a crash
/// before anybody has heard of a loss does not hide it.
pub(crate) fn recover(
    fs: &dyn Fs,
    dir: &Path,
    found: Option<StoreId>,
) -> Result<Recovered, StoreError> {
    let mut files = fs.list(dir).context("list", dir)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for file in files.iter().filter(|file| file.name.ends_with(".tmp")) {
        // One that cannot be removed is emptied when its name is used again.
        let _ = fs.remove(&dir.join(&file.name));
    }
    let store = found.unwrap_or_else(StoreId::random);
    let mut opening = Opening {
        fs,
        dir,
        store,
        index: Index::default(),
        recovery: Recovery {
            store,
            created: found.is_none(),
            epoch: 0,
            segments: 0,
            frames: 0,
            bytes: 0,
            pins: 0,
            frames_lost: 0,
            bytes_lost: 0,
            torn_segments: 0,
            unclosed_segments: 0,
            pins_damaged: 0,
            notes: Vec::new(),
        },
        last_epoch: 0,
    };
    opening.take_identity(&files);
    let next_segment = opening.take_segments(&files);
    let pins = opening.take_evidence(&files);
    let Opening { index, mut recovery, last_epoch, .. } = opening;
    if last_epoch >= crate::ids::EPOCH_MAX {
        return Err(StoreError::EpochsUsedUp { dir: dir.into() });
    }
    let epoch = last_epoch + 1;
    recovery.epoch = epoch;
    recovery.segments = index.segments().count() as u64;
    recovery.frames = index.segments().map(|(_, info)| info.frames).sum();
    recovery.bytes = index.bytes();
    recovery.pins = pins.len() as u64;
    Ok(Recovered { store, epoch, index, next_segment, pins, recovery })
}

pub(crate) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}.segment"))
}

pub(crate) fn segment_key(store: StoreId, number: u32) -> FileKey {
    FileKey { store, kind: FileKind::Segment, number: u64::from(number) }
}

fn segment_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".segment").filter(|digits| digits.len() == 8)?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    (format!("{number:08x}.segment") == name).then_some(number)
}

/// The store that the header of a segment or of evidence names.
fn store_of(fs: &dyn Fs, dir: &Path, file: &DirEntry) -> Option<StoreId> {
    segment_of(&file.name).map(drop).or_else(|| evidence::pin_of(&file.name).map(drop))?;
    let opened = fs.open(&dir.join(&file.name), Access::Read).ok()?;
    Some(file::read_header(&*opened).ok()?.ok()?.key.store)
}

/// The steps of opening, and what they have learnt so far.
struct Opening<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    store: StoreId,
    index: Index,
    recovery: Recovery,
    last_epoch: u32,
}

impl Opening<'_> {
    fn take_identity(&mut self, files: &[DirEntry]) {
        match read_identity(self.fs, self.dir) {
            Ok(Some((_, epoch))) => self.last_epoch = epoch,
            _ if self.recovery.created && !files.iter().any(|file| file.name == IDENTITY) => {}
            _ => self.note(format!(
                "the identity file was missing or damaged and is written anew for store {}",
                self.store
            )),
        }
    }

    /// Takes in all segments; returns the number of the next one.
    fn take_segments(&mut self, files: &[DirEntry]) -> u32 {
        let mut next_segment = 0;
        // A segment found open, by its number and epoch, until it is known where the next begins.
        let mut open: Option<(u32, Contents, Damage)> = None;
        for (number, file) in files.iter().filter_map(|f| Some((segment_of(&f.name)?, f))) {
            next_segment = number.saturating_add(1);
            let path = segment_path(self.dir, number);
            let contents = match file::load(self.fs, &path, segment_key(self.store, number)) {
                Ok(contents) => contents,
                Err(error) => {
                    self.note(format!("segment {number:08x} cannot be read ({error})"));
                    self.recovery.bytes_lost += file.bytes;
                    self.recovery.torn_segments += 1;
                    self.set_aside(number, file.bytes);
                    continue;
                }
            };
            if let Some(before) = open.take() {
                self.take_open_segment(before, Some(&contents));
            }
            match contents.source {
                Source::Footer => self.add(number, &contents),
                Source::Foreign(why) => {
                    self.note(foreign(number, why));
                    self.set_aside(number, contents.bytes);
                }
                Source::Scan(damage) => open = Some((number, contents, damage)),
            }
        }
        if let Some(last) = open {
            self.take_open_segment(last, None);
        }
        next_segment
    }

    /// Takes in a segment without a sound footer, and says what it lost.
    fn take_open_segment(
        &mut self,
        (number, contents, damage): (u32, Contents, Damage),
        next: Option<&Contents>,
    ) {
        let epoch_of = |c: &Contents| c.next_id().map(|id| id.epoch());
        // The next segment of the same epoch tells exactly how many ids were given before it.
        let next_first = next
            .filter(|next| epoch_of(next) == epoch_of(&contents))
            .and_then(|next| next.header)
            .map(|header| header.first_id);
        let lost_behind = match (next_first, contents.next_id()) {
            (Some(first), Some(expected)) if contents.header.is_none_or(|h| h.step_us == 0) => {
                first.saturating_sub(expected.0)
            }
            _ => u64::from(damage.torn_tail),
        };
        let lost = damage.frames_between + lost_behind;
        let path = segment_path(self.dir, number);
        let nothing_in_it = contents.entries.is_empty() && lost == 0 && damage == Damage::default();
        if nothing_in_it && contents.header.is_none() {
            // It was only being made: frames come after its header is durable.
            if self.fs.remove(&path).is_err() {
                self.set_aside(number, contents.bytes);
            }
            return;
        }
        self.recovery.unclosed_segments += 1;
        self.recovery.frames_lost += lost;
        self.recovery.bytes_lost += damage.bytes;
        if lost > 0 || damage != Damage::default() {
            self.recovery.torn_segments += 1;
        }
        let last = contents.entries.last().map_or("none".into(), |last| last.id.to_string());
        self.note(format!(
            "segment {number:08x} was not closed: {} frames are there (the last is {last}), {lost} \
             frames and {} bytes are lost{}",
            contents.entries.len(),
            damage.bytes,
            if damage.unreadable { ", a part could not be read and is left as it is" } else { "" },
        ));
        self.add(number, &contents);
        // A later read may have what this one could not: then nothing is cut off.
        if let Some(info) = self.index.segment_mut(number).filter(|_| !damage.unreadable) {
            info.unclosed_at = Some(contents.records_end);
        }
    }

    fn add(&mut self, number: u32, contents: &Contents) {
        let of_header = contents.header.map(|header| FrameId(header.first_id));
        let of_record = contents.entries.first().map(|first| first.id);
        let first_id = of_header.or(of_record).unwrap_or(FrameId(0));
        // The records are proven by their ids; a header without any is at least a hint.
        let epoch = of_record.unwrap_or(first_id).epoch();
        self.last_epoch = self.last_epoch.max(epoch);
        let step_us = contents.header.map_or(0, |header| header.step_us);
        let info = SegmentInfo { step_us, ..SegmentInfo::of_file(epoch, first_id, contents.bytes) };
        self.index.add_segment(number, info, &contents.entries);
    }

    /// Keeps a file whose frames cannot be had: its bytes count, and it is the first to go.
    fn set_aside(&mut self, number: u32, bytes: u64) {
        self.index.add_segment(number, SegmentInfo::of_file(0, FrameId(0), bytes), &[]);
    }

    fn take_evidence(&mut self, files: &[DirEntry]) -> BTreeMap<PinId, u64> {
        let mut pins = BTreeMap::new();
        for (pin, file) in files.iter().filter_map(|f| Some((evidence::pin_of(&f.name)?, f))) {
            self.last_epoch = self.last_epoch.max(pin.epoch());
            if !evidence::looks_whole(self.fs, self.dir, self.store, pin) {
                self.recovery.pins_damaged += 1;
                self.note(format!("evidence {pin} is damaged"));
            }
            pins.insert(pin, file.bytes);
        }
        pins
    }

    fn note(&mut self, note: String) {
        tracing::warn!(dir = %self.dir.display(), "{note}");
        self.recovery.notes.push(note);
    }
}

fn foreign(number: u32, why: Foreign) -> String {
    match why {
        Foreign::OtherFile(key) => format!(
            "segment {number:08x} is file {} of store {}: it is set aside, and removed when room \
             is needed",
            key.number, key.store
        ),
        Foreign::NewerVersion(version) => format!(
            "segment {number:08x} was written by a later version of the store (format {version}): \
             it is set aside, and removed when room is needed"
        ),
    }
}
