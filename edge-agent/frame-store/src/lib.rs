//! A ring of frames on disk, found again by time.
//!
//! [`FrameStore::append`] writes frames into preallocated, append-only segments; when the byte
//! bound is reached, old footage first becomes sparser, then the oldest goes.
//! [`FrameStore::find`] gives the frames nearest to a uniform grid over a span, at once, from an
//! index in memory (16 bytes a frame). [`FrameStore::pin`] copies the frames that an event cites
//! into an evidence file of their own, which is on disk when it returns and outlives the ring.
//!
//! What a caller may rely on, whatever the disk or the power does:
//!
//! * Acknowledged evidence is there after a crash, byte for byte, or reading it says which frame
//!   of which file is damaged (invariant I1).
//! * The store opens after a crash, and [`Recovery`] counts what was lost (I2). A frame is safe
//!   from a power cut once a later [`FrameStore::sync`] has returned `Ok`; until then it is not.
//! * All files together stay within `bytes_max` and `evidence_bytes_max`, at every moment (I7).
//! * An error leaves what was there as it was. A file on which a write or an fsync failed is never
//!   written again: the store goes on in a new one.
//!
//! The bytes on disk are described in the head of `format.rs`. All file work goes through the
//! trait [`Fs`], so that tests can make every single operation fail.
#![forbid(unsafe_code)]

mod error;
mod evidence;
mod file;
mod format;
mod fs;
mod ids;
mod index;
mod options;
mod recovery;
mod retention;
mod ring;
mod store;
mod track;

pub use error::StoreError;
pub use evidence::read_pinned_in;
pub use fs::{Access, DirEntry, Fs, FsFile, FsLock, RealFs};
pub use ids::{FrameHash, FrameId, ParseIdError, PinId, StoreId};
pub use index::FrameRef;
pub use options::StoreOptions;
pub use recovery::Recovery;
pub use retention::Thinning;
pub use store::{FrameStore, StoreStats, StoredFrame};
