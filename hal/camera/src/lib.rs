//! What a camera is: frames, their times, their pixels.
//!
//! Every camera (simulated, V4L2, a video file) delivers [`Frame`]s through the one trait
//! [`Camera`]. Frames carry two times: [`MediaTime`], which never jumps and orders everything, and
//! [`WallTime`], which people read and which says how far it can be trusted.
#![forbid(unsafe_code)]

mod frame;
mod jpeg;
mod pixels;
mod scaled;
mod time;

pub use frame::{Camera, CameraError, CameraId, Capture, Encoding, Frame, Noticed};
pub use pixels::{
    Luma, PixelError, decode_luma, decode_luma_scaled, encode_luma_jpeg, is_jpeg, jpeg_size,
};
pub use time::{ClockQuality, MediaTime, Span, WallTime};
