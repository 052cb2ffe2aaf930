//! Real V4L2 devices: the kernel's test driver vivid, and v4l2loopback. Both need a kernel that can
//! load them, so these tests are run by `tests/vm/run v4l2`, whose machine names the devices in the
//! environment; elsewhere they are listed as ignored.

mod faults;
mod loopback;
mod vivid;

use hal_camera::{Camera, CameraError, Capture, Frame};
use hal_linux::{Clock, SystemClock, V4l2Camera};
use std::process::Command;
use std::time::{Duration, Instant};

/// The device that an environment variable of the machine names.
fn device(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} names no device"))
}

fn vivid() -> String {
    device("LOOKBACK_TEST_VIVID")
}

fn loopback() -> String {
    device("LOOKBACK_TEST_LOOPBACK")
}

fn open(spec: &str) -> V4l2Camera {
    V4l2Camera::from_spec(spec).unwrap()
}

fn capture(camera: &mut dyn Camera) -> Result<Frame, CameraError> {
    match camera.capture()? {
        Capture::Frame(frame) => Ok(frame),
        Capture::End => panic!("a device has no end"),
    }
}

/// `n` frames in a row, each of which must be whole.
fn frames(camera: &mut dyn Camera, n: usize) -> Vec<Frame> {
    (0..n).map(|i| capture(camera).unwrap_or_else(|e| panic!("frame {i}: {e}"))).collect()
}

/// Captures until there is a frame again, for at most `patience`; the errors on the way.
fn recover(camera: &mut dyn Camera, patience: Duration) -> Vec<String> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    while start.elapsed() < patience {
        match capture(camera) {
            Ok(_) => return errors,
            Err(error) => errors.push(error.to_string()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no frame within {patience:?}: {errors:?}");
}

fn assert_times_advance(frames: &[Frame], fps: f64) {
    for pair in frames.windows(2) {
        assert!(pair[0].media_time < pair[1].media_time);
        assert!(pair[0].wall_time.unix_us < pair[1].wall_time.unix_us + 1000);
    }
    let (first, last) = (frames[0].media_time, frames[frames.len() - 1].media_time);
    let rate = (frames.len() - 1) as f64 / last.since_s(first);
    // Emulated machines drop frames; none may invent any.
    assert!((0.4 * fps..1.1 * fps).contains(&rate), "{rate:.2} frames a second instead of {fps}");
    let age_s = SystemClock.now().media.since_s(last);
    assert!((0.0..5.0).contains(&age_s), "the last frame is {age_s} s old");
}

/// Sets a control of vivid.
fn control(device: &str, setting: &str) {
    let status = Command::new("v4l2-ctl").args(["-d", device, "-c", setting]).status().unwrap();
    assert!(status.success(), "v4l2-ctl -c {setting}");
}
