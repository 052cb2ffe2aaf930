//! How long to wait after a failure: exponentially longer, with full jitter.
//!
//! A fleet that lost its server comes back all at once; without chance in the waits it would ask all
//! at once, again and again. `wait = uniform(0, min(cap, base · 2^failures))` (Brooker, "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015) spreads it evenly.

use std::time::Duration;

/// Waits between tries; pure, the dice are the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

/// A server may not silence a camera for longer, whatever it asks for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(3600);

impl Backoff {
    /// The first wait is at most `base`, and none is longer than `cap` unless the server asks for it.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The wait after one more failure. `dice` is drawn evenly from 0 to 1; `asked` is what the
    /// server asked for (`Retry-After`), up to [`LONGEST_ASKED`]: the wait is then not shorter, and
    /// by chance longer, or all whom it asked would come back in the same second.
    pub fn failed(&mut self, dice: f64, asked: Option<Duration>) -> Duration {
        let doubled = self.base.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let spread = doubled.min(self.cap).mul_f64(dice.clamp(0.0, 1.0));
        asked.map_or(spread, |asked| asked.min(LONGEST_ASKED) + spread)
    }

    /// It went well: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since it last went well.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(S, 300 * S);
        let longest: Vec<u64> = (0..12).map(|_| backoff.failed(1.0, None).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0, None), S);
        assert_eq!(backoff.failed(0.0, None), Duration::ZERO);
    }

    #[test]
    fn failures_without_end_neither_overflow_nor_wait_longer() {
        let mut backoff = Backoff::new(S, 300 * S);
        for _ in 0..1000 {
            assert!(backoff.failed(0.999, None) < 300 * S);
        }
        assert_eq!(backoff.failures(), 1000);
    }

    #[test]
    fn a_thousand_cameras_spread_over_the_whole_wait() {
        let mut tenths = [0; 10];
        for camera in 0..1000 {
            let mut backoff = Backoff::new(S, 300 * S);
            (0..9).for_each(|_| _ = backoff.failed(0.5, None));
            let wait = backoff.failed((f64::from(camera) + 0.5) / 1000.0, None);
            tenths[(wait.as_secs_f64() / 30.0) as usize] += 1;
        }
        assert_eq!(tenths, [100; 10]);
    }

    #[test]
    fn what_the_server_asks_for_is_waited_at_least_and_for_an_hour_at_most() {
        let mut backoff = Backoff::new(S, 300 * S);
        assert_eq!(backoff.failed(0.0, Some(60 * S)), 60 * S);
        assert_eq!(backoff.failed(1.0, Some(60 * S)), 62 * S);
        assert_eq!(backoff.failed(0.0, Some(Duration::MAX)), LONGEST_ASKED);
    }
}
