//! A Linux board: its cameras (V4L2 devices, and video files through ffmpeg), lines, heat and watchdog.
//!
//! Both cameras implement [`hal_camera::Camera`]. [`Reopening`] wraps either (or any other camera) so that
//! one that goes away is opened again, with growing pauses, for as long as the process lives.
//!
//! [`LinuxBoard`] opens what a [`BoardDescription`] names and tends it by the rules of `hal_board`.
//!
//! `unsafe` is confined to three places: the ioctls and mappings of `v4l2/sys.rs`, the question to
//! the kernel's clock in `clock.rs`, and the one ioctl of `board/watchdog.rs`.
#![deny(unsafe_code)]

mod board;
mod clock;
mod drift;
mod file;
mod reopen;
mod spec;
mod v4l2;

pub use board::{
    BUILT_IN, Bias, BoardDescription, DescriptionError, Edge, HardwareWatchdog, InputLine,
    LineName, LinuxBoard, Notify, OutputLine, PartError, PartState, Patience, PwmOutput, SysfsPwm,
    TemperatureSensor, Wiring,
};
pub use clock::{Clock, Now, SystemClock};
pub use drift::{ClockChange, Drift};
pub use file::FileCamera;
pub use reopen::{Backoff, Reopening, Wait};
pub use v4l2::{
    Control, ControlId, ControlRange, Device, DeviceFormat, Fit, FourCc, FrameRates, FrameSize,
    FrameSizes, Interval, V4l2Camera, V4l2Output, list_devices,
};
