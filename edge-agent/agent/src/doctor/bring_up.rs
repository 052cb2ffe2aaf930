//! What a board must have when it is brought up, and how far it is: each line appears only where it says something, so
//! that a machine that is no such board is not blamed for it.

use super::report::Check;
use crate::program;
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

/// Files of the system that are longer are none of these.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A tool of the board that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// A clock that says less was never set: 2024-01-01, in seconds since 1970.
const SET_UNIX_S: i64 = 1_704_067_200;
/// Where libraries lie, beside the folders of an architecture in them.
const LIBRARIES: [&str; 4] = ["usr/lib", "usr/local/lib", "opt/nvidia/lib", "usr/local/cuda/lib64"];
/// What computes faster than the processor, and whose it is.
const RUNTIMES: [(&str, &str); 2] =
    [("TensorRT", "libnvinfer.so"), ("ONNX Runtime", "libonnxruntime.so")];

/// Where to look.
pub(super) struct Board<'a> {
    /// Where the system's own files lie.
    pub sysroot: &'a Path,
    /// Folders of programs, as in `PATH`.
    pub path: OsString,
    /// Whether an image of Lookback runs, which promises more than any other system.
    pub is_image: bool,
    /// Where the agent keeps its data.
    pub data_dir: &'a Path,
}

impl Board<'_> {
    /// All lines, in the order in which a person would tick them.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = [
            self.model(),
            self.l4t(),
            self.power_mode(),
            self.data_partition(),
            self.watchdog(),
            self.hardware_clock(),
        ]
        .into_iter()
        .flatten()
        .collect();
        checks.extend(RUNTIMES.iter().filter_map(|(name, library)| self.runtime(name, library)));
        checks
    }

    fn text(&self, path: &str) -> Option<String> {
        let mut bytes = vec![];
        let file = File::open(self.sysroot.join(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned())
    }

    /// As the firmware calls the board; a PC has no device tree, and tells nothing.
    fn model_name(&self) -> Option<String> {
        self.text("proc/device-tree/model").filter(|model| !model.is_empty())
    }

    fn is_jetson(&self) -> bool {
        self.model_name().is_some_and(|model| model.contains("NVIDIA") || model.contains("Jetson"))
    }

    fn model(&self) -> Option<Check> {
        self.model_name().map(|model| Check::ok("machine", model))
    }

    /// NVIDIA's own layer under the system: drivers of cameras, GPU and power.
    fn l4t(&self) -> Option<Check> {
        const NAME: &str = "L4T";
        match self.text("etc/nv_tegra_release") {
            Some(text) => Some(Check::ok(NAME, release(&text).unwrap_or(text))),
            None if self.is_jetson() => Some(Check::warn(
                NAME,
                "not there (etc/nv_tegra_release): neither the GPU nor CSI cameras can be used",
                "start the board from an image made on NVIDIA's L4T, if they are to be used",
            )),
            None => None,
        }
    }

    fn power_mode(&self) -> Option<Check> {
        const NAME: &str = "power mode";
        let program = std::env::split_paths(&self.path).map(|dir| dir.join("nvpmodel"));
        let program = program.into_iter().find(|file| file.is_file())?;
        let said = program::run(&program, &[OsStr::new("-q")], PATIENCE);
        let mode = said.ok().filter(|said| said.status.is_some_and(|status| status.success()));
        let mode = mode.and_then(|said| {
            let line = said.out.lines().find_map(|line| line.split_once("Power Mode:"));
            line.map(|(_, mode)| mode.trim().to_owned())
        });
        Some(match mode {
            Some(mode) => Check::ok(NAME, mode),
            None => Check::warn(
                NAME,
                "nvpmodel does not tell it",
                "ask it by hand: nvpmodel -q; what the board can compute depends on it",
            ),
        })
    }

    /// An image is read-only: what is to stay lies on a partition of its own.
    fn data_partition(&self) -> Option<Check> {
        const NAME: &str = "data partition";
        if !self.is_image {
            return None;
        }
        let mounts = self.text("proc/self/mounts").or_else(|| self.text("proc/mounts"))?;
        let (place, kind, options) = mount_of(&mounts, self.data_dir)?;
        let finding = format!("'{}' lies on {place}, {kind}", self.data_dir.display());
        let is_volatile = matches!(kind.as_str(), "tmpfs" | "overlay" | "ramfs");
        Some(match options.split(',').next() {
            _ if place == "/" || is_volatile => Check::fail(
                NAME,
                format!("{finding}: it does not stay"),
                "see to it that the data partition is mounted; the journal of the start says why it is not",
            ),
            Some("rw") => Check::ok(NAME, format!("{finding}, and can be written")),
            _ => Check::fail(
                NAME,
                format!("{finding}, mounted read-only"),
                "check its file system: the kernel's log says what is wrong with it",
            ),
        })
    }

    fn watchdog(&self) -> Option<Check> {
        const NAME: &str = "hardware watchdog";
        let of = |file: &str| self.text(&format!("sys/class/watchdog/watchdog0/{file}"));
        match of("identity") {
            Some(identity) => {
                let timeout = of("timeout").map_or(String::new(), |s| format!(", {s} s"));
                Some(Check::ok(NAME, format!("{identity}{timeout}")))
            }
            None if self.is_image => Some(Check::warn(
                NAME,
                "there is none: a kernel that hangs stays as it is",
                "enable it in the board's firmware or device tree",
            )),
            None => None,
        }
    }

    fn hardware_clock(&self) -> Option<Check> {
        const NAME: &str = "hardware clock";
        let of = |file: &str| self.text(&format!("sys/class/rtc/rtc0/{file}"));
        match (of("name"), of("since_epoch").and_then(|text| text.parse::<i64>().ok())) {
            (Some(name), Some(unix_s)) if unix_s >= SET_UNIX_S => Some(Check::ok(NAME, name)),
            (Some(name), _) => Some(Check::warn(
                NAME,
                format!(
                    "{name} was never set, or forgets: after a power cut the time is not known at first"
                ),
                "give it a battery; until then a time server sets the time",
            )),
            (None, _) if self.is_image => Some(Check::warn(
                NAME,
                "there is none: after a power cut the time is not known at first",
                "nothing, where a time server can be reached",
            )),
            (None, _) => None,
        }
    }

    /// Whether a library is there that computes faster than the processor; the line `engine` says what serves.
    fn runtime(&self, name: &str, library: &str) -> Option<Check> {
        let found = LIBRARIES.iter().find_map(|folder| {
            let folder = self.sysroot.join(folder);
            let inner = fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = inner.map(|entry| entry.path()).filter(|path| path.is_dir());
            std::iter::once(folder.clone())
                .chain(inner)
                .find_map(|folder| in_folder(&folder, library))
        });
        match found {
            Some(path) => {
                let finding =
                    format!("{} is there; the line 'engine' says what serves", path.display());
                Some(Check::ok(name, finding))
            }
            None if self.is_jetson() => Some(Check::ok(
                name,
                format!("absent ({library}): the processor computes everything"),
            )),
            None => None,
        }
    }
}

/// The library, of whatever version.
fn in_folder(folder: &Path, library: &str) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(library))
    };
    names.filter(is_it).min()
}

/// `# R36 (release), REVISION: 4.3, GCID: …` as people say it.
fn release(text: &str) -> Option<String> {
    let (_, rest) = text.lines().next()?.split_once('R')?;
    let major = rest.split_whitespace().next()?;
    let (_, rest) = text.split_once("REVISION: ")?;
    let minor = rest.split(',').next()?.trim();
    // What NVIDIA's own table of releases says.
    let jetpack = match major {
        "35" => ", of JetPack 5",
        "36" => ", of JetPack 6",
        "38" => ", of JetPack 7",
        _ => "",
    };
    Some(format!("{major}.{minor}{jetpack}"))
}

/// Mount point, kind and options of the file system that `path` lies on.
fn mount_of(mounts: &str, path: &Path) -> Option<(String, String, String)> {
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(place).then(|| (place.to_owned(), kind.to_owned(), options.to_owned()))
    });
    // Of two at one place the later one is on top.
    lines.max_by_key(|(place, ..)| place.len())
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn checks(&self, is_image: bool) -> Vec<Check> {
            let path = self.0.path().join("bin").into_os_string();
            let data_dir = Path::new("/data/lookback");
            Board { sysroot: self.0.path(), path, is_image, data_dir }.checks()
        }

        fn says(&self, name: &str, status: Status, words: &str) {
            let checks = self.checks(true);
            let check = checks.iter().find(|check| check.name == name);
            let check = check.unwrap_or_else(|| panic!("no line '{name}' in {checks:?}"));
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.finding.contains(words), "{check:?} does not say {words}");
            assert_eq!(check.remedy.is_none(), status == Status::Ok, "{check:?}");
        }
    }

    #[test]
    fn a_machine_that_is_no_board_is_not_blamed_for_it() {
        assert_eq!(Files::new().checks(false), vec![]);
    }

    #[test]
    fn a_board_that_has_it_all_is_ticked_line_by_line() {
        let files = Files::new();
        files
            .put("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
            .put(
                "etc/nv_tegra_release",
                "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
            )
            .put("bin/nvpmodel", "#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n")
            .put("proc/self/mounts", "/dev/dm-0 / erofs ro 0 0\n/dev/a /data ext4 rw,noatime 0 0\n")
            .put("sys/class/watchdog/watchdog0/identity", "tegra_wdt\n")
            .put("sys/class/watchdog/watchdog0/timeout", "120\n")
            .put("sys/class/rtc/rtc0/name", "nvvrs_pseq_rtc\n")
            .put("sys/class/rtc/rtc0/since_epoch", "1796000000\n")
            .put("usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0", "")
            .put("usr/local/lib/libonnxruntime.so.1", "");
        for (name, words) in [
            ("machine", "NVIDIA Jetson Orin Nano Developer Kit"),
            ("L4T", "36.4.3, of JetPack 6"),
            ("power mode", "MAXN_SUPER"),
            ("data partition", "lies on /data, ext4, and can be written"),
            ("hardware watchdog", "tegra_wdt, 120 s"),
            ("hardware clock", "nvvrs_pseq_rtc"),
            ("TensorRT", "libnvinfer.so.10.3.0 is there"),
            ("ONNX Runtime", "libonnxruntime.so.1 is there"),
        ] {
            files.says(name, Status::Ok, words);
        }
        assert_eq!(files.checks(true).len(), 8);
    }

    #[test]
    fn what_a_board_lacks_is_told_with_what_to_do() {
        let files = Files::new();
        files.put("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0");
        files.put("bin/nvpmodel", "#!/bin/sh\nexit 3\n");
        files.put("proc/mounts", "/dev/dm-0 / erofs ro 0 0\n");
        files.says("L4T", Status::Warn, "not there");
        files.says("power mode", Status::Warn, "does not tell");
        files.says("data partition", Status::Fail, "does not stay");
        files.says("hardware watchdog", Status::Warn, "there is none");
        files.says("hardware clock", Status::Warn, "there is none");
        files.says("TensorRT", Status::Ok, "absent (libnvinfer.so)");
        files.put("proc/mounts", "/dev/a /data ext4 ro,noatime 0 0\n/dev/b /data2 ext4 rw 0 0\n");
        files.says("data partition", Status::Fail, "read-only");
        files.put("proc/mounts", "tmpfs /data tmpfs rw 0 0\n");
        files.says("data partition", Status::Fail, "does not stay");
        files.put("sys/class/rtc/rtc0/name", "rtc\n").put("sys/class/rtc/rtc0/since_epoch", "12\n");
        files.says("hardware clock", Status::Warn, "was never set");
    }
}
