//! The checks of the machine that the agent runs on.

use super::checks::bytes;
use super::report::Check;
use crate::machine;
use hal_camera::ClockQuality;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Below this, what the policy, the page cache and a second camera need is not there.
const MEMORY_WANTED: u64 = 256 << 20;

/// Whether the programs that read video files are on `path`; `needed` if a camera is a file.
pub(super) fn ffmpeg(path: &OsStr, needed: bool) -> Check {
    const NAME: &str = "ffmpeg";
    let mut versions = Vec::new();
    for program in ["ffmpeg", "ffprobe"] {
        match version(path, program) {
            Some(version) => versions.push(version),
            None => {
                let finding = format!("{program} is not installed; video files cannot be read");
                let remedy = "install it, on Debian with: apt-get install ffmpeg";
                return match needed {
                    true => Check::fail(NAME, finding, remedy),
                    false => Check::warn(NAME, finding, remedy),
                };
            }
        }
    }
    Check::ok(NAME, versions.swap_remove(0))
}

/// The first line of what `program -version` says, up to its copyright.
fn version(path: &OsStr, program: &str) -> Option<String> {
    let file = std::env::split_paths(path).map(|dir| dir.join(program)).find(|f| f.is_file())?;
    let output = Command::new(file).arg("-version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().filter(|_| output.status.success())?;
    Some(line.split(" Copyright").next().unwrap_or(line).to_owned())
}

/// Whether the wall clock is kept by a time server.
pub(super) fn clock(quality: ClockQuality) -> Check {
    match quality {
        ClockQuality::Ntp => Check::ok("clock", "kept by a time server"),
        ClockQuality::Unsynced => Check::warn(
            "clock",
            "not kept by a time server: events are in order, but their times may be wrong",
            "run a time daemon, such as systemd-timesyncd or chrony",
        ),
    }
}

/// Whether enough memory is free, by the kernel's `/proc/meminfo`.
pub(super) fn memory(meminfo: &Path) -> Check {
    const NAME: &str = "memory";
    let text = fs::read_to_string(meminfo).unwrap_or_default();
    let field = |name| machine::meminfo(&text, name);
    let Some((available, total)) = field("MemAvailable:").zip(field("MemTotal:")) else {
        let finding = format!("'{}' does not tell how much is free", meminfo.display());
        return Check::warn(NAME, finding, "mount /proc");
    };
    let finding = format!("{} of {} can be had", bytes(available), bytes(total));
    match available < MEMORY_WANTED {
        true => Check::warn(NAME, finding, "stop what else runs here"),
        false => Check::ok(NAME, finding),
    }
}
