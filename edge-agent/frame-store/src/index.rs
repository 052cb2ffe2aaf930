//! Which segments the store has and which frames are in them, in memory. No I/O here.

use crate::format::Located;
use crate::retention::SegmentAge;
use crate::track::Track;
use crate::{FrameId, Thinning};
use hal_camera::{CameraId, MediaTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stored frame, by name and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameRef {
    /// Its id.
    pub id: FrameId,
    /// When it was taken.
    pub media_time: MediaTime,
}

/// Where a frame's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u32,
    pub offset: u32,
}

/// What is known of one segment file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    pub epoch: u32,
    /// The id that its first frame has, or had before it was thinned.
    pub first_id: FrameId,
    /// Length of the file.
    pub bytes: u64,
    pub frames: u64,
    pub step_us: u64,
    /// Being written: it is neither thinned nor dropped.
    pub active: bool,
    /// Where the records end in a file that was found open after a crash and is to be closed.
    pub unclosed_at: Option<u64>,
    /// First and last frame, `None` in a segment that holds none.
    pub held: Option<(FrameRef, FrameRef)>,
}

impl SegmentInfo {
    /// A closed file of `bytes` with no frames known in it yet.
    pub(crate) fn of_file(epoch: u32, first_id: FrameId, bytes: u64) -> Self {
        Self {
            epoch,
            first_id,
            bytes,
            frames: 0,
            step_us: 0,
            active: false,
            unclosed_at: None,
            held: None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Index {
    tracks: BTreeMap<(u32, CameraId), Track>,
    segments: BTreeMap<u32, SegmentInfo>,
}

impl Index {
    /// Takes in a segment; `entries` in order of id.
    pub(crate) fn add_segment(&mut self, number: u32, info: SegmentInfo, entries: &[Located]) {
        self.segments.insert(number, SegmentInfo { frames: 0, held: None, ..info });
        for entry in entries {
            self.add_frame(number, entry);
        }
        for track in self.tracks.values_mut() {
            track.shrink_last();
        }
    }

    /// Takes in a frame at the end of segment `number`.
    pub(crate) fn add_frame(&mut self, number: u32, entry: &Located) {
        let Some(info) = self.segments.get_mut(&number) else { return };
        let frame = FrameRef { id: entry.id, media_time: entry.media_time };
        info.frames += 1;
        info.held = Some((info.held.map_or(frame, |(first, _)| first), frame));
        self.tracks.entry((info.epoch, entry.camera)).or_default().push(number, entry);
    }

    /// Forgets the frames of a segment but not yet its file; returns how many they were.
    pub(crate) fn clear_segment(&mut self, number: u32) -> u64 {
        let Some(info) = self.segments.get_mut(&number) else { return 0 };
        let (epoch, frames) = (info.epoch, std::mem::take(&mut info.frames));
        info.held = None;
        for camera in self.cameras(epoch) {
            let track = self.tracks.entry((epoch, camera)).or_default();
            track.remove(number);
            if track.is_empty() {
                self.tracks.remove(&(epoch, camera));
            }
        }
        frames
    }

    /// Forgets a segment's file, which must have been cleared.
    pub(crate) fn remove_segment(&mut self, number: u32) {
        self.clear_segment(number);
        self.segments.remove(&number);
    }

    /// Replaces the frames of a segment by the sparser `entries` of its new file.
    pub(crate) fn replace_segment(
        &mut self,
        number: u32,
        bytes: u64,
        step_us: u64,
        entries: &[Located],
    ) {
        let Some(info) = self.segments.get_mut(&number) else { return };
        let epoch = info.epoch;
        let frame = |e: &Located| FrameRef { id: e.id, media_time: e.media_time };
        let held = entries.first().map(frame).zip(entries.last().map(frame));
        let frames = entries.len() as u64;
        *info = SegmentInfo { bytes, step_us, frames, held, unclosed_at: None, ..*info };
        for camera in self.cameras(epoch) {
            let of_camera = entries.iter().filter(|e| e.camera == camera);
            self.tracks.entry((epoch, camera)).or_default().replace(number, of_camera);
        }
        self.tracks.retain(|_, track| !track.is_empty());
    }

    pub(crate) fn segment(&self, number: u32) -> Option<&SegmentInfo> {
        self.segments.get(&number)
    }

    pub(crate) fn segment_mut(&mut self, number: u32) -> Option<&mut SegmentInfo> {
        self.segments.get_mut(&number)
    }

    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = (u32, &SegmentInfo)> {
        self.segments.iter().map(|(&number, info)| (number, info))
    }

    /// Bytes of all segment files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|s| s.bytes).sum()
    }

    pub(crate) fn track(&self, epoch: u32, camera: CameraId) -> Option<&Track> {
        self.tracks.get(&(epoch, camera))
    }

    pub(crate) fn locate(&self, id: FrameId) -> Option<Place> {
        let of_epoch = (id.epoch(), CameraId(0))..=(id.epoch(), CameraId(u16::MAX));
        self.tracks.range(of_epoch).find_map(|(_, track)| track.locate(id))
    }

    /// The frames of a segment in order of id.
    pub(crate) fn entries(&self, number: u32) -> Vec<Located> {
        let Some(info) = self.segments.get(&number) else { return Vec::new() };
        let mut entries: Vec<Located> = self
            .cameras(info.epoch)
            .into_iter()
            .flat_map(|camera| self.tracks[&(info.epoch, camera)].entries(number, camera))
            .collect();
        entries.sort_unstable_by_key(|e| e.id);
        entries
    }

    /// For each camera of a segment's epoch, the last frame before that segment.
    pub(crate) fn last_before(&self, number: u32) -> BTreeMap<CameraId, MediaTime> {
        let Some(info) = self.segments.get(&number) else { return BTreeMap::new() };
        let last = |camera| self.tracks[&(info.epoch, camera)].last_before(number);
        self.cameras(info.epoch).into_iter().filter_map(|c| Some((c, last(c)?))).collect()
    }

    /// The segments with their ages, oldest first. The age of earlier epochs counts only the time
    /// that the epochs since then are seen to have lasted: how long the power was off is unknown,
    /// so it is a lower bound.
    pub(crate) fn ages(&self, thinning: &Thinning) -> Vec<SegmentAge> {
        let mut newest: Option<(u32, i64)> = None;
        let mut later_us = 0;
        let mut oldest_us = 0;
        let mut ages = Vec::with_capacity(self.segments.len());
        for (&number, info) in self.segments.iter().rev() {
            // A segment that holds nothing readable is only in the way.
            let mut age_us = i64::MAX;
            if let Some((first, last)) = info.held {
                let end_us = match newest {
                    Some((epoch, end_us)) if epoch == info.epoch => end_us,
                    before => {
                        let lasted = before.map_or(0, |(_, end)| end.saturating_sub(oldest_us));
                        later_us = i64::saturating_add(later_us, lasted.max(0));
                        newest = Some((info.epoch, last.media_time.0));
                        last.media_time.0
                    }
                };
                oldest_us = first.media_time.0;
                age_us = end_us.saturating_sub(last.media_time.0).saturating_add(later_us).max(0);
            }
            ages.push(SegmentAge {
                segment: number,
                bytes: info.bytes,
                step_us: info.step_us,
                due_step_us: thinning.step_us(age_us),
                active: info.active,
                empty: info.held.is_none(),
            });
        }
        ages.reverse();
        ages
    }

    fn cameras(&self, epoch: u32) -> Vec<CameraId> {
        let of_epoch = (epoch, CameraId(0))..=(epoch, CameraId(u16::MAX));
        self.tracks.range(of_epoch).map(|((_, camera), _)| *camera).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_camera::Span;
    use proptest::prelude::*;

    const CAMERA: CameraId = CameraId(0);

    /// An index of frames at `times` (µs), `per_segment` to a segment, ids from 100.
    fn index_of(times: &[i64], per_segment: usize) -> Index {
        let mut index = Index::default();
        for (segment, times) in times.chunks(per_segment).enumerate() {
            let located = |(i, &us): (usize, &i64)| Located {
                id: FrameId((100 + segment * per_segment + i) as u64),
                media_time: MediaTime(us),
                camera: CAMERA,
                offset: 64 + 16 * i as u32,
            };
            let entries: Vec<Located> = times.iter().enumerate().map(located).collect();
            index.add_segment(segment as u32, info(0), &entries);
        }
        index
    }

    fn info(epoch: u32) -> SegmentInfo {
        SegmentInfo { bytes: 1000, ..SegmentInfo::of_file(epoch, FrameId(0), 0) }
    }

    fn span(start: i64, end: i64) -> Span {
        Span::new(MediaTime(start), MediaTime(end))
    }

    fn times(frames: &[FrameRef]) -> Vec<i64> {
        frames.iter().map(|f| f.media_time.0).collect()
    }

    #[test]
    fn grid_points_lie_in_the_middle_of_equal_parts() {
        let index = index_of(&(0..100).map(|i| i * 10).collect::<Vec<_>>(), 7);
        let track = index.track(0, CAMERA).unwrap();
        assert_eq!(times(&track.nearest_to_grid(span(0, 1000), 4)), [120, 370, 620, 870]);
        assert_eq!(times(&track.nearest_to_grid(span(0, 20), 4)), [0, 10]);
        assert_eq!(times(&track.nearest_to_grid(span(5000, 6000), 4)), Vec::<i64>::new());
        assert_eq!(times(&track.nearest_to_grid(span(10, 10), 4)), Vec::<i64>::new());
        assert_eq!(times(&track.nearest_to_grid(span(0, 1000), 0)), Vec::<i64>::new());
        assert_eq!(track.nearest_to_grid(span(i64::MIN, i64::MAX), 200).len(), 100);
    }

    #[test]
    fn asked_times_find_the_nearest_frame_that_is_allowed_once() {
        let index = index_of(&[0, 100, 200, 300, 400], 2);
        let track = index.track(0, CAMERA).unwrap();
        let ask = |asked: &[i64], allowed| {
            let asked: Vec<MediaTime> = asked.iter().map(|&t| MediaTime(t)).collect();
            times(&track.nearest_to_times(&asked, allowed))
        };
        assert_eq!(ask(&[351, 149, 150, 151], span(0, 500)), [100, 200, 400]);
        assert_eq!(ask(&[-999, 999], span(100, 400)), [100, 300]);
        assert_eq!(ask(&[100], span(101, 200)), Vec::<i64>::new());
    }

    #[test]
    fn a_segment_that_thins_or_goes_leaves_the_others_findable() {
        let mut index = index_of(&(0..12).map(|i| i * 10).collect::<Vec<_>>(), 4);
        let sparser: Vec<Located> = index.entries(1).into_iter().step_by(3).collect();
        index.replace_segment(1, 500, 30, &sparser);
        let whole = span(0, 1000);
        let held =
            |index: &Index| times(&index.track(0, CAMERA).unwrap().nearest_to_grid(whole, 99));
        assert_eq!(held(&index), [0, 10, 20, 30, 40, 70, 80, 90, 100, 110]);
        assert_eq!(index.locate(FrameId(105)), None);
        assert_eq!(index.locate(FrameId(107)), Some(Place { segment: 1, offset: 112 }));
        assert_eq!(index.clear_segment(0), 4);
        assert_eq!(held(&index), [40, 70, 80, 90, 100, 110]);
        index.remove_segment(1);
        index.remove_segment(0);
        assert_eq!(held(&index), [80, 90, 100, 110]);
        assert_eq!(index.locate(FrameId(108)), Some(Place { segment: 2, offset: 64 }));
        assert_eq!(index.bytes(), 1000);
    }

    #[test]
    fn age_counts_on_through_earlier_epochs() {
        let mut index = Index::default();
        let frame = |epoch, n, us| Located {
            id: FrameId::new(epoch, n),
            media_time: MediaTime(us),
            camera: CAMERA,
            offset: 64,
        };
        index.add_segment(0, info(1), &[frame(1, 0, 0), frame(1, 1, 50_000_000)]);
        index.add_segment(1, info(1), &[frame(1, 2, 60_000_000), frame(1, 3, 90_000_000)]);
        index.add_segment(2, info(2), &[frame(2, 0, 5_000_000), frame(2, 1, 25_000_000)]);
        index.add_segment(3, info(2), &[]);
        let thinning = Thinning { full_s: 15.0, hour_step_s: 1.0, hours_s: 55.0, day_step_s: 10.0 };
        let due: Vec<u64> = index.ages(&thinning).iter().map(|age| age.due_step_us).collect();
        // Ages 60 s, 20 s, 0 s, and nothing in it.
        assert_eq!(due, [10_000_000, 1_000_000, 0, 10_000_000]);
    }

    /// The definition, by trying every frame: O(n · frames).
    fn grid_by_brute_force(sorted: &[i64], span: Span, n: usize) -> Vec<i64> {
        let mut inside: Vec<i64> =
            sorted.iter().copied().filter(|&t| span.contains(MediaTime(t))).collect();
        let n = n.min(inside.len());
        let mut chosen = Vec::new();
        for i in 0..n {
            let length = i128::from(span.end.0 - span.start.0);
            let point = span.start.0 + (length * (2 * i as i128 + 1) / (2 * n as i128)) as i64;
            let choice = (0..=inside.len() - (n - i)).min_by_key(|&k| inside[k].abs_diff(point));
            let choice = choice.expect("a frame is left for every point");
            chosen.push(inside[choice]);
            inside.drain(..=choice);
        }
        chosen
    }

    proptest! {
        #[test]
        fn find_gives_what_trying_every_frame_gives(
            mut sorted in prop::collection::vec(0i64..2_000, 0..120),
            per_segment in 1usize..20,
            start in -100i64..2_100,
            length in 0i64..2_500,
            n in 0usize..40,
        ) {
            sorted.sort_unstable();
            sorted.dedup();
            let index = index_of(&sorted, per_segment);
            let span = span(start, start + length);
            let found = index
                .track(0, CAMERA)
                .map_or(Vec::new(), |track| track.nearest_to_grid(span, n));
            prop_assert_eq!(times(&found), grid_by_brute_force(&sorted, span, n));
            prop_assert!(found.is_sorted_by(|a, b| a.id < b.id));
            for frame in found {
                let rank = sorted.binary_search(&frame.media_time.0).unwrap();
                prop_assert_eq!(frame.id, FrameId(100 + rank as u64));
            }
        }

        #[test]
        fn a_dense_span_gives_plainly_the_nearest_frame_to_each_grid_point(
            jitter in prop::collection::vec(-40i64..40, 200),
            n in 1usize..20,
        ) {
            let sorted: Vec<i64> =
                jitter.iter().enumerate().map(|(i, j)| i as i64 * 100 + j).collect();
            let index = index_of(&sorted, 13);
            let span = span(0, 20_000);
            let found = index.track(0, CAMERA).unwrap().nearest_to_grid(span, n);
            let plainly: Vec<i64> = (0..n as i64)
                .map(|i| 20_000 * (2 * i + 1) / (2 * n as i64))
                .map(|point| *sorted.iter().min_by_key(|t| t.abs_diff(point)).unwrap())
                .collect();
            prop_assert_eq!(times(&found), plainly);
        }
    }
}
