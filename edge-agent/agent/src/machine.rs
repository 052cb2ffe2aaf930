//! What the machine has.

use std::{fs, path::Path};

/// Bytes of memory that can be had without swapping, by the kernel's `/proc/meminfo` and the limit of
/// the control group, if there is one. `None` where neither tells.
pub fn memory_free() -> Option<u64> {
    let group = Path::new("/sys/fs/cgroup");
    let free = meminfo(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:");
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let left = number("memory.max")
        .zip(number("memory.current"))
        .map(|(max, now)| max.saturating_sub(now));
    free.into_iter().chain(left).min()
}

/// A field of `/proc/meminfo`, in bytes.
pub fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_meminfo_is_in_bytes_and_nothing_else_is_one() {
        let text = "MemTotal:       1000 kB\nMemAvailable:    512 kB\nHugePages_Total:       3\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(512 << 10));
        assert_eq!(meminfo(text, "HugePages_Total:"), None);
        assert_eq!(meminfo(text, "SwapFree:"), None);
    }
}
