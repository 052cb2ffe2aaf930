//! `lookback-bundle`: seals a bundle after its files were made, verifies one before it is used.
#![forbid(unsafe_code)]

use bundle::{Bundle, BundleError};
use clap::{Parser, Subcommand};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

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
    let said = match result {
        Ok(bundle) if json => {
            let parts = &bundle.manifest.parts;
            serde_json::json!({"ok": true, "id": bundle.id(), "parts": parts}).to_string()
        }
        Err(e) if json => serde_json::json!({"ok": false, "error": e.to_string()}).to_string(),
        Ok(bundle) => {
            let parts = bundle.manifest.parts.iter().map(|(name, part)| {
                format!("\n  {name:<14} {:>12} bytes  {}  {}", part.bytes, part.blake3, part.file)
            });
            bundle.id() + &parts.collect::<String>()
        }
        Err(e) => {
            eprintln!("lookback-bundle: {e}.");
            return;
        }
    };
    // Whoever has closed the pipe wants no more of it; the exit code tells all the same.
    let _ = writeln!(io::stdout(), "{said}");
}
