//! A running stream of one device: its format is set, its buffers are mapped and queued.

use super::choice::{Choice, Wish, choices};
use super::device::{Open, failure, no_readable_format};
use super::format::{FourCc, Layout, pack};
use super::rate::{Interval, TOLERANCE};
use super::settings::{ControlWish, settings};
use super::sys;
use crate::spec::Size;
use hal_camera::{CameraError, MediaTime};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Buffers to ask for: one being filled, one waiting to be, one ready, and one for a consumer that
/// is late by a frame.
const BUFFERS: u32 = 4;
/// With fewer the driver has none to fill while one is being read.
const FEWEST_BUFFERS: u32 = 2;

/// A device that is delivering frames. Dropping it stops the stream and closes the device.
pub(super) struct Stream {
    // Before the device: buffers are unmapped first, then the file is closed.
    mappings: Vec<sys::Mapping>,
    device: Open,
    pub layout: Layout,
    /// Options of the specification that the device has no control for.
    pub lacking: Vec<&'static str>,
    /// What fell short of what was asked for, a sentence each.
    pub remarks: Vec<String>,
}

/// A buffer that the driver has filled and not got back yet.
pub(super) struct Filled {
    index: u32,
    bytes: usize,
    /// What the driver itself says is wrong with it.
    faulty: bool,
    /// The device's count of its frames.
    pub sequence: u32,
    /// The driver's stamp, if it is of the monotonic clock.
    pub stamp: Option<MediaTime>,
}

impl Stream {
    /// Takes the device from opened to delivering. The rate is a wish: many drivers do not grant it.
    pub fn start(device: Open, wish: &Wish, controls: &ControlWish) -> Result<Self, CameraError> {
        device.check_camera()?;
        device.take_up_signal()?;
        let (layout, interval) = agree_on_format(&device, wish)?;
        let mut remarks = Vec::new();
        remarks.extend(ask_for_rate(&device, layout, interval, wish.fps));
        // Each time anew: a camera that was unplugged has forgotten them.
        let lacking = set_controls(&device, controls, &mut remarks)?;
        let mappings = map_buffers(&device)?;
        let mut on = sys::BUF_TYPE_CAPTURE as libc::c_int;
        sys::stream_on(device.as_fd(), &mut on)
            .map_err(|error| failure(&device.name, "start the stream", error))?;
        Ok(Self { mappings, device, layout, lacking, remarks })
    }

    /// The next filled buffer, or `None` if there was none within `patience`. It is to be handed to
    /// [`read`](Self::read) or [`skip`](Self::skip), which give it back to the driver.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Filled>, CameraError> {
        // Poll first: DQBUF alone could wait for ever, and some drivers ignore O_NONBLOCK.
        let timeout =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.device, PollFlags::IN | PollFlags::PRI)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            // Whatever poll reports (an unplugged device is an error there), DQBUF names it.
            Ok(_) => {}
            // A signal; the caller's deadline decides whether to wait again.
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(failure(&self.device.name, "wait for a frame", error.into())),
        }
        if fds[0].revents().contains(PollFlags::PRI) && self.device.signal_changed() {
            return Err(self.device.unusable("its signal has changed; it is taken up anew"));
        }
        let mut buffer = capture_buffer(0);
        match sys::dequeue_buffer(self.device.as_fd(), &mut buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Announced and not delivered: a driver that does so must not make us spin.
                std::thread::sleep(Duration::from_millis(5));
                return Ok(None);
            }
            Err(error) => return Err(failure(&self.device.name, "take a frame", error)),
        }
        let clock = buffer.flags & sys::BUF_FLAG_TIMESTAMP_MASK;
        let time = buffer.timestamp;
        let us = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
        Ok(Some(Filled {
            index: buffer.index,
            bytes: buffer.bytesused as usize,
            sequence: buffer.sequence,
            faulty: buffer.flags & sys::BUF_FLAG_ERROR != 0,
            stamp: (clock == sys::BUF_FLAG_TIMESTAMP_MONOTONIC).then_some(MediaTime(us)),
        }))
    }

    /// The packed picture in a buffer, or what is wrong with it.
    pub fn read(&mut self, filled: Filled) -> Result<Result<Vec<u8>, String>, CameraError> {
        let Some(mapping) = self.mappings.get(filled.index as usize) else {
            let reason = format!("its driver filled buffer {}, which nobody gave it", filled.index);
            return Err(self.device.unusable(reason));
        };
        let picture = if filled.faulty {
            Err("the driver marked it so (a bad cable or an overloaded bus)".to_string())
        } else {
            pack(self.layout, mapping.copy(filled.bytes))
        };
        self.skip(filled)?;
        Ok(picture)
    }

    /// Gives a buffer back without looking at it.
    pub fn skip(&mut self, filled: Filled) -> Result<(), CameraError> {
        sys::queue_buffer(self.device.as_fd(), &mut capture_buffer(filled.index))
            .map_err(|error| failure(&self.device.name, "return a buffer", error))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A device that has gone answers with an error, and closing stops the stream anyway.
        let mut off = sys::BUF_TYPE_CAPTURE as libc::c_int;
        let _ = sys::stream_off(self.device.as_fd(), &mut off);
    }
}

fn agree_on_format(device: &Open, wish: &Wish) -> Result<(Layout, Interval), CameraError> {
    let offered = device.formats(wish.size());
    let choices = choices(&offered, wish);
    if choices.is_empty() {
        let asked =
            wish.code.map_or(String::new(), |code| format!("format={code} is not to be had: "));
        return Err(device.unusable(asked + &no_readable_format(&offered)));
    }
    let mut answers = Vec::new();
    for Choice { code, size, interval, .. } in choices {
        let answer = set_format(device, code, size)?;
        // Drivers answer a format that they do not have with another one, and no error.
        if answer.code == code {
            return Ok((answer, interval));
        }
        answers.push(format!("{} for {code}", answer.code));
    }
    Err(device.unusable(format!("its driver gives {}", answers.join(", "))))
}

fn set_format(device: &Open, code: FourCc, size: Size) -> Result<Layout, CameraError> {
    // From zeros, never from the format that is set: a stride or an image size left over from
    // another format would be honoured by some drivers.
    let mut format: sys::Format = sys::zeroed();
    format.type_ = sys::BUF_TYPE_CAPTURE;
    format.pix.width = size.width;
    format.pix.height = size.height;
    format.pix.pixelformat = code.0;
    format.pix.field = sys::FIELD_NONE;
    sys::set_format(device.as_fd(), &mut format)
        .map_err(|error| failure(&device.name, "set the format", error))?;
    let (width, height) = (format.pix.width, format.pix.height);
    let side = 1..=u32::from(u16::MAX);
    if !side.contains(&width) || !side.contains(&height) {
        return Err(device.unusable(format!("its driver gives pictures of {width}x{height}")));
    }
    Ok(Layout {
        code: FourCc(format.pix.pixelformat),
        size: Size { width, height },
        stride: format.pix.bytesperline as usize,
    })
}

/// Asks for a frame every `interval`; what is to be said if `fps` frames a second do not come of it.
fn ask_for_rate(device: &Open, layout: Layout, interval: Interval, fps: f64) -> Option<String> {
    let mut parameters: sys::StreamParm = sys::zeroed();
    parameters.type_ = sys::BUF_TYPE_CAPTURE;
    parameters.time_per_frame = [interval.numerator, interval.denominator];
    // Cameras of a fixed rate refuse, and the frames are thinned here.
    if let Err(error) = sys::set_stream_parameters(device.as_fd(), &mut parameters) {
        tracing::debug!(camera = %device.name, fps, %error, "the driver sets no frame rate");
        return None;
    }
    let [numerator, denominator] = parameters.time_per_frame;
    let granted = Interval { numerator, denominator }.fps()?;
    (granted < fps * (1.0 - TOLERANCE)).then(|| {
        let (code, Size { width, height }) = (layout.code, layout.size);
        format!(
            "camera '{}' gives {granted:.1} frames a second in {code} {width}x{height}, fewer than \
             the {fps} asked for; `lookback cameras` lists its sizes with their rates",
            device.name
        )
    })
}

/// Sets the controls that were asked for. Returns the options that the device has no control for;
/// what was not set although there is a control goes to `remarks`.
fn set_controls(
    device: &Open,
    wish: &ControlWish,
    remarks: &mut Vec<String>,
) -> Result<Vec<&'static str>, CameraError> {
    if *wish == ControlWish::default() {
        return Ok(Vec::new());
    }
    let controls = device.controls();
    let settings = settings(wish, &controls).map_err(|reason| device.unusable(reason))?;
    for (id, value) in settings.set {
        match device.set_control(id, value) {
            Ok(taken) if taken == value => {}
            // Drivers round to their step.
            Ok(taken) => {
                tracing::info!(camera = %device.name, control = ?id, value, taken, "control set");
            }
            Err(error) => {
                let control = controls.iter().find(|control| control.id == id);
                let control = control.map_or(id.option(), |control| &control.name);
                remarks.push(format!(
                    "camera '{}' did not take {value} for its control '{control}': {error}",
                    device.name
                ));
                let failure = failure(&device.name, "set a control", error);
                if matches!(failure, CameraError::Missing { .. }) {
                    return Err(failure);
                }
            }
        }
    }
    remarks.extend(settings.lacking.iter().map(|option| {
        format!(
            "camera '{}' has no control for {option}: it is watched, and decides that itself",
            device.name
        )
    }));
    Ok(settings.lacking)
}

fn map_buffers(device: &Open) -> Result<Vec<sys::Mapping>, CameraError> {
    let mut request: sys::RequestBuffers = sys::zeroed();
    (request.count, request.type_, request.memory) =
        (BUFFERS, sys::BUF_TYPE_CAPTURE, sys::MEMORY_MMAP);
    sys::request_buffers(device.as_fd(), &mut request)
        .map_err(|error| failure(&device.name, "have buffers", error))?;
    if request.count < FEWEST_BUFFERS {
        return Err(device.unusable(format!("its driver gives only {} buffers", request.count)));
    }
    let mut mappings = Vec::new();
    // A driver may give more than was asked for; as many as were asked for are enough.
    for index in 0..request.count.min(BUFFERS) {
        let mut buffer = capture_buffer(index);
        sys::query_buffer(device.as_fd(), &mut buffer)
            .map_err(|error| failure(&device.name, "find a buffer", error))?;
        let mapping = sys::Mapping::new(device.as_fd(), buffer.offset, buffer.length)
            .map_err(|error| failure(&device.name, "map a buffer", error))?;
        mappings.push(mapping);
        sys::queue_buffer(device.as_fd(), &mut capture_buffer(index))
            .map_err(|error| failure(&device.name, "queue a buffer", error))?;
    }
    Ok(mappings)
}

fn capture_buffer(index: u32) -> sys::Buffer {
    let mut buffer: sys::Buffer = sys::zeroed();
    (buffer.index, buffer.type_, buffer.memory) = (index, sys::BUF_TYPE_CAPTURE, sys::MEMORY_MMAP);
    buffer
}
