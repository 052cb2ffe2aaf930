//! RAUC, by its command-line program: what it says is read as anybody's words, and it is given so much time.

use crate::program;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What takes it longer than this, but for an installation, hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// More slots than these are not of two systems.
const SLOTS_MAX: usize = 64;
/// More of a text is cut off.
const TEXT_CHARS_MAX: usize = 300;
/// By these words an end of the program says nothing about what it was given.
const OF_THE_MACHINE: [&str; 6] =
    ["D-Bus", "DBus", "Could not connect", "lready processing", "No keyring", "No space left"];

/// Why RAUC did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RaucError {
    /// There is none.
    #[error(
        "there is no RAUC here ('{}'), which installs systems: start this machine from an image of Lookback, or name \
         the program in [os] rauc", program.display()
    )]
    Absent {
        /// The program.
        program: PathBuf,
    },
    /// It cannot be run.
    #[error("'{}' cannot be run ({source})", program.display())]
    Unable {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not end.
    #[error("RAUC did not end within {} s when asked to {command}: look at the journal of its service", limit.as_secs())]
    Late {
        /// What it was to do.
        command: String,
        /// How long it was given.
        limit: Duration,
    },
    /// It ended badly.
    #[error("RAUC does not {command}: {why}")]
    Refused {
        /// What it was to do.
        command: String,
        /// What it said.
        why: String,
    },
    /// It said something else than was asked.
    #[error("what RAUC says cannot be understood ({why}), asked to {command}")]
    Garbage {
        /// What it was to do.
        command: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RaucError {
    /// What it says about the bundle that RAUC was given; `None`: nothing, the machine failed.
    pub fn verdict(&self) -> Option<String> {
        match self {
            Self::Refused { why, .. } if !OF_THE_MACHINE.iter().any(|word| why.contains(word)) => {
                Some(format!("RAUC refused it: {why}"))
            }
            _ => None,
        }
    }
}

/// RAUC.
#[derive(Clone, Debug)]
pub struct Rauc {
    program: PathBuf,
    patience: Duration,
    install: Duration,
}

/// What it says of the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The kind of machine, which a bundle must be made for.
    pub compatible: String,
    /// Bootname of the slot that runs.
    pub booted: Option<String>,
    /// Name of the slot that starts next.
    pub primary: Option<String>,
    /// The slots that can be started, by name.
    pub slots: Vec<Slot>,
}

/// A slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// RAUC's name, such as `rootfs.0`.
    pub name: String,
    /// The boot loader's.
    pub bootname: String,
    /// Where it lies.
    pub device: Option<PathBuf>,
    /// `booted` or `inactive`.
    pub state: Option<String>,
    /// `good` or `bad`.
    pub boot_status: Option<String>,
    /// Version of the bundle that RAUC installed there.
    pub version: Option<String>,
}

/// What a bundle says that it is; RAUC has checked who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// For which kind of machine.
    pub compatible: String,
    /// Its version, if it has one.
    pub version: Option<String>,
}

impl Rauc {
    /// The program of this name, with so many minutes for an installation.
    pub fn new(program: &Path, install_minutes: f64) -> Self {
        let install = Duration::from_secs_f64(install_minutes * 60.0);
        Self { program: program.to_owned(), patience: PATIENCE, install }
    }

    /// The same, with so much time for all else.
    #[cfg(test)]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// What it says of its slots.
    ///
    /// # Errors
    /// [`RaucError`]
    pub fn status(&self) -> Result<Status, RaucError> {
        let arguments = ["status", "--detailed", "--output-format=json"].map(OsStr::new);
        let said = self.run("tell its status", &arguments, self.patience)?;
        understood("tell its status", &said).map(StatusJson::told)
    }

    /// What the bundle in `file` is, which it has verified.
    ///
    /// # Errors
    /// [`RaucError`]
    pub fn info(&self, file: &Path) -> Result<Info, RaucError> {
        const COMMAND: &str = "look into the bundle";
        let arguments = [OsStr::new("info"), OsStr::new("--output-format=json"), file.as_os_str()];
        // It hashes nothing but the signature, on whatever card the file lies.
        let said = self.run(COMMAND, &arguments, self.patience)?;
        let InfoJson { compatible, version } = understood(COMMAND, &said)?;
        let version = version.map(|version| plain(&version)).filter(|version| !version.is_empty());
        Ok(Info { compatible: plain(&compatible), version })
    }

    /// Installs the bundle in `file` into the slot that does not run, which starts next from then on.
    ///
    /// # Errors
    /// [`RaucError`]. After [`RaucError::Late`] its service may still go on.
    pub fn install(&self, file: &Path) -> Result<(), RaucError> {
        let arguments = [OsStr::new("install"), file.as_os_str()];
        self.run("install the bundle", &arguments, self.install).map(drop)
    }

    /// Tells it that the system that runs is good.
    ///
    /// # Errors
    /// [`RaucError`]
    pub fn mark_good(&self) -> Result<(), RaucError> {
        let arguments = ["status", "mark-good"].map(OsStr::new);
        self.run("mark the system good", &arguments, self.patience).map(drop)
    }

    /// Runs it, and returns what it said on its standard output.
    fn run(
        &self,
        command: &str,
        arguments: &[&OsStr],
        limit: Duration,
    ) -> Result<String, RaucError> {
        let unable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => RaucError::Absent { program: self.program.clone() },
            _ => RaucError::Unable { program: self.program.clone(), source },
        };
        let command = command.to_owned();
        let said = program::run(&self.program, arguments, limit).map_err(unable)?;
        match said.status {
            None => Err(RaucError::Late { command, limit }),
            Some(status) if status.success() => Ok(said.out),
            Some(status) => {
                let why = reason(&said.out, &said.err).unwrap_or_else(|| status.to_string());
                Err(RaucError::Refused { command, why })
            }
        }
    }
}

/// What it gave as its reason: RAUC's service has a line of its own for it, else it is the last that was said.
fn reason(out: &str, err: &str) -> Option<String> {
    let lines = || err.lines().rev().chain(out.lines().rev()).map(plain).filter(|l| !l.is_empty());
    let service = lines().find_map(|line| line.strip_prefix("LastError: ").map(str::to_owned));
    service.or_else(|| lines().next())
}

/// One line without anything that a terminal would obey.
fn plain(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().take(TEXT_CHARS_MAX).map(clean).collect();
    text.trim().to_owned()
}

fn understood<'a, T: Deserialize<'a>>(command: &str, said: &'a str) -> Result<T, RaucError> {
    let from = said.find('{').unwrap_or(said.len());
    // A line may come after it.
    let mut values = serde_json::Deserializer::from_str(&said[from..]).into_iter::<T>();
    let garbage = |why: String| RaucError::Garbage { command: command.to_owned(), why };
    match values.next() {
        Some(value) => value.map_err(|error| garbage(plain(&error.to_string()))),
        None => Err(garbage("it says nothing".to_owned())),
    }
}

#[derive(Deserialize)]
struct InfoJson {
    compatible: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct StatusJson {
    compatible: String,
    booted: Option<String>,
    boot_primary: Option<String>,
    #[serde(default)]
    slots: Vec<BTreeMap<String, SlotJson>>,
}

#[derive(Deserialize)]
struct SlotJson {
    bootname: Option<String>,
    device: Option<String>,
    state: Option<String>,
    boot_status: Option<String>,
    slot_status: Option<OfSlot>,
}

#[derive(Deserialize)]
struct OfSlot {
    bundle: Option<OfBundle>,
}

#[derive(Deserialize)]
struct OfBundle {
    version: Option<String>,
}

impl StatusJson {
    fn told(self) -> Status {
        let text = |text: Option<String>| {
            text.map(|text| plain(&text)).filter(|text| !text.is_empty() && text != "(null)")
        };
        let slots = self.slots.into_iter().flatten().take(SLOTS_MAX);
        // What lies beside a root, such as its kernel, is its own, and nothing that could be started.
        let startable = slots.filter_map(|(name, slot)| {
            let version = slot.slot_status.and_then(|status| status.bundle?.version);
            Some(Slot {
                name: plain(&name),
                bootname: text(slot.bootname)?,
                device: text(slot.device).map(PathBuf::from),
                state: text(slot.state),
                boot_status: text(slot.boot_status),
                version: text(version),
            })
        });
        let mut slots: Vec<Slot> = startable.collect();
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            compatible: plain(&self.compatible),
            booted: text(self.booted),
            primary: text(self.boot_primary),
            slots,
        }
    }
}
