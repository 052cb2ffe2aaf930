//! What can go wrong, each with the file and the remedy.

use crate::{FrameId, PinId, StoreId};
use hal_camera::{CameraId, MediaTime};
use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do what was asked. Whatever it is, what was stored before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The options contradict each other.
    #[error("frame store options: {reason}")]
    Options {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The system refused a file operation.
    #[error("could not {what} '{path}': {source}", path = path.display())]
    Io {
        /// What was tried, such as "write".
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full, and giving up old footage did not help or there is none.
    #[error(
        "the disk of '{path}' is full and giving up old footage did not help: free space on it, or \
         lower the store's bytes_max", path = path.display()
    )]
    NoSpace {
        /// The file that found no room.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error(
        "the frame store '{dir}' is in use by another process: stop it, or give this one another \
         data directory", dir = dir.display()
    )]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory is not the store it should be.
    #[error(
        "'{dir}' should hold the frame store {expected} but holds {found}: is the right disk \
         mounted?", dir = dir.display()
    )]
    WrongStore {
        /// The store's directory.
        dir: PathBuf,
        /// The identity that the caller asked for.
        expected: StoreId,
        /// The identity found, or "none".
        found: String,
    },
    /// The frame's bytes are not what its header says.
    #[error("a frame of {camera} cannot be stored: {reason}")]
    BadFrame {
        /// The camera that it came from.
        camera: CameraId,
        /// What is wrong with it.
        reason: String,
    },
    /// The frame does not fit into a segment.
    #[error(
        "a frame of {camera} has {bytes} bytes, more than the {bytes_max} that fit into a \
         segment: raise segment_bytes or lower the camera's size"
    )]
    FrameTooLarge {
        /// The camera that it came from.
        camera: CameraId,
        /// Its JPEG bytes.
        bytes: usize,
        /// The most that fit.
        bytes_max: u64,
    },
    /// The frame is earlier than the last one of its camera in this boot epoch.
    #[error("a frame of {camera} is of {given}, before the last one stored ({last})")]
    TimeWentBack {
        /// The camera that it came from.
        camera: CameraId,
        /// The frame's media time.
        given: MediaTime,
        /// The last stored frame's media time.
        last: MediaTime,
    },
    /// The ring no longer holds the frame (or never did).
    #[error("the frame store no longer holds frame {id}")]
    Gone {
        /// The frame asked for.
        id: FrameId,
    },
    /// Bytes on disk are not those that were written.
    #[error("'{path}' is damaged{}: {reason}", frame.map_or(String::new(), |id| format!(" at frame {id}")), path = path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// The damaged frame; `None` if the damage is in the file's own header or index.
        frame: Option<FrameId>,
        /// What does not fit.
        reason: String,
    },
    /// There is no such evidence.
    #[error("there is no evidence {pin} in '{dir}'", dir = dir.display())]
    UnknownPin {
        /// The pin asked for.
        pin: PinId,
        /// The store's directory.
        dir: PathBuf,
    },
    /// Pinned evidence has reached its bound.
    #[error(
        "evidence holds {held} of {bytes_max} bytes and {needed} more are needed: retire the \
         oldest events and unpin their evidence, or raise evidence_bytes_max"
    )]
    EvidenceFull {
        /// Bytes that the new evidence needs.
        needed: u64,
        /// Bytes held.
        held: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A segment could not be made durable; frames appended since the last sync may be lost in a
    /// power cut. Said once; later syncs cover later frames.
    #[error("frames in '{path}' could not be made durable: check the disk", path = path.display())]
    NotDurable {
        /// The segment.
        path: PathBuf,
    },
    /// Eight million boots.
    #[error("the frame store '{dir}' has used up its boot epochs: start a new one", dir = dir.display())]
    EpochsUsedUp {
        /// The store's directory.
        dir: PathBuf,
    },
}

/// Adds to a system error what was tried on which file.
pub(crate) trait Context<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { what, path: path.into(), source })
    }
}

/// Whether the disk (or the user's share of it) is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
