//! All times and levels of a board, as plain data.

use crate::WatchdogOptions;
use crate::{DebounceOptions, LightOptions, NightOptions, RelayOptions, ThermalOptions};
use core::fmt;

/// All times and levels of a board. Which parts it has, its [`Pins`](crate::Pins) say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct BoardOptions {
    /// The status light.
    pub light: LightOptions,
    /// The alarm relay.
    pub relay: RelayOptions,
    /// Day, night and the illuminator.
    pub night: NightOptions,
    /// The housing's tamper switch.
    pub tamper: DebounceOptions,
    /// The door's contact.
    pub door: DebounceOptions,
    /// The heat.
    pub thermal: ThermalOptions,
    /// The watchdog.
    pub watchdog: WatchdogOptions,
}

/// Options that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionsError {
    /// The key, as in a file.
    pub key: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.key, self.must)
    }
}

impl core::error::Error for OptionsError {}

/// The longest time that is taken for meant, in milliseconds: a week. What is longer is a wrong
/// unit, and sums of two such times are far from overflowing.
const LONGEST_MS: u64 = 7 * 24 * 3_600_000;

impl BoardOptions {
    /// Refuses what could not work.
    pub fn check(&self) -> Result<(), OptionsError> {
        let Self { relay, night, tamper, door, thermal, watchdog, .. } = self;
        let refuse = |wrong: bool, key, must| match wrong {
            true => Err(OptionsError { key, must }),
            false => Ok(()),
        };
        for (key, ms) in [
            ("relay.min_on_ms", relay.min_on_ms),
            ("relay.min_off_ms", relay.min_off_ms),
            ("relay.longest_on_ms", relay.longest_on_ms),
            ("night.night_after_ms", night.night_after_ms),
            ("night.day_after_ms", night.day_after_ms),
            ("night.recoil_ms", night.recoil_ms),
            ("night.ramp_ms", night.ramp_ms),
            ("tamper.stable_ms", tamper.stable_ms),
            ("door.stable_ms", door.stable_ms),
            ("thermal.fall_after_ms", thermal.fall_after_ms),
            ("thermal.missing_after_ms", thermal.missing_after_ms),
            ("watchdog.grace_ms", watchdog.grace_ms),
            ("watchdog.capture_ms", watchdog.capture_ms),
            ("watchdog.store_ms", watchdog.store_ms),
            ("watchdog.inquiry_ms", watchdog.inquiry_ms),
            ("watchdog.kick_every_ms", watchdog.kick_every_ms),
        ] {
            refuse(ms > LONGEST_MS, key, "at most 604800000, a week")?;
        }
        let relay_turned = relay.longest_on_ms < relay.min_on_ms.max(1);
        refuse(relay_turned, "relay.longest_on_ms", "more than 0, and at least relay.min_on_ms")?;
        let levels = 0.0 <= night.night_below
            && night.night_below < night.day_above
            && night.day_above <= 1.0;
        refuse(!levels, "night.day_above", "above night.night_below, both within 0..=1")?;
        for (key, permille) in [
            ("night.brightness_permille", night.brightness_permille),
            ("thermal.asks.warm.frames_permille", thermal.asks.warm.frames_permille),
            ("thermal.asks.warm.inquiries_permille", thermal.asks.warm.inquiries_permille),
            ("thermal.asks.warm.infrared_permille", thermal.asks.warm.infrared_permille),
            ("thermal.asks.hot.frames_permille", thermal.asks.hot.frames_permille),
            ("thermal.asks.hot.inquiries_permille", thermal.asks.hot.inquiries_permille),
            ("thermal.asks.hot.infrared_permille", thermal.asks.hot.infrared_permille),
            ("thermal.asks.critical.frames_permille", thermal.asks.critical.frames_permille),
            ("thermal.asks.critical.inquiries_permille", thermal.asks.critical.inquiries_permille),
            ("thermal.asks.critical.infrared_permille", thermal.asks.critical.infrared_permille),
        ] {
            refuse(permille > 1000, key, "at most 1000, which is all")?;
        }
        refuse(tamper.chatter == 0, "tamper.chatter", "at least 1")?;
        refuse(door.chatter == 0, "door.chatter", "at least 1")?;
        let rising = thermal.plausible_min_mc < thermal.warm_at_mc
            && thermal.warm_at_mc < thermal.hot_at_mc
            && thermal.hot_at_mc < thermal.critical_at_mc
            && thermal.critical_at_mc < thermal.plausible_max_mc;
        refuse(
            !rising,
            "thermal.hot_at_mc",
            "between warm_at_mc and critical_at_mc, and all of them between what is plausible",
        )?;
        refuse(thermal.hysteresis_mc < 0, "thermal.hysteresis_mc", "0 or more")?;
        for (key, ms) in [
            ("watchdog.capture_ms", watchdog.capture_ms),
            ("watchdog.store_ms", watchdog.store_ms),
            ("watchdog.inquiry_ms", watchdog.inquiry_ms),
        ] {
            refuse(ms < crate::STEP_MS * 10, key, "at least 500, ten steps of the board")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    fn read(text: &str) -> Result<BoardOptions, String> {
        let options: BoardOptions = toml::from_str(text).map_err(|e| e.message().to_string())?;
        options.check().map_err(|e| e.to_string())?;
        Ok(options)
    }

    #[test]
    fn the_defaults_are_allowed_and_survive_a_file() {
        let text = toml::to_string(&BoardOptions::default()).unwrap();
        assert_eq!(read(&text), Ok(BoardOptions::default()));
        assert_eq!(read(""), Ok(BoardOptions::default()), "every key has a default");
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let options = read("[relay]\nmin_on_ms = 5000\n[tamper]\nactive_low = true").unwrap();
        let mut expected = BoardOptions::default();
        expected.relay.min_on_ms = 5000;
        expected.tamper.active_low = true;
        assert_eq!(options, expected);
    }

    #[test]
    fn what_could_not_work_is_refused_with_its_key() {
        for (text, word) in [
            ("siren = 1", "unknown field `siren`"),
            ("[relay]\nmin_on = 1", "unknown field `min_on`"),
            ("[thermal.asks]\ntepid = {}", "unknown field `tepid`"),
            ("[relay]\nmin_on_ms = -1", "-1"),
            ("[relay]\nlongest_on_ms = 0", "relay.longest_on_ms"),
            ("[relay]\nmin_on_ms = 0\nlongest_on_ms = 0", "relay.longest_on_ms"),
            ("[relay]\nmin_on_ms = 5000\nlongest_on_ms = 4999", "relay.longest_on_ms"),
            ("[relay]\nmin_off_ms = 604800001", "relay.min_off_ms"),
            ("[night]\nnight_below = 0.5", "night.day_above"),
            ("[night]\nday_above = 1.5", "night.day_above"),
            ("[night]\nnight_below = nan", "night.day_above"),
            ("[night]\nbrightness_permille = 1001", "night.brightness_permille"),
            ("[door]\nchatter = 0", "door.chatter"),
            ("[thermal]\nwarm_at_mc = 90000", "thermal.hot_at_mc"),
            ("[thermal]\ncritical_at_mc = 200000", "thermal.hot_at_mc"),
            ("[thermal]\nhysteresis_mc = -1", "thermal.hysteresis_mc"),
            ("[watchdog]\ncapture_ms = 100", "watchdog.capture_ms"),
            (
                "[thermal.asks.hot]\nframes_permille = 2000\ninquiries_permille = 0\ninfrared_permille = 0",
                "thermal.asks.hot.frames_permille",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
