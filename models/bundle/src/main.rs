//! `lookback-bundle`: seals a bundle after its files were made, verifies one before it is used.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // its answers go to standard output

use bundle::{Bundle, BundleError};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Seal and verify model bundles.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fill in the length and BLAKE3 of every part that DIR/bundle.toml lists.
    Seal {
        /// Directory with a bundle.toml (`bytes` and `blake3` of the parts may be absent) and the
        /// files that it lists.
        dir: PathBuf,
    },
    /// Check every part of the bundle in DIR. Exit code 0: sound; 1: refused, with a sentence.
    Verify {
        /// Directory of the bundle.
        dir: PathBuf,
        /// Answer with one JSON object.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let (result, json) = match Arguments::parse().command {
        Command::Seal { dir } => (bundle::seal(&dir), false),
        Command::Verify { dir, json } => (Bundle::open(dir), json),
    };
    report(&result, json);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(result: &Result<Bundle, BundleError>, json: bool) {
    match result {
        Ok(bundle) if json => {
            let parts = &bundle.manifest.parts;
            println!("{}", serde_json::json!({"ok": true, "id": bundle.id(), "parts": parts}));
        }
        Err(e) if json => {
            println!("{}", serde_json::json!({"ok": false, "error": e.to_string()}));
        }
        Ok(bundle) => {
            println!("{}", bundle.id());
            for (name, part) in &bundle.manifest.parts {
                println!("  {name:<14} {:>12} bytes  {}  {}", part.bytes, part.blake3, part.file);
            }
        }
        Err(e) => eprintln!("lookback-bundle: {e}."),
    }
}
