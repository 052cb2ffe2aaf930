//! How often a camera delivers in one format and size, and which of its intervals to ask for. Pure.

use std::fmt;

/// A rate this much below the one asked for still counts as it: 29.97 for 30, 14.985 for 15.
pub(super) const TOLERANCE: f64 = 0.01;

/// Seconds from one frame to the next, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Above the line.
    pub numerator: u32,
    /// Below it.
    pub denominator: u32,
}

impl Interval {
    /// Of so many frames a second, to a thousandth.
    pub(super) fn of_fps(fps: f64) -> Self {
        Self { numerator: 1000, denominator: (fps * 1000.0).round() as u32 }
    }

    /// Frames a second; `None` for what is no interval, which a driver may say all the same.
    pub fn fps(self) -> Option<f64> {
        let Self { numerator, denominator } = self;
        (numerator > 0 && denominator > 0).then(|| f64::from(denominator) / f64::from(numerator))
    }
}

/// The rates of one format in one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FrameRates {
    /// The driver does not say; ask and see.
    #[default]
    Unknown,
    /// Exactly these intervals.
    Discrete(Vec<Interval>),
    /// Any between these intervals.
    Range {
        /// The shortest interval.
        fastest: Interval,
        /// The longest.
        slowest: Interval,
    },
}

impl FrameRates {
    /// Every rate that is told, frames a second, the fastest first; of a range its ends.
    pub fn fps(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = match self {
            Self::Unknown => Vec::new(),
            Self::Discrete(intervals) => intervals.iter().filter_map(|i| i.fps()).collect(),
            Self::Range { fastest, slowest } => {
                [fastest, slowest].iter().filter_map(|i| i.fps()).collect()
            }
        };
        rates.sort_by(|a, b| b.total_cmp(a));
        rates.dedup();
        rates
    }

    /// Whether `fps` frames a second can be had. Where the driver does not say, they may be.
    pub(super) fn reaches(&self, fps: f64) -> bool {
        self.fps().first().is_none_or(|&most| most >= fps * (1.0 - TOLERANCE))
    }

    /// The interval to ask for where `fps` frames a second are wanted: the longest with which they
    /// can be had, or else the shortest. Left to itself a driver takes the nearest, which may be
    /// too slow; what is too fast is thinned here.
    pub(super) fn interval(&self, fps: f64) -> Interval {
        let asked = Interval::of_fps(fps);
        match self {
            Self::Discrete(intervals) => {
                let told = || intervals.iter().filter_map(|&i| Some((i, i.fps()?)));
                let enough = told().filter(|(_, rate)| *rate >= fps * (1.0 - TOLERANCE));
                let slowest = enough.min_by(|a, b| a.1.total_cmp(&b.1));
                let best = slowest.or_else(|| told().max_by(|a, b| a.1.total_cmp(&b.1)));
                best.map_or(asked, |(interval, _)| interval)
            }
            Self::Range { fastest, slowest } => match (fastest.fps(), slowest.fps()) {
                (Some(most), _) if fps > most => *fastest,
                (_, Some(least)) if fps < least => *slowest,
                _ => asked,
            },
            Self::Unknown => asked,
        }
    }
}

/// As people read them: `30 15 5 fps`, `1 to 60 fps`, or nothing where nothing is told.
impl fmt::Display for FrameRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 29.97 stays; 30.000030 is 30.
        let shown: Vec<String> =
            self.fps().iter().map(|fps| ((fps * 100.0).round() / 100.0).to_string()).collect();
        match (self, shown.as_slice()) {
            (_, []) => Ok(()),
            (Self::Range { .. }, [most, least]) => write!(f, "{least} to {most} fps"),
            _ => write!(f, "{} fps", shown.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(numerator: u32, denominator: u32) -> Interval {
        Interval { numerator, denominator }
    }

    fn discrete(fps: &[u32]) -> FrameRates {
        FrameRates::Discrete(fps.iter().map(|&fps| interval(1, fps)).collect())
    }

    #[test]
    fn the_slowest_rate_that_is_enough_is_asked_for_or_else_the_fastest() {
        let ntsc = FrameRates::Discrete(vec![interval(1001, 30000), interval(1001, 15000)]);
        let range = FrameRates::Range { fastest: interval(100, 6000), slowest: interval(1, 5) };
        for (rates, fps, expected) in [
            (discrete(&[5, 10, 30]), 8.0, interval(1, 10)),
            (discrete(&[30, 10, 5]), 10.0, interval(1, 10)),
            (discrete(&[5]), 8.0, interval(1, 5)),
            (discrete(&[2, 5]), 30.0, interval(1, 5)),
            (discrete(&[5, 30]), 1.0, interval(1, 5)),
            (ntsc.clone(), 30.0, interval(1001, 30000)),
            (ntsc, 15.0, interval(1001, 15000)),
            (range.clone(), 8.0, interval(1000, 8000)),
            (range.clone(), 100.0, interval(100, 6000)),
            (range, 1.0, interval(1, 5)),
            (FrameRates::Unknown, 7.5, interval(1000, 7500)),
        ] {
            assert_eq!(rates.interval(fps), expected, "{rates} for {fps}");
        }
    }

    #[test]
    fn a_rate_is_reached_by_a_faster_one_and_by_one_that_is_a_hundredth_slower() {
        for (rates, fps, reached) in [
            (discrete(&[5, 30]), 8.0, true),
            (discrete(&[5]), 8.0, false),
            (FrameRates::Discrete(vec![interval(1001, 30000)]), 30.0, true),
            (FrameRates::Discrete(vec![interval(2, 15)]), 8.0, false),
            (FrameRates::Unknown, 120.0, true),
        ] {
            assert_eq!(rates.reaches(fps), reached, "{rates} for {fps}");
        }
    }

    #[test]
    fn intervals_that_are_none_are_passed_over() {
        let nonsense = FrameRates::Discrete(vec![interval(0, 30), interval(1, 0), interval(1, 25)]);
        assert_eq!(nonsense.fps(), [25.0]);
        assert_eq!(nonsense.interval(60.0), interval(1, 25));
        let none = FrameRates::Discrete(vec![interval(0, 0)]);
        assert!(none.reaches(60.0));
        assert_eq!(none.interval(60.0), interval(1000, 60000));
        let range = FrameRates::Range { fastest: interval(0, 1), slowest: interval(1, 5) };
        assert_eq!(range.interval(60.0), interval(1000, 60000));
    }

    #[test]
    fn rates_are_told_as_people_write_them() {
        let odd = FrameRates::Discrete(vec![interval(1001, 30000), interval(333_333, 10_000_000)]);
        let range = FrameRates::Range { fastest: interval(1, 60), slowest: interval(1, 1) };
        for (rates, told) in [
            (discrete(&[5, 30]), "30 5 fps"),
            (odd, "30 29.97 fps"),
            (range, "1 to 60 fps"),
            (FrameRates::Unknown, ""),
        ] {
            assert_eq!(rates.to_string(), told);
        }
    }
}
