//! Changing segment files: appending, closing, thinning, dropping.

use crate::error::{Context, is_no_space};
use crate::file::{self, FileWriter};
use crate::format::{self, Header, Record, RecordHead};
use crate::index::SegmentInfo;
use crate::recovery::{segment_key, segment_path};
use crate::retention::{self, Plan};
use crate::store::{lock, read_lock, removed, write_lock};
use crate::{Access, FrameId, FrameStore, StoreError};
use hal_camera::{CameraId, MediaTime};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What only the thread that changes segments needs.
pub(crate) struct Writer {
    open: Option<OpenSegment>,
    next_segment: u32,
    /// Counter of the next frame id.
    next_frame: u64,
    last_time: BTreeMap<CameraId, MediaTime>,
    /// A segment that could not be made durable since the last sync.
    not_durable: Option<PathBuf>,
    /// The disk stayed full although footage was given up for it: something else fills it, and
    /// giving up more would lose everything for nothing. Until room is found again.
    giving_is_vain: bool,
}

struct OpenSegment {
    number: u32,
    file: FileWriter,
}

impl Writer {
    pub(crate) fn new(next_segment: u32) -> Self {
        Self {
            open: None,
            next_segment,
            next_frame: 0,
            last_time: BTreeMap::new(),
            not_durable: None,
            giving_is_vain: false,
        }
    }
}

/// What the store gave up since it was opened; see `StoreStats`.
#[derive(Default)]
pub(crate) struct Counters {
    pub thinned: AtomicU64,
    pub dropped: AtomicU64,
    pub damaged: AtomicU64,
    pub disk_full: AtomicU64,
    pub abandoned: AtomicU64,
}

/// Says once that something could not be made durable.
fn durable(writer: &mut Writer) -> Result<(), StoreError> {
    writer.not_durable.take().map_or(Ok(()), |path| Err(StoreError::NotDurable { path }))
}

impl FrameStore {
    /// Frames `jpeg` under the next id and writes it into the open segment, or into a new one.
    pub(crate) fn append_record(
        &self,
        head: RecordHead,
        jpeg: &[u8],
    ) -> Result<FrameId, StoreError> {
        let mut writer = lock(&self.writer);
        let (camera, given) = (head.camera, head.media_time);
        if let Some(&last) = writer.last_time.get(&camera).filter(|&&last| last > given) {
            return Err(StoreError::TimeWentBack { camera, given, last });
        }
        let id = FrameId::new(self.epoch, writer.next_frame);
        let head = RecordHead { id, ..head };
        let mut second_try = false;
        loop {
            let number =
                self.open_segment_for(&mut writer, format::record_bytes(jpeg.len() as u64))?;
            let Some(open) = writer.open.as_mut() else { continue };
            let record = Record::encode(open.file.key(), head, jpeg);
            match open.file.push(&record) {
                Ok(located) => {
                    write_lock(&self.index).add_frame(number, &located);
                    writer.next_frame += 1;
                    writer.last_time.insert(camera, given);
                    return Ok(id);
                }
                Err(error) => {
                    // What it holds is closed if that is still possible; nothing more is written
                    // behind a write that failed.
                    tracing::warn!(segment = number, "going on in a new segment: {error}");
                    self.seal(&mut writer);
                    if second_try {
                        let path = segment_path(&self.dir, number);
                        return Err(error).context("write", &path);
                    }
                    second_try = true;
                }
            }
        }
    }

    pub(crate) fn sync_open_segment(&self) -> Result<(), StoreError> {
        let open = lock(&self.writer).open.as_ref().map(|open| (open.number, open.file.file()));
        // Without the lock: frames are appended while the disk is busy.
        let failed = open.and_then(|(number, file)| Some((number, file.sync().err()?)));
        let mut writer = lock(&self.writer);
        if let Some((number, error)) = failed {
            // The system may have dropped the pages that it could not write, and a second sync
            // would not say so. The segment gets no footer, which would vouch for them.
            writer.open.take_if(|open| open.number == number);
            self.give_up(&mut writer, number, &error);
        }
        self.close_recovered();
        durable(&mut writer)
    }

    pub(crate) fn close_open_segment(&self) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        self.seal(&mut writer);
        durable(&mut writer)
    }

    /// Closes the segments that a crash had left open, behind the records found in them.
    pub(crate) fn close_recovered_segments(&self) {
        let _writer = lock(&self.writer);
        self.close_recovered();
    }

    /// Needs the writer's lock.
    fn close_recovered(&self) {
        let unclosed: Vec<(u32, u64)> = read_lock(&self.index)
            .segments()
            .filter_map(|(number, info)| Some((number, info.unclosed_at?)))
            .collect();
        for (number, end) in unclosed {
            let entries = read_lock(&self.index).entries(number);
            let (path, key) = (segment_path(&self.dir, number), segment_key(self.id, number));
            let closed = if entries.is_empty() {
                self.drop_segment(number).map(|()| 0)
            } else {
                FileWriter::reopen(&*self.fs, &path, key, end, entries)
                    .and_then(|file| file.seal())
                    .context("close", &path)
            };
            // Tried once: after a failed sync a second would vouch for what may be lost.
            if let Some(info) = write_lock(&self.index).segment_mut(number) {
                info.unclosed_at = None;
                // If closing failed, it may have been extended or cut or neither.
                let longest = info.bytes.max(end + format::footer_bytes(info.frames));
                info.bytes = *closed.as_ref().unwrap_or(&longest);
            }
            if let Err(error) = closed {
                tracing::warn!("the next open reads the segment again: {error}");
            }
        }
    }

    /// Thins and drops until the store is within its bound, which may have been lowered since it
    /// was last open; returns how many frames went in either way.
    pub(crate) fn fit_into_bound(&self) -> Result<(u64, u64), StoreError> {
        let _writer = lock(&self.writer);
        self.make_room(0)?;
        Ok((self.counters.thinned.load(Relaxed), self.counters.dropped.load(Relaxed)))
    }

    /// Tries `work`, which writes up to `needed` bytes; as long as the disk is full, gives up the
    /// oldest segment and tries again. The caller must not hold the writer's lock.
    pub(crate) fn with_space<T>(
        &self,
        what: &'static str,
        path: &Path,
        needed: u64,
        mut work: impl FnMut() -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let mut freed = 0;
        loop {
            match work() {
                Err(error) if is_no_space(&error) => {
                    self.give_way(&mut lock(&self.writer), path, needed, &mut freed)?;
                }
                done => return done.context(what, path),
            }
        }
    }

    /// The open segment, with room for a record of `record_bytes`.
    fn open_segment_for(&self, writer: &mut Writer, record_bytes: u64) -> Result<u32, StoreError> {
        if let Some(open) = &writer.open {
            if open.file.fits(record_bytes, self.options.segment_bytes) {
                return Ok(open.number);
            }
            self.seal(writer);
        }
        self.make_room(self.options.segment_bytes)?;
        let number = writer.next_segment;
        let path = segment_path(&self.dir, number);
        let first_id = FrameId::new(self.epoch, writer.next_frame);
        let header = Header {
            key: segment_key(self.id, number),
            epoch: self.epoch,
            first_id: first_id.0,
            step_us: 0,
            count: 0,
        };
        let mut freed = 0;
        let file = loop {
            match self.create_segment(&path, &header) {
                Ok(file) => break file,
                Err(error) => {
                    // If it cannot be removed either, the next attempt empties it.
                    let _ = self.fs.remove(&path);
                    if !is_no_space(&error) {
                        return Err(error).context("make", &path);
                    }
                    self.give_way(writer, &path, self.options.segment_bytes, &mut freed)?;
                }
            }
        };
        writer.giving_is_vain = false;
        let bytes = self.options.segment_bytes;
        let info =
            SegmentInfo { active: true, ..SegmentInfo::of_file(self.epoch, first_id, bytes) };
        write_lock(&self.index).add_segment(number, info, &[]);
        writer.open = Some(OpenSegment { number, file });
        writer.next_segment = number.saturating_add(1);
        Ok(number)
    }

    /// A segment whose header and name are durable.
    fn create_segment(&self, path: &Path, header: &Header) -> io::Result<FileWriter> {
        let file = FileWriter::create(&*self.fs, path, header, self.options.segment_bytes)?;
        file.file().sync()?;
        self.fs.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Closes the open segment, if there is one. If that fails its frames stay readable and the
    /// next sync says that they are not durable.
    fn seal(&self, writer: &mut Writer) {
        let Some(open) = writer.open.take() else { return };
        let path = segment_path(&self.dir, open.number);
        let empty = open.file.entries().is_empty();
        let closed = if empty { self.fs.remove(&path).map(|()| 0) } else { open.file.seal() };
        match closed {
            Ok(_) if empty => write_lock(&self.index).remove_segment(open.number),
            Ok(bytes) => {
                if let Some(info) = write_lock(&self.index).segment_mut(open.number) {
                    (info.active, info.bytes) = (false, bytes);
                }
            }
            Err(error) => self.give_up(writer, open.number, &error),
        }
    }

    /// Leaves a segment as it is: readable, never written again, to be scanned at the next open.
    /// How far a failed closing came is unknown: its preallocated length stands.
    fn give_up(&self, writer: &mut Writer, number: u32, error: &io::Error) {
        let path = segment_path(&self.dir, number);
        tracing::warn!(path = %path.display(), "giving up a segment: {error}");
        self.counters.abandoned.fetch_add(1, Relaxed);
        if let Some(info) = write_lock(&self.index).segment_mut(number) {
            info.active = false;
        }
        writer.not_durable.get_or_insert(path);
    }

    /// Thins and drops until `needed` bytes are free below the bound, and besides them room for
    /// the file that thinning writes before it replaces another. Needs the writer's lock.
    fn make_room(&self, needed: u64) -> Result<(), StoreError> {
        let needed = needed + self.options.segment_bytes;
        loop {
            let plan = {
                let index = read_lock(&self.index);
                let ages = index.ages(&self.options.thinning);
                retention::plan(&ages, needed, self.options.bytes_max)
            };
            match plan {
                Plan::Fits => return Ok(()),
                Plan::Drop { segment } => self.drop_segment(segment)?,
                Plan::Thin { segment, step_us } => {
                    if let Err(error) = self.thin(segment, step_us) {
                        tracing::warn!(segment, "thinning failed, dropping instead: {error}");
                        self.drop_segment(segment)?;
                    }
                }
                Plan::Stuck => return Err(StoreError::NoSpace { path: self.dir.clone() }),
            }
        }
    }

    /// Gives up the oldest segment because the disk is full although the bound is not reached.
    /// `freed` counts what was given up for the `needed` bytes: twice as much must do.
    fn give_way(
        &self,
        writer: &mut Writer,
        path: &Path,
        needed: u64,
        freed: &mut u64,
    ) -> Result<(), StoreError> {
        self.counters.disk_full.fetch_add(1, Relaxed);
        writer.giving_is_vain |= *freed >= 2 * needed;
        let closed = |(_, info): &(u32, &SegmentInfo)| !info.active;
        let oldest = read_lock(&self.index)
            .segments()
            .find(closed)
            .map(|(number, info)| (number, info.bytes));
        let Some((number, bytes)) = oldest.filter(|_| !writer.giving_is_vain) else {
            return Err(StoreError::NoSpace { path: path.into() });
        };
        tracing::warn!(segment = number, "the disk is full: the oldest footage goes");
        *freed += bytes;
        self.drop_segment(number)
    }

    /// Removes a segment. Its frames are gone from the index first, so no reader meets a missing
    /// file; if the file cannot be removed it stays as an empty segment that still takes room.
    fn drop_segment(&self, number: u32) -> Result<(), StoreError> {
        let dropped = write_lock(&self.index).clear_segment(number);
        self.counters.dropped.fetch_add(dropped, Relaxed);
        self.remove_cleared(number)
    }

    fn remove_cleared(&self, number: u32) -> Result<(), StoreError> {
        let path = segment_path(&self.dir, number);
        let result = self.fs.remove(&path);
        if !removed(&result) {
            return result.context("remove", &path);
        }
        write_lock(&self.index).remove_segment(number);
        Ok(())
    }

    /// Rewrites a closed segment so that each camera keeps at most one frame per step.
    fn thin(&self, number: u32, step_us: u64) -> Result<(), StoreError> {
        let (all, kept, info) = {
            let index = read_lock(&self.index);
            let Some(&info) = index.segment(number) else { return Ok(()) };
            let all = index.entries(number);
            let kept = retention::sparser(&all, step_us, &index.last_before(number));
            (all.len(), kept, info)
        };
        if kept.len() == all {
            // Sparse as it is. Not worth a write: the next open finds that out again.
            if let Some(info) = write_lock(&self.index).segment_mut(number) {
                info.step_us = step_us;
            }
            return Ok(());
        }
        let thinned = (all - kept.len()) as u64;
        let path = segment_path(&self.dir, number);
        let key = segment_key(self.id, number);
        let old = self.fs.open(&path, Access::Read).context("open", &path)?;
        let mut records = Vec::with_capacity(kept.len());
        for entry in &kept {
            match file::read_record(&*old, key, entry.offset.into(), info.bytes) {
                Ok(record) if record.head.id == entry.id => records.push(record),
                _ => {
                    tracing::warn!(path = %path.display(), frame = %entry.id, "damaged, left out");
                    self.counters.damaged.fetch_add(1, Relaxed);
                }
            }
        }
        if records.is_empty() {
            write_lock(&self.index).clear_segment(number);
            self.counters.thinned.fetch_add(thinned, Relaxed);
            return self.remove_cleared(number);
        }
        let header = Header {
            key,
            epoch: info.epoch,
            first_id: info.first_id.0,
            step_us,
            count: records.len() as u32,
        };
        // One name for all segments, so that failed attempts do not add up.
        let sparse = self.dir.join("sparser.tmp");
        let put_in_place = || {
            let mut file = FileWriter::create(&*self.fs, &sparse, &header, 0)?;
            for record in &records {
                file.push(record)?;
            }
            let bytes = file.finish()?;
            // A reader must not see the new file with the old offsets and believe it damaged.
            let mut index = write_lock(&self.index);
            self.fs.rename(&sparse, &path)?;
            index.replace_segment(number, bytes, step_us, file.entries());
            Ok(())
        };
        let placed: io::Result<()> = put_in_place();
        if placed.is_err() {
            let _ = self.fs.remove(&sparse);
        }
        placed.context("rewrite", &path)?;
        self.counters.thinned.fetch_add(thinned, Relaxed);
        // If the name is not durable, the old file may be back after a crash, and it is whole too.
        if let Err(error) = self.fs.sync_dir(&self.dir) {
            tracing::warn!(path = %path.display(), "after thinning: {error}");
        }
        Ok(())
    }
}
