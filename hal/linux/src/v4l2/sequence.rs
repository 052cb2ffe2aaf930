//! How many frames were lost before they were taken, by the device's own count of them. Pure.

use hal_camera::MediaTime;

/// Faster than any camera of this class: a gap of more frames than this rate makes in the time that
/// has passed is no gap, but a count that was begun anew.
const FASTEST_FPS: f64 = 240.0;
/// Gaps as small as this are believed at once: stamps are not exact, and two frames may come closer
/// together than they were taken.
const ALWAYS_BELIEVED: u32 = 4;

/// Follows the count of one stream. A stream made anew counts anew: take a new one with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    last: Option<(u32, MediaTime)>,
}

impl Sequence {
    /// Buffer number `number`, taken at `time`, has come; how many frames the device has counted
    /// since the one before it, and nobody got.
    pub fn came(&mut self, number: u32, time: MediaTime) -> u64 {
        let Some((last, then)) = self.last.replace((number, time)) else { return 0 };
        // The count wraps; a driver that does not count says 0 for ever.
        let Some(gap) = number.wrapping_sub(last).checked_sub(1) else { return 0 };
        let at_most = FASTEST_FPS * time.since_s(then).max(0.0);
        if gap <= ALWAYS_BELIEVED || f64::from(gap) <= at_most { gap.into() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_counts_begun_anew_are_not() {
        // (number, taken at) of each buffer, and how many were lost before it.
        type Buffers<'a> = &'a [(u32, f64, u64)];
        let cases: [(&str, Buffers<'_>); 7] = [
            ("in a row", &[(0, 0.0, 0), (1, 0.04, 0), (2, 0.08, 0)]),
            ("from the middle", &[(700, 0.0, 0), (701, 0.04, 0)]),
            ("gaps", &[(0, 0.0, 0), (2, 0.08, 1), (3, 0.12, 0), (13, 0.52, 9)]),
            ("the wrap", &[(u32::MAX - 1, 0.0, 0), (u32::MAX, 0.04, 0), (1, 0.12, 1)]),
            ("begun anew", &[(900, 0.0, 0), (0, 0.04, 0), (1, 0.08, 0), (3, 0.16, 1)]),
            ("no count", &[(0, 0.0, 0), (0, 0.04, 0), (0, 0.08, 0)]),
            // Four came from before the pause of a minute, at 25 a second.
            ("a long pause", &[(10, 1.0, 0), (11, 1.04, 0), (1500, 60.6, 1488), (1501, 60.64, 0)]),
        ];
        for (what, buffers) in cases {
            let mut sequence = Sequence::default();
            for &(number, time, lost) in buffers {
                let came = sequence.came(number, MediaTime::from_s(time));
                assert_eq!(came, lost, "{what}: {number} at {time}");
            }
        }
    }

    #[test]
    fn a_jump_that_no_camera_makes_in_the_time_is_no_loss() {
        let mut sequence = Sequence::default();
        sequence.came(5, MediaTime::from_s(1.0));
        assert_eq!(sequence.came(100_000, MediaTime::from_s(1.04)), 0);
        // Two that come at once are believed, also where their stamps are out of order.
        assert_eq!(sequence.came(100_003, MediaTime::from_s(1.03)), 2);
    }
}
