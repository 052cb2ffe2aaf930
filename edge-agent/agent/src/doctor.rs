//! `lookback doctor`: checks the device and says what is wrong with it, and what to do.
//!
//! It changes nothing that the agent would miss: a loss that the frame store reports here is
//! reported to the agent again, and a running agent is not disturbed.

mod bring_up;
mod checks;
mod machine;
mod report;
#[cfg(test)]
mod tests;

pub use report::{Check, Report, Status};

use crate::config::{Config, ConfigError};
use crate::line::identity_dir;
use crate::system::System;
use crate::{camera, parts};
use anyhow::Result;
use hal_linux::{Clock, SystemClock, list_devices};
use sentinel::Sentinel;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, atomic::AtomicBool};

/// Check the device.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DoctorArguments {
    /// The report as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Checks everything that `config` rests on. The exit code is 1 if a check fails.
///
/// # Errors
/// Only if the report cannot be written.
pub fn run(config: &Config, arguments: &DoctorArguments, out: &mut dyn Write) -> Result<ExitCode> {
    let mut report = Report::default();
    report.add(checks::configuration(config));
    data(config, &mut report);
    report.add(checks::mqtt_broker(config));
    report.add(checks::policies(config));
    let system = System::of(config);
    report.add(checks::system(&system, system.rauc.status().as_ref()));
    bundle_and_engine(config, &mut report);
    let (sentinel, why) = Sentinel::best(config.sentinel.options());
    report.add(checks::sentinel(&sentinel.describe(), why.as_deref()));
    report.checks.extend(checks::cameras(&config.cameras, &list_devices(), &|source| {
        let (camera, _) = camera::open(source, Arc::new(AtomicBool::new(false)))?;
        Ok(camera.describe())
    }));
    report.checks.extend(checks::board(&config.board.description));
    let board = bring_up::Board {
        sysroot: &config.os.sysroot,
        path: std::env::var_os("PATH").unwrap_or_default(),
        is_image: system.booted.root.is_some(),
        data_dir: &config.device.data_dir,
    };
    report.checks.extend(board.checks());
    let reads_files = config.cameras.iter().any(|camera| camera.source.starts_with("file:"));
    this_machine(reads_files, &mut report);
    report.write(arguments.json, out)?;
    Ok(report.exit_code())
}

/// The report where the configuration itself was refused: that, and what can be checked without.
///
/// # Errors
/// Only if the report cannot be written.
pub fn run_without_config(
    error: &ConfigError,
    arguments: &DoctorArguments,
    out: &mut dyn Write,
) -> Result<ExitCode> {
    let mut report = Report::default();
    report.add(Check::fail("configuration", error.to_string(), "mend the line that it names"));
    this_machine(false, &mut report);
    report.write(arguments.json, out)?;
    Ok(report.exit_code())
}

/// What lies in the data directory.
fn data(config: &Config, report: &mut Report) {
    let dir = &config.device.data_dir;
    let store_dir = parts::store_dir(dir);
    let directory = checks::data_directory(dir);
    let usable = directory.status != Status::Fail;
    report.add(directory);
    report.add(checks::disk_space(dir, &config.store, checks::bytes_in(&store_dir)));
    // Opening the store would make one.
    if usable && store_dir.exists() {
        let opened = parts::store(config).map(|(_, recovery)| recovery);
        report.add(checks::frame_store(opened.as_ref()));
    } else if usable {
        report.add(Check::ok("frame store", "none yet; the first run makes one"));
    }
    report.checks.extend(checks::event_log(&parts::log_path(dir), &store_dir));
    report.add(checks::fleet_server(&identity_dir(dir), &parts::log_path(dir)));
}

fn bundle_and_engine(config: &Config, report: &mut Report) {
    let bundle = parts::bundle(config);
    report.add(checks::policy(bundle.as_ref()));
    let Ok(bundle) = bundle else { return };
    let loaded = parts::inquirer(&bundle, config).and_then(|inquirer| {
        let engine = inquirer.engine();
        let said = match engine::Golden::hold(&bundle, engine)? {
            true => "gives its golden answers",
            false => "has no golden answers",
        };
        Ok((format!("{}, {said}", engine.id()), engine.backend_report().to_string()))
    });
    report.add(checks::engine(loaded.as_ref()));
}

fn this_machine(reads_files: bool, report: &mut Report) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    report.add(machine::ffmpeg(&path, reads_files));
    report.add(machine::clock(SystemClock.now().wall.quality));
    report.add(machine::memory(Path::new("/proc/meminfo")));
}
