//! An opened V4L2 device: what it is, what it offers, and the words for what goes wrong.

use super::choice::DEFAULT_SIZE;
use super::control::Control;
use super::format::DeviceFormat;
use super::sys;
use hal_camera::CameraError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One camera of this board, for people who look for theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Such as `/dev/video0`.
    pub path: PathBuf,
    /// What the camera calls itself.
    pub name: String,
    /// The kernel's driver.
    pub driver: String,
    /// Where it is plugged in.
    pub bus: String,
    /// What it offers, in its own order.
    pub formats: Vec<DeviceFormat>,
    /// Of the controls that a camera's specification can set, those that it has.
    pub controls: Vec<Control>,
    /// Why Lookback cannot use it, if it cannot.
    pub problem: Option<String>,
}

/// Every V4L2 device of this board that can capture, by number; and those that could not be asked,
/// with the reason. A board without any gives an empty list.
pub fn list_devices() -> Vec<Device> {
    let entries = std::fs::read_dir("/sys/class/video4linux").into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(|n| describe(Path::new(&format!("/dev/video{n}")))).collect()
}

/// `None` for a device that is no camera at all (an encoder, the output side of a loop-back).
fn describe(path: &Path) -> Option<Device> {
    let silent = |problem| {
        let (name, driver, bus) = Default::default();
        let (formats, controls) = (Vec::new(), Vec::new());
        Device { path: path.into(), name, driver, bus, formats, controls, problem }
    };
    let open = match Open::new(path) {
        Ok(open) => open,
        Err(error) => return Some(silent(Some(error.to_string()))),
    };
    let capabilities = open.capability.device();
    if capabilities & (sys::CAP_CAPTURE | sys::CAP_CAPTURE_MPLANE) == 0 {
        return None;
    }
    let formats = open.formats(DEFAULT_SIZE);
    let readable = formats.iter().any(|format| format.code.encoding().is_some());
    let problem = open.check_camera().err().map(|error| error.to_string());
    let problem = problem.or_else(|| (!readable).then(|| no_readable_format(&formats)));
    Some(Device {
        path: path.into(),
        name: text(&open.capability.card),
        driver: text(&open.capability.driver),
        bus: text(&open.capability.bus_info),
        formats,
        controls: open.controls(),
        problem,
    })
}

pub(super) fn no_readable_format(offered: &[DeviceFormat]) -> String {
    if offered.is_empty() {
        return "it offers no format at all (a loop-back device without a writer, or a camera \
                without a sensor)"
            .to_string();
    }
    let offered: Vec<String> = offered.iter().map(|format| format.code.to_string()).collect();
    format!("it offers {}; Lookback reads MJPG, NV12, YUYV and GREY", offered.join(", "))
}

/// A V4L2 device, opened without blocking and asked what it is.
pub(super) struct Open {
    file: File,
    pub name: String,
    capability: sys::Capability,
}

impl sys::Capability {
    /// What this node can do (a device with several nodes can do more through the others).
    fn device(&self) -> u32 {
        match self.capabilities & sys::CAP_DEVICE_CAPS {
            0 => self.capabilities,
            _ => self.device_caps,
        }
    }
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Open {
    pub fn new(path: &Path) -> Result<Self, CameraError> {
        let name = path.display().to_string();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| failure(&name, "open", error))?;
        let mut capability = sys::zeroed();
        sys::query_capability(file.as_fd(), &mut capability)
            .map_err(|error| failure(&name, "ask what it is", error))?;
        Ok(Self { file, name, capability })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Refuses devices that do not capture, or only in ways that Lookback does not speak.
    pub fn check_camera(&self) -> Result<(), CameraError> {
        let can = self.capability.device();
        let reason = if can & sys::CAP_CAPTURE == 0 && can & sys::CAP_CAPTURE_MPLANE != 0 {
            "it has only multi-planar buffers, which Lookback does not read; look for another \
             node of the same camera with `lookback doctor`"
        } else if can & sys::CAP_CAPTURE == 0 {
            "it does not capture; another /dev/video number may be the camera: `lookback doctor` \
             lists them. A loop-back device captures only while its writer runs"
        } else if can & sys::CAP_STREAMING == 0 {
            "its driver has no streaming buffers"
        } else {
            return Ok(());
        };
        Err(self.unusable(reason))
    }

    pub fn unusable(&self, reason: impl Into<String>) -> CameraError {
        CameraError::Unusable { name: self.name.clone(), reason: reason.into() }
    }
}

/// The error for a system call that failed while the device was asked to do `what`.
pub(super) fn failure(name: &str, what: &str, error: io::Error) -> CameraError {
    let name = name.to_string();
    let missing = |reason: &str| CameraError::Missing {
        name: name.clone(),
        reason: format!("{reason}; plug it in, or see `lookback doctor` for what there is"),
    };
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) => return missing("there is no such device"),
        Some(libc::ENODEV | libc::ENXIO) => return missing("it was unplugged"),
        Some(libc::EACCES | libc::EPERM) => {
            "permission denied; add this user to the group `video`, or run as a service that has it"
                .to_string()
        }
        Some(libc::EBUSY) => format!("another program is using it (`fuser -v {name}` names it)"),
        Some(libc::ENOTTY) => {
            "it is not a V4L2 device; give a /dev/video number of `lookback doctor`, or `file:` for \
             a video file"
                .to_string()
        }
        Some(libc::EISDIR) => "it is a directory; give a device such as /dev/video0".to_string(),
        Some(libc::EIO) => {
            format!("input/output error on trying to {what}: no signal, or no writer behind it")
        }
        _ => format!("cannot {what}: {error}"),
    };
    CameraError::Unusable { name, reason }
}

/// A driver's zero-terminated text.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        match Open::new(path) {
            Ok(_) => panic!("{} must not open as a camera", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_no_camera_is_refused_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("video.mp4");
        std::fs::write(&file, "not a device").unwrap();
        let missing = refusal(Path::new("/dev/video-none"));
        assert!(missing.contains("is not there: there is no such device; plug it in"), "{missing}");
        for path in [&file, Path::new("/dev/null")] {
            let other = refusal(path);
            assert!(other.contains("it is not a V4L2 device; give"), "{other}");
        }
        assert!(refusal(dir.path()).contains("it is a directory"));
    }

    #[test]
    fn the_errors_of_the_system_become_what_the_user_can_do() {
        let say = |code| failure("/dev/video7", "start", io::Error::from_raw_os_error(code));
        assert!(matches!(say(libc::ENODEV), CameraError::Missing { .. }));
        assert!(say(libc::EBUSY).to_string().contains("fuser -v /dev/video7"));
        assert!(say(libc::EACCES).to_string().contains("group `video`"));
        assert!(say(libc::EINVAL).to_string().contains("cannot start: Invalid argument"));
    }

    #[test]
    fn listing_devices_works_on_a_board_without_any() {
        for device in list_devices() {
            assert!(device.path.starts_with("/dev"), "{device:?}");
        }
    }
}
