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

/// Full brightness, in thousandths.
pub(crate) const FULL_PERMILLE: u16 = 1000;

/// Whether it is night, and how bright the illuminator is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Night {
    night: bool,
    /// Since when the level has asked for the other state.
    leaning: Option<Millis>,
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
