//! How large the store may become and how it forgets.

use crate::format;
use crate::{StoreError, StoreId, Thinning};

/// How large the store may become and how it forgets.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// Bound on all files of the ring together, the one that is being rewritten included. Default
    /// 512 MiB; at least four segments. (The identity file has 48 bytes more.)
    pub bytes_max: u64,
    /// Size of a segment, the unit of forgetting. Default 8 MiB: about a minute of one camera, and
    /// one fsync of the directory a minute.
    pub segment_bytes: u64,
    /// Bound on all pinned evidence together. Default 256 MiB. At the bound [`pin`] refuses and
    /// the caller retires events: only it knows which matter least.
    ///
    /// [`pin`]: crate::FrameStore::pin
    pub evidence_bytes_max: u64,
    /// How density falls with age.
    pub thinning: Thinning,
    /// JPEG quality, 1 to 100, of frames that a camera delivers raw. Default 85.
    pub jpeg_quality: u8,
    /// The store that the directory must hold; opening another, or an empty directory, is an
    /// error. Default `None`: any store, and a new one in an empty directory.
    pub expected: Option<StoreId>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            bytes_max: 512 << 20,
            segment_bytes: 8 << 20,
            evidence_bytes_max: 256 << 20,
            thinning: Thinning::default(),
            jpeg_quality: 85,
            expected: None,
        }
    }
}

impl StoreOptions {
    /// Offsets in a segment are 32 bits wide; a gigabyte is far inside and far beyond use.
    const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let segment = self.segment_bytes;
        let reason = if !(1024..=Self::SEGMENT_BYTES_MAX).contains(&segment) {
            format!("segment_bytes is {segment}, it must be between 1 KiB and 1 GiB")
        } else if self.bytes_max < 4 * segment {
            format!("bytes_max is {}, it must be at least four segments", self.bytes_max)
        } else if !(1..=100).contains(&self.jpeg_quality) {
            format!("jpeg_quality is {}, it must be between 1 and 100", self.jpeg_quality)
        } else if let Some(reason) = self.thinning.fault() {
            reason
        } else {
            return Ok(());
        };
        Err(StoreError::Options { reason })
    }

    /// The largest JPEG that a segment can hold.
    pub(crate) fn frame_bytes_max(&self) -> u64 {
        let overhead = format::HEADER_BYTES + format::RECORD_HEAD_BYTES + format::footer_bytes(1);
        // Records are padded.
        self.segment_bytes - overhead - format::ALIGN
    }
}
