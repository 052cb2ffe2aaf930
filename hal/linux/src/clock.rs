//! The two clocks of a Linux board, read together.

use hal_camera::{ClockQuality, MediaTime, WallTime};
use std::time::{SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// On the clock that V4L2 drivers stamp their buffers with (`CLOCK_MONOTONIC`).
    pub media: MediaTime,
    /// On the wall clock.
    pub wall: WallTime,
}

/// Where a camera gets the time from.
pub trait Clock: Send {
    /// The present moment.
    fn now(&self) -> Now;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Before 1970 only if the clock was never set: 0 then, and `unsynced` says the rest.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            media: MediaTime(monotonic.tv_sec * 1_000_000 + monotonic.tv_nsec / 1_000),
            wall: WallTime { unix_us: unix.as_micros() as i64, quality: clock_quality() },
        }
    }
}

/// Whether the kernel's clock is being disciplined, by whatever time daemon runs.
#[allow(unsafe_code)]
fn clock_quality() -> ClockQuality {
    // SAFETY: `timex` is a plain C struct for which all zeros is valid (modes = 0 only reads).
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for writes of a `timex` for the length of the call.
    let state = unsafe { libc::adjtimex(&mut timex) };
    if state == -1 || timex.status & libc::STA_UNSYNC != 0 {
        ClockQuality::Unsynced
    } else {
        ClockQuality::Ntp
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A clock that stands still until told otherwise.
    #[derive(Clone, Default)]
    pub(crate) struct FakeClock(pub Arc<Mutex<i64>>);

    impl FakeClock {
        pub(crate) fn advance_s(&self, seconds: f64) {
            *self.0.lock().unwrap() += (seconds * 1e6) as i64;
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Now {
            let us = *self.0.lock().unwrap();
            let wall = WallTime { unix_us: us, quality: ClockQuality::Unsynced };
            Now { media: MediaTime(us), wall }
        }
    }

    #[test]
    fn the_media_clock_never_runs_backwards() {
        let moments: Vec<_> = (0..1000).map(|_| SystemClock.now().media).collect();
        assert!(moments.is_sorted());
        assert!(SystemClock.now().wall.unix_us > 1_600_000_000_000_000);
    }
}
