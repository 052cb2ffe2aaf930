//! Day and night, and the infrared illuminator.

use crate::Millis;

/// When it is night, and how bright the illuminator is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct NightOptions {
    /// Ambient level (0..=1) below which it is getting night.
    pub night_below: f32,
    /// Ambient level above which it is getting day. Well above `night_below`: the illuminator
    /// lights the picture that the level is taken from.
    pub day_above: f32,
    /// So long below, in milliseconds, and it is night.
    pub night_after_ms: u64,
    /// So long above, in milliseconds, and it is day.
    pub day_after_ms: u64,
    /// Where night comes back within this time after a day, in milliseconds, the day was the
    /// illuminator's own light: the next one has to last twice as long, up to this time.
    pub recoil_ms: u64,
    /// Brightness at night, in thousandths of full.
    pub brightness_permille: u16,
    /// Time from dark to full brightness, in milliseconds.
    pub ramp_ms: u64,
}

impl Default for NightOptions {
    fn default() -> Self {
        Self {
            // A mean luma of 30 of 255: an automatic exposure at its end.
            night_below: 0.12,
            // A mean luma of 100, which a lit near field alone seldom reaches.
            day_above: 0.40,
            // A hand before the lens, a passing lorry.
            night_after_ms: 10_000,
            // Headlights, a torch, a flash of lightning.
            day_after_ms: 60_000,
            // Half an hour is as long as dusk takes.
            recoil_ms: 1_800_000,
            brightness_permille: 1000,
            // Automatic exposure follows, and the sentinel sees no jump.
            ramp_ms: 2_000,
        }
    }
}

/// Without a level for so long, in milliseconds, it is not known to have lasted. Pictures that come
/// once in a few seconds are enough.
const GAP_MS: u64 = 5_000;

/// Full brightness, in thousandths.
pub(crate) const FULL_PERMILLE: u16 = 1000;

/// Whether it is night, and how bright the illuminator is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Night {
    night: bool,
    /// Since when the level has asked for the other state.
    leaning: Option<Millis>,
    /// When a level was last known.
    known: Option<Millis>,
    /// When it last became day, and how long the level had to ask for that; doubled by a recoil.
    dawned: Option<Millis>,
    doubled: u32,
    /// Millionths of full brightness, so that a slow ramp in small steps does not stand still.
    micro: u32,
    stepped: Option<Millis>,
}

impl Night {
    /// Takes the ambient level, if one is known, and answers the brightness in thousandths, which
    /// is never more than `cap_permille`. Without a level it stays as it is: a camera that comes
    /// back at night should find its light.
    pub fn step(
        &mut self,
        options: &NightOptions,
        now: Millis,
        ambient: Option<f32>,
        cap_permille: u16,
    ) -> u16 {
        self.lean(options, now, ambient.filter(|level| (0.0..=1.0).contains(level)));
        self.ramp(options, now, cap_permille)
    }

    /// Whether it is night.
    pub fn is_night(&self) -> bool {
        self.night
    }

    fn lean(&mut self, options: &NightOptions, now: Millis, ambient: Option<f32>) {
        let Some(level) = ambient else { return };
        let known = self.known.replace(now);
        if known.is_none_or(|at| now.since(at) >= GAP_MS) {
            self.leaning = None;
        }
        let leans =
            if self.night { level > options.day_above } else { level < options.night_below };
        if !leans {
            self.leaning = None;
            return;
        }
        let leaning = *self.leaning.get_or_insert(now);
        if now.since(leaning) < self.needed_ms(options) {
            return;
        }
        self.leaning = None;
        self.night = !self.night;
        if self.night {
            let recoiled = self.dawned.is_some_and(|at| now.since(at) < options.recoil_ms);
            self.doubled = if recoiled { self.doubled.saturating_add(1) } else { 0 };
        } else {
            self.dawned = Some(now);
        }
    }

    /// How long the level has to ask for the other state.
    fn needed_ms(&self, options: &NightOptions) -> u64 {
        if !self.night {
            return options.night_after_ms;
        }
        let factor = 1_u64.checked_shl(self.doubled).unwrap_or(u64::MAX);
        let longest = options.recoil_ms.max(options.day_after_ms);
        options.day_after_ms.saturating_mul(factor).min(longest)
    }

    fn ramp(&mut self, options: &NightOptions, now: Millis, cap_permille: u16) -> u16 {
        let passed_ms = now.since(*self.stepped.get_or_insert(now));
        self.stepped = Some(now);
        let bright = if self.night { options.brightness_permille.min(FULL_PERMILLE) } else { 0 };
        let full = u32::from(FULL_PERMILLE) * 1000;
        let step = match options.ramp_ms {
            0 => full,
            ramp_ms => {
                let step = u64::from(full).saturating_mul(passed_ms) / ramp_ms;
                u32::try_from(step).unwrap_or(full).min(full)
            }
        };
        let goal = u32::from(bright) * 1000;
        let ramped = match self.micro < goal {
            true => (self.micro + step).min(goal),
            false => self.micro.saturating_sub(step).max(goal),
        };
        // Heat does not wait for a ramp.
        self.micro = ramped.min(u32::from(cap_permille) * 1000);
        (self.micro / 1000) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// When night falls (`true`) and day breaks, where each level holds until the next entry;
    /// a step a second.
    fn turns(levels: &[(u64, Option<f32>)], until_s: u64) -> Vec<(u64, bool)> {
        let mut night = Night::default();
        let mut turns = Vec::new();
        for s in 0..until_s {
            let level = levels.iter().rev().find(|(at, _)| *at <= s).and_then(|(_, level)| *level);
            let before = night.is_night();
            night.step(&NightOptions::default(), Millis(s * 1000), level, FULL_PERMILLE);
            if night.is_night() != before {
                turns.push((s, night.is_night()));
            }
        }
        turns
    }

    #[test]
    fn night_falls_when_it_has_been_dark_and_day_breaks_when_it_has_been_light() {
        for (why, levels, expected) in [
            ("light", &[(0, Some(0.5))][..], &[][..]),
            ("dusk is day to whom comes from the day", &[(0, Some(0.5)), (10, Some(0.2))], &[]),
            ("dark", &[(0, Some(0.1))], &[(10, true)]),
            ("at the very level it is not dark", &[(0, Some(0.12))], &[]),
            ("a hand before the lens", &[(0, Some(0.5)), (50, Some(0.0)), (59, Some(0.5))], &[]),
            (
                "dusk is night to whom comes from the night",
                &[(0, Some(0.1)), (20, Some(0.3))],
                &[(10, true)],
            ),
            ("headlights", &[(0, Some(0.1)), (100, Some(0.9)), (159, Some(0.1))], &[(10, true)]),
            ("morning", &[(0, Some(0.1)), (100, Some(0.9))], &[(10, true), (160, false)]),
            ("nothing known", &[(0, None)], &[]),
            ("what is no level is not known", &[(0, Some(f32::NAN)), (50, Some(-1.0))], &[]),
            ("unknown for a moment", &[(0, Some(0.1)), (5, None), (8, Some(0.1))], &[(10, true)]),
            ("unknown for longer", &[(0, Some(0.1)), (5, None), (60, Some(0.1))], &[(70, true)]),
            ("a camera lost at night stays at night", &[(0, Some(0.1)), (20, None)], &[(10, true)]),
        ] {
            assert_eq!(turns(levels, 300), expected, "{why}");
        }
    }

    #[test]
    fn a_day_that_was_the_illuminators_own_light_has_to_last_longer_each_time() {
        // Lit by itself the picture is light; without, dark.
        let (mut night, options) = (Night::default(), NightOptions::default());
        let mut dawns = Vec::new();
        for s in 0..6 * 3600_u64 {
            let level = if night.is_night() { 0.8 } else { 0.05 };
            let before = night.is_night();
            night.step(&options, Millis(s * 1000), Some(level), FULL_PERMILLE);
            if before && !night.is_night() {
                dawns.push(s);
            }
        }
        let waits: Vec<u64> = dawns.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits[..4], [132, 252, 492, 972], "twice as long each time");
        assert_eq!(waits.last(), Some(&1812), "but never longer than half an hour");
        // A real day, and the next evening is a plain one.
        for s in 0..3600 {
            night.step(&options, Millis((30_000 + s) * 1000), Some(0.9), FULL_PERMILLE);
        }
        assert!(!night.is_night());
        for s in 0..11 {
            night.step(&options, Millis((40_000 + s) * 1000), Some(0.05), FULL_PERMILLE);
        }
        assert!(night.is_night());
        assert_eq!(night.doubled, 0);
    }

    #[test]
    fn the_illuminator_ramps_up_and_down_and_obeys_the_heat_at_once() {
        let options = NightOptions { night_after_ms: 0, day_after_ms: 0, ..Default::default() };
        let mut night = Night::default();
        for (ms, level, cap, expected) in [
            (0, 0.9, 1000, 0),
            (50, 0.0, 1000, 25),
            (100, 0.0, 1000, 50),
            (1100, 0.0, 1000, 550),
            (2000, 0.0, 1000, 1000),
            (9000, 0.0, 1000, 1000),
            (9050, 0.0, 500, 500),
            (9100, 0.0, 0, 0),
            (9150, 0.0, 0, 0),
            (10_150, 0.0, 1000, 500),
            (12_000, 0.0, 1000, 1000),
            (12_500, 0.9, 1000, 750),
            (20_000, 0.9, 1000, 0),
        ] {
            let permille = night.step(&options, Millis(ms), Some(level), cap);
            assert_eq!(permille, expected, "at {ms} ms");
        }
    }

    #[test]
    fn a_ramp_in_steps_of_less_than_a_thousandth_gets_there() {
        let options = NightOptions { night_after_ms: 0, ramp_ms: 600_000, ..Default::default() };
        let mut night = Night::default();
        let ramped = (0..12_100).map(|i| night.step(&options, Millis(i * 50), Some(0.0), 1000));
        assert_eq!(ramped.last(), Some(1000));
    }

    #[test]
    fn the_brightness_is_what_was_chosen_and_a_ramp_of_no_time_jumps() {
        for (brightness_permille, expected) in [(300, 300), (0, 0), (5000, 1000)] {
            let options = NightOptions {
                night_after_ms: 0,
                ramp_ms: 0,
                brightness_permille,
                ..Default::default()
            };
            let mut night = Night::default();
            assert_eq!(night.step(&options, Millis(7), Some(0.0), 1000), expected);
        }
    }
}
