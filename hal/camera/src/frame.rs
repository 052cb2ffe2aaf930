//! Frames and the cameras that deliver them.

use crate::{MediaTime, WallTime};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a camera on this device, from 0 in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CameraId(pub u16);

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "camera {}", self.0)
    }
}

/// How the bytes of a [`Frame`] are to be read. Raw layouts are packed: no padding between rows
/// (drivers' strides are removed where the frame is made).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// One byte of luma a pixel, `width × height` bytes.
    Grey,
    /// A JPEG image (baseline or progressive), any number of bytes.
    Jpeg,
    /// 4:2:2 packed `Y0 U Y1 V`, `2 × width × height` bytes, even width.
    Yuyv,
    /// 4:2:0: a plane of luma, then one of interleaved chroma; `3/2 × width × height` bytes.
    Nv12,
}

/// One picture as the camera delivered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the picture was taken, on the camera's media clock.
    pub media_time: MediaTime,
    /// The same moment on the wall clock.
    pub wall_time: WallTime,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// How to read `bytes`.
    pub encoding: Encoding,
    /// The picture.
    pub bytes: Vec<u8>,
}

/// What a camera answers when asked for the next frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// A picture.
    Frame(Frame),
    /// The source is finite and has ended (a video file, a simulation of so many minutes).
    End,
}

/// What a camera has noticed beside its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Frames that the device has made and that could not be taken, by its own count.
    pub frames_lost: u64,
    /// What a person should know though there are frames, a sentence each. Said once, not again for
    /// as long as it goes on.
    pub remarks: Vec<String>,
}

impl Noticed {
    /// This and then `later`.
    pub fn add(&mut self, later: Self) {
        self.frames_lost += later.frames_lost;
        self.remarks.extend(later.remarks);
    }
}

/// A source of frames. Implementations block until a frame is there or a time-out of their own has
/// passed; they never end the process.
pub trait Camera: Send {
    /// The next frame, in order of media time.
    ///
    /// # Errors
    /// [`CameraError`]: the caller asks again after a pause (see [`CameraError::is_final`]).
    fn capture(&mut self) -> Result<Capture, CameraError>;

    /// A short name for people and logs, such as `/dev/video0 (MJPG 1280x720)`.
    fn describe(&self) -> String;

    /// What was noticed since the last call; nothing, unless the camera is a device that can lose
    /// frames or fall short of what was asked of it.
    fn noticed(&mut self) -> Noticed {
        Noticed::default()
    }
}

/// Why a camera gave no frame. Each message names the device and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// The specification given by the user cannot be read.
    #[error("camera specification '{spec}': {reason}")]
    Spec {
        /// What was given.
        spec: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// There is no such device or file.
    #[error("camera '{name}' is not there: {reason}")]
    Missing {
        /// Device or file.
        name: String,
        /// What the system said, and what to do.
        reason: String,
    },
    /// The device is there but does not do what was asked of it.
    #[error("camera '{name}' cannot be used: {reason}")]
    Unusable {
        /// Device or file.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No frame within the time-out; the stream was made anew, ask again.
    #[error("camera '{name}' delivered no frame for {waited_ms} ms")]
    Stalled {
        /// Device or file.
        name: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// One frame was damaged and skipped; the next may be whole.
    #[error("camera '{name}' delivered a damaged frame: {reason}")]
    Damaged {
        /// Device or file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl CameraError {
    /// Whether asking again cannot help (the specification itself is wrong).
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Spec { .. })
    }
}
