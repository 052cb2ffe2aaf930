//! The command `replay`: runs recorded inquiries again from their pinned evidence.

use crate::{builtin, config::Config, events, installed, parts};
use anyhow::{Context, Result, bail};
use bundle::Bundle;
use engine::{ACCELERATED_DECODER, ACCELERATED_VISION};
use event_log::{EventRow, Kinds, LogReader, Query};
use frame_store::{PinId, RealFs, read_pinned_in};
use inquiry::{Inquirer, replay};
use policy::Step;
use serde_json::json;
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// Run recorded inquiries again and compare every token.
#[derive(clap::Args)]
pub struct ReplayArguments {
    /// The event, by its id or the beginning of it; all incidents if left out.
    pub event: Option<String>,
    /// One JSON object per line and event.
    #[arg(long)]
    pub json: bool,
    /// Directory of a policy's bundle, for events that it decided; those that the data directory keeps, and the
    /// built-in nano, are found without. Can be given several times.
    #[arg(long, value_name = "DIR")]
    pub bundle: Vec<PathBuf>,
}

/// Replays; fails if any event does not reach the tokens that it recorded.
///
/// # Errors
/// If an event cannot be found, its evidence was changed, or its tokens differ.
pub fn run(config: Config, arguments: ReplayArguments) -> Result<()> {
    let log = LogReader::open(&parts::log_path(&config.device.data_dir))?;
    let rows = match &arguments.event {
        Some(id) => vec![events::find(id, &log)?],
        None => {
            let query =
                Query { kinds: Kinds::Incidents, limit: usize::MAX >> 1, ..Query::default() };
            log.events(&query)?
        }
    };
    let mut policies = Policies::new(&config, &arguments.bundle)?;
    let (mut out, mut failed) = (io::stdout().lock(), 0);
    for row in &rows {
        let result = replay_row(&config, &mut policies, row);
        failed += usize::from(!matches!(&result, Ok(r) if r.same));
        say(&mut out, row, &result, arguments.json)?;
    }
    if failed > 0 {
        bail!("{failed} of {} events did not replay to the same tokens", rows.len());
    }
    Ok(())
}

/// The policies that can be loaded here. A large one takes a while to open, so those that updates left are opened only
/// for an event that they decided.
struct Policies {
    /// Those that were given, that of the configuration, and nano.
    known: Vec<Bundle>,
    /// Those that updates left, by their ids.
    kept: Vec<(String, PathBuf)>,
    /// The one that decided the last event: a board has no room for two large ones.
    /// With whether an accelerator was asked to see, and one to speak.
    loaded: Option<([bool; 2], Inquirer)>,
}

impl Policies {
    /// # Errors
    /// If one that was given is refused.
    fn new(config: &Config, given: &[PathBuf]) -> Result<Self> {
        let mut known = given.iter().map(Bundle::open).collect::<Result<Vec<_>, _>>()?;
        // What cannot be opened decides nothing now; an event of it says that it is lacking.
        let configured = &config.inquiry.bundle;
        if !configured.as_os_str().is_empty() {
            known.extend(Bundle::open(configured));
        }
        known.extend(builtin::open(&config.device.data_dir));
        let kept = installed::kept(&config.device.data_dir).unwrap_or_default();
        Ok(Self { known, kept, loaded: None })
    }

    /// The one of this id.
    ///
    /// # Errors
    /// If there is none, or the engine cannot use it.
    fn load(&mut self, id: &str, engine: &str, config: &Config) -> Result<&mut Inquirer> {
        // What the processor saw and said it has to see and say again, whatever does now.
        let accelerated =
            [ACCELERATED_VISION, ACCELERATED_DECODER].map(|word| engine.contains(word));
        let mut config = config.clone();
        if !accelerated[0] {
            config.inquiry.onnx_runtime = PathBuf::new();
        }
        if !accelerated[1] {
            config.inquiry.decoder = "cpu".into();
        }
        let config = &config;
        let same = |(by, inquirer): &([bool; 2], Inquirer)| {
            *by == accelerated && inquirer.bundle_id() == id
        };
        let loaded = match self.loaded.take().filter(same) {
            Some((_, loaded)) => loaded,
            None => match self.known.iter().find(|bundle| bundle.id() == id) {
                Some(bundle) => parts::inquirer(bundle, config)?,
                None => parts::inquirer(&Bundle::open(self.dir_of(id)?)?, config)?,
            },
        };
        Ok(&mut self.loaded.insert((accelerated, loaded)).1)
    }

    fn dir_of(&self, id: &str) -> Result<&PathBuf> {
        let found = self.kept.iter().find(|(kept, _)| kept == id).map(|(_, dir)| dir);
        found.with_context(|| {
            let known = self.known.iter().map(Bundle::id);
            let all: Vec<_> = known.chain(self.kept.iter().map(|(id, _)| id.clone())).collect();
            format!(
                "it was decided by the policy {id}, and here are only {}: name its folder with --bundle",
                all.join(", ")
            )
        })
    }
}

fn replay_row(config: &Config, policies: &mut Policies, row: &EventRow) -> Result<inquiry::Replay> {
    let pin = row.pin.context("it has no evidence: only incidents can be replayed")?;
    let evidence = read_pinned_in(&parts::store_dir(&config.device.data_dir), PinId(pin), &RealFs)?;
    let steps: Vec<Step> =
        serde_json::from_value(row.trajectory.clone()).context("its trajectory cannot be read")?;
    let bundle = row.bundle.as_deref().unwrap_or_default();
    let engine = row.engine.as_deref().unwrap_or_default();
    Ok(replay(policies.load(bundle, engine, config)?, &steps, bundle, evidence)?)
}

fn say(
    out: &mut impl Write,
    row: &EventRow,
    result: &Result<inquiry::Replay>,
    json: bool,
) -> Result<()> {
    let id = row.id.as_str();
    if json {
        let value = match result {
            Ok(r) => json!({"event": id, "same": r.same, "differs_at": r.differs_at,
                "steps": r.steps, "tokens": r.tokens, "p_then": r.p[0], "p_now": r.p[1]}),
            Err(e) => json!({"event": id, "same": false, "error": format!("{e:#}")}),
        };
        writeln!(out, "{value}")?;
        return Ok(());
    }
    match result {
        Ok(r) if r.same => {
            writeln!(out, "{id}: the same {} tokens in {} steps", r.tokens, r.steps)?;
        }
        Ok(r) => {
            let at = r.differs_at.map_or("its end".to_owned(), |s| format!("step {s}"));
            writeln!(out, "{id}: DIFFERS from {at} on")?;
        }
        Err(e) => writeln!(out, "{id}: NOT REPLAYED: {e:#}")?,
    }
    Ok(())
}
