//! The hardware of a camera board as Linux shows it: GPIO lines, PWM, a watchdog, thermal zones; and the
//! description that says which of them a board has and what they are for.

mod description;
mod error;
mod gpio;
mod notify;
mod pwm;
mod tended;
mod thermal;
mod watchdog;

pub use description::{BUILT_IN, BoardDescription, DescriptionError};
pub use error::PartError;
pub use gpio::{Bias, Edge, InputLine, LineName, OutputLine, Wiring};
pub use notify::{Notify, Patience};
pub use pwm::{PwmOutput, SysfsPwm};
pub use tended::{LinuxBoard, PartState};
pub use thermal::TemperatureSensor;
pub use watchdog::HardwareWatchdog;
