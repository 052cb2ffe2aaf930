//! `lookback-eval`: how good a policy is, beside passive ways to use the same policy.
#![forbid(unsafe_code)]

mod benchmark;

use anyhow::{Context, Result, ensure};
use benchmark::{Benchmark, BenchmarkArguments, Policy, inquire};
use bundle::Bundle;
use clap::{Parser, Subcommand, ValueEnum};
use engine::{Engine, EngineOptions};
use eval::{
    Passive, Record, SimVideo, Strategy,
    table::{Difference, Row, Run, Truth, differences, row},
    watch,
};
use hal_sim::{Incidents, Split};
use indicatif::{ProgressBar, ProgressStyle};
use inquiry::Inquirer;
use serde::Serialize;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// How good a policy is, beside passive ways to use the same policy.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// On simulated videos, rendered from seeds that nothing was trained on.
    Sim(SimArguments),
    /// On the test videos of UCF-Crime.
    UcfCrime(BenchmarkArguments),
    /// On the test videos of XD-Violence.
    XdViolence(BenchmarkArguments),
    /// On videos of UBnormal.
    Ubnormal(BenchmarkArguments),
    /// Draw score curves beside the truth, as one HTML file.
    Report(ReportArguments),
}

#[derive(clap::Args)]
struct ReportArguments {
    /// Lines of `sim --each`, or the results file of a benchmark; several are put together.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// At most so many videos.
    #[arg(long, default_value_t = 60)]
    videos: usize,
}

#[derive(clap::Args)]
struct SimArguments {
    /// Which seeds. Test and fresh draw scene families that training never drew.
    #[arg(long, value_enum, default_value = "val")]
    split: SplitName,
    /// First seed, counted from the beginning of the split.
    #[arg(long, default_value_t = 0)]
    seed_base: u64,
    /// How many videos.
    #[arg(long, default_value_t = 200)]
    videos: u64,
    /// Length of each, in seconds. The camera's own window is 122.
    #[arg(long, default_value_t = 240.0)]
    seconds: f64,
    /// How often something happens: every minute (`often`), every three minutes or so and then
    /// harmful as often as not (`sometimes`), every seven (`rare`), or only what looks like it
    /// (`none`).
    #[arg(long, value_enum, default_value = "sometimes")]
    incidents: IncidentsName,
    /// Methods, separated by commas, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    methods: Vec<String>,
    /// Budgets of frames, separated by commas; the glance takes at most half of one. `own` is the
    /// bundle's.
    #[arg(long, value_delimiter = ',', default_value = "own")]
    frames: Vec<String>,
    /// Directory of the policy's bundle.
    #[arg(long, default_value = "models/nano")]
    bundle: PathBuf,
    /// From this score a moment is alarmed; the bundle's notice threshold if left out.
    #[arg(long)]
    threshold: Option<f64>,
    /// Threads of the engine.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// One JSON object per video and method instead of the table.
    #[arg(long)]
    each: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Train,
    Val,
    Test,
    Fresh,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Val => Self::Val,
            SplitName::Test => Self::Test,
            SplitName::Fresh => Self::Fresh,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum IncidentsName {
    Often,
    Sometimes,
    Rare,
    None,
}

impl From<IncidentsName> for Incidents {
    fn from(name: IncidentsName) -> Self {
        match name {
            IncidentsName::Often => Self::Often,
            IncidentsName::Sometimes => Self::Sometimes,
            IncidentsName::Rare => Self::Rare,
            IncidentsName::None => Self::None,
        }
    }
}

/// What is printed.
#[derive(Serialize)]
struct Table {
    bundle: String,
    videos: usize,
    anomalous: usize,
    threshold: f64,
    rows: Vec<Row>,
    differences: Vec<Difference>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sim(arguments) => sim(&arguments),
        Command::UcfCrime(arguments) => on_films(Benchmark::UcfCrime, &arguments),
        Command::XdViolence(arguments) => on_films(Benchmark::XdViolence, &arguments),
        Command::Ubnormal(arguments) => on_films(Benchmark::UbNormal, &arguments),
        Command::Report(arguments) => report(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lookback-eval: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever read the answer has read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn sim(arguments: &SimArguments) -> Result<()> {
    ensure!(arguments.videos > 0, "--videos 0 leaves nothing to measure; ask for at least one");
    let strategies = strategies(&arguments.methods)?;
    let bundle = open(&arguments.bundle)?;
    let manifest = &bundle.manifest;
    let budgets = budgets(&arguments.frames, manifest.inquiry.max_frames as u32)?;
    let (length_s, incidents) = (arguments.seconds, arguments.incidents.into());
    ensure!(length_s >= 1.0, "--seconds {length_s} is too short to show anything");
    let threshold = arguments.threshold.unwrap_or(manifest.thresholds.notice);
    let first = Split::from(arguments.split).first_seed() + arguments.seed_base;
    let seeds = first..first + arguments.videos;
    let videos: Vec<SimVideo> =
        seeds.map(|seed| SimVideo::new(seed, length_s, incidents)).collect();
    let truths: Vec<Truth> = videos.iter().map(truth).collect();

    let load = || Engine::load(&bundle, EngineOptions { threads: arguments.threads });
    let passive = Passive::new(&bundle, load()?)?;
    let mut inquirer = Inquirer::new(&bundle, load()?)?;
    let bar = progress(strategies.len() * budgets.len() * videos.len());
    let mut runs = vec![];
    for &frames in &budgets {
        let aliased: Vec<bool> =
            videos.iter().map(|v| v.is_aliased(frames, manifest.geometry.pair_lag_s)).collect();
        for &strategy in &strategies {
            bar.set_message(format!("{} with {frames} frames", strategy.name()));
            let mut watched = vec![];
            for video in &videos {
                watched.push(match strategy {
                    Strategy::Active => inquire(&mut inquirer, video, length_s, frames)?,
                    recipe => watch(recipe, &mut passive.on(video), length_s, frames)?,
                });
                bar.inc(1);
            }
            let method = strategy.name().to_owned();
            runs.push(Run { method, frames, train_seed: 0, aliased: aliased.clone(), watched });
        }
    }
    bar.finish_and_clear();
    let out = &mut io::stdout().lock();
    if arguments.each {
        return each(out, &runs, &truths, &bundle.id());
    }
    let anomalous = truths.iter().filter(|t| !t.intervals.is_empty()).count();
    let table = Table {
        bundle: bundle.id(),
        videos: videos.len(),
        anomalous,
        threshold,
        rows: runs.iter().map(|run| row(run, &truths, threshold)).collect(),
        differences: all_differences(&runs, &truths),
    };
    match arguments.json {
        true => Ok(writeln!(out, "{}", serde_json::to_string(&table)?)?),
        false => readable(out, &table),
    }
}

fn on_films(benchmark: Benchmark, arguments: &BenchmarkArguments) -> Result<()> {
    let strategies = strategies(&arguments.methods)?;
    let bundle = open(&arguments.bundle)?;
    let manifest = &bundle.manifest;
    let own = manifest.inquiry.max_frames as u32;
    let frames = budgets(std::slice::from_ref(&arguments.frames), own)?[0];
    let load = || Engine::load(&bundle, EngineOptions { threads: 1 });
    let passive = Passive::new(&bundle, load()?)?;
    let mut policy = Policy {
        passive: &passive,
        inquirer: &mut Inquirer::new(&bundle, load()?)?,
        stretch_s: manifest.inquiry.max_stretch_s,
        threshold: arguments.threshold.unwrap_or(manifest.thresholds.notice),
        frames,
    };
    benchmark::run(benchmark, arguments, &strategies, &mut policy)
}

fn open(path: &Path) -> Result<Bundle> {
    Bundle::open(path).with_context(|| format!("cannot use the policy in '{}'", path.display()))
}

fn strategies(names: &[String]) -> Result<Vec<Strategy>> {
    if names.iter().any(|n| n == "all") {
        return Ok(Strategy::ALL.to_vec());
    }
    let known = || Strategy::ALL.map(Strategy::name).join(", ");
    names
        .iter()
        .map(|name| {
            let found = Strategy::ALL.into_iter().find(|s| s.name() == name);
            found.with_context(|| format!("there is no method '{name}'; there are {}", known()))
        })
        .collect()
}

fn budgets(given: &[String], own: u32) -> Result<Vec<u32>> {
    let one = |text: &String| match text.as_str() {
        "own" => Ok(own),
        number => {
            let frames: u32 = number
                .parse()
                .with_context(|| format!("--frames takes numbers or 'own', not '{number}'"))?;
            ensure!(frames >= 4, "{frames} frames are too few: two pairs are the least");
            Ok(frames)
        }
    };
    given.iter().map(one).collect()
}

fn truth(video: &SimVideo) -> Truth {
    let harmful = video.stories.iter().filter(|s| s.harmful);
    Truth {
        name: video.seed.to_string(),
        length_s: video.length_s,
        intervals: video.intervals(),
        labels: harmful.map(|s| s.kind.label().to_owned()).collect(),
    }
}

fn progress(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:30} {bar:30} {pos}/{len} {eta}");
    ProgressBar::new(total as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Each passive method against the policy's own inquiry, at the same budget.
fn all_differences(runs: &[Run], truths: &[Truth]) -> Vec<Difference> {
    let active: Vec<&Run> = runs.iter().filter(|r| r.method == Strategy::Active.name()).collect();
    let against = |a: &&Run| {
        let same = |b: &&Run| b.frames == a.frames && b.method != a.method;
        runs.iter().filter(same).flat_map(|b| differences(a, b, truths)).collect::<Vec<_>>()
    };
    active.iter().flat_map(against).collect()
}

/// One line per method and video.
fn each(out: &mut impl Write, runs: &[Run], truths: &[Truth], bundle: &str) -> Result<()> {
    for run in runs {
        for (truth, watched) in truths.iter().zip(&run.watched) {
            let record = Record {
                video: truth.clone(),
                method: run.method.clone(),
                frames: run.frames,
                bundle: bundle.to_owned(),
                watched: watched.clone(),
            };
            writeln!(out, "{}", serde_json::to_string(&record)?)?;
        }
    }
    Ok(())
}

fn report(arguments: &ReportArguments) -> Result<()> {
    let mut records: Vec<Record> = vec![];
    for path in &arguments.results {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the results in '{}'", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            records.push(serde_json::from_str(line).with_context(|| {
                format!("'{}', line {}, is no result", path.display(), number + 1)
            })?);
        }
    }
    ensure!(!records.is_empty(), "there is no result to draw; write some with `sim --each`");
    fs::write(&arguments.out, eval::report::html(&records, arguments.videos))
        .with_context(|| format!("cannot write '{}'", arguments.out.display()))?;
    Ok(writeln!(io::stdout(), "{}", arguments.out.display())?)
}

fn readable(out: &mut impl Write, table: &Table) -> Result<()> {
    let Table { bundle, videos, anomalous, threshold, .. } = table;
    writeln!(out, "{bundle}: {videos} videos, {anomalous} anomalous; alarmed from {threshold}")?;
    writeln!(
        out,
        "{:10} {:>6} {:>20} {:>20} {:>20} {:>6} {:>6} {:>9}",
        "method", "frames", "video AUC", "aliased AUC", "frame AUC", "IoU", "used", "false/h"
    )?;
    let with_interval = |e: &Option<eval::Estimate>| match e {
        Some(e) => format!("{:.3} [{:.3}, {:.3}]", e.value, e.lo, e.hi),
        None => "-".to_owned(),
    };
    let short =
        |e: &Option<eval::Estimate>| e.map_or("-".to_owned(), |e| format!("{:.2}", e.value));
    for row in &table.rows {
        writeln!(
            out,
            "{:10} {:>6} {:>20} {:>20} {:>20} {:>6} {:>6} {:>9}",
            row.method,
            row.frames,
            with_interval(&row.video_auc),
            with_interval(&row.alias_auc),
            with_interval(&row.frame_auc),
            short(&row.iou),
            short(&row.frames_used),
            short(&row.false_alarms_per_hour)
        )?;
    }
    for d in table.differences.iter().filter(|d| d.metric == "video_auc") {
        let e = d.estimate;
        writeln!(
            out,
            "{} - {}, {} frames: video AUC {:+.3} [{:+.3}, {:+.3}]",
            d.a, d.b, d.frames, e.value, e.lo, e.hi
        )?;
    }
    Ok(())
}
