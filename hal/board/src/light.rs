//! The status light: one lamp, a pattern for each thing that a person in front of the camera should
//! know.
//!
//! | pattern | what is seen | cycle |
//! |---|---|---|
//! | watching | one short flash | 3 s |
//! | inquiring | two short flashes | 3 s |
//! | trouble with a camera | three slow flashes, a pause | 3.3 s |
//! | trouble with the store | four slow flashes, a pause | 3.9 s |
//! | booting | a second on, a second off | 2 s |
//! | updating: leave the power on | on, with short gaps | 2 s |
//! | alarm | quick, even blinking | 0.4 s |
//! | identify | long, short, long, short | 1.4 s |

use crate::{Millis, Told};

/// What the light can say, the least urgent first: where two hold, the later one is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Pattern {
    /// All is well. A flash and not a steady light, which would outlive the program that lit it.
    Watching,
    /// The policy is looking at something.
    Inquiring,
    /// Not watching yet.
    Booting,
    /// Footage is not kept.
    StoreTrouble,
    /// A camera gives no pictures. Before the store: without pictures there is nothing to keep.
    CameraTrouble,
    /// The power must not be cut now.
    Updating,
    /// An alarm is asked for, or the relay is on.
    Alarm,
    /// Somebody on a ladder asked which camera this is, and waits for the answer.
    Identify,
}

impl Pattern {
    /// Every pattern, the least urgent first.
    pub const ALL: [Self; 8] = [
        Self::Watching,
        Self::Inquiring,
        Self::Booting,
        Self::StoreTrouble,
        Self::CameraTrouble,
        Self::Updating,
        Self::Alarm,
        Self::Identify,
    ];

    /// The most urgent of what holds.
    pub fn of(told: &Told, relay_on: bool) -> Self {
        let holds = |pattern: &Self| match pattern {
            Self::Identify => told.identify,
            Self::Alarm => told.alarm.is_some() || relay_on,
            Self::Updating => told.updating,
            Self::CameraTrouble => told.camera_trouble,
            Self::StoreTrouble => told.store_trouble,
            Self::Booting => !told.watching,
            Self::Inquiring => told.inquiring,
            Self::Watching => true,
        };
        Self::ALL.into_iter().rev().find(holds).unwrap_or(Self::Booting)
    }

    /// Milliseconds on, off, on, off…, over and over.
    pub const fn phases_ms(self) -> &'static [u16] {
        match self {
            // A flash of a tenth of a second is seen, and draws little at night.
            Self::Watching => &[100, 2900],
            // A quarter of a second apart, two flashes are not taken for one.
            Self::Inquiring => &[100, 250, 100, 2550],
            Self::Booting => &[1000, 1000],
            // What is to be counted is slow enough to count aloud, and its pause clearly longer.
            Self::StoreTrouble => &[300, 300, 300, 300, 300, 300, 300, 1800],
            Self::CameraTrouble => &[300, 300, 300, 300, 300, 1800],
            Self::Updating => &[1800, 200],
            // 2.5 flashes a second: from three on, flicker can harm people.
            Self::Alarm => &[200, 200],
            Self::Identify => &[800, 200, 200, 200],
        }
    }

    /// Length of the pattern until it begins anew, in milliseconds.
    pub fn cycle_ms(self) -> u64 {
        self.phases_ms().iter().map(|&ms| u64::from(ms)).sum()
    }

    /// Whether the lamp is on, so many milliseconds after the pattern began.
    pub fn is_on(self, elapsed_ms: u64) -> bool {
        let mut left = elapsed_ms % self.cycle_ms();
        for (index, &ms) in self.phases_ms().iter().enumerate() {
            if left < u64::from(ms) {
                return index % 2 == 0;
            }
            left -= u64::from(ms);
        }
        false
    }
}

/// The lamp's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LightOptions {
    /// The lamp is on while the line is low. Say it here or where the line is opened, not in both.
    pub active_low: bool,
}

/// The pattern that is shown, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Light {
    shown: Option<(Pattern, Millis)>,
}

impl Light {
    /// Whether the lamp should be on, where `pattern` is what holds now. What is more urgent than
    /// what is shown is shown at once; anything else waits for the end of the cycle, so that
    /// whoever counts flashes counts whole ones.
    pub fn step(&mut self, now: Millis, pattern: Pattern) -> bool {
        let (shown, since) = match self.shown {
            Some((shown, since)) if pattern <= shown => {
                let cycle_ms = shown.cycle_ms();
                let elapsed_ms = now.since(since);
                match elapsed_ms >= cycle_ms {
                    true if pattern < shown => (pattern, now),
                    _ => (shown, since.plus(elapsed_ms / cycle_ms * cycle_ms)),
                }
            }
            _ => (pattern, now),
        };
        self.shown = Some((shown, since));
        shown.is_on(now.since(since))
    }

    /// The pattern that is being shown.
    pub fn shown(&self) -> Option<Pattern> {
        self.shown.map(|(pattern, _)| pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AlarmRequest, STEP_MS};
    use Pattern::*;
    use std::{string::String, vec::Vec};

    const WATCHING: Told = Told {
        watching: true,
        inquiring: false,
        updating: false,
        identify: false,
        camera_trouble: false,
        store_trouble: false,
        alarm: None,
        ambient: None,
        temperature: crate::Temperature::NoSensor,
        progress: crate::Progress {
            capture: [crate::Pace::Idle; 4],
            store: crate::Pace::Idle,
            inquiry: crate::Pace::Idle,
        },
    };

    #[test]
    fn the_most_urgent_of_what_holds_is_shown() {
        let alarm = Some(AlarmRequest(1));
        for (told, relay_on, expected) in [
            (Told::default(), false, Booting),
            (WATCHING, false, Watching),
            (Told { inquiring: true, ..WATCHING }, false, Inquiring),
            (Told { inquiring: true, ..Told::default() }, false, Booting),
            (Told { store_trouble: true, inquiring: true, ..WATCHING }, false, StoreTrouble),
            (Told { store_trouble: true, ..Told::default() }, false, StoreTrouble),
            (Told { store_trouble: true, camera_trouble: true, ..WATCHING }, false, CameraTrouble),
            (Told { updating: true, camera_trouble: true, ..WATCHING }, false, Updating),
            (Told { updating: true, alarm, ..WATCHING }, false, Alarm),
            (WATCHING, true, Alarm),
            (Told { identify: true, alarm, ..WATCHING }, true, Identify),
        ] {
            assert_eq!(Pattern::of(&told, relay_on), expected, "{told:?}, relay {relay_on}");
        }
    }

    #[test]
    fn the_list_of_all_patterns_is_in_the_order_of_urgency() {
        assert!(Pattern::ALL.is_sorted());
    }

    /// What is seen of a pattern: `#` for each step with the lamp on.
    fn seen(pattern: Pattern) -> String {
        let steps = (0..pattern.cycle_ms()).step_by(STEP_MS as usize * 2);
        steps.map(|ms| if pattern.is_on(ms) { '#' } else { '.' }).collect()
    }

    #[test]
    fn each_pattern_looks_as_its_table_says() {
        for (pattern, expected) in [
            (Watching, "#............................."),
            (Booting, "##########.........."),
            (CameraTrouble, "###...###...###.................."),
            (StoreTrouble, "###...###...###...###.................."),
            (Updating, "##################.."),
            (Alarm, "##.."),
            (Identify, "########..##.."),
        ] {
            assert_eq!(seen(pattern), expected, "{pattern:?}");
        }
        let flashes: Vec<bool> =
            [0, 99, 100, 349, 350, 449, 450, 2999, 3000].map(|ms| Inquiring.is_on(ms)).into();
        assert_eq!(flashes, [true, true, false, false, true, true, false, false, true]);
    }

    /// Flashes of a cycle, cycles of a minute, and percent of the time that the lamp is on.
    fn traits(pattern: Pattern) -> [u64; 3] {
        let on: u64 = pattern.phases_ms().iter().step_by(2).map(|&ms| u64::from(ms)).sum();
        let flashes = pattern.phases_ms().len() as u64 / 2;
        [flashes, 60_000 / pattern.cycle_ms(), 100 * on / pattern.cycle_ms()]
    }

    #[test]
    fn a_person_can_tell_any_two_patterns_apart() {
        for one in Pattern::ALL {
            for other in Pattern::ALL.into_iter().filter(|other| *other != one) {
                let [a, b] = [traits(one), traits(other)];
                let counted = a[0] != b[0];
                let much_quicker = a[1] >= 3 * b[1] || b[1] >= 3 * a[1];
                let much_brighter = a[2].abs_diff(b[2]) >= 30;
                assert!(counted || much_quicker || much_brighter, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn no_phase_falls_between_two_steps_and_no_pattern_flickers() {
        for pattern in Pattern::ALL {
            let phases = pattern.phases_ms();
            assert_eq!(phases.len() % 2, 0, "{pattern:?} ends off");
            assert!(phases.iter().all(|&ms| u64::from(ms) >= 2 * STEP_MS), "{pattern:?}");
            let [flashes, cycles, _] = traits(pattern);
            assert!(flashes * cycles < 3 * 60, "{pattern:?} flashes three times a second");
        }
    }

    #[test]
    fn what_is_less_urgent_waits_for_the_end_of_the_cycle_and_what_is_more_does_not() {
        let mut light = Light::default();
        let mut shown = |ms, pattern| {
            let on = light.step(Millis(ms), pattern);
            (light.shown(), on)
        };
        assert_eq!(shown(10_000, CameraTrouble), (Some(CameraTrouble), true));
        assert_eq!(shown(10_700, Watching), (Some(CameraTrouble), true), "its second flash");
        assert_eq!(shown(13_250, Watching), (Some(CameraTrouble), false));
        assert_eq!(shown(13_300, Watching), (Some(Watching), true), "a cycle of 3.3 s is over");
        assert_eq!(shown(13_450, Watching), (Some(Watching), false));
        assert_eq!(shown(13_500, Alarm), (Some(Alarm), true), "at once, from its beginning");
        // Many cycles on, the present one still ends as a whole.
        assert_eq!(shown(113_700, Alarm), (Some(Alarm), false));
        assert_eq!(shown(113_750, Watching), (Some(Alarm), false));
        assert_eq!(shown(113_900, Watching), (Some(Watching), true));
    }
}
