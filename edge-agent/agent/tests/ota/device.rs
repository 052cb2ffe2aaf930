//! The camera's side: the program, on a disk on which something fails.

use crate::world::copy;
use bundle::Bundle;
use event_log::{LogReader, Query};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What fails for a run of the program.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// At which operation on the disk, and what; as `preload.c` reads it.
    pub at: Option<String>,
    /// The program is killed right after it has said this, by its own account of its operations.
    pub kill_at_sentence: Option<&'static str>,
    /// Whether a time server is said to keep the clock.
    pub synced: bool,
}

impl Fault {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }
}

/// A device: a folder with its data.
pub struct Device {
    /// All that is its own.
    pub root: PathBuf,
    preload: PathBuf,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where its newest update stands.
    pub stage: String,
    /// What it runs.
    pub runs: String,
    /// Why it was rolled back.
    pub why: Option<String>,
}

impl Device {
    /// In this folder.
    pub fn new(root: &Path, preload: &Path) -> Self {
        for folder in ["data", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self { root: root.into(), preload: preload.into() }
    }

    /// A copy of another.
    pub fn copied(other: &Self, root: &Path) -> Self {
        copy(&other.root, root);
        Self { root: root.into(), preload: other.preload.clone() }
    }

    /// Clears it away.
    pub fn remove(self) {
        let _ = fs::remove_file(self.account());
        fs::remove_dir_all(self.root).unwrap();
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What it did, by operation.
    pub fn account(&self) -> PathBuf {
        self.root.with_extension("account")
    }

    fn program(&self, config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lookback"));
        command.arg("--config").arg(config).arg("--data-dir").arg(self.data());
        command
    }

    /// `lookback update apply`.
    pub fn apply(&self, config: &Path, fault: &Fault) -> Output {
        let mut command = self.program(config);
        command.args(["update", "apply"]).env("LD_PRELOAD", &self.preload);
        command.env("OTA_ROOT", &self.root).env("TMPDIR", self.root.join("tmp"));
        command.env("OTA_SYNCED", if fault.synced { "1" } else { "0" });
        command.env("OTA_RECORD", self.account());
        let _ = fs::remove_file(self.account());
        if let Some(at) = &fault.at {
            command.env("OTA_FAULT", at);
        }
        if let Some(sentence) = fault.kill_at_sentence {
            command.env("OTA_KILL_AFTER", sentence);
        }
        command.output().unwrap()
    }

    /// `lookback update status`.
    pub fn standing(&self, config: &Path) -> Standing {
        let output = self.program(config).args(["update", "status", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error} in {output:?}"));
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        Standing { stage: text("stage").unwrap(), runs: text("runs").unwrap(), why: text("why") }
    }

    /// Whether the program finds nothing amiss with policy, engine and log.
    pub fn is_sound(&self, config: &Path, runs: &str) -> Result<(), String> {
        let output = self.program(config).args(["doctor", "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        for name in ["policy", "engine", "event log"] {
            let check = told["checks"].as_array().unwrap().iter().find(|c| c["name"] == name);
            match check {
                Some(check) if check["status"] == "ok" => {}
                other => return Err(format!("doctor says of the {name}: {other:?}")),
            }
        }
        match told.to_string().contains(runs) {
            true => Ok(()),
            false => Err(format!("doctor does not name {runs}")),
        }
    }

    /// Whether the bundle is there, opens and is what was signed.
    pub fn has(&self, id: &str) -> Result<(), String> {
        let name: String = id.replace(['@', '+'], "-");
        let opened = Bundle::open(self.data().join("update/bundles").join(name));
        match opened.map(|bundle| bundle.id()) {
            Ok(found) if found == id => Ok(()),
            Ok(found) => Err(format!("the policy is {found}, not {id}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The stages that events of the bundle tell of, and what is wrong with the log.
    pub fn told(&self, id: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let log = LogReader::open(&self.data().join("events.sqlite")).map_err(|e| e.to_string())?;
        let rows =
            log.events(&Query { limit: 10_000, ..Query::default() }).map_err(|e| e.to_string())?;
        let fields = rows.iter().map(|row| serde_json::to_value(row).unwrap()["fields"].clone());
        let of_it = fields.filter(|fields| fields["bundle"] == id);
        let stages = of_it.filter_map(|fields| Some(fields["stage"].as_str()?.to_owned()));
        Ok((stages.collect(), log.check().map_err(|e| e.to_string())?))
    }

    /// What lies there that is neither of the policy that runs nor of the one before.
    pub fn litter(&self) -> Vec<String> {
        let update = self.data().join("update");
        let record = fs::read_to_string(update.join("record.json")).unwrap();
        let plan = serde_json::from_str::<Value>(&record).unwrap()["plan"].take();
        let needed: Vec<String> = [&plan["active"], &plan["previous"]]
            .into_iter()
            .filter_map(|slot| slot["release"].as_object())
            .flat_map(|release| {
                let files = release["files"].as_array().unwrap().iter();
                let hashes = files.map(|file| file["blake3"].as_str().unwrap().to_owned());
                let bundle = release["bundle"].as_str().unwrap().replace(['@', '+'], "-");
                hashes.chain([bundle]).collect::<Vec<_>>()
            })
            .collect();
        let names = |folder: &str| {
            let found = fs::read_dir(update.join(folder)).unwrap();
            found.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        names("parts").chain(names("bundles")).filter(|name| !needed.contains(name)).collect()
    }
}
