//! The controls that a camera's specification sets: exposure, gain, and the frequency of the lamps. Pure.

use std::fmt;
use std::str::FromStr;

/// Which control. There are dozens; these are the ones that decide whether a guarded place can be
/// seen at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlId {
    /// A menu: who sets the exposure.
    AutoExposure,
    /// In units of 100 µs.
    Exposure,
    /// A switch: whether the camera sets its gain.
    AutoGain,
    /// In units of the camera's own.
    Gain,
    /// A menu: of the mains, whose lamps flicker at twice that.
    PowerLine,
}

impl ControlId {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::AutoExposure, Self::Exposure, Self::AutoGain, Self::Gain, Self::PowerLine];

    /// Its number in `<linux/v4l2-controls.h>`.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::AutoExposure => 0x9a_0901,
            Self::Exposure => 0x9a_0902,
            Self::AutoGain => 0x98_0912,
            Self::Gain => 0x98_0913,
            Self::PowerLine => 0x98_0918,
        }
    }

    /// The option of a camera's specification that sets it.
    pub fn option(self) -> &'static str {
        match self {
            Self::AutoExposure | Self::Exposure => "exposure",
            Self::AutoGain | Self::Gain => "gain",
            Self::PowerLine => "power_line",
        }
    }
}

/// One control as a camera has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which.
    pub id: ControlId,
    /// What the driver calls it.
    pub name: String,
    /// What it can be.
    pub range: ControlRange,
    /// What it is if nobody sets it.
    pub default: i32,
    /// What it is; `None` if the driver does not tell.
    pub current: Option<i32>,
    /// Whether it can be set.
    pub writable: bool,
}

/// What a control can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlRange {
    /// 0 or 1.
    Switch,
    /// A number.
    Number {
        /// The least.
        min: i32,
        /// The greatest.
        max: i32,
        /// From one to the next.
        step: i32,
    },
    /// One of these, each with its name.
    Menu(Vec<(i32, String)>),
}

impl Control {
    /// A value as people read it.
    pub fn told(&self, value: i32) -> String {
        match &self.range {
            ControlRange::Switch => if value == 0 { "off" } else { "on" }.to_string(),
            ControlRange::Number { .. } => value.to_string(),
            ControlRange::Menu(entries) => entries
                .iter()
                .find(|(index, _)| *index == value)
                .map_or_else(|| value.to_string(), |(_, name)| name.clone()),
        }
    }

    fn takes(&self, value: i32) -> bool {
        match &self.range {
            ControlRange::Switch => matches!(value, 0 | 1),
            ControlRange::Number { min, max, .. } => (*min..=*max).contains(&value),
            ControlRange::Menu(entries) => entries.iter().any(|(index, _)| *index == value),
        }
    }
}

/// The range, as people read it.
impl fmt::Display for ControlRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => write!(f, "off or on"),
            Self::Number { min, max, step: 0 | 1 } => write!(f, "{min} to {max}"),
            Self::Number { min, max, step } => write!(f, "{min} to {max} in steps of {step}"),
            Self::Menu(entries) => {
                let names: Vec<&str> = entries.iter().map(|(_, name)| name.as_str()).collect();
                write!(f, "{}", names.join(", "))
            }
        }
    }
}

/// An amount that the camera may choose itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    Auto,
    Fixed(i32),
}

impl FromStr for Amount {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            // No sign: no camera exposes for less than nothing.
            number if number.bytes().all(|b| b.is_ascii_digit()) => {
                number.parse().map(Self::Fixed).map_err(|_| ())
            }
            _ => Err(()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Fixed(value) => write!(f, "{value}"),
        }
    }
}

/// The frequency of the mains. The numbers are those of the menu `V4L2_CID_POWER_LINE_FREQUENCY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerLine {
    Off = 0,
    Hz50 = 1,
    Hz60 = 2,
    Auto = 3,
}

impl PowerLine {
    const ALL: [(&'static str, Self); 4] =
        [("off", Self::Off), ("50", Self::Hz50), ("60", Self::Hz60), ("auto", Self::Auto)];

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, other)| *other == self).map_or("", |(word, _)| word)
    }
}

impl FromStr for PowerLine {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|(word, _)| *word == text).map(|(_, line)| line).ok_or(())
    }
}

/// What the user asked of the controls. What is left open stays as the camera has it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ControlWish {
    pub exposure: Option<Amount>,
    pub gain: Option<Amount>,
    pub power_line: Option<PowerLine>,
}

/// What follows from a wish on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// What to set, in this order: a camera that sets its exposure itself takes no other.
    pub set: Vec<(ControlId, i32)>,
    /// The options that this device has no control for.
    pub lacking: Vec<&'static str>,
}

/// Entries of the menu of `V4L2_CID_EXPOSURE_AUTO`, the better ones first: all by itself, or at least
/// the exposure time at a fixed aperture, which is what webcams call it.
const AUTO_EXPOSURE: [i32; 2] = [0, 3];
/// By hand, or at least the exposure time by hand.
const MANUAL_EXPOSURE: [i32; 2] = [1, 2];

/// How to grant `wish` with `controls`. A control that is not there is passed over: a camera with
/// its own idea of exposure guards better than none. A value that the control cannot take is a
/// mistake that its owner wants to know.
///
/// # Errors
/// The option, what it was given and what the range is.
pub(super) fn settings(wish: &ControlWish, controls: &[Control]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    if let Some(exposure) = wish.exposure {
        let modes = match exposure {
            Amount::Auto => AUTO_EXPOSURE,
            Amount::Fixed(_) => MANUAL_EXPOSURE,
        };
        let mode = writable(controls, ControlId::AutoExposure)
            .map(|control| modes.into_iter().find(|&mode| control.takes(mode)));
        settings.amount(exposure, ControlId::AutoExposure, mode, ControlId::Exposure, controls)?;
    }
    if let Some(gain) = wish.gain {
        let on = i32::from(gain == Amount::Auto);
        let mode = writable(controls, ControlId::AutoGain).map(|_| Some(on));
        settings.amount(gain, ControlId::AutoGain, mode, ControlId::Gain, controls)?;
    }
    if let Some(line) = wish.power_line {
        match writable(controls, ControlId::PowerLine) {
            None => settings.lacking.push(ControlId::PowerLine.option()),
            Some(control) if control.takes(line as i32) => {
                settings.set.push((ControlId::PowerLine, line as i32));
            }
            Some(control) => {
                let has = |&(_, line): &(&str, PowerLine)| control.takes(line as i32);
                let words: Vec<&str> =
                    PowerLine::ALL.into_iter().filter(has).map(|(word, _)| word).collect();
                return Err(format!(
                    "power_line={} is not among what its control '{}' can be: {}",
                    line.word(),
                    control.name,
                    words.join(", ")
                ));
            }
        }
    }
    Ok(settings)
}

impl Settings {
    /// An amount and the control that says whose it is. `mode`: what that one is to be; `None` if the
    /// device has no such control, `Some(None)` if it has and cannot be what was asked for.
    fn amount(
        &mut self,
        amount: Amount,
        switch: ControlId,
        mode: Option<Option<i32>>,
        number: ControlId,
        controls: &[Control],
    ) -> Result<(), String> {
        let value = match amount {
            Amount::Auto => None,
            Amount::Fixed(value) => Some(value),
        };
        let control = writable(controls, number);
        if let (Some(value), Some(control)) = (value, control)
            && !control.takes(value)
        {
            let unit = if number == ControlId::Exposure { " (units of 100 µs)" } else { "" };
            return Err(format!(
                "{}={amount} is outside of the range of its control '{}', {}{unit}",
                number.option(),
                control.name,
                control.range
            ));
        }
        match (mode, value, control) {
            (Some(Some(mode)), None, _) => self.set.push((switch, mode)),
            (Some(Some(mode)), Some(value), Some(_)) => {
                self.set.extend([(switch, mode), (number, value)]);
            }
            (None, Some(value), Some(_)) => self.set.push((number, value)),
            _ => self.lacking.push(number.option()),
        }
        Ok(())
    }
}

fn writable(controls: &[Control], id: ControlId) -> Option<&Control> {
    controls.iter().find(|control| control.id == id && control.writable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ControlId::{AutoExposure, AutoGain, Exposure, Gain, PowerLine as Mains};

    fn control(id: ControlId, range: ControlRange) -> Control {
        let name = format!("{id:?}");
        Control { id, name, range, default: 0, current: Some(0), writable: true }
    }

    fn number(id: ControlId, min: i32, max: i32) -> Control {
        control(id, ControlRange::Number { min, max, step: 1 })
    }

    fn menu(id: ControlId, entries: &[i32]) -> Control {
        let entries = entries.iter().map(|&index| (index, format!("entry {index}")));
        control(id, ControlRange::Menu(entries.collect()))
    }

    /// What a webcam has.
    fn webcam() -> Vec<Control> {
        vec![
            menu(AutoExposure, &[1, 3]),
            number(Exposure, 3, 2047),
            number(Gain, 0, 255),
            menu(Mains, &[0, 1, 2]),
        ]
    }

    /// A wish by its options, as they are written.
    fn wish(text: &str) -> ControlWish {
        let mut wish = ControlWish::default();
        for (key, value) in text.split_terminator(',').map(|option| option.split_once('=').unwrap())
        {
            match key {
                "exposure" => wish.exposure = Some(value.parse().unwrap()),
                "gain" => wish.gain = Some(value.parse().unwrap()),
                _ => wish.power_line = Some(value.parse().unwrap()),
            }
        }
        wish
    }

    #[test]
    fn a_wish_becomes_settings_in_the_order_in_which_a_camera_takes_them() {
        let sensor = vec![menu(AutoExposure, &[0, 1]), control(AutoGain, ControlRange::Switch)];
        let sensor = [sensor, vec![number(Gain, 0, 100)]].concat();
        let shutter = vec![menu(AutoExposure, &[2, 3]), number(Exposure, 1, 5000)];
        let bare = vec![number(Exposure, 1, 100), number(Gain, 1, 10)];
        for (device, text, set, lacking) in [
            (webcam(), "", vec![], vec![]),
            (webcam(), "exposure=auto", vec![(AutoExposure, 3)], vec![]),
            (webcam(), "exposure=100", vec![(AutoExposure, 1), (Exposure, 100)], vec![]),
            (
                webcam(),
                "exposure=3,gain=255",
                vec![(AutoExposure, 1), (Exposure, 3), (Gain, 255)],
                vec![],
            ),
            (webcam(), "power_line=50", vec![(Mains, 1)], vec![]),
            (webcam(), "power_line=off", vec![(Mains, 0)], vec![]),
            (
                sensor.clone(),
                "exposure=auto,gain=auto",
                vec![(AutoExposure, 0), (AutoGain, 1)],
                vec![],
            ),
            (sensor.clone(), "gain=7", vec![(AutoGain, 0), (Gain, 7)], vec![]),
            (shutter, "exposure=100", vec![(AutoExposure, 2), (Exposure, 100)], vec![]),
            (bare.clone(), "exposure=100,gain=1", vec![(Exposure, 100), (Gain, 1)], vec![]),
            // What is not there is passed over, and said.
            (
                webcam(),
                "gain=auto,exposure=9",
                vec![(AutoExposure, 1), (Exposure, 9)],
                vec!["gain"],
            ),
            (sensor.clone(), "exposure=100", vec![], vec!["exposure"]),
            (sensor, "power_line=60", vec![], vec!["power_line"]),
            (bare, "exposure=auto", vec![], vec!["exposure"]),
            (
                vec![menu(AutoExposure, &[3]), number(Exposure, 1, 9)],
                "exposure=5",
                vec![],
                vec!["exposure"],
            ),
            (
                vec![],
                "exposure=1,gain=2,power_line=50",
                vec![],
                vec!["exposure", "gain", "power_line"],
            ),
        ] {
            assert_eq!(settings(&wish(text), &device), Ok(Settings { set, lacking }), "{text}");
        }
    }

    #[test]
    fn a_value_that_a_control_cannot_take_is_refused_with_its_range() {
        let mut stepped = webcam();
        stepped[2].range = ControlRange::Number { min: 16, max: 64, step: 8 };
        for (device, text, expected) in [
            (
                webcam(),
                "exposure=2048",
                "exposure=2048 is outside of the range of its control 'Exposure', 3 to 2047 (units \
                 of 100 µs)",
            ),
            (
                webcam(),
                "gain=256",
                "gain=256 is outside of the range of its control 'Gain', 0 to 255",
            ),
            (
                stepped,
                "gain=8",
                "gain=8 is outside of the range of its control 'Gain', 16 to 64 in steps of 8",
            ),
            (
                webcam(),
                "power_line=auto",
                "power_line=auto is not among what its control 'PowerLine' can be: off, 50, 60",
            ),
        ] {
            assert_eq!(settings(&wish(text), &device), Err(expected.to_string()), "{text}");
        }
    }

    #[test]
    fn a_control_that_cannot_be_set_is_as_good_as_none() {
        let mut device = webcam();
        device[2].writable = false;
        device[3].writable = false;
        let found = settings(&wish("gain=9999,power_line=auto"), &device).unwrap();
        assert_eq!((found.set, found.lacking), (vec![], vec!["gain", "power_line"]));
    }

    #[test]
    fn only_words_and_numbers_that_mean_something_are_amounts() {
        assert_eq!("auto".parse(), Ok(Amount::Auto));
        assert_eq!("0".parse(), Ok(Amount::Fixed(0)));
        for wrong in ["", "-1", "+1", "1.5", "Auto", "99999999999"] {
            assert_eq!(wrong.parse::<Amount>(), Err(()), "{wrong}");
        }
        for wrong in ["", "55", "50Hz", "Off"] {
            assert_eq!(wrong.parse::<PowerLine>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn values_and_ranges_are_told_by_their_names() {
        let mains =
            control(Mains, ControlRange::Menu(vec![(0, "Disabled".into()), (1, "50 Hz".into())]));
        assert_eq!((mains.told(1), mains.told(7)), ("50 Hz".into(), "7".into()));
        assert_eq!(mains.range.to_string(), "Disabled, 50 Hz");
        let switch = control(AutoGain, ControlRange::Switch);
        assert_eq!((switch.told(0), switch.told(1)), ("off".into(), "on".into()));
        assert_eq!(number(Gain, 0, 255).told(12), "12");
    }
}
