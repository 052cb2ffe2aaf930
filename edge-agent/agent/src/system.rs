//! The operating system under the agent, as an image that RAUC keeps in two slots: which one runs, whether it was
//! confirmed, and what RAUC says and does.
//!
//! ```text
//! file ──info, install──▶ other slot ──restart──▶ it runs ──a watch in good health──▶ mark-good, confirmed
//!                                                    └── none within the image's time ──▶ the old slot again
//! ```
//!
//! The agent has no right to restart the machine and no say in what starts: it asks by a file, and the image decides
//! by what was confirmed. How an update stands is the plan's business (crate `updater`).

mod booted;
mod confirmed;
mod confirming;
mod handover;
mod rauc;
#[cfg(test)]
mod tests;

pub use booted::Booted;
pub use confirmed::Confirmed;
pub use confirming::{Confirming, Desk, confirm};
pub use handover::{hand_over, hand_over_by_hand};
pub use rauc::{Rauc, RaucError, Slot, Status};

use crate::{
    config::{self, Config},
    installed::{self, Record},
};
use anyhow::Result;
use event_log::EventLog;
use release::Kind;
use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use updater::{Effect, Input, Stage};

/// The system of this machine.
#[derive(Clone, Debug)]
pub struct System {
    /// What runs.
    pub booted: Booted,
    /// What was confirmed.
    pub confirmed: Confirmed,
    /// The program that installs.
    pub rauc: Rauc,
    reboot_file: PathBuf,
}

impl System {
    /// As the configuration says.
    pub fn of(config: &Config) -> Self {
        let config::Os { rauc, install_minutes, sysroot, reboot_file, .. } = &config.os;
        Self {
            booted: Booted::read(sysroot),
            confirmed: Confirmed::in_folder(&installed::folder(
                Kind::System,
                &config.device.data_dir,
            )),
            rauc: Rauc::new(rauc, *install_minutes),
            reboot_file: reboot_file.clone(),
        }
    }

    /// Whether the system that runs was confirmed; `None`: it does not say what it is, so that nobody can tell.
    pub fn is_confirmed(&self) -> Option<bool> {
        self.booted.root.as_ref().map(|root| self.confirmed.has(root))
    }

    /// Asks for the restart of the machine. Whether anybody will hear it cannot be known; a sentence says what is next.
    pub fn restart(&self) -> String {
        let path = &self.reboot_file;
        let by_hand = || "restart the machine to start it".to_owned();
        if path.as_os_str().is_empty() {
            return by_hand();
        }
        match fs::File::create(path) {
            Ok(_) => format!("the machine is asked to restart into it, by '{}'", path.display()),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("cannot ask for a restart by '{}': {error}", path.display());
                }
                by_hand()
            }
        }
    }

    /// What it is, as its own plan and RAUC know it: `compatible@version`.
    pub fn id(&self, compatible: &str) -> String {
        format!("{compatible}@{}", self.booted.version.as_deref().unwrap_or_default())
    }

    /// The device of the slot that runs, if it can be read: a new system has much of it, which need not come again.
    pub fn readable_slot(&self) -> Option<PathBuf> {
        let status = self.rauc.status().ok()?;
        let slot =
            status.slots.into_iter().find(|slot| status.booted.as_ref() == Some(&slot.bootname));
        slot?.device.filter(|device| fs::File::open(device).is_ok())
    }

    /// For events.
    pub fn facts(&self) -> Value {
        let Booted { root, slot, version, .. } = &self.booted;
        json!({"what": Kind::System.word(), "root": root, "slot": slot, "version": version})
    }
}

/// Brings the record of the system to what the start of the machine has made of it, and asks once more for a restart
/// that is still to come.
///
/// # Errors
/// If the log cannot be read or written.
pub fn started(config: &Config, log: &mut EventLog) -> Result<Record> {
    let system = System::of(config);
    let mut record = Record::of(Kind::System, log)?;
    let Some(boot) = system.booted.boot() else { return Ok(record) };
    loop {
        let before = record.plan.clone();
        take(&mut record, Input::Booted(&boot), log, &config.device.data_dir)?;
        if record.plan == before {
            break;
        }
    }
    match record.plan.stage {
        // It was confirmed, and that was not written down any more.
        Stage::Trial if system.confirmed.has(&boot.root) => {
            let seen = Input::Passed(system.facts());
            take(&mut record, seen, log, &config.device.data_dir)?;
        }
        Stage::Staged => drop(system.restart()),
        _ => {}
    }
    Ok(record)
}

fn take(record: &mut Record, input: Input<'_>, log: &mut EventLog, data_dir: &Path) -> Result<()> {
    let (told, effects) = record.step(input, log)?;
    told.iter().for_each(|sentence| tracing::info!("{sentence}"));
    match effects.contains(&Effect::Clear) {
        true => installed::clear(&record.plan, data_dir),
        false => Ok(()),
    }
}
