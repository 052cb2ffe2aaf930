//! The command `bench`: what the agent costs on this machine, beside what it may cost.
//!
//! Everything is measured in one run of one process, on simulated footage, in directories that are
//! gone afterwards. Costs are CPU time where that is what the target speaks of, so that whatever
//! else the machine does falsifies them least; waiting times are wall time.

mod asking;
mod capture;
mod cost;
mod finding;
mod report;
mod watching;

use crate::{config::Config, parts, run::stop_on_signals};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::{Report, Row};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Measure what the agent costs on this machine, beside what it may cost.
///
/// Watching: CPU time of the whole path without inquiries, from captured frame to sentinel, as a
/// percentage of one core at 8 frames a second: of the work alone, with the simulated camera's
/// rendering, and in real time, rendering included.
///
/// Inquiries: wall and CPU time of each on one core, and what it was spent on; "again" is the same
/// question once more, when every frame has been looked at before.
///
/// Memory: of the process, after both.
///
/// Looking back: finding and reading 8 frames in a large store, from the page cache.
///
/// What it writes lies in the directory for temporary files (TMPDIR) and is removed.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// One JSON object with the rows.
    #[arg(long)]
    pub json: bool,
    /// Simulated minutes of each watch.
    #[arg(long, value_name = "M", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub minutes: u32,
    /// Frames in the store that is looked back in. The target holds for 1000000.
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub frames: u32,
    /// Directory of the policy's bundle, instead of the built-in nano.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    // What its arguments say of it is longer than a line, and a line here would hide it.
    Capture(capture::CaptureArguments),
    #[command(hide = true)]
    WatchStream(capture::WatchArguments),
}

/// Measures, and says what came of it; a target that is missed is said, not an error.
///
/// `config_file` and `data_dir` are those that were given on the command line.
///
/// # Errors
/// If a room cannot be opened, or what was measured did not happen as it must.
pub fn run(
    mut config: Config,
    arguments: BenchArguments,
    config_file: Option<&PathBuf>,
    data_dir: Option<&Path>,
) -> Result<()> {
    match &arguments.command {
        Some(Command::Capture(arguments)) => return capture::run(arguments, data_dir, config_file),
        Some(Command::WatchStream(arguments)) => return capture::watch(config, arguments),
        None => {}
    }
    if let Some(bundle) = arguments.bundle {
        config.inquiry.bundle = bundle;
    }
    let scratch = cost::scratch()?;
    config.device.data_dir = scratch.path().to_owned();
    // The targets speak of one core.
    config.inquiry.threads = Some(1);
    if cfg!(debug_assertions) {
        tracing::warn!("this program was built for debugging: its figures say nothing");
    }
    let under_way = UnderWay::begin(arguments.json)?;
    let bundle = parts::bundle(&config)?;
    let mut inquirer = parts::inquirer(&bundle, &config)?;

    let mut rows =
        watching::measure(&config, &bundle, &mut inquirer, arguments.minutes, &under_way)?;
    rows.extend(asking::measure(&mut inquirer, &under_way)?);
    // Before the large store, whose index is none of the memory that the target speaks of.
    rows.extend(memory()?);
    rows.extend(finding::measure(arguments.frames, &under_way)?);

    under_way.bar.finish_and_clear();
    let report =
        Report { bundle: inquirer.bundle_id().to_owned(), engine: inquirer.engine().id(), rows };
    let mut out = io::stdout().lock();
    if arguments.json { report.json(&mut out) } else { report.readable(&mut out) }
}

/// Of the policy loaded, after watching and inquiring.
fn memory() -> Result<[Row; 2]> {
    const MB: f64 = 150.0;
    let resident = cost::resident()?;
    Ok([
        Row::under("rss_peak_mb", resident.peak_mb, "MB", MB),
        Row::under("rss_mb", resident.now_mb, "MB", MB),
    ])
}

/// How far the measurement has come, and whether it shall go on.
struct UnderWay {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
}

impl UnderWay {
    fn begin(quiet: bool) -> Result<Self> {
        let bar = ProgressBar::new(watching::STEPS + asking::STEPS + finding::STEPS);
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        Ok(Self { bar, stop: stop_on_signals()? })
    }

    /// What is measured from now on.
    fn now(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// One step is done.
    ///
    /// # Errors
    /// If the process was told to stop: the way out on which scratch directories are removed.
    fn step(&self) -> Result<()> {
        self.bar.inc(1);
        match self.stop.load(Ordering::Relaxed) {
            true => bail!("stopped before everything was measured"),
            false => Ok(()),
        }
    }
}
