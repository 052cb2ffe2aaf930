//! Cameras of a Linux board: V4L2 devices, and video files through ffmpeg.
//!
//! Both implement [`hal_camera::Camera`]. [`Reopening`] wraps either (or any other camera) so that
//! one that goes away is opened again, with growing pauses, for as long as the process lives.
//!
//! `unsafe` is confined to two places: the ioctls and mappings of `v4l2/sys.rs`, and the question to
//! the kernel's clock in `clock.rs`.
#![deny(unsafe_code)]

mod clock;
mod file;
mod reopen;
mod spec;
mod v4l2;

pub use clock::{Clock, Now, SystemClock};
pub use file::FileCamera;
pub use reopen::{Backoff, Reopening, Wait};
pub use v4l2::{Device, DeviceFormat, FourCc, FrameSizes, V4l2Camera, V4l2Output, list_devices};
