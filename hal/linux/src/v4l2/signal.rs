//! Inputs whose picture another device makes (HDMI): which signal there is, and that it changed.

use super::device::{Open, failure};
use super::sys;
use hal_camera::CameraError;
use std::os::fd::AsFd;

impl Open {
    /// Takes up the signal that there is, so that the pictures are of it, and asks to be told when it
    /// changes. On a device with a sensor of its own this does nothing.
    ///
    /// # Errors
    /// There is no signal, or none that the device can take.
    pub fn take_up_signal(&self) -> Result<(), CameraError> {
        let mut event: sys::EventSubscription = sys::zeroed();
        event.type_ = sys::EVENT_SOURCE_CHANGE;
        // A device that never changes knows no such event.
        let _ = sys::subscribe_event(self.as_fd(), &mut event);
        let mut timings: sys::DvTimings = sys::zeroed();
        match sys::query_dv_timings(self.as_fd(), &mut timings) {
            Ok(()) => sys::set_dv_timings(self.as_fd(), &mut timings)
                .map_err(|error| failure(&self.name, "take up the signal", error)),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOLINK) => Err(self.unusable(
                    "there is no signal: switch on what is plugged into it, and look at the cable",
                )),
                Some(libc::ENOLCK | libc::ERANGE) => Err(self.unusable(
                    "its signal is unsteady or of a kind that it does not take: set what is plugged \
                     into it to another picture size, and look at the cable",
                )),
                // It has no such input.
                _ => Ok(()),
            },
        }
    }

    /// Whether the signal has changed since it was last asked. To be asked when poll says that there
    /// is an event, or it says so for ever.
    pub fn signal_changed(&self) -> bool {
        let mut changed = false;
        let mut event: sys::Event = sys::zeroed();
        while sys::dequeue_event(self.as_fd(), &mut event).is_ok() {
            changed |= event.type_ == sys::EVENT_SOURCE_CHANGE
                && event.changes & sys::EVENT_CHANGED_RESOLUTION != 0;
        }
        changed
    }
}
