//! `lookback update`: new policies for this device.

use crate::{builtin, config::Config, installed, installed::Record, parts, run::stop_on_signals};
use anyhow::{Context, Result, bail};
use bundle::{Bundle, GOLDEN};
use engine::Golden;
use event_log::EventLog;
use indicatif::{ProgressBar, ProgressStyle};
use release::{Admission, Channel, Index, Release};
use serde_json::{Value, json};
use std::{
    io::Write,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use updater::{Catalogue, Effect, Input, Partial, Parts, Progress, Source, Stage, Trust, fetch};

/// The version of this program.
const AGENT: &str = env!("CARGO_PKG_VERSION");

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
            let record = Record::read(&config.device.data_dir)?;
            tell(&standing(config, &record)?, asked.json, out)
        }
        UpdateCommand::Rollback(asked) => rollback(config, asked.json, out),
    }
}

/// A repository that was verified, and what it has for this device.
struct Offer {
    source: Arc<Source>,
    catalogue: Catalogue,
    channel: Channel,
    release: Release,
}

impl Offer {
    /// What is believed afterwards is in `record`, and must be kept, whatever comes of it.
    fn ask(config: &Config, record: &mut Record) -> Result<Self> {
        let c = &config.update;
        if c.repository.is_empty() {
            bail!("there is no repository of policies: name one in [update] repository");
        }
        let source = Arc::new(Source::new(&c.repository, &c.ca)?);
        let had = record.trust.is_some();
        if !had {
            let root = installed::given_root(&c.root).with_context(|| {
                format!(
                    "cannot read [update] root '{}': give the root.json that the owner of the \
                     repository gave out",
                    c.root.display()
                )
            })?;
            record.trust = Some(Trust::new(root));
        }
        record.note_time(parts::now());
        let clock = record.clock(parts::now());
        let mut trust = record.trust.clone().unwrap_or_default();
        let opened = Catalogue::open(&source, &mut trust, clock);
        // A root that has brought nothing yet is read anew the next time: it may have been the wrong one.
        if opened.is_ok() || had {
            record.trust = Some(trust);
        } else {
            record.trust = None;
        }
        let catalogue = opened?;
        let target = catalogue.target(&source, &Channel::target(&c.channel))?;
        let channel = Channel::parse(&c.channel, &target)?;
        let target = catalogue.target(&source, &channel.release)?;
        let release = Release::parse(&channel.release, &target)?;
        if release.bundle != channel.bundle {
            bail!(
                "the repository {} has {} where its channel says {}: publish it anew",
                c.repository,
                release.bundle,
                channel.bundle
            );
        }
        Ok(Self { source, catalogue, channel, release })
    }

    fn indexes(&self) -> Result<Vec<Index>> {
        let index = |name: String| -> Result<Index> {
            Ok(Index::parse(&name, &self.catalogue.target(&self.source, &name)?)?)
        };
        self.release.files.iter().map(|file| index(file.index())).collect()
    }

    /// Files that are not there yet, as far as they are.
    fn begun(&self, config: &Config, parts: &Parts) -> Result<Vec<Partial>> {
        let active = parts::bundle(config).ok();
        let others: Vec<PathBuf> = active
            .iter()
            .flat_map(|bundle| {
                bundle.manifest.parts.values().map(|part| bundle.dir.join(&part.file))
            })
            .collect();
        let indexes = self.indexes()?;
        let missing = self.release.files.iter().zip(&indexes).filter(|(file, _)| !parts.has(file));
        missing.map(|(_, index)| Ok(parts.begin(index, &others)?)).collect()
    }

    fn told(&self, record: &Record, built_in: &str) -> Value {
        let now = parts::now().unix_us / 1_000_000;
        let (admission, from) = match self.channel.admits(record.plan.seed, now) {
            Admission::Now => ("now", None),
            Admission::From(unix_s) => ("later", Some(unix_s)),
            Admission::Never => ("never", None),
        };
        let runs = record.plan.runs().map_or(built_in, |release| &release.bundle);
        json!({
            "repository": self.source.address(),
            "channel": self.channel.channel,
            "number": self.channel.number,
            "offered": self.release.bundle,
            "runs": runs,
            "is_new": self.release.bundle != runs,
            "bytes": self.release.bytes(),
            "halted": self.channel.halted,
            "floor": self.channel.floor,
            "admission": admission,
            "admitted_from_unix_s": from,
            "expires_unix_s": self.catalogue.expires_unix_s(),
        })
    }
}

fn built_in(config: &Config) -> Result<Bundle> {
    builtin::open(&config.device.data_dir)
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let mut record = Record::read(&config.device.data_dir)?;
    let offer = Offer::ask(config, &mut record);
    // A running watch has the log: what was learnt is learnt again by whoever takes the update.
    if let Ok((mut log, _)) = parts::log(&config.device.data_dir) {
        record.keep(&mut log)?;
    }
    let mut told = offer?.told(&record, &built_in(config)?.id());
    if !json {
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let (runs, offered, number) = (text("runs"), text("offered"), &told["number"]);
        let line = match (told["is_new"] == true, text("admission").as_str()) {
            (false, _) => format!("this device runs {runs}, as its channel says (number {number})"),
            (true, "now") => format!(
                "{offered} is there for this device, which runs {runs}; take it with `lookback update apply`"
            ),
            (true, "later") => format!(
                "{offered} is there for this device, which runs {runs}, from {} on",
                rfc3339(&told["admitted_from_unix_s"])
            ),
            _ => format!("{offered} is there, and not for this device, which runs {runs}"),
        };
        return Ok(writeln!(out, "{line}")?);
    }
    told["stage"] = json!(record.plan.stage);
    Ok(writeln!(out, "{told}")?)
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
    installed::end_of_trial(&mut log)?;
    let mut record = Record::of(&log)?;
    let offer = Offer::ask(config, &mut record);
    record.keep(&mut log)?;
    let offer = offer?;
    let own = built_in(config)?.id();
    let before = record.plan.clone();
    let input = Input::Offered {
        channel: &offer.channel,
        release: &offer.release,
        now_unix_s: parts::now().unix_us / 1_000_000,
        agent: AGENT,
        built_in: &own,
    };
    let mut fetched = 0;
    let mut steps = Steps { config, record: &mut record, log: &mut log, json, out };
    steps.take(input)?;
    let candidate = steps.record.plan.candidate.as_ref();
    let ours = candidate.is_some_and(|c| c.number == offer.channel.number);
    if steps.record.plan.stage == Stage::Fetching && ours {
        fetched = steps.fetch(&offer, &stop)?;
    }
    if steps.record.plan.stage == Stage::Verified {
        steps.lay_out()?;
    }
    if steps.record.plan.stage == Stage::Staged {
        steps.try_it()?;
    }
    let changed = record.plan != before;
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

/// An update on its way.
struct Steps<'a> {
    config: &'a Config,
    record: &'a mut Record,
    log: &'a mut EventLog,
    json: bool,
    out: &'a mut dyn Write,
}

impl Steps<'_> {
    fn take(&mut self, input: Input<'_>) -> Result<()> {
        let (told, effects) = self.record.step(input, self.log)?;
        if !self.json {
            told.iter().try_for_each(|sentence| writeln!(self.out, "{sentence}"))?;
        }
        if effects.contains(&Effect::Clear) {
            installed::clear(&self.record.plan, &self.config.device.data_dir)?;
        }
        Ok(())
    }

    fn fetch(&mut self, offer: &Offer, stop: &AtomicBool) -> Result<u64> {
        let parts = Parts::open(&installed::folder(&self.config.device.data_dir))?;
        let mut partials = offer.begun(self.config, &parts)?;
        let pace = self.config.update.kilobytes_per_s.map(|kilobytes| (kilobytes * 1e3) as u64);
        let bar = match self.json {
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
        let fetched = fetch(&offer.source, &parts, &mut partials, pace, &mut watch);
        bar.finish_and_clear();
        let progress = fetched.map_err(|error| {
            anyhow::anyhow!(
                "{error}; what came is kept, and `lookback update apply` goes on with it"
            )
        })?;
        for partial in partials {
            if let Err(error) = partial.finish() {
                self.take(Input::Failed(error.to_string()))?;
                return Ok(progress.fetched);
            }
        }
        self.take(Input::Fetched)?;
        Ok(progress.fetched)
    }

    fn lay_out(&mut self) -> Result<()> {
        let Some(candidate) = self.record.plan.candidate.clone() else { return Ok(()) };
        let parts = Parts::open(&installed::folder(&self.config.device.data_dir))?;
        match parts.lay_out(&candidate.release) {
            Ok(_) => self.take(Input::LaidOut),
            Err(updater::PartsError::Disk { what, path, source }) => {
                Err(updater::PartsError::Disk { what, path, source }.into())
            }
            Err(error) => self.take(Input::Failed(error.to_string())),
        }
    }

    /// Loads the policy within the memory that is free, and holds it to its golden answers.
    fn try_it(&mut self) -> Result<()> {
        let Some(candidate) = self.record.plan.candidate.clone() else { return Ok(()) };
        let parts = Parts::open(&installed::folder(&self.config.device.data_dir))?;
        self.take(Input::TrialBegins)?;
        let dir = parts.bundle(&candidate.release.bundle);
        match trial(&dir, self.config) {
            Ok(()) => self.take(Input::Passed),
            Err(error) => self.take(Input::Failed(format!("{error:#}").replace('\n', " "))),
        }
    }
}

fn trial(dir: &std::path::Path, config: &Config) -> Result<()> {
    let bundle = Bundle::open(dir)?;
    let inquirer = parts::inquirer(&bundle, config)?;
    if !bundle.manifest.parts.contains_key(GOLDEN) {
        return Ok(());
    }
    let golden: Golden = serde_json::from_slice(&bundle.read(GOLDEN)?)
        .context("its golden answers cannot be read")?;
    let here = Golden::of(inquirer.engine())?;
    golden.check(&here).map_err(|why| anyhow::anyhow!("it does not give its golden answers: {why}"))
}

fn rollback(config: &Config, json: bool, out: &mut dyn Write) -> Result<()> {
    let (mut log, _) = parts::log(&config.device.data_dir)?;
    installed::end_of_trial(&mut log)?;
    let mut record = Record::of(&log)?;
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
