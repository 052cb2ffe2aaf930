//! Pins of a board that is not there: the test holds the other end of each.
// Each test program uses some of it.
#![allow(dead_code)]

use embedded_hal::digital::{ErrorKind, ErrorType, InputPin, OutputPin};
use embedded_hal::pwm;
use hal_board::{Board, BoardEvent, BoardOptions, Millis, Pace, Pins, Progress, Told};
use std::cell::Cell;
use std::rc::Rc;

/// Both ends of a digital line: what it is, whether using it fails, how often it was written.
#[derive(Clone, Default)]
pub struct Wire(Rc<WireState>);

#[derive(Default)]
struct WireState {
    high: Cell<bool>,
    broken: Cell<bool>,
    writes: Cell<u32>,
}

impl Wire {
    pub fn is_high(&self) -> bool {
        self.0.high.get()
    }

    pub fn drive(&self, high: bool) {
        self.0.high.set(high);
    }

    pub fn break_it(&self, broken: bool) {
        self.0.broken.set(broken);
    }

    pub fn writes(&self) -> u32 {
        self.0.writes.get()
    }

    fn try_it(&self) -> Result<(), ErrorKind> {
        if self.0.broken.get() { Err(ErrorKind::Other) } else { Ok(()) }
    }

    fn write(&self, high: bool) -> Result<(), ErrorKind> {
        self.try_it()?;
        self.0.writes.set(self.writes() + 1);
        self.0.high.set(high);
        Ok(())
    }
}

impl ErrorType for Wire {
    type Error = ErrorKind;
}

impl InputPin for Wire {
    fn is_high(&mut self) -> Result<bool, ErrorKind> {
        self.try_it().map(|()| self.0.high.get())
    }

    fn is_low(&mut self) -> Result<bool, ErrorKind> {
        self.is_high().map(|high| !high)
    }
}

impl OutputPin for Wire {
    fn set_low(&mut self) -> Result<(), ErrorKind> {
        self.write(false)
    }

    fn set_high(&mut self) -> Result<(), ErrorKind> {
        self.write(true)
    }
}

/// A lamp that can be dimmed.
#[derive(Clone, Default)]
pub struct Lamp {
    duty: Rc<Cell<u16>>,
    broken: Rc<Cell<bool>>,
}

/// Full duty of a [`Lamp`]: no multiple of a thousand, as with real timers.
pub const LAMP_FULL: u16 = 65_535;

impl Lamp {
    pub fn duty(&self) -> u16 {
        self.duty.get()
    }

    pub fn break_it(&self, broken: bool) {
        self.broken.set(broken);
    }
}

impl pwm::ErrorType for Lamp {
    type Error = pwm::ErrorKind;
}

impl pwm::SetDutyCycle for Lamp {
    fn max_duty_cycle(&self) -> u16 {
        LAMP_FULL
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), pwm::ErrorKind> {
        if self.broken.get() {
            return Err(pwm::ErrorKind::Other);
        }
        self.duty.set(duty);
        Ok(())
    }
}

/// A board with every part, and the other ends of its lines.
pub struct Bench {
    pub board: Board<Wire, Wire, Lamp>,
    pub light: Wire,
    pub relay: Wire,
    pub infrared: Lamp,
    pub tamper: Wire,
    pub door: Wire,
}

impl Bench {
    pub fn new(options: BoardOptions) -> Self {
        let [light, relay, tamper, door] = std::array::from_fn(|_| Wire::default());
        let infrared = Lamp::default();
        let pins = Pins {
            light: Some(light.clone()),
            relay: Some(relay.clone()),
            infrared: Some(infrared.clone()),
            tamper: Some(tamper.clone()),
            door: Some(door.clone()),
        };
        let board = Board::new(options, pins).expect("the options are allowed");
        Self { board, light, relay, infrared, tamper, door }
    }

    /// Events that wait, with their times in milliseconds.
    pub fn events(&mut self) -> Vec<(u64, String)> {
        std::iter::from_fn(|| self.board.next_event())
            .map(|BoardEvent { at: Millis(ms), what }| (ms, what.to_string()))
            .collect()
    }
}

/// A camera that watches, all of whose parts move.
pub fn well(ms: u64) -> Told {
    let count = Pace::Count(ms);
    let capture = [count, Pace::Idle, Pace::Idle, Pace::Idle];
    let progress = Progress { capture, store: count, inquiry: Pace::Idle };
    Told { watching: true, progress, ..Told::default() }
}
