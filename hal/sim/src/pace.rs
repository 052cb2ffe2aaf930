//! When the next frame of a simulated camera is due.

use std::time::Duration;

/// How fast a simulated camera delivers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// As fast as the caller asks.
    Max,
    /// So many seconds of the scene in each second.
    Times(f64),
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Due {
    /// Deliver frame `index`; those skipped were due before it and are lost.
    Now {
        /// Number of the frame, from 0.
        index: u64,
    },
    /// Ask again after a while.
    After(Duration),
}

/// The frame due `elapsed` after the first one was asked for, when `next` is the first that has not
/// been delivered. A caller that comes late gets the newest frame that is due, as from a real
/// camera: it loses frames, but what it sees is never old.
pub(crate) fn due(next: u64, elapsed: Duration, fps: f64, speed: Speed) -> Due {
    let Speed::Times(times) = speed else { return Due::Now { index: next } };
    let rate = fps * times;
    let newest = (elapsed.as_secs_f64() * rate).floor() as u64;
    if newest >= next {
        return Due::Now { index: newest };
    }
    let wait = next as f64 / rate - elapsed.as_secs_f64();
    // A microsecond more, so that rounding does not end the wait just before the frame is due.
    Due::After(Duration::from_secs_f64(wait.max(0.0)) + Duration::from_micros(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64, ms: u64, times: f64) -> Due {
        due(next, Duration::from_millis(ms), 8.0, Speed::Times(times))
    }

    #[test]
    fn a_frame_is_waited_for_until_it_is_due() {
        assert_eq!(at(0, 0, 1.0), Due::Now { index: 0 });
        let Due::After(wait) = at(1, 25, 1.0) else { panic!("frame 1 is due at 125 ms") };
        assert!((wait.as_secs_f64() - 0.1).abs() < 1e-5, "{wait:?}");
        assert_eq!(at(1, 126, 1.0), Due::Now { index: 1 });
    }

    #[test]
    fn a_late_caller_skips_frames_and_does_not_drift() {
        assert_eq!(at(1, 1001, 1.0), Due::Now { index: 8 });
        assert_eq!(at(9, 1126, 1.0), Due::Now { index: 9 });
    }

    #[test]
    fn speed_multiplies_the_rate_and_max_never_waits() {
        assert_eq!(at(1, 1001, 4.0), Due::Now { index: 32 });
        let immediately = due(7, Duration::ZERO, 8.0, Speed::Max);
        assert_eq!(immediately, Due::Now { index: 7 });
    }
}
