//! How the store forgets: which segment becomes sparser, which goes. Pure; `ring.rs` does it.

use crate::format::Located;
use hal_camera::{CameraId, MediaTime};
use std::collections::BTreeMap;

/// How density falls with age, once the store is full: every frame for `full_s`, then at most one
/// per `hour_step_s` until the age of `hours_s`, then at most one per `day_step_s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thinning {
    /// Up to this age every frame is kept. Default 600 s: ten minutes to look back at full rate.
    pub full_s: f64,
    /// Beyond it, one frame per this time. Default 1 s, which still shows who stood where.
    pub hour_step_s: f64,
    /// Up to this age. Default 7,200 s: with the default bound and 20 kB frames at 8 a second,
    /// full rate and two hours take half of the disk, and the other half lasts a day and a half.
    pub hours_s: f64,
    /// Beyond it, one frame per this time. Default 10 s.
    pub day_step_s: f64,
}

impl Default for Thinning {
    fn default() -> Self {
        Self { full_s: 600.0, hour_step_s: 1.0, hours_s: 7_200.0, day_step_s: 10.0 }
    }
}

impl Thinning {
    /// The step, in µs, that footage of this age may be thinned to; 0: not at all.
    pub(crate) fn step_us(&self, age_us: i64) -> u64 {
        let age_s = age_us as f64 / 1e6;
        let step_s = match age_s {
            _ if age_s <= self.full_s => 0.0,
            _ if age_s <= self.hours_s => self.hour_step_s,
            _ => self.day_step_s,
        };
        (step_s * 1e6) as u64
    }

    pub(crate) fn fault(&self) -> Option<String> {
        let ordered = self.full_s >= 0.0 && self.hours_s >= self.full_s;
        let steps = self.hour_step_s >= 1e-6 && self.day_step_s >= self.hour_step_s;
        (!(ordered && steps && self.day_step_s <= 1e9)).then(|| {
            format!(
                "{self:?}: ages and steps must be positive and must not fall from left to right"
            )
        })
    }
}

/// What the planner knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SegmentAge {
    pub segment: u32,
    pub bytes: u64,
    /// The step that it was thinned to.
    pub step_us: u64,
    /// The step that its age allows.
    pub due_step_us: u64,
    /// Being written.
    pub active: bool,
    /// Holds no frame that can be read.
    pub empty: bool,
}

/// What to do next to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// There is room.
    Fits,
    /// Rewrite the segment so that it holds at most one frame per step.
    Thin { segment: u32, step_us: u64 },
    /// Remove the segment.
    Drop { segment: u32 },
    /// There is nothing left to give up.
    Stuck,
}

/// The next step towards `needed` free bytes below `bytes_max`: first what holds nothing goes, then
/// the oldest that is due is thinned, and if none is due the oldest goes.
/// `segments` are in order of age, the oldest first.
pub(crate) fn plan(segments: &[SegmentAge], needed: u64, bytes_max: u64) -> Plan {
    let held: u64 = segments.iter().map(|s| s.bytes).sum();
    if held.saturating_add(needed) <= bytes_max {
        return Plan::Fits;
    }
    let closed = || segments.iter().filter(|s| !s.active);
    if let Some(empty) = closed().find(|s| s.empty) {
        return Plan::Drop { segment: empty.segment };
    }
    match (closed().find(|s| s.step_us < s.due_step_us), closed().next()) {
        (Some(due), _) => Plan::Thin { segment: due.segment, step_us: due.due_step_us },
        (None, Some(oldest)) => Plan::Drop { segment: oldest.segment },
        (None, None) => Plan::Stuck,
    }
}

/// Of `entries` (one segment, in order of id) those that stay when each camera keeps at most one
/// frame per step: the first in each cell of a fixed grid, so that thinning what is thin changes
/// nothing. `before` has each camera's last frame in earlier segments, which may be in the same
/// cell.
pub(crate) fn sparser(
    entries: &[Located],
    step_us: u64,
    before: &BTreeMap<CameraId, MediaTime>,
) -> Vec<Located> {
    let cell = |time: MediaTime| time.0.div_euclid(step_us.clamp(1, i64::MAX as u64) as i64);
    let mut last: BTreeMap<CameraId, i64> =
        before.iter().map(|(&camera, &time)| (camera, cell(time))).collect();
    let first_in_cell = |entry: &&Located| {
        let cell = cell(entry.media_time);
        last.insert(entry.camera, cell) != Some(cell)
    };
    entries.iter().filter(first_in_cell).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameId;

    fn segment(segment: u32, step_us: u64, due_step_us: u64) -> SegmentAge {
        SegmentAge { segment, bytes: 100, step_us, due_step_us, active: false, empty: false }
    }

    #[test]
    fn the_oldest_that_is_due_thins_before_anything_goes() {
        let active = SegmentAge { active: true, ..segment(9, 0, 0) };
        let empty = SegmentAge { empty: true, ..segment(4, 0, 10) };
        for (segments, needed, expected) in [
            (vec![segment(1, 0, 10), active], 100, Plan::Fits),
            (vec![segment(1, 0, 10), active], 101, Plan::Thin { segment: 1, step_us: 10 }),
            (
                vec![segment(1, 10, 10), segment(2, 1, 10), segment(3, 0, 1)],
                101,
                Plan::Thin { segment: 2, step_us: 10 },
            ),
            (vec![segment(1, 10, 10), segment(2, 0, 0), active], 1, Plan::Drop { segment: 1 }),
            (vec![segment(1, 0, 10), empty, active], 1, Plan::Drop { segment: 4 }),
            (vec![active], 250, Plan::Stuck),
        ] {
            assert_eq!(plan(&segments, needed, 300), expected, "{segments:?} {needed}");
        }
    }

    #[test]
    fn steps_follow_age() {
        let thinning = Thinning::default();
        let step = |s: i64| thinning.step_us(s * 1_000_000);
        assert_eq!(
            [step(600), step(601), step(7_200), step(7_201)],
            [0, 1_000_000, 1_000_000, 10_000_000]
        );
        assert!(thinning.fault().is_none());
        assert!(Thinning { hours_s: f64::NAN, ..thinning }.fault().is_some());
        assert!(Thinning { hours_s: 5.0, ..thinning }.fault().is_some());
    }

    #[test]
    fn each_camera_keeps_one_frame_per_step_and_thinning_again_changes_nothing() {
        let entries: Vec<Located> = (0..40)
            .map(|i| Located {
                id: FrameId(i),
                media_time: MediaTime(i as i64 / 2 * 125_000),
                camera: CameraId(i as u16 % 2),
                offset: 64 + 16 * i as u32,
            })
            .collect();
        let thin = sparser(&entries, 1_000_000, &BTreeMap::new());
        let ids: Vec<u64> = thin.iter().map(|e| e.id.0).collect();
        assert_eq!(ids, [0, 1, 16, 17, 32, 33]);
        assert_eq!(sparser(&thin, 1_000_000, &BTreeMap::new()), thin);
        let before = BTreeMap::from([(CameraId(0), MediaTime(0)), (CameraId(1), MediaTime(-1))]);
        let ids: Vec<u64> = sparser(&entries, 1_000_000, &before).iter().map(|e| e.id.0).collect();
        assert_eq!(ids, [1, 16, 17, 32, 33]);
    }
}
