//! `v4l2:/dev/videoN[,size=WxH][,fps=N][,format=MJPG][,exposure=N][,gain=N][,power_line=50]`: any camera
//! with a V4L2 driver.

mod choice;
mod control;
mod device;
mod format;
mod offer;
mod output;
mod rate;
mod sequence;
mod settings;
mod signal;
mod stream;
mod sys;
#[cfg(test)]
mod tests;
mod timing;

pub use control::{Control, ControlId, ControlRange};
pub use device::{Device, list_devices};
pub use format::{DeviceFormat, FourCc, FrameSize, FrameSizes};
pub use output::V4l2Output;
pub use rate::{FrameRates, Interval};

use crate::spec::{Size, Spec};
use crate::{Clock, SystemClock};
use choice::{Wish, choices};
use control::{Amount, PowerLine};
use device::{Open, no_readable_format};
use format::Layout;
use hal_camera::{
    Camera, CameraError, Capture, Encoding, Frame, MediaTime, Noticed, WallTime, jpeg_size,
};
use sequence::Sequence;
use settings::{ControlWish, settings};
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
    controls: ControlWish,
    clock: Box<dyn Clock>,
    stream: Option<Stream>,
    thinning: Thinning,
    sequence: Sequence,
    /// When the first of a row of damaged frames came, if the last one was.
    damaged_since: Option<MediaTime>,
    last: Option<MediaTime>,
    /// The size of its JPEGs, where that is not the one agreed on and was said.
    told_size: Option<(u16, u16)>,
    noticed: Noticed,
}

/// How a device would serve a camera's specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// What would be asked for, such as `MJPG 1280x720, 10 fps`.
    pub format: String,
    /// What would fall short, a sentence each.
    pub remarks: Vec<String>,
}

impl V4l2Camera {
    /// From `PATH[,size=WxH][,fps=N][,format=CODE][,exposure=N][,gain=N][,power_line=N]` (what follows
    /// `v4l2:`). `size` is the largest to ask for (1280x720), `fps` the frames a second to deliver, 1
    /// to 120 (8), and `format` one of MJPG, NV12, YUYV and GREY (else the cheapest that the camera has
    /// at that rate).
    ///
    /// Controls are set whenever the device is opened; one that is not given stays as it is.
    /// `exposure` is in units of 100 µs or `auto`, `gain` in units of the camera or `auto`, and
    /// `power_line` the frequency of lamps that flicker: 50, 60, `auto` or `off`. A camera that has
    /// no such control is watched all the same, and [`Camera::noticed`] says so; a value that its
    /// control cannot take is an error.
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
        let known = ["size", "fps", "format", "exposure", "gain", "power_line"];
        let mut spec = Spec::parse(spec, &known)?;
        let size = spec.take::<Size>("size", "WIDTHxHEIGHT, such as 1280x720")?;
        let code = spec.take::<FourCc>("format", "one of MJPG, NV12, YUYV, GREY")?;
        let fps = spec.take_within("fps", 1.0, 120.0)?.unwrap_or(8.0);
        let in_units = "auto or a number of units of 100 µs, such as 100";
        let controls = ControlWish {
            exposure: spec.take::<Amount>("exposure", in_units)?,
            gain: spec.take::<Amount>("gain", "auto or a whole number")?,
            power_line: spec.take::<PowerLine>("power_line", "one of 50, 60, auto, off")?,
        };
        Ok(Self {
            path: PathBuf::from(&spec.path),
            name: spec.path,
            wish: Wish { size, code, fps },
            controls,
            clock: Box::new(clock),
            stream: None,
            thinning: Thinning::to(fps),
            sequence: Sequence::default(),
            damaged_since: None,
            last: None,
            told_size: None,
            noticed: Noticed::default(),
        })
    }

    /// How `device` would serve this camera's specification, by what it says of itself.
    ///
    /// # Errors
    /// Why it cannot, in one sentence.
    pub fn fit(&self, device: &Device) -> Result<Fit, String> {
        let choices = choices(&device.formats, &self.wish);
        let best = choices.first().ok_or_else(|| no_readable_format(&device.formats))?;
        let settings = settings(&self.controls, &device.controls)?;
        let (code, size, fps) = (best.code, best.size, self.wish.fps);
        let rate = FrameRates::Discrete(vec![best.interval]);
        let slow = format!("it is slower than the {fps} frames a second that are asked for");
        let lacks = |option: &&str| format!("it has no control for {option}");
        let mut remarks: Vec<String> = settings.lacking.iter().map(lacks).collect();
        remarks.extend((!best.reaches).then_some(slow));
        Ok(Fit { format: format!("{code} {}x{}, {rate}", size.width, size.height), remarks })
    }

    /// The next frame that is due; the stream is lost if this is an error other than `Damaged`.
    fn next(&mut self) -> Result<Frame, CameraError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let mut stream = Stream::start(Open::new(&self.path)?, &self.wish, &self.controls)?;
                self.noticed.remarks.append(&mut stream.remarks);
                self.thinning = Thinning::to(self.wish.fps);
                // A new stream counts its frames anew, and may be whole where the last was not.
                (self.sequence, self.damaged_since) = (Sequence::default(), None);
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
            let taken = filled.stamp.unwrap_or(now.media);
            self.noticed.frames_lost += self.sequence.came(filled.sequence, taken);
            let media_time = media_time(filled.stamp, now.media, self.last);
            if !self.thinning.keep(media_time) {
                stream.skip(filled)?;
                deadline = Instant::now() + TIMEOUT;
                continue;
            }
            self.last = Some(media_time);
            let age_us = now.media.0 - media_time.0;
            let wall_time = WallTime { unix_us: now.wall.unix_us - age_us, ..now.wall };
            let picture = stream.read(filled)?;
            return picture
                .and_then(|bytes| self.frame(layout, bytes, media_time, wall_time))
                .map_err(|reason| self.damaged(reason, media_time));
        }
    }

    /// A picture as a frame, or what is wrong with it. A JPEG is as large as it says itself.
    fn frame(
        &mut self,
        layout: Layout,
        bytes: Vec<u8>,
        media_time: MediaTime,
        wall_time: WallTime,
    ) -> Result<Frame, String> {
        let encoding = layout.code.encoding().expect("only readable formats are agreed on");
        // The stream refuses sizes that do not fit.
        let agreed = (layout.size.width as u16, layout.size.height as u16);
        let (width, height) = match encoding {
            Encoding::Jpeg => jpeg_size(&bytes).ok_or("it does not say how large it is")?,
            _ => agreed,
        };
        if (width, height) != agreed && self.told_size.replace((width, height)).is_none() {
            self.noticed.remarks.push(format!(
                "camera '{}' says that its pictures are {}x{}, and they are {width}x{height}; they \
                 are taken as they are",
                self.name, agreed.0, agreed.1
            ));
        }
        self.damaged_since = None;
        Ok(Frame { media_time, wall_time, width, height, encoding, bytes })
    }

    /// The error for a damaged frame; for one too many in a row, that of the camera.
    fn damaged(&mut self, reason: String, at: MediaTime) -> CameraError {
        let name = self.name.clone();
        let since = *self.damaged_since.get_or_insert(at);
        if at.since_s(since) < TIMEOUT.as_secs_f64() {
            return CameraError::Damaged { name, reason };
        }
        self.damaged_since = None;
        let seconds = TIMEOUT.as_secs();
        let reason = format!("for {seconds} s every frame of it was damaged: {reason}");
        CameraError::Unusable { name, reason }
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
                let without = match stream.lacking.join(", ") {
                    none if none.is_empty() => none,
                    some => format!("; without {some}"),
                };
                format!("{} ({code} {}x{}{without})", self.name, size.width, size.height)
            }
            None => self.name.clone(),
        }
    }

    fn noticed(&mut self) -> Noticed {
        std::mem::take(&mut self.noticed)
    }
}
