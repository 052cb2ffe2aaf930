//! `file:PATH[,fps=N][,speed=N]`: a video file as a camera, decoded by ffmpeg in a process of its
//! own.
//!
//! ffmpeg writes YUV4MPEG2 in grey: a header line that states the true size (after rotation) and
//! the frame rate, then frames. Its `fps` filter puts them on a regular grid from the beginning of
//! the file, so that frame n was taken at n / fps seconds.

mod decoder;
mod probe;

use crate::spec::Spec;
use crate::{Clock, Now, SystemClock};
use decoder::{Decoder, Read};
use hal_camera::{Camera, CameraError, Capture, ClockQuality, Encoding, Frame, WallTime};
use probe::probe;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a frame of a file that is being decoded; after it the decoder goes on.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A video file. Frames are delivered as fast as they are asked for, or in the pace of real time.
///
/// A file that is damaged or cut short delivers what can be read, then
/// [`CameraError::Damaged`] once, then [`Capture::End`].
pub struct FileCamera {
    name: String,
    decoder: Decoder,
    /// What the file says of its own length.
    duration_s: Option<f64>,
    delivered: u64,
    ended: bool,
    pace: Pace,
    /// The wall clock at media time 0. Not when the film was shot: nobody knows.
    wall_start: WallTime,
}

/// How fast frames are delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// As fast as they are asked for.
    Free,
    /// So many seconds of the film in a second, from this moment on.
    Timed { speed: f64, since: Option<Instant> },
}

/// The two programs of Debian's package `ffmpeg`.
struct Programs {
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
}

impl FileCamera {
    /// From `PATH[,fps=N][,speed=N]` (what follows `file:`): `fps` frames a second of the film, 0.1
    /// to 240 (8); `speed` seconds of the film a second, or `max` (the default). Opens the file and
    /// waits for its first frame.
    ///
    /// # Errors
    /// [`CameraError::Spec`], `Missing` if there is no such file, `Unusable` if it is not a video or
    /// ffmpeg is not installed.
    pub fn from_spec(spec: &str) -> Result<Self, CameraError> {
        Self::with_clock(spec, &SystemClock)
    }

    /// The same; the wall-clock time of the frames counts from the present moment of `clock`.
    ///
    /// # Errors
    /// As [`from_spec`](Self::from_spec).
    pub fn with_clock(spec: &str, clock: &dyn Clock) -> Result<Self, CameraError> {
        let programs = Programs { ffmpeg: "ffmpeg".into(), ffprobe: "ffprobe".into() };
        Self::with_programs(spec, clock.now(), &programs)
    }

    fn with_programs(spec: &str, now: Now, programs: &Programs) -> Result<Self, CameraError> {
        let mut spec = Spec::parse(spec, &["fps", "speed"])?;
        let fps = spec.take_within("fps", 0.1, 240.0)?.unwrap_or(8.0);
        let expected = "'max', or a number from 0.1 to 100 (1 is real time)";
        let speed = spec.take::<String>("speed", expected)?.unwrap_or_else(|| "max".to_string());
        let pace = match (speed.as_str(), speed.parse::<f64>()) {
            ("max", _) => Pace::Free,
            (_, Ok(speed)) if (0.1..=100.0).contains(&speed) => Pace::Timed { speed, since: None },
            _ => return Err(spec.error(format!("speed={speed} is not {expected}"))),
        };
        let name = spec.path;
        check_file(&name)?;
        let duration_s = probe(&programs.ffprobe, &name)?;
        let decoder = Decoder::start(&programs.ffmpeg, &name, fps)?;
        let wall_start = WallTime { quality: ClockQuality::Unsynced, ..now.wall };
        Ok(Self { name, decoder, duration_s, delivered: 0, ended: false, pace, wall_start })
    }

    /// How long the film is, in seconds, as the file itself says; many do not say.
    pub fn duration_s(&self) -> Option<f64> {
        self.duration_s
    }

    fn frame(&mut self, bytes: Vec<u8>) -> Frame {
        let header = self.decoder.header;
        let media_time = header.time_of(self.delivered);
        self.delivered += 1;
        if let Pace::Timed { speed, since } = &mut self.pace {
            let since = *since.get_or_insert_with(Instant::now);
            let due = since + Duration::from_secs_f64(media_time.as_s() / *speed);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let unix_us = self.wall_start.unix_us + media_time.0;
        Frame {
            media_time,
            wall_time: WallTime { unix_us, ..self.wall_start },
            width: header.width,
            height: header.height,
            encoding: Encoding::Grey,
            bytes,
        }
    }

    /// The decoder has ended: whether it read everything.
    fn end(&mut self) -> Result<Capture, CameraError> {
        self.ended = true;
        let complaint = self.decoder.finish();
        let read_s = self.decoder.header.time_of(self.delivered).as_s();
        // The last frame's own duration is often missing from what a file says.
        let short_by = self.duration_s.map_or(0.0, |duration_s| duration_s - read_s);
        let cut_short = short_by > 1.0 + self.decoder.header.time_of(1).as_s();
        if complaint.is_none() && !cut_short {
            return Ok(Capture::End);
        }
        let mut reason = format!("{read_s:.1} s of it could be read");
        if let Some(duration_s) = self.duration_s.filter(|_| cut_short) {
            reason += &format!(", {duration_s:.1} s were expected: it is cut short");
        }
        if let Some(complaint) = complaint {
            reason += &format!(" (ffmpeg: {complaint})");
        }
        Err(CameraError::Damaged { name: self.name.clone(), reason })
    }
}

impl Camera for FileCamera {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        if self.ended {
            return Ok(Capture::End);
        }
        match self.decoder.read(TIMEOUT) {
            Read::Frame(bytes) => Ok(Capture::Frame(self.frame(bytes))),
            Read::End => self.end(),
            Read::TimedOut => Err(CameraError::Stalled {
                name: self.name.clone(),
                waited_ms: TIMEOUT.as_millis() as u64,
            }),
        }
    }

    fn describe(&self) -> String {
        let header = self.decoder.header;
        let fps = 1.0 / header.time_of(1).as_s();
        format!("{} ({}x{} at {fps:.3} fps)", self.name, header.width, header.height)
    }
}

/// Says what is wrong with a path before ffmpeg says it in its own words.
fn check_file(name: &str) -> Result<(), CameraError> {
    let unusable = |reason: &str| {
        Err(CameraError::Unusable { name: name.to_string(), reason: reason.to_string() })
    };
    let path = Path::new(name);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return unusable("this user may not read it; change its permissions");
        }
        Err(error) => {
            let reason = format!("{error}; check the path");
            return Err(CameraError::Missing { name: name.to_string(), reason });
        }
    };
    if metadata.is_dir() {
        return unusable("it is a directory; give one video file");
    }
    if !metadata.is_file() {
        return unusable("it is no regular file; for a camera device write v4l2: instead of file:");
    }
    if metadata.len() == 0 {
        return unusable("the file is empty; record or copy it again");
    }
    match fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => unusable(&format!("{error}; change its permissions")),
    }
}

#[cfg(test)]
mod tests;
