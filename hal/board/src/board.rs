//! The board: its machines on its pins.

use crate::debounce::{Debounce, Edge};
use crate::line::{Input, LineChange, Output};
use crate::night::FULL_PERMILLE;
use crate::watchdog::PartChange;
use crate::{Asked, BoardEvent, BoardOptions, Contact, EventQueue, Light, Line, Millis, Night};
use crate::{OptionsError, Pattern, Relay, RelayOffReason, Told, Watchdog, What};
use crate::{Temperature, Thermal, ThermalChange};
use embedded_hal::digital::{InputPin, OutputPin, PinState};
use embedded_hal::pwm::SetDutyCycle;

/// How often [`Board::step`] is to be called, in milliseconds: twice within the light's shortest flash
/// and within a contact's default stable time.
pub const STEP_MS: u64 = 50;

/// How often a reading of the temperature is taken, in milliseconds: sensors answer no faster.
const TEMPERATURE_EVERY_MS: u64 = 1_000;

/// The pins that a board has; each may be missing. Outputs are of one type, and so are inputs: under
/// Linux they are anyway, and for microcontrollers a pin's number can be erased from its type.
#[derive(Debug)]
pub struct Pins<O, I, P> {
    /// Of the status light.
    pub light: Option<O>,
    /// Of the alarm relay.
    pub relay: Option<O>,
    /// Of the infrared illuminator.
    pub infrared: Option<P>,
    /// Of the tamper switch.
    pub tamper: Option<I>,
    /// Of the door.
    pub door: Option<I>,
}

impl<O, I, P> Default for Pins<O, I, P> {
    /// A board without any.
    fn default() -> Self {
        Self { light: None, relay: None, infrared: None, tamper: None, door: None }
    }
}

/// A board: outputs of type `O`, inputs of type `I`, a pulse width of type `P`.
#[derive(Debug)]
pub struct Board<O, I, P> {
    options: BoardOptions,
    now: Millis,
    light: Fitted<Light, Output<O, bool>>,
    relay: Fitted<Relay, Output<O, bool>>,
    night: Fitted<Night, Output<P, u16>>,
    tamper: Fitted<Debounce, Input<I>>,
    door: Fitted<Debounce, Input<I>>,
    thermal: Thermal,
    temperature_taken: Option<Millis>,
    watchdog: Watchdog,
    events: EventQueue,
}

/// A machine and the line that it works, if the board has it.
#[derive(Debug)]
struct Fitted<M, L> {
    machine: M,
    line: Option<L>,
}

impl<M: Default, L> Fitted<M, L> {
    fn new(line: Option<L>) -> Self {
        Self { machine: M::default(), line }
    }
}

impl<O: OutputPin, I: InputPin, P: SetDutyCycle> Board<O, I, P> {
    /// A board whose lines are as they are until the first step.
    pub fn new(options: BoardOptions, pins: Pins<O, I, P>) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            options,
            now: Millis::default(),
            light: Fitted::new(pins.light.map(Output::new)),
            relay: Fitted::new(pins.relay.map(Output::new)),
            night: Fitted::new(pins.infrared.map(Output::new)),
            tamper: Fitted::new(pins.tamper.map(Input::new)),
            door: Fitted::new(pins.door.map(Input::new)),
            thermal: Thermal::default(),
            temperature_taken: None,
            watchdog: Watchdog::default(),
            events: EventQueue::default(),
        })
    }

    /// Reads the inputs, writes the outputs that change, and queues what happened. A line that
    /// fails holds up nothing else. Time that runs backwards stands still.
    pub fn step(&mut self, now: Millis, told: &Told) -> Asked {
        self.now = self.now.max(now);
        self.read_contact(Contact::Tamper);
        self.read_contact(Contact::Door);
        self.take_temperature(told.temperature);
        self.write_infrared(told.ambient);
        self.write_relay(told);
        let pattern = Pattern::of(told, self.relay.machine.is_on());
        self.write_light(pattern);
        let kick_watchdog = self.watch(told);
        let level = self.thermal.level();
        Asked {
            kick_watchdog,
            throttle: self.options.thermal.asks_of(level),
            level,
            night: self.night.machine.is_night(),
            relay_on: self.relay.machine.is_on(),
            tamper_open: self.tamper.machine.is_open(),
            door_open: self.door.machine.is_open(),
            pattern: self.light.machine.shown().unwrap_or(pattern),
        }
    }

    /// The next event, the oldest first.
    pub fn next_event(&mut self) -> Option<BoardEvent> {
        self.events.take()
    }

    /// How often a line has failed since the start.
    pub fn failures(&self, line: Line) -> u32 {
        let health = match line {
            Line::Light => self.light.line.as_ref().map(|output| output.health),
            Line::Relay => self.relay.line.as_ref().map(|output| output.health),
            Line::Infrared => self.night.line.as_ref().map(|output| output.health),
            Line::Tamper => self.tamper.line.as_ref().map(|input| input.health),
            Line::Door => self.door.line.as_ref().map(|input| input.health),
        };
        health.map_or(0, |health| health.failures)
    }

    fn tell(&mut self, what: What) {
        self.events.put(BoardEvent { at: self.now, what });
    }

    fn tell_line(&mut self, line: Line, change: Option<LineChange>) {
        match change {
            Some(LineChange::Failed) => self.tell(What::LineFailed { line }),
            Some(LineChange::Works(failures)) => self.tell(What::LineWorks { line, failures }),
            None => {}
        }
    }

    fn read_contact(&mut self, contact: Contact) {
        let now = self.now;
        let (line, options, fitted) = match contact {
            Contact::Tamper => (Line::Tamper, self.options.tamper, &mut self.tamper),
            Contact::Door => (Line::Door, self.options.door, &mut self.door),
        };
        let Fitted { machine: debounce, line: Some(input) } = fitted else { return };
        let (level, change) = input.read(now);
        let edge = match level {
            Some(high) => debounce.step(&options, now, high),
            None => {
                debounce.unread();
                None
            }
        };
        let bounces = debounce.chatter(&options, now);
        self.tell_line(line, change);
        match edge {
            Some(Edge::Opened) => self.tell(What::Opened { contact }),
            Some(Edge::Closed) => self.tell(What::Closed { contact }),
            None => {}
        }
        if let Some(bounces) = bounces {
            self.tell(What::Chatters { contact, bounces });
        }
    }

    fn take_temperature(&mut self, temperature: Temperature) {
        let taken = self.temperature_taken;
        if taken.is_some_and(|at| self.now.since(at) < TEMPERATURE_EVERY_MS) {
            return;
        }
        self.temperature_taken = Some(self.now);
        match self.thermal.step(&self.options.thermal, self.now, temperature) {
            Some(ThermalChange::Level { from, to, at_mc }) => {
                self.tell(What::Throttle { from, to, at_mc });
            }
            Some(ThermalChange::SensorLost { invalid }) => {
                self.tell(What::TemperatureLost { invalid });
            }
            Some(ThermalChange::SensorFound { invalid }) => {
                self.tell(What::TemperatureFound { invalid });
            }
            None => {}
        }
    }

    fn write_infrared(&mut self, ambient: Option<f32>) {
        let Fitted { machine: night, line } = &mut self.night;
        let was_night = night.is_night();
        let level = self.thermal.level();
        let cap_permille = self.options.thermal.asks_of(level).infrared_permille;
        let permille = night.step(&self.options.night, self.now, ambient, cap_permille);
        let is_night = night.is_night();
        let change = line.as_mut().and_then(|output| {
            output.set(self.now, permille, |pin, permille| set_permille(pin, permille)).1
        });
        self.tell_line(Line::Infrared, change);
        match (was_night, is_night) {
            (false, true) => self.tell(What::NightFell),
            (true, false) => self.tell(What::DayBroke),
            _ => {}
        }
    }

    fn write_relay(&mut self, told: &Told) {
        let Fitted { machine: relay, line: Some(output) } = &mut self.relay else { return };
        let was_on = relay.is_on();
        let wanted = relay.wanted(&self.options.relay, self.now, told.alarm);
        let active_low = self.options.relay.active_low;
        let (written, change) =
            output.set(self.now, wanted, |pin, on| pin.set_state(PinState::from(on != active_low)));
        if written {
            relay.wrote(self.now, wanted);
        }
        let is_on = relay.is_on();
        self.tell_line(Line::Relay, change);
        match (was_on, is_on) {
            (false, true) => self.tell(What::RelayOn),
            (true, false) if told.alarm.is_some() => {
                self.tell(What::RelayOff { reason: RelayOffReason::LimitReached });
            }
            (true, false) => self.tell(What::RelayOff { reason: RelayOffReason::Released }),
            _ => {}
        }
    }

    fn write_light(&mut self, pattern: Pattern) {
        let Fitted { machine: light, line } = &mut self.light;
        let on = light.step(self.now, pattern);
        let active_low = self.options.light.active_low;
        let change = line.as_mut().and_then(|output| {
            output.set(self.now, on, |pin, on| pin.set_state(PinState::from(on != active_low))).1
        });
        self.tell_line(Line::Light, change);
    }

    fn watch(&mut self, told: &Told) -> bool {
        let (kick, changes) = self.watchdog.step(&self.options.watchdog, self.now, &told.progress);
        for change in changes {
            self.tell(match change {
                PartChange::Stuck(part, silent_ms) => What::PartStuck { part, silent_ms },
                PartChange::Recovered(part, silent_ms) => What::PartRecovered { part, silent_ms },
            });
        }
        kick
    }

    /// Puts the outputs where they do no harm, for an orderly end: relay, illuminator and light
    /// off, at once and whatever their times. Every line is tried; those that failed are told.
    pub fn stand_down(&mut self) {
        let now = self.now;
        let relay_off = PinState::from(self.options.relay.active_low);
        let light_off = PinState::from(self.options.light.active_low);
        let Self { relay, night, light, .. } = self;
        let relay_works =
            relay.line.as_mut().map(|line| line.force(now, false, |pin| pin.set_state(relay_off)));
        let infrared_works =
            night.line.as_mut().map(|line| line.force(now, 0, |pin| pin.set_duty_cycle(0)));
        let light_works =
            light.line.as_mut().map(|line| line.force(now, false, |pin| pin.set_state(light_off)));
        if relay.machine.is_on() && relay_works == Some(true) {
            relay.machine.wrote(now, false);
            self.tell(What::RelayOff { reason: RelayOffReason::Released });
        }
        for (line, works) in [
            (Line::Relay, relay_works),
            (Line::Infrared, infrared_works),
            (Line::Light, light_works),
        ] {
            if works == Some(false) {
                self.tell(What::LineFailed { line });
            }
        }
    }
}

/// Sets a pulse width to thousandths of its full.
fn set_permille<P: SetDutyCycle>(pin: &mut P, permille: u16) -> Result<(), P::Error> {
    let duty = u32::from(pin.max_duty_cycle()) * u32::from(permille) / u32::from(FULL_PERMILLE);
    // At most the full one, which is a u16, as a permille is at most a thousand.
    pin.set_duty_cycle(u16::try_from(duty).unwrap_or(u16::MAX))
}
