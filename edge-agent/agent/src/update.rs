//! `lookback update`: new policies for this device.

use crate::{
    config::Config,
    installed::{self, Ledger, Record},
    parts,
    run::stop_on_signals,
    staging::{Offer, Steps, built_in},
};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use release::Kind;
use serde_json::{Value, json};
use std::{
    io::Write,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};
use updater::{Effect, Input, Progress, Stage};

/// Look for a new policy, take it, or go back to the one before.
///
/// The repository and its channel stand in the section [update] of the configuration. A policy that was taken
/// watches from the next start of `lookback run` on, which must not be running meanwhile.
#[derive(clap::Args)]
pub struct UpdateArguments {
    #[command(subcommand)]
    command: UpdateCommand,
}

#[derive(clap::Subcommand)]
enum UpdateCommand {
    /// Ask the repository what it has for this device; nothing is fetched.
    Check(Asked),
    /// Fetch the policy that the channel names, try it, and keep it or go on with the old one.
    Apply(Asked),
    /// Say what this device runs and where its newest update stands.
    Status(Asked),
    /// Go back to the policy before this one.
    Rollback(Asked),
}

#[derive(clap::Args)]
struct Asked {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the repository cannot be reached or is not believed, the policy is not taken, or the device is in use.
pub fn run(config: &Config, arguments: &UpdateArguments, out: &mut dyn Write) -> Result<()> {
    match &arguments.command {
        UpdateCommand::Check(asked) => check(config, asked.json, out),
        UpdateCommand::Apply(asked) => apply(config, asked.json, out),
        UpdateCommand::Status(asked) => {
            let record = Record::read(Kind::Policy, &config.device.data_dir);
            tell(&standing(config, &record)?, asked.json, out)
        }
        UpdateCommand::Rollback(asked) => rollback(config, asked.json, out),
    }
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let mut record = Record::read(Kind::Policy, &config.device.data_dir);
    let offer = Offer::ask(config, &mut record);
    // A running watch has the log: what was learnt is learnt again by whoever takes the update.
    if let Ok((mut log, _)) = parts::log(&config.device.data_dir) {
        log.keep(&record)?;
    }
    let mut told = offer?.told(&record, &built_in(config)?.id());
    if !json {
        return Ok(writeln!(out, "{}", line(&told, "lookback update apply"))?);
    }
    told["stage"] = json!(record.plan.stage);
    Ok(writeln!(out, "{told}")?)
}

/// What an offer is to this device, in a sentence; `apply` is the command that takes it.
pub fn line(told: &Value, apply: &str) -> String {
    let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let (runs, offered, number) = (text("runs"), text("offered"), &told["number"]);
    match (told["is_new"] == true, text("admission").as_str()) {
        (false, _) => format!("this device runs {runs}, as its channel says (number {number})"),
        (true, "now") => {
            format!("{offered} is there for this device, which runs {runs}; take it with `{apply}`")
        }
        (true, "later") => format!(
            "{offered} is there for this device, which runs {runs}, from {} on",
            rfc3339(&told["admitted_from_unix_s"])
        ),
        (true, "waits") => format!(
            "{offered} is there, and this device, which runs {runs}, takes nothing new until {}: too many in \
             a row failed on it, and `lookback events` says how",
            rfc3339(&told["admitted_from_unix_s"])
        ),
        _ if told["halted"] == true => {
            format!("{offered} is there, and its rollout is halted; this device runs {runs}")
        }
        _ => format!("{offered} is there, and not for this device, which runs {runs}"),
    }
}

fn rfc3339(unix_s: &Value) -> String {
    event_log::rfc3339(unix_s.as_i64().unwrap_or_default().saturating_mul(1_000_000))
}

fn apply(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    if !config.inquiry.bundle.as_os_str().is_empty() {
        bail!(
            "[inquiry] bundle names '{}', which is what runs whatever is updated: leave it out",
            config.inquiry.bundle.display()
        );
    }
    let begun = Instant::now();
    let stop = stop_on_signals()?;
    let data_dir = &config.device.data_dir;
    let (mut log, _) = parts::log(data_dir)?;
    installed::started(&mut log)?;
    let mut record = Record::of(Kind::Policy, &log)?;
    installed::tidy(&record.plan, data_dir)?;
    let offer = Offer::ask(config, &mut record);
    log.keep(&record)?;
    let offer = offer?;
    let own = built_in(config)?.id();
    let before = record.plan.clone();
    let mut say = |sentence: &str| match json {
        true => Ok(()),
        false => Ok(writeln!(out, "{sentence}")?),
    };
    let ledger = &mut log;
    let mut steps = Steps { config, record: &mut record, ledger, say: &mut say };
    let fetched = stage(&mut steps, &offer, json, &stop).map_err(|error| {
        anyhow::anyhow!("{error:#}; what came is kept, and `lookback update apply` goes on with it")
    })?;
    steps.try_it()?;
    let changed = !record.plan.stands_as(&before);
    let mut told = standing(config, &record)?;
    told["changed"] = changed.into();
    told["fetched"] = fetched.into();
    told["seconds"] = ((begun.elapsed().as_secs_f64() * 1e3).round() / 1e3).into();
    if !changed && !json {
        let line = offer.told(&record, &own);
        let line = match line["is_new"] == true {
            true => format!(
                "{} is not taken now; `lookback update check` says why",
                offer.release.bundle
            ),
            false => format!("nothing is new: {} runs", offer.release.bundle),
        };
        writeln!(out, "{line}")?;
    }
    if json {
        writeln!(out, "{told}")?;
    }
    match (changed, record.plan.stage, &record.plan.why) {
        (true, Stage::RolledBack, Some(why)) => {
            bail!("the policy {} was not taken: {why}", offer.release.bundle)
        }
        _ => Ok(()),
    }
}

/// Stages what is offered, until `stop`, with a bar for people. Returns how many bytes were fetched.
///
/// # Errors
/// As [`Steps::stage`].
pub fn stage(steps: &mut Steps<'_>, offer: &Offer, json: bool, stop: &AtomicBool) -> Result<u64> {
    let bar = match json {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(0).with_style(style()),
    };
    let mut watch = |progress: Progress| {
        bar.set_length(progress.whole);
        bar.set_position(progress.fetched);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let fetched = steps.stage(offer, &mut watch);
    bar.finish_and_clear();
    fetched
}

fn rollback(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let (mut log, _) = parts::log(&config.device.data_dir)?;
    installed::started(&mut log)?;
    let mut record = Record::of(Kind::Policy, &log)?;
    let before = record.plan.clone();
    let own = built_in(config)?.manifest.version;
    let (told, effects) = record.step(Input::GoBack { built_in: &own }, &mut log)?;
    if effects.contains(&Effect::Clear) {
        installed::clear(&record.plan, &config.device.data_dir)?;
    }
    if record.plan == before {
        let why = told.into_iter().next();
        bail!(why.unwrap_or_else(|| "there is no policy before this one to go back to".to_owned()));
    }
    tell(&standing(config, &record)?, json, out)
}

/// What the device runs, and where its newest update stands.
fn standing(config: &Config, record: &Record) -> Result<Value> {
    let plan = &record.plan;
    let own = built_in(config)?.id();
    let candidate = plan.candidate.as_ref();
    let named = |slot: &Option<updater::Slot>| {
        slot.as_ref().map_or_else(|| own.clone(), |slot| slot.bundle.clone())
    };
    Ok(json!({
        "stage": plan.stage,
        "runs": named(&plan.active),
        "previous": plan.previous.as_ref().map(named),
        "candidate": candidate.map(|c| &c.release.bundle),
        "why": plan.why,
        "number": plan.number,
        "floor": plan.floor,
        "seed": plan.seed,
        "channel": config.update.channel,
        "repository": config.update.repository,
    }))
}

fn tell(standing: &Value, json: bool, out: &mut dyn Write) -> Result<()> {
    if json {
        return Ok(writeln!(out, "{standing}")?);
    }
    let text = |key: &str| standing[key].as_str().map(str::to_owned);
    writeln!(out, "runs       {}", text("runs").unwrap_or_default())?;
    if let Some(previous) = text("previous") {
        writeln!(out, "before     {previous} (`lookback update rollback` goes back to it)")?;
    }
    writeln!(out, "update     {}", text("stage").unwrap_or_default())?;
    if let Some(candidate) = text("candidate") {
        writeln!(out, "newest     {candidate}, number {}", standing["number"])?;
    }
    if let Some(why) = text("why") {
        writeln!(out, "why        {why}")?;
    }
    match text("repository").filter(|repository| !repository.is_empty()) {
        Some(repository) => {
            writeln!(out, "follows    {} of {repository}", text("channel").unwrap_or_default())?;
        }
        None => writeln!(out, "follows    nothing: [update] repository names none")?,
    }
    Ok(())
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("fetching {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
