//! A board of Linux: its description opened, part by part, and tended.

use super::description::BoardDescription;
use super::{
    HardwareWatchdog, InputLine, Notify, OutputLine, PartError, SysfsPwm, TemperatureSensor,
};
use hal_board::{Asked, Board, BoardEvent, Millis, OptionsError, Pins, Temperature, Told};

/// How a part of the board stands.
#[derive(Debug)]
pub struct PartState {
    /// Such as `alarm relay`.
    pub part: &'static str,
    /// What it is, or why it cannot be used.
    pub found: Result<String, PartError>,
}

/// A board whose parts are open. What could not be opened is left out; the rest works.
pub struct LinuxBoard {
    name: String,
    board: Board<OutputLine, InputLine, SysfsPwm>,
    sensor: Sensor,
    watchdog: Option<HardwareWatchdog>,
    notify: Notify,
    /// The last kick failed: said once, until one succeeds.
    kick_failed: bool,
    trouble: Vec<String>,
}

/// The board's temperature, read no oftener than a sensor answers.
struct Sensor {
    opened: Option<TemperatureSensor>,
    read_at: Option<Millis>,
    newest: Temperature,
}

/// Between two readings of the temperature, in milliseconds.
const READ_EVERY_MS: u64 = 1000;

impl LinuxBoard {
    /// Opens what `description` names. The watchdog counts from here on, if there is one.
    ///
    /// # Errors
    /// If its options contradict each other. A part that cannot be opened is no error: its state says why.
    pub fn open(
        description: &BoardDescription,
        notify: Notify,
    ) -> Result<(Self, Vec<PartState>), OptionsError> {
        let mut states = vec![];
        let d = description;
        let pins = Pins {
            light: open("status light", d.light.as_ref(), &mut states, |line| {
                OutputLine::open(&line.wiring()).map(|line| (line.name().to_owned(), line))
            }),
            relay: open("alarm relay", d.relay.as_ref(), &mut states, |line| {
                OutputLine::open(&line.wiring()).map(|line| (line.name().to_owned(), line))
            }),
            infrared: open("illuminator", d.infrared.as_ref(), &mut states, |pwm| {
                SysfsPwm::open(&pwm.output()).map(|pwm| (pwm.name().to_owned(), pwm))
            }),
            tamper: open("tamper contact", d.tamper.as_ref(), &mut states, |line| {
                InputLine::open(&line.wiring()).map(|line| (line.name().to_owned(), line))
            }),
            door: open("door contact", d.door.as_ref(), &mut states, |line| {
                InputLine::open(&line.wiring()).map(|line| (line.name().to_owned(), line))
            }),
        };
        let sensor = open("temperature", d.temperature.as_ref(), &mut states, |sensor| {
            TemperatureSensor::open(sensor).map(|sensor| (sensor.name().to_owned(), sensor))
        });
        let board = Board::new(d.options, pins)?;
        let watchdog = open("watchdog", d.watchdog.as_ref(), &mut states, |device| {
            let armed = HardwareWatchdog::arm(&device.device, device.timeout_s)?;
            Ok((format!("{}, {} s", device.device.display(), armed.timeout_s()), armed))
        });
        let board = Self {
            name: d.name.clone(),
            board,
            sensor: Sensor { opened: sensor, read_at: None, newest: Temperature::default() },
            watchdog,
            notify,
            kick_failed: false,
            trouble: vec![],
        };
        Ok((board, states))
    }

    /// How the parts that `description` names stand, without taking or arming any.
    pub fn examine(description: &BoardDescription) -> Vec<PartState> {
        let mut states = vec![];
        let d = description;
        for (part, line) in [
            ("status light", &d.light),
            ("alarm relay", &d.relay),
            ("tamper contact", &d.tamper),
            ("door contact", &d.door),
        ] {
            open(part, line.as_ref(), &mut states, |line| {
                super::gpio::examine(&line.wiring().line).map(|name| (name, ()))
            });
        }
        open("illuminator", d.infrared.as_ref(), &mut states, |pwm| {
            SysfsPwm::examine(&pwm.output()).map(|name| (name, ()))
        });
        open("temperature", d.temperature.as_ref(), &mut states, |sensor| {
            let sensor = TemperatureSensor::open(sensor)?;
            let reading = match sensor.read() {
                Temperature::MilliCelsius(mc) => format!("{}, {} °C", sensor.name(), mc / 1000),
                _ => format!("{}, which gives no reading", sensor.name()),
            };
            Ok((reading, ()))
        });
        open("watchdog", d.watchdog.as_ref(), &mut states, |device| {
            HardwareWatchdog::examine(&device.device).map(|name| (name, ()))
        });
        states
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the inputs, writes the outputs, kicks the watchdog if all is well. To be called every
    /// [`hal_board::STEP_MS`] with what the agent tells; the temperature is added here.
    pub fn step(&mut self, now: Millis, told: &Told) -> Asked {
        let told = Told { temperature: self.sensor.read(now), ..*told };
        let asked = self.board.step(now, &told);
        if asked.kick_watchdog {
            self.notify.alive();
            let kicked = self.watchdog.as_mut().map_or(Ok(()), HardwareWatchdog::kick);
            if let (Err(error), false) = (&kicked, self.kick_failed) {
                self.trouble.push(error.to_string());
            }
            self.kick_failed = kicked.is_err();
        }
        asked
    }

    /// The next event of the board, the oldest first.
    pub fn next_event(&mut self) -> Option<BoardEvent> {
        self.board.next_event()
    }

    /// The next sentence about what this computer does not do for the board.
    pub fn next_trouble(&mut self) -> Option<String> {
        self.trouble.pop()
    }

    /// Leaves the board in good order: every output off, the watchdog stopped.
    pub fn close(self) {
        self.notify.stopping();
        if let Some(watchdog) = self.watchdog {
            watchdog.disarm();
        }
    }
}

impl Sensor {
    fn read(&mut self, now: Millis) -> Temperature {
        let Some(sensor) = &self.opened else { return Temperature::NoSensor };
        if self.read_at.is_none_or(|at| now.since(at) >= READ_EVERY_MS) {
            self.read_at = Some(now);
            self.newest = sensor.read();
        }
        self.newest
    }
}

/// Opens a part, if it is described, and notes how it stands.
fn open<D, T>(
    part: &'static str,
    described: Option<&D>,
    states: &mut Vec<PartState>,
    open: impl FnOnce(&D) -> Result<(String, T), PartError>,
) -> Option<T> {
    let (found, opened) = match open(described?) {
        Ok((name, opened)) => (Ok(name), Some(opened)),
        Err(error) => (Err(error), None),
    };
    states.push(PartState { part, found });
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_said_part_by_part_and_the_board_is_tended_without_it() {
        let text = "name = \"none of it\"\n\
                    [relay]\nchip = \"/dev/gpiochip-none\"\noffset = 1\n\
                    [temperature]\nzone = \"no such zone\"\n\
                    [watchdog]\ndevice = \"/dev/watchdog-none\"\n";
        let description = BoardDescription::parse("test", text).unwrap();
        let (mut board, states) = LinuxBoard::open(&description, Notify::default()).unwrap();
        let wrong: Vec<&str> = states.iter().filter(|s| s.found.is_err()).map(|s| s.part).collect();
        assert_eq!(wrong, ["alarm relay", "temperature", "watchdog"]);
        let asked = board.step(Millis(0), &Told::default());
        assert!(asked.kick_watchdog, "systemd's watchdog is kicked all the same");
        assert_eq!(board.next_trouble(), None);
        let examined = LinuxBoard::examine(&description);
        assert_eq!(examined.len(), 3);
        assert!(examined.iter().all(|state| state.found.is_err()));
        board.close();
    }
}
