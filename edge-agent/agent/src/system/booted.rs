//! Which system runs, by what the kernel was told and what the system says of itself.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};
use updater::Boot;

/// Files of the system that are longer are none.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The system that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booted {
    /// Hash of its root, `lookback.root=` on the kernel's command line; `None`: it is no image of Lookback.
    pub root: Option<String>,
    /// The slot in which it lies, `rauc.slot=` there.
    pub slot: Option<String>,
    /// `IMAGE_VERSION` of its os-release.
    pub version: Option<String>,
    /// The kernel's name for this start of the machine.
    start: Option<String>,
}

impl Booted {
    /// The one whose files lie under `sysroot`. What cannot be read there is not known.
    pub fn read(sysroot: &Path) -> Self {
        let text = |path: &str| read(&sysroot.join(path)).unwrap_or_default();
        let (cmdline, release) = (text("proc/cmdline"), text("etc/os-release"));
        let start = text("proc/sys/kernel/random/boot_id").trim().to_owned();
        Self {
            root: argument(&cmdline, "lookback.root=").filter(|root| is_root(root)),
            slot: argument(&cmdline, "rauc.slot=").filter(|slot| is_plain(slot)),
            version: image_version(&release),
            start: Some(start).filter(|start| is_plain(start)),
        }
    }

    /// This start of the machine, if it is known what it started.
    pub fn boot(&self) -> Option<Boot> {
        let id = self.start.clone()?;
        self.root.clone().map(|root| Boot { root, id })
    }

    /// In words.
    pub fn describe(&self) -> String {
        let version = self.version.as_deref().unwrap_or("of no version");
        let slot = self.slot.as_deref().map_or(String::new(), |slot| format!(" in slot {slot}"));
        let root = self.root.as_deref().unwrap_or_default();
        let root: String = root.chars().take(12).collect();
        match root.is_empty() {
            true => format!("{version}{slot}"),
            false => format!("{version}{slot}, root {root}"),
        }
    }
}

/// Whether a text can be the hash of a root: lower-case hexadecimal digits.
pub fn is_root(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The last argument of this name, which is the one that the kernel follows, too.
fn argument(cmdline: &str, name: &str) -> Option<String> {
    cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix(name)).map(str::to_owned)
}

fn image_version(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.trim().strip_prefix("IMAGE_VERSION="))?;
    Some(line.trim_matches(['"', '\'']).to_owned()).filter(|version| is_plain(version))
}

/// The beginning of a file of the system.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = vec![];
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
