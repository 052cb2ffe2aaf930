//! The board: its machines on its pins.

use crate::debounce::{Debounce, DebounceOptions, Edge};
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

/// The pins that a board has; each may be missing.
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
    light: (Light, Option<Output<O, bool>>),
    relay: (Relay, Option<Output<O, bool>>),
    night: (Night, Option<Output<P, u16>>),
    tamper: (Debounce, Option<Input<I>>),
    door: (Debounce, Option<Input<I>>),
    thermal: (Thermal, Option<Millis>),
    watchdog: Watchdog,
    events: EventQueue,
}

impl<O: OutputPin, I: InputPin, P: SetDutyCycle> Board<O, I, P> {
    /// A board whose lines are as they are until the first step.
    pub fn new(options: BoardOptions, pins: Pins<O, I, P>) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            options,
            now: Millis::default(),
            light: (Light::default(), pins.light.map(Output::new)),
            relay: (Relay::default(), pins.relay.map(Output::new)),
            night: (Night::default(), pins.infrared.map(Output::new)),
            tamper: (Debounce::default(), pins.tamper.map(Input::new)),
            door: (Debounce::default(), pins.door.map(Input::new)),
            thermal: (Thermal::default(), None),
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
        let pattern = Pattern::of(told, self.relay.0.is_on());
        self.write_light(pattern);
        let kick_watchdog = self.watch(told);
        let level = self.thermal.0.level();
        Asked {
            kick_watchdog,
            throttle: self.options.thermal.asks_of(level),
            level,
            night: self.night.0.is_night(),
            relay_on: self.relay.0.is_on(),
            tamper_open: self.tamper.0.is_open(),
            door_open: self.door.0.is_open(),
            pattern: self.light.0.shown().unwrap_or(pattern),
        }
    }

    /// The next event, the oldest first.
    pub fn next_event(&mut self) -> Option<BoardEvent> {
        self.events.take()
    }

    /// How often a line has failed since the start.
    pub fn failures(&self, line: Line) -> u32 {
        let health = match line {
            Line::Light => self.light.1.as_ref().map(|output| output.health),
            Line::Relay => self.relay.1.as_ref().map(|output| output.health),
            Line::Infrared => self.night.1.as_ref().map(|output| output.health),
            Line::Tamper => self.tamper.1.as_ref().map(|input| input.health),
            Line::Door => self.door.1.as_ref().map(|input| input.health),
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
        let (now, options) = (self.now, self.options);
        let (line, (debounce, input), options): (_, _, DebounceOptions) = match contact {
            Contact::Tamper => (Line::Tamper, &mut self.tamper, options.tamper),
            Contact::Door => (Line::Door, &mut self.door, options.door),
        };
        let Some(input) = input else { return };
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
        let (thermal, taken) = &mut self.thermal;
        if taken.is_some_and(|at| self.now.since(at) < TEMPERATURE_EVERY_MS) {
            return;
        }
        *taken = Some(self.now);
        let change = thermal.step(&self.options.thermal, self.now, temperature);
        match change {
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
        let (night, output) = &mut self.night;
        let was_night = night.is_night();
        let level = self.thermal.0.level();
        let cap_permille = self.options.thermal.asks_of(level).infrared_permille;
        let permille = night.step(&self.options.night, self.now, ambient, cap_permille);
        let is_night = night.is_night();
        let change = output.as_mut().and_then(|output| {
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
        let (relay, output) = &mut self.relay;
        let Some(output) = output else { return };
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
        let (light, output) = &mut self.light;
        let on = light.step(self.now, pattern);
        let active_low = self.options.light.active_low;
        let change = output.as_mut().and_then(|output| {
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
        let failed = [
            (
                Line::Relay,
                self.relay
                    .1
                    .as_mut()
                    .is_some_and(|o| o.force(now, false, |pin| pin.set_state(relay_off))),
            ),
            (
                Line::Infrared,
                self.night.1.as_mut().is_some_and(|o| o.force(now, 0, |pin| pin.set_duty_cycle(0))),
            ),
            (
                Line::Light,
                self.light
                    .1
                    .as_mut()
                    .is_some_and(|o| o.force(now, false, |pin| pin.set_state(light_off))),
            ),
        ];
        if self.relay.0.is_on() {
            self.relay.0.wrote(now, false);
            self.tell(What::RelayOff { reason: RelayOffReason::Released });
        }
        for (line, _) in failed.into_iter().filter(|(_, failed)| *failed) {
            self.tell(What::LineFailed { line });
        }
    }
}

/// Sets a pulse width to thousandths of its full.
fn set_permille<P: SetDutyCycle>(pin: &mut P, permille: u16) -> Result<(), P::Error> {
    let duty = u32::from(pin.max_duty_cycle()) * u32::from(permille) / u32::from(FULL_PERMILLE);
    // At most the full one, which is a u16, as a permille is at most a thousand.
    pin.set_duty_cycle(u16::try_from(duty).unwrap_or(u16::MAX))
}
