//! What an inquiry looks at: the ring, or the evidence of an earlier inquiry.

use frame_store::{FrameId, FrameStore, StoreError, StoredFrame};
use hal_camera::{CameraId, MediaTime, Span};

/// Frames of one camera, found by time.
pub trait Footage {
    /// What can be looked at; `None` if nothing can.
    fn held(&self) -> Option<Span>;

    /// The frame nearest to `moment`, if one lies within `tolerance_s` seconds; of two equally near
    /// the earlier.
    fn nearest(&self, moment: MediaTime, tolerance_s: f64) -> Option<(FrameId, MediaTime)>;

    /// A frame by its id.
    ///
    /// # Errors
    /// [`StoreError`] if it is gone or damaged.
    fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError>;
}

/// The footage of one camera in the frame store.
pub struct Stored<'a> {
    /// The ring.
    pub store: &'a FrameStore,
    /// Whose frames.
    pub camera: CameraId,
}

impl Footage for Stored<'_> {
    fn held(&self) -> Option<Span> {
        self.store.span(self.camera)
    }

    fn nearest(&self, moment: MediaTime, tolerance_s: f64) -> Option<(FrameId, MediaTime)> {
        let around = Span::new(moment.plus_s(-tolerance_s), moment.plus_s(tolerance_s));
        let found = self.store.nearest(self.camera, &[moment], around);
        found.first().map(|f| (f.id, f.media_time))
    }

    fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError> {
        self.store.read(id)
    }
}

/// Pinned evidence: exactly the frames that an inquiry saw.
pub struct Evidence {
    /// In order of media time.
    frames: Vec<StoredFrame>,
}

impl Evidence {
    /// Footage of these frames alone.
    pub fn new(mut frames: Vec<StoredFrame>) -> Self {
        frames.sort_by_key(|f| f.frame.media_time);
        Self { frames }
    }

    /// The frame with this id.
    pub fn frame(&self, id: FrameId) -> Option<&StoredFrame> {
        self.frames.iter().find(|f| f.id == id)
    }
}

impl Footage for Evidence {
    fn held(&self) -> Option<Span> {
        let (first, last) = (self.frames.first()?, self.frames.last()?);
        Some(Span::new(first.frame.media_time, MediaTime(last.frame.media_time.0 + 1)))
    }

    fn nearest(&self, moment: MediaTime, tolerance_s: f64) -> Option<(FrameId, MediaTime)> {
        let found = self.frames.iter().min_by_key(|f| (f.frame.media_time.0 - moment.0).abs())?;
        let at = found.frame.media_time;
        (at.since_s(moment).abs() <= tolerance_s).then_some((found.id, at))
    }

    fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError> {
        self.frame(id).cloned().ok_or(StoreError::Gone { id })
    }
}
