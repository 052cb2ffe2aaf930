//! How the wall clock goes beside the media clock: what it is set by, and how fast it runs away. Pure.

use crate::Now;
use std::collections::VecDeque;
use std::fmt;

/// A smaller jump is no step: no time daemon sets a clock for less (systemd-timesyncd from 0.4 s,
/// chrony from 1 s), and the two clocks are read one after the other by a thread that may be
/// interrupted between.
const STEP_US: i64 = 250_000;
/// Between two looks at the clocks.
const EVERY_S: f64 = 1.0;
/// Between two that are kept, and for how long. A millisecond of jitter is 1 ppm of a quarter hour.
const KEPT_EVERY_S: f64 = 10.0;
const WINDOW_S: f64 = 900.0;
/// Below this length of footing nothing is said of the rate.
const SHORTEST_S: f64 = 300.0;
/// The kernel slews by 500 ppm at most, and both clocks with it: a wall clock that leaves the media
/// clock faster than that is set again and again by somebody.
const RUNS_PPM: f64 = 500.0;
/// It is told as over below this.
const STEADY_PPM: f64 = 250.0;

/// What happened to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClockChange {
    /// It was set, by so many µs (negative: back).
    Step {
        /// By how much.
        by_us: i64,
    },
    /// It runs away from the media clock, by so many millionths (negative: it falls behind).
    Runs {
        /// How fast.
        ppm: f64,
    },
    /// It does so no more.
    Steady {
        /// How fast it still runs.
        ppm: f64,
    },
}

impl fmt::Display for ClockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forward = |ahead: bool| if ahead { "forward" } else { "back" };
        match *self {
            Self::Step { by_us } => write!(
                f,
                "the wall clock was set {} by {:.1} s; what was recorded before keeps its old time",
                forward(by_us > 0),
                by_us.unsigned_abs() as f64 / 1e6
            ),
            Self::Runs { ppm } => write!(
                f,
                "the wall clock is set {} again and again, by {:.0} ppm: see to it that only one \
                 program sets it",
                forward(ppm > 0.0),
                ppm.abs()
            ),
            Self::Steady { ppm } => {
                write!(f, "the wall clock is steady again, within {:.0} ppm", ppm.abs())
            }
        }
    }
}

/// Follows the wall clock beside the media clock. Media time is that of the frames of every device,
/// so one of these is enough for all cameras of a board.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    last: Option<Now>,
    /// A look that was a step away from the last one; the next look says whether it was one.
    suspect: Option<Now>,
    kept: VecDeque<Now>,
    runs: bool,
}

impl Drift {
    /// Looks at the clocks; what has happened to the wall clock, if anything. Looks that come sooner
    /// than a second after the last one are passed over.
    pub fn look(&mut self, now: Now) -> Option<ClockChange> {
        let Some(last) = self.last else {
            self.begin(now);
            return None;
        };
        if now.media.since_s(last.media) < EVERY_S {
            return None;
        }
        let jump = offset_us(now) - offset_us(last);
        if jump.abs() < STEP_US {
            self.suspect = None;
            self.last = Some(now);
            return self.keep(now);
        }
        // Twice the same, or it was the reading that was interrupted and not the clock.
        let again = |suspect: Now| (offset_us(now) - offset_us(suspect)).abs() < STEP_US;
        if self.suspect.replace(now).is_some_and(again) {
            self.begin(now);
            return Some(ClockChange::Step { by_us: jump });
        }
        None
    }

    /// How fast the wall clock runs away from the media clock, in millionths, by the last quarter
    /// hour without a step; `None` while there are less than five minutes of it.
    pub fn ppm(&self) -> Option<f64> {
        let (first, last) = (self.kept.front()?, self.kept.back()?);
        if last.media.since_s(first.media) < SHORTEST_S {
            return None;
        }
        // The slope of the line nearest to all of them. From the first on, so that the sums are exact.
        let points = self.kept.iter().map(|now| {
            let offset = (offset_us(*now) - offset_us(*first)) as f64;
            (now.media.since_s(first.media), offset)
        });
        let n = self.kept.len() as f64;
        let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (xy, xx) = points.fold((0.0, 0.0), |(xy, xx), (x, y)| {
            (xy + (x - mean_x) * (y - mean_y), xx + (x - mean_x) * (x - mean_x))
        });
        Some(xy / xx)
    }

    fn begin(&mut self, now: Now) {
        self.kept.clear();
        self.kept.push_back(now);
        (self.last, self.suspect) = (Some(now), None);
    }

    fn keep(&mut self, now: Now) -> Option<ClockChange> {
        let newest = self.kept.back()?;
        if now.media.since_s(newest.media) < KEPT_EVERY_S {
            return None;
        }
        self.kept.push_back(now);
        while self.kept.front().is_some_and(|old| now.media.since_s(old.media) > WINDOW_S) {
            self.kept.pop_front();
        }
        let ppm = self.ppm()?;
        let change = match self.runs {
            false if ppm.abs() >= RUNS_PPM => ClockChange::Runs { ppm },
            true if ppm.abs() < STEADY_PPM => ClockChange::Steady { ppm },
            _ => return None,
        };
        self.runs = !self.runs;
        Some(change)
    }
}

/// The wall clock's lead over the media clock.
fn offset_us(now: Now) -> i64 {
    now.wall.unix_us - now.media.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_camera::{ClockQuality, MediaTime, WallTime};

    fn now(media_s: f64, lead_s: f64) -> Now {
        let unix_us = 1_700_000_000_000_000 + ((media_s + lead_s) * 1e6) as i64;
        let wall = WallTime { unix_us, quality: ClockQuality::Ntp };
        Now { media: MediaTime::from_s(media_s), wall }
    }

    /// The changes, with the second of each, that are told of a wall clock whose lead over the media
    /// clock at each second is `lead_s`.
    fn told(seconds: i32, lead_s: impl Fn(f64) -> f64) -> (Vec<(f64, ClockChange)>, Drift) {
        let mut drift = Drift::default();
        let moments = (0..seconds).map(f64::from);
        let changes = moments.filter_map(|s| Some((s, drift.look(now(s, lead_s(s)))?))).collect();
        (changes, drift)
    }

    #[test]
    fn a_step_is_told_once_with_its_size_and_the_second_look_at_it() {
        for by_s in [3600.0, 0.3, -0.3, -7200.5] {
            let (changes, _) = told(60, |s| if s >= 30.0 { by_s } else { 0.0 });
            let by_us = (by_s * 1e6) as i64;
            assert_eq!(changes, [(31.0, ClockChange::Step { by_us })]);
        }
        let (twice, _) = told(90, |s| f64::from((s >= 30.0) as u8) + f64::from((s >= 60.0) as u8));
        assert_eq!(twice.len(), 2, "{twice:?}");
    }

    #[test]
    fn a_reading_that_was_interrupted_is_no_step() {
        let (changes, _) = told(600, |s| if s % 50.0 == 7.0 { 4.0 } else { 0.0 });
        assert_eq!(changes, []);
        // Nor are two that were, each for another time.
        let (changes, _) = told(60, |s| {
            if s == 7.0 {
                4.0
            } else if s == 8.0 {
                9.0
            } else {
                0.0
            }
        });
        assert_eq!(changes, []);
    }

    #[test]
    fn small_jumps_and_jitter_are_no_step() {
        let (changes, drift) = told(2000, |s| if s as i32 % 3 == 0 { 0.02 } else { 0.0 });
        assert_eq!(changes, []);
        assert!(drift.ppm().unwrap().abs() < 10.0, "{:?}", drift.ppm());
    }

    #[test]
    fn the_rate_is_that_of_the_last_quarter_hour_and_unknown_at_first() {
        assert_eq!(told(300, |_| 0.0).1.ppm(), None);
        let (_, drift) = told(400, |s| s * 40e-6);
        assert!((drift.ppm().unwrap() - 40.0).abs() < 0.1, "{:?}", drift.ppm());
        // It was fast, and is slow.
        let (changes, drift) =
            told(3000, |s| if s < 1500.0 { s * 100e-6 } else { 0.15 - (s - 1500.0) * 60e-6 });
        assert!((drift.ppm().unwrap() + 60.0).abs() < 0.1, "{:?}", drift.ppm());
        assert_eq!(changes, []);
        // A step begins the footing anew.
        let (_, drift) = told(500, |s| if s < 400.0 { 0.0 } else { 9.0 });
        assert_eq!(drift.ppm(), None);
        assert!(told(1_000_000, |_| 0.0).1.kept.len() < 100);
    }

    #[test]
    fn a_clock_that_is_set_again_and_again_is_told_and_so_is_its_end() {
        let lead = |s: f64| s.min(2000.0) * 800e-6;
        let (changes, _) = told(6000, lead);
        let words: Vec<String> = changes.iter().map(|(_, change)| change.to_string()).collect();
        assert_eq!(changes.len(), 2, "{words:?}");
        assert!((299.0..320.0).contains(&changes[0].0) && changes[1].0 > 2000.0, "{changes:?}");
        assert!(words[0].starts_with("the wall clock is set forward again and again, by 800 ppm"));
        assert!(words[1].starts_with("the wall clock is steady again, within 2"), "{words:?}");
    }

    #[test]
    fn looks_in_quick_succession_are_passed_over() {
        let mut drift = Drift::default();
        drift.look(now(0.0, 0.0));
        for s in [0.1, 0.2, 0.3] {
            assert_eq!(drift.look(now(s, 60.0)), None);
        }
        assert_eq!(drift.look(now(1.0, 60.0)), None);
        assert_eq!(drift.look(now(2.0, 60.0)), Some(ClockChange::Step { by_us: 60_000_000 }));
        assert_eq!(
            ClockChange::Step { by_us: -90_000_000 }.to_string(),
            "the wall clock was set back by 90.0 s; what was recorded before keeps its old time"
        );
    }
}
