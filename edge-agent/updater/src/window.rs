//! The hours of the day at which policies may be fetched: pure.

use std::time::Duration;

const DAY_S: i64 = 86_400;

/// What is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no window: write HH:MM-HH:MM in UTC, such as \"01:00-05:00\", from one time to another"
)]
pub struct WindowError(String);

/// From a time of the day to another, in UTC; perhaps over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from_s: i64,
    lasts_s: i64,
}

impl Window {
    /// Reads `HH:MM-HH:MM`.
    ///
    /// # Errors
    /// [`WindowError`]
    pub fn parse(text: &str) -> Result<Self, WindowError> {
        let read = || {
            let (from, to) = text.split_once('-')?;
            let (from_s, to_s) = (time(from.trim())?, time(to.trim())?);
            let lasts_s = (to_s - from_s).rem_euclid(DAY_S);
            (lasts_s > 0).then_some(Self { from_s, lasts_s })
        };
        read().ok_or_else(|| WindowError(text.to_owned()))
    }

    /// Whether it is open at this time, in seconds since 1970.
    pub fn is_open(self, unix_s: i64) -> bool {
        (unix_s - self.from_s).rem_euclid(DAY_S) < self.lasts_s
    }

    /// How long from this time until it is open, and some more by `chance`, 0 to 1, within its first half: many
    /// cameras have the same.
    pub fn opens_in(self, unix_s: i64, chance: f64) -> Duration {
        if self.is_open(unix_s) {
            return Duration::ZERO;
        }
        let wait_s = (self.from_s - unix_s).rem_euclid(DAY_S) as f64;
        Duration::from_secs_f64(wait_s + self.lasts_s as f64 / 2.0 * chance.clamp(0.0, 1.0))
    }
}

/// Seconds after midnight of `HH:MM`.
fn time(text: &str) -> Option<i64> {
    let number = |text: &str, below: i64| -> Option<i64> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = text.parse().ok().filter(|_| digits)?;
        (number < below).then_some(number)
    };
    let (hours, minutes) = text.split_once(':')?;
    Some(number(hours, 24)? * 3600 + number(minutes, 60)? * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    /// Some midnight.
    const DAY: i64 = 20_000 * DAY_S;

    #[test]
    fn a_window_is_open_from_its_first_second_to_before_its_last() {
        let night = Window::parse("01:00-05:30").unwrap();
        for (at, open) in [
            (HOUR - 1, false),
            (HOUR, true),
            (5 * HOUR + 1799, true),
            (5 * HOUR + 1800, false),
            (23 * HOUR, false),
        ] {
            assert_eq!(night.is_open(DAY + at), open, "{at}");
            assert_eq!(night.is_open(at - DAY_S), open, "before 1970");
        }
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let night = Window::parse("22:00 - 04:00").unwrap();
        for (hour, open) in [(21, false), (22, true), (23, true), (0, true), (3, true), (4, false)]
        {
            assert_eq!(night.is_open(DAY + hour * HOUR), open, "{hour}");
        }
    }

    #[test]
    fn whoever_waits_comes_in_its_first_half() {
        let night = Window::parse("22:00-04:00").unwrap();
        assert_eq!(night.opens_in(DAY + 23 * HOUR, 0.9), Duration::ZERO);
        for chance in [0.0, 0.5, 1.0] {
            let wait = night.opens_in(DAY + 5 * HOUR, chance).as_secs() as i64;
            assert!((17 * HOUR..=20 * HOUR).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused_with_what_would_be_one() {
        for text in [
            "",
            "1-5",
            "01:00",
            "01:00-25:00",
            "01:60-02:00",
            "1:00-05:00",
            "03:00-03:00",
            "a-b",
            "+1:00-02:00",
        ] {
            let error = Window::parse(text).unwrap_err().to_string();
            assert!(error.contains("HH:MM-HH:MM") && error.contains(text), "{error}");
        }
    }
}
