//! From the time stamps of buffers to media time, and from the camera's frame rate to ours. Pure.

use hal_camera::MediaTime;

/// A stamp older than this cannot be of a frame just delivered: buffers wait at most for the
/// time-out of the stream, twice that with a slow consumer.
const OLDEST_S: f64 = 5.0;
/// uvcvideo estimates stamps from the camera's own clock and can be a little ahead of ours.
const NEWEST_S: f64 = 0.1;

/// The media time of a frame. `stamp` is the driver's own on the monotonic clock, or `None` if it
/// gave one of another kind; a stamp that cannot be true is replaced by `now`, and the result is
/// always later than `last`.
pub(super) fn media_time(
    stamp: Option<MediaTime>,
    now: MediaTime,
    last: Option<MediaTime>,
) -> MediaTime {
    let believable = |stamp: &MediaTime| (-NEWEST_S..OLDEST_S).contains(&now.since_s(*stamp));
    let time = stamp.filter(believable).unwrap_or(now).min(now);
    last.map_or(time, |last| time.max(MediaTime(last.0 + 1)))
}

/// Thins a camera's frames to the rate asked for, for cameras that cannot be told it.
#[derive(Clone, Debug)]
pub(super) struct Thinning {
    period_us: i64,
    due: Option<MediaTime>,
}

impl Thinning {
    /// To at most `fps` frames a second on average.
    pub fn to(fps: f64) -> Self {
        Self { period_us: (1e6 / fps) as i64, due: None }
    }

    /// Whether the frame taken at `time` is to be delivered.
    pub fn keep(&mut self, time: MediaTime) -> bool {
        let due = self.due.unwrap_or(time);
        // A frame up to a quarter period early is kept: a camera set to exactly our rate jitters
        // around it, and the one that set the beat may have been late itself. The average stays.
        if time.0 < due.0 - self.period_us / 4 {
            return false;
        }
        // From the time it was due, so that the average is right; after a gap, from now.
        let next = due.0 + self.period_us;
        self.due = Some(MediaTime(if next > time.0 { next } else { time.0 + self.period_us }));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> MediaTime {
        MediaTime::from_s(seconds)
    }

    #[test]
    fn a_believable_stamp_is_taken_and_any_other_replaced_by_now() {
        let now = at(100.0);
        for (stamp, expected) in [
            (Some(at(99.95)), at(99.95)),
            (Some(at(96.0)), at(96.0)),
            (Some(at(100.05)), now),
            (Some(at(101.0)), now),
            (Some(at(3.0)), now),
            (Some(at(0.0)), now),
            (None, now),
        ] {
            assert_eq!(media_time(stamp, now, None), expected, "{stamp:?}");
        }
    }

    #[test]
    fn media_time_always_advances() {
        let last = Some(at(100.0));
        assert_eq!(media_time(Some(at(99.9)), at(100.0), last), MediaTime(100_000_001));
        assert_eq!(media_time(None, at(99.0), last), MediaTime(100_000_001));
        assert_eq!(media_time(Some(at(100.1)), at(100.2), last), at(100.1));
    }

    fn kept(camera_fps: f64, fps: f64, seconds: f64, jitter_s: f64) -> usize {
        let mut thinning = Thinning::to(fps);
        let jitter = |i: i32| jitter_s * f64::from(1 - i % 3);
        let times = (0..(camera_fps * seconds) as i32)
            .map(|i| at(10.0 + f64::from(i) / camera_fps + jitter(i)));
        times.filter(|&time| thinning.keep(time)).count()
    }

    #[test]
    fn frames_are_thinned_to_the_rate_asked_for() {
        assert_eq!(kept(25.0, 8.0, 100.0, 0.0), 800);
        assert_eq!(kept(30.0, 8.0, 100.0, 0.003), 800);
        assert_eq!(kept(30.0, 7.5, 100.0, 0.003), 750);
    }

    #[test]
    fn a_camera_no_faster_than_asked_for_loses_no_frame() {
        assert_eq!(kept(8.0, 8.0, 100.0, 0.01), 800);
        assert_eq!(kept(5.0, 8.0, 100.0, 0.01), 500);
    }

    #[test]
    fn after_a_gap_frames_do_not_come_in_a_burst() {
        let mut thinning = Thinning::to(8.0);
        assert!(thinning.keep(at(0.0)));
        assert!(thinning.keep(at(60.0)));
        assert!(!thinning.keep(at(60.04)));
        assert!(thinning.keep(at(60.125)));
    }
}
