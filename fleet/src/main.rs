//! `lookback-fleet`: the server of a fleet of cameras.
#![forbid(unsafe_code)]

mod commands;

use clap::Parser;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    start_logging();
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence: what, and why. Causes that repeat the outer sentence add nothing.
            let _ = writeln!(io::stderr(), "error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOOKBACK_LOG")
        .or_else(|_| tracing_subscriber::EnvFilter::try_new("warn,fleet=info"))
        .unwrap_or_default();
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let _ = format.with_writer(io::stderr).try_init();
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

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
