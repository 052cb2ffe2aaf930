//! `lookback-models`: from a checkpoint to a bundle, and what it costs to run it.
#![forbid(unsafe_code)]

mod adapt;
mod adapter;
mod bench;
mod checkpoint;
mod config;
mod pack;
mod processor;
mod progress;
mod random;

use anyhow::{Result, bail};
use bundle::Bundle;
use clap::{Parser, Subcommand};
use engine::{EngineError, Golden};
use progress::Progress;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// The system's own lets the heap grow to twice what is used when keys and values, which stay, are
/// written between the results of operators, which go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pack, verify and measure policies of the architecture Qwen3-VL.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Answer with one JSON object, and no progress.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a bundle of a checkpoint: weights quantised, in the layout in which they are read.
    Pack(pack::Pack),
    /// Put another LoRA adapter into a packed bundle, beside weights that stay the same, byte by byte.
    Adapt(adapt::Adapt),
    /// Check every part of a bundle, run it, and compare with what it computed where it was packed.
    /// Exit code 0: sound; 1: refused, with a sentence.
    Verify {
        /// Folder of the bundle.
        dir: PathBuf,
    },
    /// Run a bundle, and keep what it computes for golden inputs in it, so that whoever gets it can tell whether
    /// it computes the same.
    Golden {
        /// Folder of the bundle.
        dir: PathBuf,
    },
    /// Make a checkpoint of random weights, for measuring: the real shape, no use otherwise.
    MakeRandom(random::Random),
    /// Measure a packed policy on this machine, beside llama.cpp and ONNX Runtime if they are
    /// installed.
    Bench(bench::Bench),
    #[command(hide = true)]
    Measure(bench::Measure),
}

fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    let (said, code) = match run(command, json) {
        Ok((said, _)) if json => (said.to_string(), ExitCode::SUCCESS),
        Ok((_, said)) => (said, ExitCode::SUCCESS),
        Err(e) if json => {
            (json!({"ok": false, "error": format!("{e:#}")}).to_string(), ExitCode::FAILURE)
        }
        Err(e) => {
            eprintln!("lookback-models: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    // Whoever has closed the pipe wants no more of it; the exit code tells all the same.
    let _ = writeln!(io::stdout(), "{said}");
    code
}

/// What is to be said, for programs and for people.
fn run(command: Command, json: bool) -> Result<(Value, String)> {
    let progress = Progress::new(json);
    Ok(match command {
        Command::Pack(given) => {
            progress.says("pack");
            let bundle = pack::pack(&given, &progress)?;
            let (asked, geometry) = (given.size, &bundle.manifest.geometry);
            let size = (geometry.width, geometry.height);
            if asked != size && !json {
                eprintln!(
                    "frames will be resized to {}x{}: the checkpoint's processor makes that of {}x{}",
                    size.0, size.1, asked.0, asked.1
                );
            }
            of_bundle(&bundle)
        }
        Command::Adapt(given) => {
            progress.says("adapt");
            of_bundle(&adapt::adapt(&given, &progress)?)
        }
        Command::Verify { dir } => of_bundle(&verify(dir)?),
        Command::Golden { dir } => {
            progress.says("run");
            of_bundle(&pack::with_golden(&dir)?)
        }
        Command::MakeRandom(given) => {
            progress.says("make");
            let bytes = random::make(&given, &progress)?;
            (json!({"ok": true, "bytes": bytes}), format!("{bytes} bytes of random weights"))
        }
        Command::Bench(given) => {
            let rows = bench::bench(&given, &progress)?;
            (json!({"ok": true, "rows": rows}), bench::table(&rows))
        }
        Command::Measure(given) => {
            let figures = Value::Object(bench::measure(&given)?);
            (figures.clone(), figures.to_string())
        }
    })
}

/// Opens a bundle and holds it to its golden outputs, if it has any.
fn verify(dir: PathBuf) -> Result<Bundle> {
    let bundle = Bundle::open(dir)?;
    let engine = pack::load(&bundle)?;
    match Golden::hold(&bundle, &engine) {
        Ok(_) => Ok(bundle),
        Err(EngineError::Golden { reason }) => bail!(
            "{} does not compute here what it computed where it was packed: {reason}; pack it again, and if that \
             does not help, this processor is at fault",
            bundle.id()
        ),
        Err(error) => Err(error.into()),
    }
}

fn of_bundle(bundle: &Bundle) -> (Value, String) {
    let parts = &bundle.manifest.parts;
    let lines = parts.iter().map(|(name, part)| {
        format!("\n  {name:<14} {:>12} bytes  {}  {}", part.bytes, part.blake3, part.file)
    });
    let text = format!("{}{}", bundle.id(), lines.collect::<String>());
    (json!({"ok": true, "id": bundle.id(), "parts": parts}), text)
}
