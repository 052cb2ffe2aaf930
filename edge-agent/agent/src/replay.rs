//! The command `replay`: runs recorded inquiries again from their pinned evidence.

use crate::{config::Config, events, parts};
use anyhow::{Context, Result, bail};
use event_log::{EventRow, Kinds, LogReader, Query};
use frame_store::{PinId, RealFs, read_pinned_in};
use inquiry::{Inquirer, replay};
use policy::Step;
use serde_json::json;
use std::io::{self, Write};

/// Run recorded inquiries again and compare every token.
#[derive(clap::Args)]
pub struct ReplayArguments {
    /// The event, by its id or the beginning of it; all incidents if left out.
    pub event: Option<String>,
    /// One JSON object per line and event.
    #[arg(long)]
    pub json: bool,
    /// Directory of the policy's bundle, instead of the built-in nano.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<std::path::PathBuf>,
}

/// Replays; fails if any event does not reach the tokens that it recorded.
///
/// # Errors
/// If an event cannot be found, its evidence was changed, or its tokens differ.
pub fn run(mut config: Config, arguments: ReplayArguments) -> Result<()> {
    if let Some(bundle) = arguments.bundle {
        config.inquiry.bundle = bundle;
    }
    let log = LogReader::open(&parts::log_path(&config.device.data_dir))?;
    let rows = match &arguments.event {
        Some(id) => vec![events::find(id, &log)?],
        None => {
            let query =
                Query { kinds: Kinds::Incidents, limit: usize::MAX >> 1, ..Query::default() };
            log.events(&query)?
        }
    };
    let bundle = parts::bundle(&config)?;
    let mut inquirer = parts::inquirer(&bundle, &config)?;
    let (mut out, mut failed) = (io::stdout().lock(), 0);
    for row in &rows {
        let result = replay_row(&config, &mut inquirer, row);
        failed += usize::from(!matches!(&result, Ok(r) if r.same));
        say(&mut out, row, &result, arguments.json)?;
    }
    if failed > 0 {
        bail!("{failed} of {} events did not replay to the same tokens", rows.len());
    }
    Ok(())
}

fn replay_row(config: &Config, inquirer: &mut Inquirer, row: &EventRow) -> Result<inquiry::Replay> {
    let pin = row.pin.context("it has no evidence: only incidents can be replayed")?;
    let evidence = read_pinned_in(&parts::store_dir(&config.device.data_dir), PinId(pin), &RealFs)?;
    let steps: Vec<Step> =
        serde_json::from_value(row.trajectory.clone()).context("its trajectory cannot be read")?;
    let bundle = row.bundle.as_deref().unwrap_or_default();
    Ok(replay(inquirer, &steps, bundle, evidence)?)
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
