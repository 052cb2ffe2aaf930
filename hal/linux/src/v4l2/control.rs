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

    pub(super) fn takes(&self, value: i32) -> bool {
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
    pub const ALL: [(&'static str, Self); 4] =
        [("off", Self::Off), ("50", Self::Hz50), ("60", Self::Hz60), ("auto", Self::Auto)];

    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, other)| *other == self).map_or("", |(word, _)| word)
    }
}

impl FromStr for PowerLine {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|(word, _)| *word == text).map(|(_, line)| line).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let of = |range| Control {
            id: ControlId::Gain,
            name: String::new(),
            range,
            default: 0,
            current: None,
            writable: true,
        };
        let mains = of(ControlRange::Menu(vec![(0, "Disabled".into()), (1, "50 Hz".into())]));
        assert_eq!((mains.told(1), mains.told(7)), ("50 Hz".into(), "7".into()));
        assert_eq!(mains.range.to_string(), "Disabled, 50 Hz");
        let switch = of(ControlRange::Switch);
        assert_eq!((switch.told(0), switch.told(1)), ("off".into(), "on".into()));
        let stepped = of(ControlRange::Number { min: 0, max: 255, step: 5 });
        assert_eq!(
            (stepped.told(12), stepped.range.to_string().as_str()),
            ("12".into(), "0 to 255 in steps of 5")
        );
    }
}
