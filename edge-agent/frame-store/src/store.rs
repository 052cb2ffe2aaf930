//! The store as its users see it.

use crate::error::Context;
use crate::file::{self, BadRecord};
use crate::format::{self, Record, RecordHead};
use crate::index::Index;
use crate::recovery::{self, Recovery, segment_key, segment_path};
use crate::ring::{Counters, Writer};
use crate::{
    Access, FrameHash, FrameId, FrameRef, Fs, FsLock, PinId, StoreError, StoreId, StoreOptions,
    evidence,
};
use hal_camera::{CameraId, Encoding, Frame, MediaTime, Span, decode_luma, encode_luma_jpeg};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// A frame read back: always a JPEG, the camera's own bytes if it delivered JPEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFrame {
    /// Its id.
    pub id: FrameId,
    /// The camera that took it.
    pub camera: CameraId,
    /// The boot epoch that its media time counts from.
    pub epoch: u32,
    /// The picture, `encoding` JPEG.
    pub frame: Frame,
    /// blake3 of `frame.bytes`, as computed when the frame was stored.
    pub hash: FrameHash,
}

/// How much the store holds and what it gave up. The counters begin at zero when it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Bytes of the ring's files; the bound is `bytes_max`.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Frames in the ring, of all epochs.
    pub frames: u64,
    /// The oldest frame in the ring; its id tells the epoch of its time.
    pub oldest: Option<FrameRef>,
    /// The newest.
    pub newest: Option<FrameRef>,
    /// Pieces of evidence.
    pub pins: u64,
    /// Bytes of evidence; the bound is `evidence_bytes_max`.
    pub evidence_bytes: u64,
    /// Frames removed to make old footage sparser.
    pub thinned: u64,
    /// Frames removed because they were the oldest when room was needed.
    pub dropped: u64,
    /// Frames found damaged while thinning, and left out.
    pub damaged: u64,
    /// How often the disk was full below the store's own bound.
    pub disk_full: u64,
    /// Segments given up because a write or an fsync failed.
    pub abandoned: u64,
}

/// A ring of frames on disk and the evidence pinned from it.
///
/// Share it as `Arc<FrameStore>`. One thread appends; others find, read and pin meanwhile without
/// waiting for its writes. Dropping it closes the open segment; [`close`](Self::close) also says
/// whether that succeeded.
pub struct FrameStore {
    pub(crate) dir: PathBuf,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) options: StoreOptions,
    pub(crate) id: StoreId,
    pub(crate) epoch: u32,
    /// Taken for a moment, never across I/O but the rename that puts a thinned segment in place.
    pub(crate) index: RwLock<Index>,
    /// Taken by whoever changes segment files; before `index`.
    pub(crate) writer: Mutex<Writer>,
    pub(crate) counters: Counters,
    /// Taken for a moment.
    pins: Mutex<Pins>,
    /// Taken while evidence is written, one at a time; before `writer`.
    pinning: Mutex<()>,
    _lock: Box<dyn FsLock>,
}

struct Pins {
    bytes: BTreeMap<PinId, u64>,
    next: u64,
}

impl FrameStore {
    /// Opens the store in `dir`, or makes a new one there if it holds none. A new boot epoch
    /// begins. [`Recovery`] says what was found and what was lost.
    ///
    /// # Errors
    /// [`StoreError::Options`], [`StoreError::InUse`], [`StoreError::WrongStore`];
    /// [`StoreError::Io`] or [`StoreError::NoSpace`] if the directory cannot be read, or the 48
    /// bytes of its identity cannot be written.
    pub fn open(
        dir: &Path,
        options: StoreOptions,
        fs: Arc<dyn Fs>,
    ) -> Result<(FrameStore, Recovery), StoreError> {
        options.check()?;
        // Nothing is touched before it is known to be the right directory.
        recovery::identify(&*fs, dir, options.expected)?;
        fs.create_dir(dir).context("make", dir)?;
        let lock = fs.lock(&dir.join(recovery::LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StoreError::InUse { dir: dir.into() },
            _ => StoreError::Io { what: "lock", path: dir.join(recovery::LOCK), source: error },
        })?;
        // Again, now that no other process can be making it.
        let found = recovery::identify(&*fs, dir, options.expected)?;
        let recovered = recovery::recover(&*fs, dir, found)?;
        let store = FrameStore {
            dir: dir.into(),
            fs,
            options,
            id: recovered.store,
            epoch: recovered.epoch,
            index: RwLock::new(recovered.index),
            writer: Mutex::new(Writer::new(recovered.next_segment)),
            counters: Counters::default(),
            pins: Mutex::new(Pins { bytes: recovered.pins, next: 0 }),
            pinning: Mutex::new(()),
            _lock: lock,
        };
        store.begin_epoch()?;
        let mut recovery = recovered.recovery;
        let (thinned, dropped) = store.fit_into_bound()?;
        if thinned + dropped > 0 {
            recovery.notes.push(format!(
                "to fit into bytes_max and the disk, {thinned} frames were thinned out and \
                 {dropped} dropped"
            ));
        }
        Ok((store, recovery))
    }

    /// The store's identity, to be given as [`StoreOptions::expected`] at the next open.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The boot epoch that began when the store was opened.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Stores a frame. JPEG goes in as it is, other encodings as the JPEG of their luma. Makes
    /// room first if the bound is reached. The frame is found from now on, and safe from a power
    /// cut after the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`StoreError::BadFrame`], [`StoreError::FrameTooLarge`], [`StoreError::TimeWentBack`]: this
    /// frame cannot be stored. [`StoreError::Io`], [`StoreError::NoSpace`]: the disk refused, also
    /// in a second, fresh segment; the next frame may fare better.
    pub fn append(&self, camera: CameraId, frame: &Frame) -> Result<FrameId, StoreError> {
        let jpeg = jpeg_of(camera, frame, self.options.jpeg_quality)?;
        let bytes_max = self.options.frame_bytes_max();
        if jpeg.len() as u64 > bytes_max {
            return Err(StoreError::FrameTooLarge { camera, bytes: jpeg.len(), bytes_max });
        }
        // The payload's length and hash are filled in where it is framed.
        let head = RecordHead {
            payload_bytes: 0,
            camera,
            id: FrameId(0),
            media_time: frame.media_time,
            wall_time: frame.wall_time,
            width: frame.width,
            height: frame.height,
            hash: FrameHash([0; 32]),
        };
        self.append_record(head, &jpeg)
    }

    /// At most `n` frames of `camera` within `span`, of the current epoch, in order of time:
    /// nearest to a uniform grid with its points at (i + ½)/n of the span, no frame twice. A span
    /// that holds at least `n` frames gives `n`; one that holds fewer gives all of them.
    pub fn find(&self, camera: CameraId, span: Span, n: usize) -> Vec<FrameRef> {
        let index = read_lock(&self.index);
        index.track(self.epoch, camera).map_or(Vec::new(), |track| track.nearest_to_grid(span, n))
    }

    /// The frames of `camera` nearest to each of `times`, of the current epoch and within
    /// `allowed`; in order of time, no frame twice.
    pub fn nearest(&self, camera: CameraId, times: &[MediaTime], allowed: Span) -> Vec<FrameRef> {
        let index = read_lock(&self.index);
        index
            .track(self.epoch, camera)
            .map_or(Vec::new(), |track| track.nearest_to_times(times, allowed))
    }

    /// From the oldest frame of `camera` in the current epoch to just after the newest; `None` if
    /// there is none.
    pub fn span(&self, camera: CameraId) -> Option<Span> {
        read_lock(&self.index).track(self.epoch, camera)?.span()
    }

    /// A frame of the ring, of any epoch, proven by its checksum.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if it was thinned out or dropped; [`StoreError::Corrupt`];
    /// [`StoreError::Io`].
    pub fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError> {
        self.read_record(id).map(StoredFrame::from)
    }

    /// Copies frames of the ring, of any epochs and cameras, into evidence that stays until
    /// [`unpin`](Self::unpin). When this returns, the evidence is durable. Ids given twice count
    /// once.
    ///
    /// # Errors
    /// As [`read`](Self::read), for any of the frames; [`StoreError::EvidenceFull`] at the bound;
    /// [`StoreError::Io`], [`StoreError::NoSpace`]. After an error nothing is pinned.
    pub fn pin(&self, frames: &[FrameId]) -> Result<PinId, StoreError> {
        let mut ids = frames.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            records.push(self.read_record(id)?);
        }
        let needed = evidence::file_bytes(&records);

        let _one_at_a_time = lock(&self.pinning);
        let pin = {
            let mut pins = lock(&self.pins);
            let held: u64 = pins.bytes.values().sum();
            let bytes_max = self.options.evidence_bytes_max;
            if held + needed > bytes_max {
                return Err(StoreError::EvidenceFull { needed, held, bytes_max });
            }
            pins.next += 1;
            PinId::new(self.epoch, pins.next)
        };
        let path = self.dir.join(evidence::file_name(pin));
        let written = self.with_space("write", &path, needed, || {
            evidence::write(&*self.fs, &self.dir, self.id, pin, &mut records)
        });
        if let Err(error) = written {
            let _ = self.fs.remove(&evidence::unfinished(&self.dir));
            // It may have got its name but not durably. If it cannot be removed it still takes
            // room, and is an orphan at the next open.
            if !removed(&self.fs.remove(&path)) {
                lock(&self.pins).bytes.insert(pin, needed);
            }
            return Err(error);
        }
        lock(&self.pins).bytes.insert(pin, needed);
        Ok(pin)
    }

    /// The frames of a pin, in order of id, every byte checked.
    ///
    /// # Errors
    /// [`StoreError::UnknownPin`]; [`StoreError::Corrupt`] naming the file and the frame if a
    /// single bit is not as it was written; [`StoreError::Io`].
    pub fn read_pinned(&self, pin: PinId) -> Result<Vec<StoredFrame>, StoreError> {
        evidence::read(&*self.fs, &self.dir, self.id, pin)
    }

    /// Removes evidence, durably. No error if it is gone already.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the evidence may then still be there.
    pub fn unpin(&self, pin: PinId) -> Result<(), StoreError> {
        let path = self.dir.join(evidence::file_name(pin));
        let result = self.fs.remove(&path);
        if !removed(&result) {
            return result.context("remove", &path);
        }
        lock(&self.pins).bytes.remove(&pin);
        self.fs.sync_dir(&self.dir).context("sync", &self.dir)
    }

    /// All pins, the oldest first.
    pub fn pins(&self) -> Vec<PinId> {
        lock(&self.pins).bytes.keys().copied().collect()
    }

    /// Removes all evidence but `keep`, and returns what it removed: for pins whose event was
    /// never committed. Call it after opening, before the first inquiry: later a pin may be
    /// waiting for its event.
    ///
    /// # Errors
    /// As [`unpin`](Self::unpin); the rest is removed by calling it again.
    pub fn orphan_pins(&self, keep: &HashSet<PinId>) -> Result<Vec<PinId>, StoreError> {
        let orphans: Vec<PinId> =
            self.pins().into_iter().filter(|pin| !keep.contains(pin)).collect();
        for &orphan in &orphans {
            self.unpin(orphan)?;
        }
        Ok(orphans)
    }

    /// Makes all frames appended so far durable.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] if some of them may not be, now or in a segment closed since the
    /// last call.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_open_segment()
    }

    /// Closes the open segment, so that the next open finds it whole. Appending afterwards begins
    /// another.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn close(&self) -> Result<(), StoreError> {
        self.close_recovered_segments();
        self.close_open_segment()
    }

    /// How much the store holds and what it gave up.
    pub fn stats(&self) -> StoreStats {
        let (pins, evidence_bytes) = {
            let pins = lock(&self.pins);
            (pins.bytes.len() as u64, pins.bytes.values().sum())
        };
        let index = read_lock(&self.index);
        let mut held = index.segments().filter_map(|(_, info)| info.held);
        let oldest = held.next();
        let newest = held.next_back().or(oldest);
        StoreStats {
            bytes: index.bytes(),
            segments: index.segments().count() as u64,
            frames: index.segments().map(|(_, info)| info.frames).sum(),
            oldest: oldest.map(|(first, _)| first),
            newest: newest.map(|(_, last)| last),
            pins,
            evidence_bytes,
            thinned: self.counters.thinned.load(Relaxed),
            dropped: self.counters.dropped.load(Relaxed),
            damaged: self.counters.damaged.load(Relaxed),
            disk_full: self.counters.disk_full.load(Relaxed),
            abandoned: self.counters.abandoned.load(Relaxed),
        }
    }

    fn begin_epoch(&self) -> Result<(), StoreError> {
        let path = self.dir.join(recovery::IDENTITY);
        // The name of the directory itself, if it is new.
        if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.fs.sync_dir(parent).context("sync", parent)?;
        }
        self.with_space("write", &path, format::IDENTITY_BYTES as u64, || {
            recovery::write_identity(&*self.fs, &self.dir, self.id, self.epoch)
        })
    }

    /// The record of a frame of the ring, proven by its checksum and its hash.
    fn read_record(&self, id: FrameId) -> Result<Record, StoreError> {
        loop {
            let locate = || read_lock(&self.index).locate(id);
            let place = locate().ok_or(StoreError::Gone { id })?;
            let path = segment_path(&self.dir, place.segment);
            let key = segment_key(self.id, place.segment);
            let read = self
                .fs
                .open(&path, Access::Read)
                .map_err(BadRecord::Io)
                .and_then(|file| file::read_record(&*file, key, place.offset.into(), u64::MAX));
            let error = match read {
                Ok(record) if record.head.id == id && record.hash_matches() => return Ok(record),
                Ok(_) | Err(BadRecord::Damaged) => StoreError::Corrupt {
                    path,
                    frame: Some(id),
                    reason: "its checksum does not match".into(),
                },
                Err(BadRecord::Io(source)) => StoreError::Io { what: "read", path, source },
            };
            // Between looking up and reading, the segment may have been thinned or dropped. A
            // frame moves at most twice in its life, so this ends.
            if locate() == Some(place) {
                return Err(error);
            }
        }
    }
}

impl fmt::Debug for FrameStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("FrameStore");
        shown.field("dir", &self.dir).field("id", &self.id).field("epoch", &self.epoch);
        shown.finish_non_exhaustive()
    }
}

impl Drop for FrameStore {
    fn drop(&mut self) {
        if let Err(error) = self.close_open_segment() {
            tracing::warn!(dir = %self.dir.display(), "closing the frame store: {error}");
        }
    }
}

impl From<Record> for StoredFrame {
    fn from(record: Record) -> Self {
        let RecordHead { id, camera, hash, .. } = record.head;
        StoredFrame { id, camera, epoch: id.epoch(), frame: record.frame(), hash }
    }
}

/// The JPEG to be stored for a frame.
fn jpeg_of(camera: CameraId, frame: &Frame, quality: u8) -> Result<Cow<'_, [u8]>, StoreError> {
    if frame.encoding == Encoding::Jpeg {
        return Ok(Cow::Borrowed(&frame.bytes));
    }
    if frame.width == 0 || frame.height == 0 {
        let reason = format!("it is {}x{} pixels", frame.width, frame.height);
        return Err(StoreError::BadFrame { camera, reason });
    }
    let luma = decode_luma(frame)
        .map_err(|error| StoreError::BadFrame { camera, reason: error.to_string() })?;
    Ok(Cow::Owned(encode_luma_jpeg(&luma, quality)))
}

/// Whether a removal left nothing behind.
pub(crate) fn removed(result: &io::Result<()>) -> bool {
    result.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

/// Locks; a panic in another thread does not make what it guarded unusable, as every change under
/// these locks is made in one go.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write_lock<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
