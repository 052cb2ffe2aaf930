//! From a camera's specification to the camera.

use crate::watch::Pace;
use hal_camera::{Camera, CameraError};
use hal_linux::{FileCamera, Reopening, SystemClock, V4l2Camera, Wait};
use hal_sim::SimCamera;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Opens `sim:…`, `file:PATH` or `v4l2:/dev/videoN`.
///
/// A simulated camera or a file that cannot be opened is an error at once; a device is opened by
/// its first capture and comes back after it was away.
///
/// # Errors
/// [`CameraError`] with the remedy.
pub fn open(source: &str, stop: Arc<AtomicBool>) -> Result<(Box<dyn Camera>, Pace), CameraError> {
    match source.split_once(':') {
        Some(("sim", spec)) => {
            let camera = SimCamera::from_spec(spec)?;
            let pace = if camera.is_live() { Pace::Live } else { Pace::Replay };
            Ok((Box::new(camera), pace))
        }
        Some(("file", spec)) => Ok((Box::new(FileCamera::from_spec(spec)?), Pace::Replay)),
        Some(("v4l2", spec)) => {
            // A wrong specification is said now; a missing device may yet be plugged in.
            let spec = spec.to_owned();
            if let Err(error @ CameraError::Spec { .. }) = V4l2Camera::from_spec(&spec) {
                return Err(error);
            }
            let name = spec.split(',').next().unwrap_or(&spec).to_owned();
            let open = move || Ok(Box::new(V4l2Camera::from_spec(&spec)?) as Box<dyn Camera>);
            let camera = Reopening::new(name, open, move |p| pause(p, &stop), SystemClock);
            Ok((Box::new(camera), Pace::Live))
        }
        _ => Err(CameraError::Spec {
            spec: source.to_owned(),
            reason: "it must begin with sim:, file: or v4l2:, as in sim:seed=9001, \
                     file:clip.mp4 or v4l2:/dev/video0"
                .to_owned(),
        }),
    }
}

/// How often a pause looks up whether the process is to stop.
const LOOK_UP: Duration = Duration::from_millis(50);

fn pause(length: Duration, stop: &AtomicBool) -> Wait {
    let until = Instant::now() + length;
    while Instant::now() < until {
        if stop.load(Ordering::Relaxed) {
            return Wait::Interrupted;
        }
        thread::sleep(LOOK_UP.min(until.saturating_duration_since(Instant::now())));
    }
    Wait::Over
}
