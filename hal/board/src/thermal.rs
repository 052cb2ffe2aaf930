//! Heat: from a temperature to a throttle level, and what each level asks of the system.

use crate::Millis;

/// How hot it is, the coolest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ThrottleLevel {
    /// Nothing is asked.
    #[default]
    Normal,
    /// Inquiries make way for each other.
    Warm,
    /// Fewer frames, few inquiries, less infrared.
    Hot,
    /// What keeps the footage, and nothing else.
    Critical,
}

/// What the board's sensor said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temperature {
    /// This board has none.
    #[default]
    NoSensor,
    /// It could not be read.
    Unread,
    /// Thousandths of a degree Celsius.
    MilliCelsius(i32),
}

/// What a throttle level asks, in thousandths of what the system would do without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Asks {
    /// So many of the frames are kept and looked at.
    pub frames_permille: u16,
    /// So much of the time inquiries may take.
    pub inquiries_permille: u16,
    /// The illuminator is at most so bright; 0: off at once.
    pub infrared_permille: u16,
}

impl Asks {
    /// Nothing is held back.
    pub const ALL: Self =
        Self { frames_permille: 1000, inquiries_permille: 1000, infrared_permille: 1000 };
}

/// What each level above normal asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct AsksOptions {
    /// Of [`ThrottleLevel::Warm`].
    pub warm: Asks,
    /// Of [`ThrottleLevel::Hot`].
    pub hot: Asks,
    /// Of [`ThrottleLevel::Critical`].
    pub critical: Asks,
}

impl Default for AsksOptions {
    fn default() -> Self {
        Self {
            // Inference is by far the largest load: it yields first, and is not missed at once,
            // since the footage waits in the store.
            warm: Asks { inquiries_permille: 500, ..Asks::ALL },
            hot: Asks { frames_permille: 500, inquiries_permille: 250, infrared_permille: 500 },
            // A few frames a second still are evidence. The illuminator's watts become heat in the same
            // housing.
            critical: Asks { frames_permille: 200, inquiries_permille: 0, infrared_permille: 0 },
        }
    }
}

/// When it is how hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct ThermalOptions {
    /// From here on it is warm, in thousandths of a degree Celsius.
    pub warm_at_mc: i32,
    /// From here on it is hot, in thousandths of a degree Celsius.
    pub hot_at_mc: i32,
    /// From here on it is critical, in thousandths of a degree Celsius.
    pub critical_at_mc: i32,
    /// A level is left downward so far below where it begins, in thousandths of a degree.
    pub hysteresis_mc: i32,
    /// It must have been so cool for so long, in milliseconds, for each level downward.
    pub fall_after_ms: u64,
    /// A reading below this is none, in thousandths of a degree Celsius.
    pub plausible_min_mc: i32,
    /// A reading above this is none, in thousandths of a degree Celsius.
    pub plausible_max_mc: i32,
    /// So long without a reading, in milliseconds, is trouble.
    pub missing_after_ms: u64,
    /// What each level asks of the system.
    pub asks: AsksOptions,
}

impl Default for ThermalOptions {
    fn default() -> Self {
        Self {
            // The modules that this runs on throttle by themselves near 97 °C and switch off near
            // 105 °C; ours is to come before, by choice and not by accident.
            warm_at_mc: 75_000,
            hot_at_mc: 85_000,
            critical_at_mc: 93_000,
            // An inquiry more or less moves a passive heat sink by some 3 degrees.
            hysteresis_mc: 5_000,
            // Heat sinks answer within half a minute.
            fall_after_ms: 30_000,
            // Colder or hotter than the parts survive: a sensor that is broken or not connected.
            plausible_min_mc: -55_000,
            plausible_max_mc: 150_000,
            // Sensors of idle parts refuse to answer for some seconds.
            missing_after_ms: 30_000,
            asks: AsksOptions::default(),
        }
    }
}

impl ThermalOptions {
    /// What `level` asks of the system.
    pub fn asks_of(&self, level: ThrottleLevel) -> Asks {
        match level {
            ThrottleLevel::Normal => Asks::ALL,
            ThrottleLevel::Warm => self.asks.warm,
            ThrottleLevel::Hot => self.asks.hot,
            ThrottleLevel::Critical => self.asks.critical,
        }
    }

    /// The level at a temperature, its thresholds lowered by `less_mc`.
    fn level_at(&self, mc: i32, less_mc: i32) -> ThrottleLevel {
        let reaches = |threshold: i32| mc >= threshold.saturating_sub(less_mc);
        match () {
            () if reaches(self.critical_at_mc) => ThrottleLevel::Critical,
            () if reaches(self.hot_at_mc) => ThrottleLevel::Hot,
            () if reaches(self.warm_at_mc) => ThrottleLevel::Warm,
            () => ThrottleLevel::Normal,
        }
    }
}

/// What a reading changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThermalChange {
    /// Another level.
    Level {
        /// Before.
        from: ThrottleLevel,
        /// Now.
        to: ThrottleLevel,
        /// At this temperature, in thousandths of a degree Celsius.
        at_mc: i32,
    },
    /// There has been no valid reading for long.
    SensorLost {
        /// Readings since the last valid one that failed or were implausible.
        invalid: u32,
    },
    /// There is one again.
    SensorFound {
        /// Readings that had failed or were implausible meanwhile.
        invalid: u32,
    },
}

/// The throttle level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thermal {
    level: ThrottleLevel,
    /// Since when it has been cool enough for the level below.
    cool_since: Option<Millis>,
    /// The last valid reading; before the first, the first step.
    valid_at: Option<Millis>,
    invalid: u32,
    lost: bool,
}

impl Thermal {
    /// Takes a reading. Heat counts at once, coolness when it has lasted, one level at a time.
    /// Without readings the level stays: the module's own protection is behind it.
    pub fn step(
        &mut self,
        options: &ThermalOptions,
        now: Millis,
        temperature: Temperature,
    ) -> Option<ThermalChange> {
        let plausible = options.plausible_min_mc..=options.plausible_max_mc;
        match temperature {
            Temperature::MilliCelsius(mc) if plausible.contains(&mc) => {
                self.valid_at = Some(now);
                let invalid = core::mem::take(&mut self.invalid);
                if core::mem::take(&mut self.lost) {
                    // The level follows with the next reading: one change a step.
                    return Some(ThermalChange::SensorFound { invalid });
                }
                self.take(options, now, mc)
            }
            Temperature::NoSensor => None,
            Temperature::Unread | Temperature::MilliCelsius(_) => {
                self.invalid = self.invalid.saturating_add(1);
                let valid_at = *self.valid_at.get_or_insert(now);
                if self.lost || now.since(valid_at) < options.missing_after_ms {
                    return None;
                }
                self.lost = true;
                self.cool_since = None;
                Some(ThermalChange::SensorLost { invalid: self.invalid })
            }
        }
    }

    /// The level now.
    pub fn level(&self) -> ThrottleLevel {
        self.level
    }

    fn take(&mut self, options: &ThermalOptions, now: Millis, mc: i32) -> Option<ThermalChange> {
        let from = self.level;
        let rising = options.level_at(mc, 0);
        if rising > from {
            self.level = rising;
            self.cool_since = None;
        } else if options.level_at(mc, options.hysteresis_mc) >= from {
            self.cool_since = None;
        } else {
            let cool_since = *self.cool_since.get_or_insert(now);
            if now.since(cool_since) >= options.fall_after_ms {
                self.level = below(from);
                self.cool_since = Some(now);
            }
        }
        let to = self.level;
        (to != from).then_some(ThermalChange::Level { from, to, at_mc: mc })
    }
}

fn below(level: ThrottleLevel) -> ThrottleLevel {
    match level {
        ThrottleLevel::Critical => ThrottleLevel::Hot,
        ThrottleLevel::Hot => ThrottleLevel::Warm,
        ThrottleLevel::Warm | ThrottleLevel::Normal => ThrottleLevel::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ThrottleLevel::{Critical, Hot, Normal, Warm};
    use std::vec::Vec;

    /// The levels that degrees lead to, each held until the next entry; a step a second.
    fn levels(degrees: &[(u64, i32)], until_s: u64) -> Vec<(u64, ThrottleLevel)> {
        let mut thermal = Thermal::default();
        let mut levels = Vec::new();
        for s in 0..until_s {
            let degrees = degrees.iter().rev().find(|(at, _)| *at <= s).map_or(20, |(_, c)| *c);
            let reading = Temperature::MilliCelsius(degrees * 1000);
            let change = thermal.step(&ThermalOptions::default(), Millis(s * 1000), reading);
            if let Some(ThermalChange::Level { to, .. }) = change {
                assert_eq!(to, thermal.level());
                levels.push((s, to));
            }
        }
        levels
    }

    #[test]
    fn heat_counts_at_once_and_coolness_when_it_has_lasted() {
        for (why, degrees, expected) in [
            ("cool", &[(0, 20)][..], &[][..]),
            ("frost", &[(0, -40)], &[]),
            ("just below warm", &[(0, 74)], &[]),
            ("warm", &[(0, 50), (5, 75)], &[(5, Warm)]),
            ("from normal to critical", &[(0, 50), (5, 93)], &[(5, Critical)]),
            ("within the hysteresis it stays", &[(0, 75), (5, 71)], &[(0, Warm)]),
            (
                "cool for less than its time",
                &[(0, 75), (5, 60), (34, 72), (35, 60)],
                &[(0, Warm), (65, Normal)],
            ),
            (
                "one level at a time",
                &[(0, 95), (10, 20)],
                &[(0, Critical), (40, Hot), (70, Warm), (100, Normal)],
            ),
            (
                "heat comes back on the way down",
                &[(0, 95), (10, 20), (45, 86)],
                &[(0, Critical), (40, Hot)],
            ),
            (
                "cool enough for the level below only",
                &[(0, 93), (10, 84)],
                &[(0, Critical), (40, Hot)],
            ),
        ] {
            assert_eq!(levels(degrees, 200), expected, "{why}");
        }
    }

    #[test]
    fn without_valid_readings_the_level_stays_and_the_loss_is_told_once() {
        use Temperature::{MilliCelsius, NoSensor, Unread};
        let mut thermal = Thermal::default();
        let options = ThermalOptions::default();
        let mut told = Vec::new();
        for s in 0..120_u64 {
            let reading = match s {
                0 => MilliCelsius(90_000),
                1..10 => Unread,
                10 => MilliCelsius(90_000),
                11..50 => MilliCelsius(-273_000),
                50..60 => MilliCelsius(850_000),
                60..70 => NoSensor,
                _ => MilliCelsius(90_000),
            };
            let change = thermal.step(&options, Millis(s * 1000), reading);
            told.extend(change.map(|change| (s, change)));
            assert_eq!(thermal.level(), Hot, "at {s} s");
        }
        let (from, to, at_mc) = (Normal, Hot, 90_000);
        let expected = [
            (0, ThermalChange::Level { from, to, at_mc }),
            (40, ThermalChange::SensorLost { invalid: 30 }),
            (70, ThermalChange::SensorFound { invalid: 49 }),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_sensor_that_fails_every_other_time_does_not_keep_a_cool_board_throttled() {
        let mut thermal = Thermal::default();
        let options = ThermalOptions::default();
        for s in 0..40_u64 {
            let reading = match s {
                0 => Temperature::MilliCelsius(80_000),
                _ if s % 2 == 0 => Temperature::Unread,
                _ => Temperature::MilliCelsius(50_000),
            };
            thermal.step(&options, Millis(s * 1000), reading);
        }
        assert_eq!(thermal.level(), Normal);
    }

    #[test]
    fn a_sensor_that_never_answers_is_told_and_a_board_without_one_is_not() {
        let mut thermal = Thermal::default();
        let mut told = |s: u64, reading| {
            thermal.step(&ThermalOptions::default(), Millis(s * 1000), reading).is_some()
        };
        assert!((0..100).all(|s| !told(s, Temperature::NoSensor)));
        assert!((100..130).all(|s| !told(s, Temperature::Unread)));
        assert!(told(130, Temperature::Unread));
        assert!((131..200).all(|s| !told(s, Temperature::Unread)));
    }

    #[test]
    fn a_hotter_level_never_asks_for_more() {
        let options = ThermalOptions::default();
        let asks = [Normal, Warm, Hot, Critical].map(|level| {
            let asks = options.asks_of(level);
            [asks.frames_permille, asks.inquiries_permille, asks.infrared_permille]
        });
        for (column, name) in ["frames", "inquiries", "infrared"].into_iter().enumerate() {
            assert!(asks.is_sorted_by(|a, b| a[column] >= b[column]), "{name}: {asks:?}");
        }
        assert_eq!(asks[3][2], 0, "critical heat and the illuminator's do not go together");
        assert!(asks[3][0] > 0, "footage is kept whatever the heat");
    }
}
