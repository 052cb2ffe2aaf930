//! The software of an edge camera that looks back through its own footage before it raises an
//! alarm, and can show why it did.
//!
//! The path of a frame is in [`watch`], top to bottom.
#![forbid(unsafe_code)]

mod accelerator;
mod bench;
mod builtin;
mod camera;
mod cameras;
mod conclude;
mod config;
mod docket;
mod doctor;
mod draw;
mod enrol;
mod events;
mod incidents;
mod inquire;
mod installed;
mod line;
mod listen;
mod machine;
mod meters;
mod mirror;
mod noted;
mod os;
mod parts;
mod poll;
mod program;
mod replay;
mod run;
mod scrape;
mod sight;
mod signs;
mod staging;
mod system;
mod tend;
mod trial;
mod update;
mod watch;

use anyhow::Result;
use clap::{Parser, Subcommand};
use config::Config;
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

/// The system's own lets the heap grow to twice what is used when keys and values, which stay, are
/// written between the results of operators, which go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A camera that looks back through its own footage before it raises an alarm, and can show why.
///
/// Without a command it watches: the cameras of the configuration, or a simulated one.
#[derive(Parser)]
#[command(name = "lookback", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file; see `lookback config --print-default`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where footage, evidence and events are kept, instead of the configured place.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Watch cameras and record events.
    Run(run::RunArguments),
    /// Ask the policy about a video file.
    Inquire(inquire::InquireArguments),
    /// List recorded events.
    Events(events::EventsArguments),
    /// Show what an event rests on, step by step.
    Show(events::ShowArguments),
    /// Run recorded inquiries again from their evidence and compare every token.
    Replay(replay::ReplayArguments),
    // What their arguments say of these is longer than a line, and a line here would hide it.
    Enrol(enrol::EnrolArguments),
    Update(update::UpdateArguments),
    Os(os::OsArguments),
    /// Check the device and say what is wrong with it.
    Doctor(doctor::DoctorArguments),
    /// List the cameras of this board, their formats, and what is wrong with each.
    Cameras(cameras::CamerasArguments),
    Bench(bench::BenchArguments),
    /// Check or print the configuration.
    Config(ConfigArguments),
}

/// Check or print the configuration.
#[derive(clap::Args)]
struct ConfigArguments {
    /// Print the default configuration, every key explained.
    #[arg(long)]
    print_default: bool,
    /// Answer as a JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence: what, and why. Causes that repeat the outer sentence add nothing.
            let _ = writeln!(io::stderr(), "error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let loaded = Config::load(arguments.config.as_deref());
    if let (Err(error), Some(Command::Doctor(arguments))) = (&loaded, &arguments.command) {
        return doctor::run_without_config(error, arguments, &mut io::stdout().lock());
    }
    let mut config = loaded?;
    if let Some(dir) = &arguments.data_dir {
        config.device.data_dir = dir.clone();
    }
    start_logging(&config.log.level);
    match arguments.command.unwrap_or(Command::Run(run::RunArguments::default())) {
        Command::Run(arguments) => run::run(config, arguments)?,
        Command::Inquire(arguments) => inquire::run(config, arguments)?,
        Command::Events(arguments) => events::list(&config, &arguments, &mut io::stdout().lock())?,
        Command::Show(arguments) => events::show(&config, &arguments, &mut io::stdout().lock())?,
        Command::Replay(arguments) => replay::run(config, arguments)?,
        Command::Doctor(arguments) => {
            return doctor::run(&config, &arguments, &mut io::stdout().lock());
        }
        Command::Cameras(arguments) => cameras::run(&arguments, &mut io::stdout().lock())?,
        Command::Enrol(arguments) => enrol::run(&config, &arguments, &mut io::stdout().lock())?,
        Command::Update(arguments) => update::run(&config, &arguments, &mut io::stdout().lock())?,
        Command::Os(arguments) => os::run(&config, &arguments, &mut io::stdout().lock())?,
        Command::Bench(bench) => {
            bench::run(config, bench, arguments.config.as_ref(), arguments.data_dir.as_deref())?;
        }
        Command::Config(arguments) => print_config(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_config(arguments: &ConfigArguments) -> Result<()> {
    let mut out = io::stdout().lock();
    if arguments.print_default {
        let text = Config::print_default();
        return match arguments.json {
            true => Ok(writeln!(out, "{}", serde_json::json!({"default": text}))?),
            false => Ok(out.write_all(text.as_bytes())?),
        };
    }
    // It was loaded before this command began: that it came so far says that it is sound.
    match arguments.json {
        true => Ok(writeln!(out, "{}", serde_json::json!({"ok": true}))?),
        false => Ok(writeln!(out, "the configuration is sound")?),
    }
}

fn start_logging(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOOKBACK_LOG")
        .or_else(|_| tracing_subscriber::EnvFilter::try_new(format!("warn,lookback={level}")))
        .unwrap_or_default();
    let coloured = io::stderr().is_terminal();
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(coloured);
    let _ = format.with_writer(io::stderr).try_init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The error and its causes as one line.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text.replace('\n', " ")
}
