//! What a board has, and on which lines: a TOML file, of which some are built in.

use super::{Bias, LineName, PwmOutput, Wiring};
use hal_board::BoardOptions;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// The descriptions that are built in, by name.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("generic", include_str!("../../boards/generic.toml")),
    ("orin-nano", include_str!("../../boards/orin-nano.toml")),
    ("vm", include_str!("../../boards/vm.toml")),
];

/// What a board has. What is not described is not there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardDescription {
    /// What people call it.
    pub name: String,
    /// The status light.
    pub light: Option<Line>,
    /// The alarm relay.
    pub relay: Option<Line>,
    /// The infrared illuminator.
    pub infrared: Option<Pwm>,
    /// The housing's tamper switch: on while it is open.
    pub tamper: Option<Line>,
    /// The door's contact: on while it is open.
    pub door: Option<Line>,
    /// The temperature.
    pub temperature: Option<Sensor>,
    /// The hardware watchdog.
    pub watchdog: Option<Device>,
    /// Times and levels of all of these.
    #[serde(default)]
    pub options: BoardOptions,
}

/// A GPIO line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its name, or
    line: Option<String>,
    /// its number on `chip`, from 0.
    offset: Option<u32>,
    /// Path (`/dev/gpiochip0`) or label (`tegra234-gpio`) of the chip.
    chip: Option<String>,
    /// Whether the low level means "on".
    #[serde(default)]
    active_low: bool,
    /// What holds an input at its level.
    #[serde(default)]
    bias: BiasName,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BiasName {
    #[default]
    AsIs,
    PullUp,
    PullDown,
    Disabled,
}

/// A PWM output.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pwm {
    chip: String,
    #[serde(default)]
    channel: u32,
    #[serde(default = "usual_period_us")]
    period_us: u32,
    #[serde(default)]
    inverted: bool,
}

/// Drivers of illuminators follow up to some kHz; at 1 kHz a sensor that reads out row by row sees no bands.
fn usual_period_us() -> u32 {
    1000
}

/// A sensor of temperature: one of the kernel's thermal zones, or an input of a hardware monitor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    zone: Option<String>,
    monitor: Option<String>,
    #[serde(default = "usual_input")]
    input: u32,
}

/// Most monitors have one.
fn usual_input() -> u32 {
    1
}

/// Which sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SensorName {
    /// By its type, as in `/sys/class/thermal/thermal_zone0/type`.
    Zone(String),
    /// By its monitor's name, as in `/sys/class/hwmon/hwmon0/name`, and the number in `temp1_input`.
    Monitor { name: String, input: u32 },
}

/// The watchdog's device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its path.
    #[serde(default = "usual_watchdog")]
    pub device: PathBuf,
    /// Seconds without a kick after which it resets the board.
    #[serde(default = "usual_timeout_s")]
    pub timeout_s: u32,
}

fn usual_watchdog() -> PathBuf {
    "/dev/watchdog".into()
}

/// Long enough for a disk that pauses, short enough that nobody misses the camera.
fn usual_timeout_s() -> u32 {
    30
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// No such file, and no such name.
    #[error(
        "there is no board description '{name}': {reason}; give a path, or one of {}",
        BUILT_IN.map(|(name, _)| name).join(", ")
    )]
    Missing {
        /// As given.
        name: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// It does not say what a board has.
    #[error("board description '{name}', line {line}: {reason}")]
    Wrong {
        /// File or name.
        name: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl BoardDescription {
    /// The description that is built in under `name`, or else that in the file of this path.
    ///
    /// # Errors
    /// [`DescriptionError`], with the remedy.
    pub fn load(name: &str) -> Result<Self, DescriptionError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(name, text);
        }
        let text = fs::read_to_string(Path::new(name))
            .map_err(|reason| DescriptionError::Missing { name: name.into(), reason })?;
        Self::parse(name, &text)
    }

    /// From TOML; `name` is for the error.
    ///
    /// # Errors
    /// [`DescriptionError::Wrong`].
    pub fn parse(name: &str, text: &str) -> Result<Self, DescriptionError> {
        let wrong = |at: usize, reason: String| DescriptionError::Wrong {
            name: name.into(),
            line: 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count(),
            reason,
        };
        let found: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            wrong(error.span().map_or(0, |span| span.start), with_nearest(error.message()))
        })?;
        // Where the key stands that a rule speaks of, as well as can be told from its name.
        let at = |key: &str| {
            let key = key.rsplit('.').next().unwrap_or(key);
            text.find(key).unwrap_or(0)
        };
        if let Err(error) = found.options.check() {
            return Err(wrong(at(error.key), format!("options.{error}")));
        }
        for (section, line) in found.lines() {
            if let Err(reason) = line.name() {
                return Err(wrong(at(&format!("[{section}]")), format!("[{section}] {reason}")));
            }
        }
        let kick_every_ms = found.options.watchdog.kick_every_ms;
        if let Some(device) = &found.watchdog {
            // Of three kicks two may be late.
            if u64::from(device.timeout_s) * 1000 < 3 * kick_every_ms {
                let least = (3 * kick_every_ms).div_ceil(1000);
                let reason = format!("timeout_s must be at least {least}, three kicks");
                return Err(wrong(at("timeout_s"), reason));
            }
        }
        if let Some(Err(reason)) = found.temperature.as_ref().map(Sensor::name) {
            return Err(wrong(at("[temperature]"), format!("[temperature] {reason}")));
        }
        if found.infrared.as_ref().is_some_and(|pwm| pwm.period_us == 0) {
            return Err(wrong(at("period_us"), "period_us must be more than 0".into()));
        }
        Ok(found)
    }

    fn lines(&self) -> impl Iterator<Item = (&'static str, &Line)> {
        let lines = [
            ("light", &self.light),
            ("relay", &self.relay),
            ("tamper", &self.tamper),
            ("door", &self.door),
        ];
        lines.into_iter().filter_map(|(section, line)| Some((section, line.as_ref()?)))
    }
}

impl Line {
    /// How it is wired.
    pub(super) fn wiring(&self) -> Wiring {
        let bias = match self.bias {
            BiasName::AsIs => Bias::AsIs,
            BiasName::PullUp => Bias::PullUp,
            BiasName::PullDown => Bias::PullDown,
            BiasName::Disabled => Bias::Disabled,
        };
        // It was checked when it was read.
        let line = self.name().unwrap_or(LineName::Named { name: String::new(), chip: None });
        Wiring { line, active_low: self.active_low, bias }
    }

    fn name(&self) -> Result<LineName, &'static str> {
        match (&self.line, self.offset, &self.chip) {
            (Some(name), None, chip) => {
                Ok(LineName::Named { name: name.clone(), chip: chip.clone() })
            }
            (None, Some(offset), Some(chip)) => {
                Ok(LineName::Numbered { chip: chip.clone(), offset })
            }
            (Some(_), Some(_), _) => Err("has both line and offset: give one of them"),
            (None, Some(_), None) => {
                Err("has an offset and no chip: add chip = \"/dev/gpiochip0\"")
            }
            (None, None, _) => Err("names no line: add line = \"NAME\", or chip and offset"),
        }
    }
}

impl Sensor {
    /// Which one it is.
    pub(super) fn wanted(&self) -> SensorName {
        // It was checked when it was read.
        self.name().unwrap_or(SensorName::Zone(String::new()))
    }

    fn name(&self) -> Result<SensorName, &'static str> {
        match (&self.zone, &self.monitor) {
            (Some(zone), None) => Ok(SensorName::Zone(zone.clone())),
            (None, Some(name)) => Ok(SensorName::Monitor { name: name.clone(), input: self.input }),
            (Some(_), Some(_)) => Err("has both zone and monitor: give one of them"),
            (None, None) => Err("names no sensor: add zone = \"TYPE\", or monitor = \"NAME\""),
        }
    }
}

impl Pwm {
    /// The output.
    pub(super) fn output(&self) -> PwmOutput {
        PwmOutput {
            chip: self.chip.clone(),
            channel: self.channel,
            period_ns: self.period_us.saturating_mul(1000),
            inverted: self.inverted,
        }
    }
}

/// The parser's sentence about an unknown key, with the known one that is most like it. The parser puts
/// names in backquotes: first the unknown one, then those that it knows.
fn with_nearest(message: &str) -> String {
    // Below this, what is left in common is chance.
    const LIKE: f64 = 0.55;
    let message = message.replace('\n', " ");
    let mut names = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return message;
    }
    let Some(unknown) = names.next() else { return message };
    let nearest = names
        .map(|name| (strsim::normalized_damerau_levenshtein(unknown, name), name))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, name)) => format!("unknown key '{unknown}': did you mean '{name}'?"),
        None => message.replacen("unknown field", "unknown key", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_that_is_built_in_can_be_read() {
        for (name, _) in BUILT_IN {
            let board = BoardDescription::load(name).unwrap();
            assert!(!board.name.is_empty(), "{name}");
        }
        let generic = BoardDescription::load("generic").unwrap();
        assert!(generic.relay.is_none() && generic.watchdog.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_what_would_be_right() {
        for (text, expected) in [
            (
                "name = \"a\"\n[relai]\nline = \"x\"",
                "line 2: unknown key 'relai': did you mean 'relay'?",
            ),
            (
                "name = \"a\"\n[relay]\nlin = \"x\"",
                "line 3: unknown key 'lin': did you mean 'line'?",
            ),
            ("name = \"a\"\n[relay]\n", "line 2: [relay] names no line"),
            ("name = \"a\"\n[door]\noffset = 3\n", "line 2: [door] has an offset and no chip"),
            ("name = \"a\"\n[door]\nline = \"x\"\noffset = 3\n", "line 2: [door] has both"),
            ("name = \"a\"\n[watchdog]\ntimeout_s = 2\n", "line 3: timeout_s must be at least 3"),
            (
                "name = \"a\"\n[infrared]\nchip = \"pwmchip0\"\nperiod_us = 0",
                "line 4: period_us must",
            ),
            (
                "name = \"a\"\n[options.relay]\nlongest_on_ms = 0\n",
                "line 3: options.relay.longest_on_ms must be",
            ),
            ("name = \"a\"\n[temperature]\n", "line 2: [temperature] names no sensor"),
            (
                "name = \"a\"\n[temperature]\nzone = \"x\"\nmonitor = \"y\"\n",
                "line 2: [temperature] has both",
            ),
            ("name = 3", "line 1: invalid type"),
            ("", "line 1: missing field `name`"),
        ] {
            let error = BoardDescription::parse("mine.toml", text).unwrap_err().to_string();
            assert!(error.starts_with("board description 'mine.toml', "), "{error}");
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn a_description_that_is_not_there_is_refused_with_those_that_are() {
        let error = BoardDescription::load("orin").unwrap_err().to_string();
        assert!(error.contains("'orin'") && error.contains("generic, orin-nano, vm"), "{error}");
    }
}
