//! `lookback-eval`: how good a policy is, beside passive ways to use the same policy.
#![forbid(unsafe_code)]

mod benchmark;
mod simulated;
mod woken;

use anyhow::{Context, Result, bail, ensure};
use benchmark::{Benchmark, BenchmarkArguments, Policy};
use bundle::Bundle;
use clap::{Parser, Subcommand};
use engine::{Engine, EngineOptions};
use eval::{Passive, Record, Strategy};
use indicatif::{ProgressBar, ProgressStyle};
use inquiry::Inquirer;
use simulated::SimArguments;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use woken::SentinelArguments;

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
    /// What the sentinel wakes for on simulated videos, and what that costs.
    Sentinel(SentinelArguments),
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

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sim(arguments) => simulated::run(&arguments),
        Command::UcfCrime(arguments) => on_films(Benchmark::UcfCrime, &arguments),
        Command::XdViolence(arguments) => on_films(Benchmark::XdViolence, &arguments),
        Command::Ubnormal(arguments) => on_films(Benchmark::UbNormal, &arguments),
        Command::Sentinel(arguments) => woken::run(&arguments),
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

fn on_films(benchmark: Benchmark, arguments: &BenchmarkArguments) -> Result<()> {
    let mut strategies = strategies(&arguments.methods)?;
    let here = |s: &Strategy| *s == Strategy::Active || !s.is_inquiry();
    if arguments.methods.iter().any(|m| m == "all") {
        strategies.retain(here);
    }
    if let Some(other) = strategies.iter().find(|s| !here(s)) {
        bail!("'{}' is a method of `sim` only; leave it out", other.name());
    }
    let bundle = open(&arguments.bundle)?;
    let manifest = &bundle.manifest;
    let own = manifest.inquiry.max_frames as u32;
    let frames = budgets(std::slice::from_ref(&arguments.frames), own)?[0];
    let load = || Engine::load(&bundle, EngineOptions { threads: 1, ..EngineOptions::default() });
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

fn progress(total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:30} {bar:30} {pos}/{len} {eta}");
    ProgressBar::new(total as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
