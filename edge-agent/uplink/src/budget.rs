//! How many bytes may go over the line: a bucket that fills steadily; pure.

use std::time::Duration;

/// What may be sent. Time is any that does not run backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Bytes a second; `None`: no bound.
    per_s: Option<f64>,
    /// What may be sent now; below 0 after something urgent.
    bytes: f64,
    at: Duration,
}

/// What an idle line saves up, in seconds of its rate.
const SAVED_S: f64 = 600.0;

impl Budget {
    /// A full bucket at `now`. `per_hour` is in bytes; `None`: no bound.
    pub fn new(per_hour: Option<u64>, now: Duration) -> Self {
        let per_s = per_hour.map(|bytes| bytes as f64 / 3600.0);
        Self { per_s, bytes: per_s.unwrap_or(0.0) * SAVED_S, at: now }
    }

    /// How long until `bytes` may be sent; zero if they may now. More than is ever saved up may be
    /// sent when the bucket is full.
    pub fn wait(&mut self, bytes: usize, now: Duration) -> Duration {
        let Some(per_s) = self.per_s else { return Duration::ZERO };
        let full = per_s * SAVED_S;
        let since_s = now.saturating_sub(self.at).as_secs_f64();
        self.bytes = (self.bytes + since_s * per_s).min(full);
        self.at = self.at.max(now);
        let missing = (bytes as f64).min(full) - self.bytes;
        // Rounded up to a whole millisecond, or the last byte would be waited for again and again.
        let wait_ms = (missing / per_s * 1e3).ceil();
        if missing > 0.0 { Duration::from_millis(wait_ms.min(1e12) as u64) } else { Duration::ZERO }
    }

    /// `bytes` were sent, whether they might be or not.
    pub fn spent(&mut self, bytes: usize) {
        self.bytes -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_carries_its_rate_and_what_it_saved_up() {
        let s = Duration::from_secs;
        let mut budget = Budget::new(Some(3600), s(0));
        assert_eq!(budget.wait(600, s(0)), Duration::ZERO, "ten minutes are saved up");
        budget.spent(600);
        assert_eq!(budget.wait(10, s(0)), s(10));
        assert_eq!(budget.wait(10, s(10)), Duration::ZERO);
        budget.spent(100);
        assert_eq!(budget.wait(10, s(10)), s(100), "what was urgent is paid for later");
        assert_eq!(budget.wait(usize::MAX, s(10)), s(690), "or it would wait for ever");
        assert_eq!(budget.wait(600, s(100_000)), Duration::ZERO);
        assert!(budget.wait(601, s(100_000)).is_zero(), "a full bucket lets anything pass");
    }

    #[test]
    fn without_a_bound_nothing_waits() {
        let mut budget = Budget::new(None, Duration::ZERO);
        budget.spent(usize::MAX);
        assert!(budget.wait(usize::MAX, Duration::ZERO).is_zero());
    }
}
