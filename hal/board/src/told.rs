//! What the agent tells the board at each step, and what the board asks of the agent.

use crate::{AlarmRequest, Asks, Pattern, Progress, Temperature, ThrottleLevel};

/// What the agent tells the board. The default is a board that boots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// At least one camera is being watched.
    pub watching: bool,
    /// An inquiry is under way.
    pub inquiring: bool,
    /// An update is being installed: the power must stay on.
    pub updating: bool,
    /// Somebody wants to see which camera this is.
    pub identify: bool,
    /// A camera gives no pictures.
    pub camera_trouble: bool,
    /// Footage is not kept.
    pub store_trouble: bool,
    /// An alarm is asked for, for as long as this is some. Another number renews it.
    pub alarm: Option<AlarmRequest>,
    /// How light it is, 0..=1: a picture's mean luma or a sensor's reading. `None`, or anything
    /// else: not known.
    pub ambient: Option<f32>,
    /// The newest reading of the board's temperature.
    pub temperature: Temperature,
    /// The progress of the parts.
    pub progress: Progress,
}

/// What the board asks of the agent, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The hardware watchdog is to be kicked now.
    pub kick_watchdog: bool,
    /// What the heat asks of frames and inquiries.
    pub throttle: Asks,
    /// How hot it is.
    pub level: ThrottleLevel,
    /// It is night.
    pub night: bool,
    /// The relay is on.
    pub relay_on: bool,
    /// The housing is open; `None`: no such contact, or not known yet.
    pub tamper_open: Option<bool>,
    /// The door is open; `None`: no such contact, or not known yet.
    pub door_open: Option<bool>,
    /// What the light shows; without a light, what it would.
    pub pattern: Pattern,
}
