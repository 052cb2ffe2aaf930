//! The frames of one camera in one epoch, found by time or by id at 16 bytes a frame.
//!
//! They are sorted by time and by id at once, since `append` refuses frames out of order. They are
//! cut into runs, one per segment, so that a segment comes, thins and goes as a whole.

use crate::format::Located;
use crate::index::Place;
use crate::{FrameId, FrameRef};
use hal_camera::{CameraId, MediaTime, Span};

/// One frame in a run; with its camera, segment and first id known from the run, 16 bytes.
#[derive(Clone, Copy)]
struct Entry {
    media_us: i64,
    offset: u32,
    /// Above the run's `base_id`: a segment has fewer than 2^32 frames.
    id_delta: u32,
}

/// The frames of one camera in one segment.
struct Run {
    segment: u32,
    base_id: u64,
    /// Rank of the first entry in the track.
    first_rank: usize,
    entries: Vec<Entry>,
}

/// The frames of one camera in one epoch, as if they were one array sorted by time and by id.
/// A frame's position in it, its *rank*, counts from [`Track::first_rank`].
#[derive(Default)]
pub(crate) struct Track {
    runs: Vec<Run>,
}

impl Track {
    /// At most `n` frames within `span`, in order of time: for each of `n` grid points, at
    /// (i + ½)/n of the span, the nearest frame that is later than the one before and leaves one
    /// for each point to come. So a span with at least `n` frames gives `n`, another gives all.
    pub(crate) fn nearest_to_grid(&self, span: Span, n: usize) -> Vec<FrameRef> {
        let mut from = self.rank_of(span.start);
        let end = self.rank_of(span.end);
        let n = n.min(end.saturating_sub(from));
        let length = i128::from(span.end.0) - i128::from(span.start.0);
        let mut found = Vec::with_capacity(n);
        for i in 0..n {
            let point = i128::from(span.start.0) + length * (2 * i as i128 + 1) / (2 * n as i128);
            let rank = self.nearest(MediaTime(point as i64), from, end - (n - i));
            found.push(self.frame(rank));
            from = rank + 1;
        }
        found
    }

    /// The frames nearest to each of `times` among those within `allowed`, without duplicates and
    /// in order of time.
    pub(crate) fn nearest_to_times(&self, times: &[MediaTime], allowed: Span) -> Vec<FrameRef> {
        let (from, end) = (self.rank_of(allowed.start), self.rank_of(allowed.end));
        if from >= end {
            return Vec::new();
        }
        let mut ranks: Vec<usize> =
            times.iter().map(|&time| self.nearest(time, from, end - 1)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks.into_iter().map(|rank| self.frame(rank)).collect()
    }

    /// From the first frame to just after the last.
    pub(crate) fn span(&self) -> Option<Span> {
        let first = self.runs.first()?.entries.first()?.media_us;
        let last = self.runs.last()?.entries.last()?.media_us;
        Some(Span::new(MediaTime(first), MediaTime(last.saturating_add(1))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The nearest frame to `time` among the ranks `from..=last`; the earlier of two as near.
    fn nearest(&self, time: MediaTime, from: usize, last: usize) -> usize {
        let after = self.rank_of(time).clamp(from, last);
        if after == from {
            return after;
        }
        let distance = |rank| self.frame(rank).media_time.0.abs_diff(time.0);
        if distance(after - 1) <= distance(after) { after - 1 } else { after }
    }

    /// Rank of the first frame at or after `time`.
    fn rank_of(&self, time: MediaTime) -> usize {
        let before = |entry: &Entry| entry.media_us < time.0;
        let run = self.runs.partition_point(|run| run.entries.last().is_some_and(before));
        match self.runs.get(run) {
            Some(run) => run.first_rank + run.entries.partition_point(before),
            None => self.end_rank(),
        }
    }

    fn end_rank(&self) -> usize {
        self.runs.last().map_or(0, |run| run.first_rank + run.entries.len())
    }

    /// The frame at a rank that the track holds.
    fn frame(&self, rank: usize) -> FrameRef {
        let run = &self.runs[self.runs.partition_point(|run| run.first_rank <= rank) - 1];
        let entry = run.entries[rank - run.first_rank];
        FrameRef { id: run.id(&entry), media_time: MediaTime(entry.media_us) }
    }

    pub(crate) fn locate(&self, id: FrameId) -> Option<Place> {
        let run = self.runs.partition_point(|run| run.base_id <= id.0).checked_sub(1)?;
        let run = &self.runs[run];
        let delta = u32::try_from(id.0 - run.base_id).ok()?;
        let entry = run.entries.binary_search_by_key(&delta, |entry| entry.id_delta).ok()?;
        Some(Place { segment: run.segment, offset: run.entries[entry].offset })
    }

    pub(crate) fn last_before(&self, segment: u32) -> Option<MediaTime> {
        let run = self.runs.partition_point(|run| run.segment < segment).checked_sub(1)?;
        self.runs[run].entries.last().map(|entry| MediaTime(entry.media_us))
    }

    pub(crate) fn entries(&self, segment: u32, camera: CameraId) -> Vec<Located> {
        let Ok(run) = self.runs.binary_search_by_key(&segment, |run| run.segment) else {
            return Vec::new();
        };
        let run = &self.runs[run];
        let located = |entry: &Entry| Located {
            id: run.id(entry),
            media_time: MediaTime(entry.media_us),
            camera,
            offset: entry.offset,
        };
        run.entries.iter().map(located).collect()
    }

    pub(crate) fn push(&mut self, segment: u32, entry: &Located) {
        if self.runs.last().is_none_or(|run| run.segment != segment) {
            self.shrink_last();
            let first_rank = self.end_rank();
            self.runs.push(Run { segment, base_id: entry.id.0, first_rank, entries: Vec::new() });
        }
        let run = self.runs.last_mut().expect("there is a run now");
        run.push(entry);
    }

    /// A run that no longer grows gives back the room that it had to grow.
    pub(crate) fn shrink_last(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            run.entries.shrink_to_fit();
        }
    }

    pub(crate) fn remove(&mut self, segment: u32) {
        // Ranks need not begin at zero, so the usual case, the oldest run, costs no renumbering.
        if let Ok(at) = self.runs.binary_search_by_key(&segment, |run| run.segment) {
            self.runs.remove(at);
            if at > 0 {
                self.renumber(at);
            }
        }
    }

    pub(crate) fn replace<'a>(&mut self, segment: u32, entries: impl Iterator<Item = &'a Located>) {
        let Ok(at) = self.runs.binary_search_by_key(&segment, |run| run.segment) else { return };
        let run = &mut self.runs[at];
        run.entries = Vec::new();
        for (i, entry) in entries.enumerate() {
            if i == 0 {
                run.base_id = entry.id.0;
            }
            run.push(entry);
        }
        run.entries.shrink_to_fit();
        if run.entries.is_empty() {
            self.remove(segment);
        } else {
            self.renumber(at + 1);
        }
    }

    fn renumber(&mut self, from: usize) {
        for at in from.max(1)..self.runs.len() {
            self.runs[at].first_rank =
                self.runs[at - 1].first_rank + self.runs[at - 1].entries.len();
        }
    }
}

impl Run {
    fn id(&self, entry: &Entry) -> FrameId {
        FrameId(self.base_id + u64::from(entry.id_delta))
    }

    fn push(&mut self, entry: &Located) {
        let id_delta = u32::try_from(entry.id.0 - self.base_id)
            .expect("a segment of at most a gigabyte holds fewer than 2^32 frames");
        self.entries.push(Entry { media_us: entry.media_time.0, offset: entry.offset, id_delta });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_costs_sixteen_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }
}
