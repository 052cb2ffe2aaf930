//! The rooms of the agent, opened from a configuration.

use crate::{accelerator, builtin, config::Config, installed, machine};
use anyhow::{Context, Result};
use bundle::Bundle;
use engine::{Engine, EngineOptions, Footprint};
use event_log::{EventLog, OpenReport};
use frame_store::{FrameStore, RealFs, Recovery};
use hal_camera::WallTime;
use hal_linux::{Clock, SystemClock};
use inquiry::Inquirer;
use policy::Budgets;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// The wall clock now.
pub fn now() -> WallTime {
    SystemClock.now().wall
}

/// Where the frame store lies.
pub fn store_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("frames")
}

/// Where the event log lies.
pub fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("events.sqlite")
}

/// Opens the frame store.
///
/// # Errors
/// If the directory cannot be used; never because of what a crash left in it.
pub fn store(config: &Config) -> Result<(FrameStore, Recovery)> {
    let dir = store_dir(&config.device.data_dir);
    make(&config.device.data_dir)?;
    Ok(FrameStore::open(&dir, config.store.options(), Arc::new(RealFs))?)
}

/// Opens the event log.
///
/// # Errors
/// If another agent has it open, or the directory cannot be used.
pub fn log(data_dir: &Path) -> Result<(EventLog, OpenReport)> {
    make(data_dir)?;
    Ok(EventLog::open(&log_path(data_dir), now())?)
}

/// Opens the policy of the configuration, or what an update left here, or the built-in one.
///
/// # Errors
/// If the bundle is refused.
pub fn bundle(config: &Config) -> Result<Bundle> {
    Ok(policy(config)?.0)
}

/// The same, with a sentence if it is not the policy that it should be.
///
/// # Errors
/// If the bundle is refused.
pub fn policy(config: &Config) -> Result<(Bundle, Option<String>)> {
    if !config.inquiry.bundle.as_os_str().is_empty() {
        return Ok((Bundle::open(&config.inquiry.bundle)?, None));
    }
    let data_dir = &config.device.data_dir;
    // A disk that fails here is told of by whoever needs it more.
    let unknown = |error| (None, Some(format!("what policy was taken cannot be read ({error:#})")));
    let (found, why) = installed::open(data_dir).unwrap_or_else(unknown);
    let bundle = found.map_or_else(|| builtin::open(data_dir), Ok)?;
    let why = why.map(|why| format!("{why}; {} watches instead", bundle.id()));
    Ok((bundle, why))
}

/// Loads the policy.
///
/// # Errors
/// If the engine cannot use it.
pub fn inquirer(bundle: &Bundle, config: &Config) -> Result<Inquirer> {
    let c = &config.inquiry;
    let threads = match c.threads {
        Some(threads) => threads as usize,
        None => threads_for(Footprint::of(bundle)?.weights),
    };
    let memory = c.memory_mb.map(|mb| mb * 1_000_000).or_else(machine::memory_free);
    let accelerator::Asked { sight, cuda, attempt } = accelerator::of(config, &bundle.id());
    let engine = Engine::load(bundle, EngineOptions { threads, memory, accelerator: sight, cuda })?;
    drop(attempt);
    let mut inquirer = Inquirer::new(bundle, engine)?;
    let own = inquirer.setup().budgets;
    inquirer.set_budgets(Budgets {
        turns: c.turns.unwrap_or(own.turns),
        frames: c.frames.unwrap_or(own.frames),
        wall_ms: c.wall_ms.unwrap_or(own.wall_ms),
        ..own
    });
    Ok(inquirer)
}

/// A small policy is done before a second thread has begun.
fn threads_for(weights: u64) -> usize {
    const SMALL: u64 = 200 << 20;
    match weights < SMALL {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    }
}

fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .with_context(|| format!("cannot use the data directory '{}'", dir.display()))
}
