//! `v4l2:/dev/videoN[,size=WxH][,fps=N][,format=MJPG]`: any camera with a V4L2 driver.

mod device;
mod format;
mod output;
mod stream;
mod sys;
mod timing;

pub use device::{Device, list_devices};
pub use format::{DeviceFormat, FourCc, FrameSizes};
pub use output::V4l2Output;

use crate::spec::{Size, Spec};
use crate::{Clock, SystemClock};
use device::Open;
use format::Wish;
use hal_camera::{Camera, CameraError, Capture, Frame, MediaTime, WallTime};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use stream::Stream;
use timing::{Thinning, media_time};

/// Longest wait for a frame. Above the slowest rate that can be asked for, with room for a camera
/// that adjusts its exposure at night.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A V4L2 camera. The device is opened by the first `capture`, and again by the first one after an
/// error, so that a camera that was unplugged is there again when it is.
pub struct V4l2Camera {
    path: PathBuf,
    name: String,
    wish: Wish,
    fps: f64,
    clock: Box<dyn Clock>,
    stream: Option<Stream>,
    thinning: Thinning,
    last: Option<MediaTime>,
}

impl V4l2Camera {
    /// From `PATH[,size=WxH][,fps=N][,format=CODE]` (what follows `v4l2:`). `size` is the largest
    /// to ask for (1280x720), `fps` the frames a second to deliver, 1 to 120 (8), and `format` one
    /// of MJPG, NV12, YUYV and GREY (else the cheapest that the camera has).
    ///
    /// # Errors
    /// [`CameraError::Spec`]. Whether the device is there shows at the first `capture`.
    pub fn from_spec(spec: &str) -> Result<Self, CameraError> {
        Self::with_clock(spec, SystemClock)
    }

    /// The same, with the time from `clock`, whose media time must be what drivers stamp with.
    ///
    /// # Errors
    /// As [`from_spec`](Self::from_spec).
    pub fn with_clock(spec: &str, clock: impl Clock + 'static) -> Result<Self, CameraError> {
        let mut spec = Spec::parse(spec, &["size", "fps", "format"])?;
        let size = spec.take::<Size>("size", "WIDTHxHEIGHT, such as 1280x720")?;
        let code = spec.take::<FourCc>("format", "one of MJPG, NV12, YUYV, GREY")?;
        let fps = spec.take_within("fps", 1.0, 120.0)?.unwrap_or(8.0);
        Ok(Self {
            path: PathBuf::from(&spec.path),
            name: spec.path,
            wish: Wish { size, code },
            fps,
            clock: Box::new(clock),
            stream: None,
            thinning: Thinning::to(fps),
            last: None,
        })
    }

    /// The next frame that is due; the stream is lost if this is an error other than `Damaged`.
    fn next(&mut self) -> Result<Frame, CameraError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = Stream::start(Open::new(&self.path)?, self.wish, self.fps)?;
                self.thinning = Thinning::to(self.fps);
                self.stream.insert(stream)
            }
        };
        let layout = stream.layout;
        let mut deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waited_ms = TIMEOUT.as_millis() as u64;
                return Err(CameraError::Stalled { name: self.name.clone(), waited_ms });
            }
            let Some(filled) = stream.next(left)? else { continue };
            let now = self.clock.now();
            let media_time = media_time(filled.stamp, now.media, self.last);
            if !self.thinning.keep(media_time) {
                stream.skip(filled)?;
                deadline = Instant::now() + TIMEOUT;
                continue;
            }
            self.last = Some(media_time);
            let bytes = stream.read(filled)?.map_err(|reason| {
                let name = self.name.clone();
                CameraError::Damaged { name, reason }
            })?;
            let age_us = now.media.0 - media_time.0;
            return Ok(Frame {
                media_time,
                wall_time: WallTime { unix_us: now.wall.unix_us - age_us, ..now.wall },
                // The stream refuses sizes that do not fit.
                width: layout.size.width as u16,
                height: layout.size.height as u16,
                encoding: layout.code.encoding().expect("only readable formats are agreed on"),
                bytes,
            });
        }
    }
}

impl Camera for V4l2Camera {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        let result = self.next();
        if matches!(&result, Err(error) if !matches!(error, CameraError::Damaged { .. })) {
            self.stream = None;
        }
        result.map(Capture::Frame)
    }

    fn describe(&self) -> String {
        match &self.stream {
            Some(stream) => {
                let (code, size) = (stream.layout.code, stream.layout.size);
                format!("{} ({code} {}x{})", self.name, size.width, size.height)
            }
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_without_options_asks_for_eight_frames_a_second() {
        let camera = V4l2Camera::from_spec("/dev/video3").unwrap();
        assert_eq!((camera.fps, camera.wish), (8.0, Wish::default()));
        assert_eq!(camera.describe(), "/dev/video3");
        let camera = V4l2Camera::from_spec("/dev/video3,size=640x480,format=NV12,fps=5").unwrap();
        let size = Some(Size { width: 640, height: 480 });
        assert_eq!(camera.wish, Wish { size, code: Some(FourCc::NV12) });
    }

    #[test]
    fn a_wrong_specification_is_final_and_says_what_would_be_right() {
        for (spec, expected) in [
            ("/dev/video0,format=H264", "format=H264 is not one of MJPG, NV12, YUYV, GREY"),
            ("/dev/video0,fps=0.2", "fps=0.2 is not a number from 1 to 120"),
            ("/dev/video0,speed=max", "no option 'speed'; there are: size, fps, format"),
        ] {
            let error = V4l2Camera::from_spec(spec).err().expect("must be refused");
            assert!(error.is_final() && error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_camera_that_is_not_there_is_missing_at_every_capture() {
        let mut camera = V4l2Camera::from_spec("/dev/video-none").unwrap();
        for _ in 0..3 {
            assert!(matches!(camera.capture(), Err(CameraError::Missing { .. })));
        }
    }
}
