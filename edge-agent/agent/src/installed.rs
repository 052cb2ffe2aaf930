//! The policy that the device runs, as updates left it; and how updates of policy and system are remembered.

use crate::{line::Dice, parts};
use anyhow::Result;
use bundle::Bundle;
use event_log::{EventLog, LogReader};
use hal_camera::{ClockQuality, WallTime};
use release::{Channel, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};
use updater::{Clock, Effect, Input, Parts, Plan, Stage, Trust};

/// Kind of the events that tell of a policy.
pub const POLICY: &str = "policy";
/// Kind of the events that tell of the system.
pub const SYSTEM: &str = "system";
/// This program was not built before: 2026-11-27.
const BUILT_UNIX_S: i64 = 1_795_737_600;

/// All that an updater must not forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What is to be done, and what was.
    pub plan: Plan,
    /// What of the repository is believed; `None`: it was never seen.
    pub trust: Option<Trust>,
    /// When the time was last known for sure, in seconds since 1970.
    pub sure_unix_s: i64,
    /// What the fleet server had halted when it last answered.
    #[serde(default)]
    pub halts: Halts,
}

/// Rollouts that no device should begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halts {
    /// Of which channel.
    pub channel: String,
    /// Its numbers.
    pub numbers: Vec<u64>,
}

impl Halts {
    /// Whether what `channel` offers is among them.
    pub fn holds_up(&self, channel: &Channel) -> bool {
        self.channel == channel.channel && self.numbers.contains(&channel.number)
    }
}

/// Where what was fetched is kept.
pub fn folder(kind: Kind, data_dir: &Path) -> PathBuf {
    data_dir.join(match kind {
        Kind::Policy => "update",
        Kind::System => "os",
    })
}

/// Where the log remembers it.
fn key(kind: Kind) -> &'static str {
    match kind {
        Kind::Policy => "update",
        Kind::System => "system",
    }
}

/// Where a copy of the record lies.
fn copy_of(kind: Kind, data_dir: &Path) -> PathBuf {
    folder(kind, data_dir).join("record.json")
}

impl Record {
    /// As the log at `data_dir` has it, whoever writes there now, or else as its copy has it.
    pub fn read(kind: Kind, data_dir: &Path) -> Self {
        let path = parts::log_path(data_dir);
        let text = || LogReader::open(&path)?.state_get(key(kind));
        // Opening a log that is not there would be no error, and make none.
        let text = path.exists().then(text).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "what was updated is read from its copy");
            None
        });
        Self::understood(kind, text.flatten(), data_dir)
    }

    /// As `log` has it, or else as its copy has it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(kind: Kind, log: &EventLog) -> Result<Self> {
        let data_dir = log.path().parent().unwrap_or(Path::new(""));
        Ok(Self::understood(kind, log.state_get(key(kind))?, data_dir))
    }

    fn understood(kind: Kind, text: Option<String>, data_dir: &Path) -> Self {
        let parsed = |text: String| {
            serde_json::from_str(&text).ok().filter(|record: &Self| record.plan.kind == kind)
        };
        let copy = || fs::read_to_string(copy_of(kind, data_dir)).ok().and_then(parsed);
        text.and_then(parsed).or_else(copy).unwrap_or_else(|| Self::of_new_device(kind))
    }

    /// Beside the log, in case that it is damaged and a new one begun: a floor is none if it falls with a file.
    fn copy_beside(&self, log: &EventLog) {
        let path = copy_of(self.plan.kind, log.path().parent().unwrap_or(Path::new("")));
        let written = || -> io::Result<()> {
            let part = path.with_extension("part");
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = fs::File::create(&part)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        if let Err(error) = written() {
            tracing::warn!(%error, "what was updated has no copy");
        }
    }

    /// Of a device that never had an update: it draws its place in the waves.
    fn of_new_device(kind: Kind) -> Self {
        let seed = (Dice::new().next() * f64::from(release::SEEDS)) as u16;
        Self { plan: Plan { kind, seed, ..Plan::default() }, ..Self::default() }
    }

    /// What time it is, as far as can be known.
    pub fn clock(&self, now: WallTime) -> Clock {
        let floor_unix_s = self.sure_unix_s.max(BUILT_UNIX_S);
        Clock { now_unix_s: now.unix_us / 1_000_000, floor_unix_s }
    }

    /// Remembers the time, if it is known for sure. A time server that sets the clock back is believed as well: else
    /// a wrong time that came from the future once would make everything look expired for ever.
    pub fn note_time(&mut self, now: WallTime) {
        if now.quality != ClockQuality::Unsynced {
            self.sure_unix_s = now.unix_us / 1_000_000;
        }
    }

    /// Takes a step: what it tells and what it must not forget become one transaction of the log. Returns what it
    /// told, and what is to be done besides.
    ///
    /// # Errors
    /// If the log cannot be written; nothing has changed then.
    pub fn step(
        &mut self,
        input: Input<'_>,
        ledger: &mut dyn Ledger,
    ) -> Result<(Vec<String>, Vec<Effect>)> {
        let (plan, effects) = self.plan.clone().step(input);
        let next = Self { plan, ..self.clone() };
        let (mut told, mut left) = (vec![], vec![]);
        for effect in effects {
            match effect {
                Effect::Say { sentence, fields } => {
                    ledger.tell(&sentence, &fields, &next)?;
                    told.push(sentence);
                }
                other => left.push(other),
            }
        }
        if told.is_empty() && next != *self {
            ledger.keep(&next)?;
        }
        *self = next;
        Ok((told, left))
    }

    fn text(&self) -> String {
        // Texts, numbers and lists of them can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Who writes into the log.
pub trait Ledger {
    /// That something happened, with what is not to be forgotten from then on.
    ///
    /// # Errors
    /// If neither was written.
    fn tell(&mut self, sentence: &str, fields: &Value, record: &Record) -> Result<()>;

    /// What is not to be forgotten.
    ///
    /// # Errors
    /// If it was not written.
    fn keep(&mut self, record: &Record) -> Result<()>;
}

impl Ledger for EventLog {
    fn tell(&mut self, sentence: &str, fields: &Value, record: &Record) -> Result<()> {
        let kind = record.plan.kind;
        let label = match kind {
            Kind::Policy => POLICY,
            Kind::System => SYSTEM,
        };
        let (event, text) = ((label, sentence, fields), record.text());
        self.health_with_state(event, parts::now(), (key(kind), &text))?;
        record.copy_beside(self);
        Ok(())
    }

    fn keep(&mut self, record: &Record) -> Result<()> {
        self.state_set(key(record.plan.kind), &record.text())?;
        record.copy_beside(self);
        Ok(())
    }
}

/// The policy that an update left here, if one did; else nothing. A second text says why it is not the one
/// that should be there.
///
/// # Errors
/// If the disk fails.
pub fn open(data_dir: &Path) -> Result<(Option<Bundle>, Option<String>)> {
    let mut why = None;
    for (id, dir) in kept(data_dir)? {
        match Bundle::open(dir) {
            Ok(bundle) if bundle.id() == id => return Ok((Some(bundle), why)),
            Ok(_) => why = Some(format!("the policy {id} is another now")),
            Err(error) => why = Some(format!("the policy {id} cannot be used: {error}")),
        }
    }
    Ok((None, why))
}

/// The policies that updates left here, by the ids that they were taken under, and where they lie: the one that
/// watches, then the one before it.
///
/// # Errors
/// If the disk fails.
pub fn kept(data_dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let folder = folder(Kind::Policy, data_dir);
    if !folder.exists() {
        return Ok(vec![]);
    }
    let plan = Record::read(Kind::Policy, data_dir).plan;
    let parts = Parts::open(&folder)?;
    let releases = [plan.active, plan.previous.flatten()].into_iter().flatten();
    let ids = releases.filter_map(|slot| slot.release).map(|release| release.bundle);
    Ok(ids.map(|id| (id.clone(), parts.bundle(&id))).collect())
}

/// A program that starts tries nothing yet, whatever the one before it tried.
///
/// # Errors
/// If the log cannot be read or written.
pub fn started(log: &mut EventLog) -> Result<()> {
    Record::of(Kind::Policy, log)?.step(Input::Started, log).map(drop)
}

/// A watch that ends in good order is no reason to think ill of what it tried.
///
/// # Errors
/// If the log cannot be read or written.
pub fn called_off(data_dir: &Path) -> Result<()> {
    if Record::read(Kind::Policy, data_dir).plan.stage == Stage::Trial {
        let (mut log, _) = parts::log(data_dir)?;
        Record::of(Kind::Policy, &log)?.step(Input::CalledOff, &mut log)?;
    }
    Ok(())
}

/// Removes what no plan needs.
///
/// # Errors
/// If the disk fails.
pub fn clear(plan: &Plan, data_dir: &Path) -> Result<()> {
    Ok(Parts::open(&folder(plan.kind, data_dir))?.keep_only(&plan.needs())?)
}

/// Removes what an update left behind that ended, and could not tidy up after itself.
///
/// # Errors
/// If the disk fails.
pub fn tidy(plan: &Plan, data_dir: &Path) -> Result<()> {
    match plan.stage {
        Stage::Committed | Stage::RolledBack if folder(plan.kind, data_dir).exists() => {
            clear(plan, data_dir)
        }
        _ => Ok(()),
    }
}

/// The root that the device was given.
///
/// # Errors
/// If it cannot be read.
pub fn given_root(path: &Path) -> io::Result<String> {
    const ROOT_BYTES_MAX: u64 = 1 << 20;
    match fs::metadata(path)?.len() {
        0..=ROOT_BYTES_MAX => fs::read_to_string(path),
        _ => Err(io::Error::other("it is larger than 1 MiB")),
    }
}
