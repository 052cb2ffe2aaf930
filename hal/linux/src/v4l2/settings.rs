//! What follows from a wish for exposure, gain and mains frequency on a camera with these controls. Pure.

use super::control::{Amount, Control, ControlId, PowerLine};

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
    use super::super::control::ControlRange;
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
}
