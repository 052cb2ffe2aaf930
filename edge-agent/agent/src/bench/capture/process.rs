//! What another process has cost so far, as the kernel tells it.

use anyhow::{Context, Result};
use std::fs;

/// What a process has used since it began, with all its threads and the children it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// CPU time, user and system together, in seconds.
    pub cpu_s: f64,
    /// Bytes that it caused to be written to a disk.
    pub bytes_written: u64,
}

/// What process `pid` has used.
///
/// # Errors
/// If it has ended, or `/proc` does not tell.
pub(super) fn used(pid: u32) -> Result<Used> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let ticks = cpu_ticks(&read("stat")?).context("/proc does not tell a process's CPU time")?;
    let bytes_written = written(&read("io")?).context("/proc does not tell what was written")?;
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    Ok(Used { cpu_s: ticks as f64 / ticks_per_s as f64, bytes_written })
}

/// The machine's load average over the last minute.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// utime, stime, cutime and cstime of a line of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    // The state, right behind the name, is the third field; utime is the 14th.
    let mut fields = behind_name.split_whitespace().skip(14 - 3);
    (0..4).map(|_| fields.next()?.parse::<u64>().ok()).sum()
}

fn written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_parentheses_and_blanks() {
        let stat = "42 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 7 0 999";
        assert_eq!(cpu_ticks(stat), Some(127));
        assert_eq!(cpu_ticks("42 (short) S 1 2"), None);
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(written("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n"), Some(4096));
    }

    #[test]
    fn this_process_has_used_some_time_and_more_later() {
        let before = used(std::process::id()).unwrap();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 100 {
            std::hint::black_box(begun);
        }
        assert!(used(std::process::id()).unwrap().cpu_s > before.cpu_s);
        assert!(used(u32::MAX).is_err());
    }
}
