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
