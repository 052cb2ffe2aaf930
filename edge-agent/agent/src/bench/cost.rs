//! What the process has cost so far, and where it may scribble.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use tempfile::TempDir;

/// CPU time of the process until now, of all its threads and of those that have ended, user and
/// system together, in ms.
pub(super) fn cpu_ms() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6
}

/// Memory of the process that is not swapped out, in MB of 1,000,000 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Resident {
    /// The most that there ever was.
    pub peak_mb: f64,
    /// Now.
    pub now_mb: f64,
}

/// The memory of this process.
///
/// # Errors
/// If `/proc` does not tell.
pub(super) fn resident() -> Result<Resident> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc; mount it")?;
    of_status(&status).context("/proc/self/status does not tell the memory of this process")
}

fn of_status(status: &str) -> Option<Resident> {
    let mb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    Some(Resident { peak_mb: mb("VmHWM:")?, now_mb: mb("VmRSS:")? })
}

/// A directory that is removed when it is dropped.
///
/// # Errors
/// If there is no place for it.
pub(super) fn scratch() -> Result<TempDir> {
    tempfile::tempdir().context("no place to measure in; TMPDIR says where it may be")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn memory_is_read_from_the_kernels_own_lines() {
        let status = "Name:\tlookback\nVmHWM:\t  150000 kB\nVmRSS:\t    1000 kB\nThreads:\t1\n";
        assert_eq!(of_status(status), Some(Resident { peak_mb: 153.6, now_mb: 1.024 }));
        assert_eq!(of_status("VmRSS:\t1000 kB\n"), None);
        let here = resident().unwrap();
        assert!(here.now_mb > 1.0 && here.peak_mb >= here.now_mb, "{here:?}");
    }

    #[test]
    fn threads_that_have_ended_are_in_the_cpu_time() {
        let before = cpu_ms();
        let spend = || {
            let begun = clock_gettime(ClockId::ThreadCPUTime);
            while clock_gettime(ClockId::ThreadCPUTime).tv_nsec - begun.tv_nsec < 20_000_000 {
                black_box(begun);
            }
        };
        std::thread::spawn(spend).join().unwrap();
        assert!(cpu_ms() - before >= 20.0);
    }
}
