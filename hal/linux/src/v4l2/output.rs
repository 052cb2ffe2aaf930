//! Writing frames into a V4L2 output device, for benches that feed v4l2loopback.

use super::device::{Open, failure};
use super::format::FourCc;
use super::sys;
use hal_camera::CameraError;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// The writing side of a V4L2 device. While it lives, whoever captures from a v4l2loopback device
/// sees a camera of this format; when it is dropped, that camera has no signal.
pub struct V4l2Output {
    device: Open,
}

impl V4l2Output {
    /// Opens `path` for frames of `width × height` pixels in format `code`.
    ///
    /// # Errors
    /// [`CameraError::Missing`] or [`CameraError::Unusable`], as for a camera; the latter also if
    /// the device takes only another format.
    pub fn open(path: &Path, code: FourCc, width: u16, height: u16) -> Result<Self, CameraError> {
        let device = Open::new(path)?;
        let mut format: sys::Format = sys::zeroed();
        format.type_ = sys::BUF_TYPE_OUTPUT;
        format.pix.width = width.into();
        format.pix.height = height.into();
        format.pix.pixelformat = code.0;
        format.pix.field = sys::FIELD_NONE;
        // Room for a JPEG that compresses to nothing: the device would cut a longer one off.
        format.pix.sizeimage = 2 * u32::from(width) * u32::from(height);
        sys::set_format(device.as_fd(), &mut format)
            .map_err(|error| failure(&device.name, "set the format", error))?;
        let set = FourCc(format.pix.pixelformat);
        if (set, format.pix.width, format.pix.height) != (code, width.into(), height.into()) {
            let (width, height) = (format.pix.width, format.pix.height);
            return Err(device.unusable(format!("it takes only {set} of {width}x{height}")));
        }
        Ok(Self { device })
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// [`CameraError::Unusable`] if the device did not take all of it.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), CameraError> {
        let written = loop {
            match self.device.file().write(frame) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&self.device.name, "write a frame", error)),
                Ok(written) => break written,
            }
        };
        if written != frame.len() {
            let reason = format!("it took {written} of the {} bytes of a frame", frame.len());
            return Err(self.device.unusable(reason));
        }
        Ok(())
    }
}
