//! `lookback os`: the operating system of this device, and new ones.

use crate::{
    config::Config,
    installed::{Ledger, Record},
    parts,
    run::stop_on_signals,
    staging::{Offer, Steps},
    system::{self, RaucError, Slot, Status, System},
    update,
};
use anyhow::{Result, bail};
use event_log::EventLog;
use release::Kind;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};
use updater::Stage;

/// See which system this device runs, and take a new one.
///
/// A device that was started from an image of Lookback has two systems, in two slots. RAUC installs a new one into the
/// slot that does not run; the machine then restarts into it, and `lookback run` confirms it when it has watched in
/// good health for the time in [os] confirm_minutes. One that is not confirmed makes room for the old one. The section
/// [os] of the configuration says the rest. `apply` and `install` need that `lookback run` is not running, which does by
/// itself what `apply` does: stop it meanwhile, with `systemctl stop lookback`.
#[derive(clap::Args)]
pub struct OsArguments {
    #[command(subcommand)]
    command: OsCommand,
}

#[derive(clap::Subcommand)]
enum OsCommand {
    /// Say which system runs, what is in both slots, whether it was confirmed, and where an update of it stands.
    Status(Asked),
    /// Ask the repository what system it has for this device; nothing is fetched.
    Check(Asked),
    /// Fetch the system that the channel in [os] names, verify it, and have it installed in the other slot.
    Apply(Asked),
    /// Have the RAUC bundle in a file installed in the other slot, from a stick for example. RAUC decides by its
    /// signature whether it does.
    Install(InstallArguments),
}

#[derive(clap::Args)]
struct Asked {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct InstallArguments {
    /// The bundle, a file that `rauc bundle` made, such as lookback-1.2.0.raucb.
    file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If there is no RAUC, the repository cannot be reached or is not believed, the system is not taken, or the device is in
/// use.
pub fn run(config: &Config, arguments: &OsArguments, out: &mut dyn Write) -> Result<()> {
    match &arguments.command {
        OsCommand::Status(asked) => {
            let record = Record::read(Kind::System, &config.device.data_dir);
            tell(&standing(config, &record)?, asked.json, out)
        }
        OsCommand::Check(asked) => check(config, asked.json, out),
        OsCommand::Apply(asked) => apply(config, asked.json, out),
        OsCommand::Install(arguments) => install(config, &arguments.file, arguments.json, out),
    }
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let runs = runs(config)?;
    let mut record = Record::read(Kind::System, &config.device.data_dir);
    let offer = Offer::ask(config, &mut record);
    // A running watch has the log: what was learnt is learnt again by whoever takes the update.
    if let Ok((mut log, _)) = parts::log(&config.device.data_dir) {
        log.keep(&record)?;
    }
    let mut told = offer?.told(&record, &runs);
    if !json {
        return Ok(writeln!(out, "{}", update::line(&told, "lookback os apply"))?);
    }
    told["stage"] = json!(record.plan.stage);
    Ok(writeln!(out, "{told}")?)
}

fn apply(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let (begun, stop) = (Instant::now(), stop_on_signals()?);
    let runs = runs(config)?;
    let (mut log, mut record) = open(config)?;
    let offer = Offer::ask(config, &mut record);
    log.keep(&record)?;
    let offer = offer?;
    let before = record.plan.clone();
    let mut say = |sentence: &str| match json {
        true => Ok(()),
        false => Ok(writeln!(out, "{sentence}")?),
    };
    let ledger = &mut log;
    let mut steps = Steps { config, record: &mut record, ledger, say: &mut say };
    let fetched = update::stage(&mut steps, &offer, json, &stop).map_err(|error| {
        anyhow::anyhow!("{error:#}; what came is kept, and `lookback os apply` goes on with it")
    })?;
    let changed = !record.plan.stands_as(&before);
    if json {
        let mut told = standing(config, &record)?;
        told["changed"] = changed.into();
        told["fetched"] = fetched.into();
        told["seconds"] = ((begun.elapsed().as_secs_f64() * 1e3).round() / 1e3).into();
        writeln!(out, "{told}")?;
    } else if !changed {
        let line = match (record.plan.stage, offer.is_new(&runs)) {
            (Stage::Staged, _) => "a new system is installed: restart the machine to start it",
            (Stage::Trial, _) => {
                "the system that runs is on trial, and nothing new is taken until it is confirmed"
            }
            (_, true) => {
                "the system that is offered is not taken now; `lookback os check` says why"
            }
            (_, false) => "nothing is new",
        };
        writeln!(out, "{line}")?;
    }
    match (changed, record.plan.stage, &record.plan.why) {
        (true, Stage::RolledBack, Some(why)) => {
            bail!("the system {} was not taken: {why}", offer.release.bundle)
        }
        _ => Ok(()),
    }
}

fn install(config: &Config, file: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    let (mut log, mut record) = open(config)?;
    let mut say = |sentence: &str| match json {
        true => Ok(()),
        false => Ok(writeln!(out, "{sentence}")?),
    };
    let (record, ledger) = (&mut record, &mut log);
    let mut steps = Steps { config, record, ledger, say: &mut say };
    system::hand_over_by_hand(&mut steps, file)?;
    if json {
        let told = standing(config, steps.record)?;
        writeln!(out, "{told}")?;
    }
    Ok(())
}

/// The log, and the record of the system as the start of the machine has left it.
fn open(config: &Config) -> Result<(EventLog, Record)> {
    let (mut log, _) = parts::log(&config.device.data_dir)?;
    let record = system::started(config, &mut log)?;
    Ok((log, record))
}

/// The system that runs, `compatible@version`.
fn runs(config: &Config) -> Result<String> {
    let system = System::of(config);
    Ok(system.id(&system.rauc.status()?.compatible))
}

/// Which system runs, and where its newest update stands.
fn standing(config: &Config, record: &Record) -> Result<Value> {
    let (system, plan) = (System::of(config), &record.plan);
    let (status, silent) = match system.rauc.status() {
        Ok(status) => (status, None),
        Err(error @ RaucError::Absent { .. }) => return Err(error.into()),
        // That RAUC does not answer takes nothing from what is known besides.
        Err(error) => (Status::default(), Some(error.to_string())),
    };
    let Status { compatible, booted, primary, slots } = status;
    let candidate = plan.candidate.as_ref();
    Ok(json!({
        "compatible": compatible,
        "version": system.booted.version,
        "root": system.booted.root,
        "slot": system.booted.slot.clone().or(booted),
        "primary": primary,
        "confirmed": system.is_confirmed(),
        "slots": slots,
        "rauc_error": silent,
        "stage": plan.stage,
        "candidate": candidate.map(|c| &c.release.bundle),
        "why": plan.why,
        "restart_is_next": plan.stage == Stage::Staged,
        "number": plan.number,
        "floor": plan.floor,
        "seed": plan.seed,
        "channel": config.os.channel,
        "repository": config.update.repository,
    }))
}

fn tell(standing: &Value, json: bool, out: &mut dyn Write) -> Result<()> {
    if json {
        return Ok(writeln!(out, "{standing}")?);
    }
    let text =
        |key: &str| standing[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let or_unknown = |key: &str| text(key).unwrap_or_else(|| "not known".to_owned());
    writeln!(out, "machine    {}", or_unknown("compatible"))?;
    writeln!(out, "runs       {} in slot {}", or_unknown("version"), or_unknown("slot"))?;
    let confirmed = match standing["confirmed"].as_bool() {
        Some(true) => "yes",
        Some(false) => {
            "not yet: `lookback run` confirms it when it has watched in good health for a while"
        }
        None => {
            "nobody can tell: it does not name its root (lookback.root= on the kernel's command line)"
        }
    };
    writeln!(out, "confirmed  {confirmed}")?;
    if let Some(error) = text("rauc_error") {
        writeln!(out, "slots      not known: {error}")?;
    }
    let slots: Vec<Slot> = serde_json::from_value(standing["slots"].clone())?;
    for slot in slots {
        let next = if Some(&slot.name) == text("primary").as_ref() { ", starts next" } else { "" };
        let words = [slot.version, slot.state, slot.boot_status];
        let words: Vec<String> = words.into_iter().flatten().collect();
        writeln!(out, "slot {}     {}{next}", slot.bootname, words.join(", "))?;
    }
    writeln!(out, "update     {}", text("stage").unwrap_or_default())?;
    if let Some(candidate) = text("candidate") {
        writeln!(out, "newest     {candidate}, number {}", standing["number"])?;
    }
    if let Some(why) = text("why") {
        writeln!(out, "why        {why}")?;
    }
    if standing["restart_is_next"] == true {
        writeln!(out, "next       the restart of the machine, into it")?;
    }
    match (text("repository"), text("channel")) {
        (Some(repository), Some(channel)) => writeln!(out, "follows    {channel} of {repository}")?,
        (None, _) => writeln!(out, "follows    nothing: [update] repository names none")?,
        (_, None) => writeln!(out, "follows    nothing: [os] channel names none")?,
    }
    Ok(())
}
