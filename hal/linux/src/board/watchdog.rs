//! The hardware watchdog by `/dev/watchdog`: opened it counts, and resets the board unless it is kicked.

use super::PartError;
use rustix::ioctl::{Updater, ioctl, opcode};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A watchdog that counts from the moment it is opened.
///
/// Dropped without [`HardwareWatchdog::disarm`], as by a crash, it goes on to count and resets the board.
#[derive(Debug)]
pub struct HardwareWatchdog {
    device: File,
    path: PathBuf,
    timeout_s: u32,
}

const REMEDY: &str = "load its driver (softdog, where the board has none), or leave [watchdog] out of the board description";

impl HardwareWatchdog {
    /// Opens it, which arms it, with a time of about `timeout_s` seconds.
    ///
    /// # Errors
    /// [`PartError`]: no such device, in use (only one program can have it), not permitted, or it takes no
    /// such time.
    pub fn arm(path: &Path, timeout_s: u32) -> Result<Self, PartError> {
        let what = path.display().to_string();
        let opened = OpenOptions::new().write(true).open(path);
        let device = opened.map_err(|error| PartError::file(&what, "be opened", &error, REMEDY))?;
        let mut watchdog = Self { device, path: path.into(), timeout_s };
        match watchdog.set_timeout(timeout_s) {
            Ok(granted) => watchdog.timeout_s = granted,
            Err(error) => {
                // Not a watchdog at all, or one that takes no such time: nobody is going to kick it.
                watchdog.disarm();
                let doing = format!("wait for {timeout_s} s");
                return Err(PartError::file(&what, &doing, &error, REMEDY));
            }
        }
        Ok(watchdog)
    }

    /// Whether it is there and could be opened; it is not opened, since that would arm it.
    ///
    /// # Errors
    /// [`PartError`], as [`Self::arm`].
    pub fn examine(path: &Path) -> Result<String, PartError> {
        let what = path.display().to_string();
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK)
            .map_err(|errno| PartError::file(&what, "be opened", &errno.into(), REMEDY))?;
        Ok(what)
    }

    /// The time that the hardware granted, in seconds; it rounds to what it can count.
    pub fn timeout_s(&self) -> u32 {
        self.timeout_s
    }

    /// Gives the board the whole time again.
    ///
    /// # Errors
    /// [`PartError::Failed`]: the board will be reset.
    pub fn kick(&mut self) -> Result<(), PartError> {
        // Any byte but the magic one.
        self.device.write_all(b"k").map_err(|error| {
            let what = self.path.display().to_string();
            PartError::file(&what, "be kicked", &error, "the board is going to be reset")
        })
    }

    /// Stops it, as a program does that ends in good order. Hardware that cannot be stopped goes on.
    pub fn disarm(mut self) {
        // The magic byte, without which closing leaves it armed.
        let _ = self.device.write_all(b"V");
    }

    #[allow(unsafe_code)]
    fn set_timeout(&self, seconds: u32) -> io::Result<u32> {
        /// `WDIOC_SETTIMEOUT`: takes seconds, gives back what was granted.
        const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<libc::c_int>(b'W', 6);
        let mut granted = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
        // SAFETY: the kernel's watchdog API gives this request a pointer to one C int, which it reads and
        // writes within the call; another kind of device refuses the request with ENOTTY.
        unsafe { ioctl(&self.device, Updater::<SET_TIMEOUT, libc::c_int>::new(&mut granted)) }?;
        Ok(u32::try_from(granted).unwrap_or(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_or_is_no_watchdog_is_named() {
        let refused =
            |path: &str| HardwareWatchdog::arm(Path::new(path), 10).unwrap_err().to_string();
        assert!(
            refused("/dev/watchdog-none").starts_with("/dev/watchdog-none is not there; load its")
        );
        assert!(refused("/dev/null").starts_with("/dev/null cannot wait for 10 s: "));
        assert!(HardwareWatchdog::examine(Path::new("/dev/watchdog-none")).is_err());
    }
}
