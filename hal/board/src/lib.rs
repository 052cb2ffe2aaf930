//! What a camera board is: a status light, an alarm relay, an infrared illuminator, contacts for
//! tampering and the door, a temperature, and a watchdog that wants to be kicked.
//!
//! Each part is a pure state machine in a file of its own: what it is told and the time go in, what
//! the line should be comes out. [`Board`] puts them on pins of `embedded-hal`, whatever these are: lines of
//! a GPIO chip under Linux, registers of a microcontroller, or variables of a test. It knows no
//! operating system, file, clock or network, and allocates nothing.
//!
//! Whoever has the pins calls [`Board::step`] every [`STEP_MS`] with the time and with what the
//! agent has to tell ([`Told`]), does what comes back ([`Asked`]), and takes the events
//! ([`Board::next_event`]).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod board;
mod debounce;
mod events;
mod light;
mod line;
mod night;
mod options;
mod relay;
mod thermal;
mod time;
mod told;
mod watchdog;

pub use board::{Board, Pins, STEP_MS};
pub use debounce::{Debounce, DebounceOptions, Edge};
pub use events::{BoardEvent, Contact, EVENTS_MAX, EventQueue, Line, RelayOffReason, What};
pub use light::{Light, LightOptions, Pattern};
pub use night::{Night, NightOptions};
pub use options::{BoardOptions, OptionsError};
pub use relay::{AlarmRequest, Relay, RelayOptions};
pub use thermal::{
    Asks, AsksOptions, Temperature, Thermal, ThermalChange, ThermalOptions, ThrottleLevel,
};
pub use time::Millis;
pub use told::{Asked, Told};
pub use watchdog::{CAMERAS_MAX, Pace, Part, PartChange, Progress, Watchdog, WatchdogOptions};
