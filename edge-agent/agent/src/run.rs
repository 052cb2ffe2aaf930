//! The command `run`: opens the rooms, watches, closes them.

use crate::{
    accelerator, camera,
    conclude::{Concluder, Listener, Terms},
    config::{self, Config},
    incidents::Thresholds,
    installed::{self, Record},
    line::Line,
    listen::{Lines, Readable},
    meters::{Counted, Meters},
    mirror::Mirroring,
    parts,
    poll::{self, Polling},
    scrape::Scraped,
    signs::Signs,
    staging::{self, Steps},
    system::{Confirming, Desk, System},
    tend::Alarmed,
    watch::{self, Outward, Pace, Plan, Watched},
};
use anyhow::{Context, Result, bail};
use bundle::Bundle;
use frame_store::{FrameStore, PinId};
use hal_camera::CameraId;
use hal_linux::{BoardDescription, LinuxBoard, Notify, PartState, Patience};
use inquiry::Inquirer;
use release::Kind;
use serde_json::json;
use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use updater::Stage;

/// Watch cameras and record events.
#[derive(clap::Args, Default)]
pub struct RunArguments {
    /// Camera to watch instead of the configured ones: sim:KEY=VALUE,…, file:PATH or
    /// v4l2:/dev/videoN. May be given several times.
    #[arg(long, value_name = "SOURCE")]
    pub camera: Vec<String>,
    /// One JSON object per line and event.
    #[arg(long)]
    pub json: bool,
    /// With --json: lines also when an event goes on and when it ends.
    #[arg(long, requires = "json")]
    pub updates: bool,
    /// Directory of the policy's bundle, instead of the built-in nano.
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

/// Watches until the cameras end or the process is told to stop.
///
/// # Errors
/// If a room cannot be opened, or the log cannot be written.
pub fn run(mut config: Config, mut arguments: RunArguments) -> Result<()> {
    if let Some(bundle) = arguments.bundle.take() {
        config.inquiry.bundle = bundle;
    }
    if !arguments.camera.is_empty() {
        config.cameras =
            std::mem::take(&mut arguments.camera).into_iter().enumerate().map(named).collect();
        if let Some(rule) = config::too_many_cameras(config.cameras.len()) {
            bail!(rule);
        }
    }
    let (stop, told) = (stop_on_signals()?, told_by_signals()?);
    while watch_once(&config, &arguments, &stop)? == Next::Again && !told.load(Ordering::Relaxed) {
        tracing::info!("watches again, with the policy that has passed its trial");
        stop.store(false, Ordering::Relaxed);
    }
    Ok(())
}

/// What comes after a watch.
#[derive(PartialEq)]
enum Next {
    /// Nothing.
    Rest,
    /// Another, with another policy.
    Again,
}

fn watch_once(config: &Config, arguments: &RunArguments, stop: &Arc<AtomicBool>) -> Result<Next> {
    let cameras = open_cameras(config, stop)?;
    let description = BoardDescription::load(&config.board.description)?;
    // No reason not to watch: what can be wrong here, a full disk or a damaged log, has its turn below.
    // A film that is watched again would be told again.
    let live = cameras.iter().all(|camera| camera.pace == Pace::Live);
    let patience = accelerator::is_asked_for(config).then(patience);
    if let Err(error) = try_what_is_staged(config, live) {
        tracing::warn!("a new policy cannot be tried: {error:#}");
    }
    let (bundle, other_policy) = parts::policy(config)?;
    let mut inquirer = parts::inquirer(&bundle, config)?;
    drop(patience);
    let line = Line::of(config)?;
    let plan = plan(config);
    let scraped = match config.metrics.address().map_err(anyhow::Error::msg)? {
        Some(address) => Some(Scraped::listen(address, plan.meters.clone())?),
        None => None,
    };
    let (store, recovery) = parts::store(config)?;
    let (mut log, opened) = parts::log(&config.device.data_dir)?;
    tracing::debug!(?opened, "event log opened");
    // Tidying up is no reason not to watch: a full disk gets its turn when there is an event.
    match log.end_open() {
        Ok(0) => {}
        Ok(left_open) => tracing::info!(left_open, "ended the events that a watch had left open"),
        Err(error) => tracing::warn!(%error, "cannot end the events that a watch had left open"),
    }
    let mirroring = Mirroring::of(config)?;
    let passed = Arc::new(AtomicBool::new(false));
    let desk = Desk::default();
    let confirming = Confirming::begin(config, &mut log, &desk)?;
    let polling = Polling::of(config, plan.shadow.clone(), passed.clone(), desk).filter(|_| live);
    let kept: HashSet<PinId> = log.pins()?.into_iter().map(PinId).collect();
    let orphans = store.orphan_pins(&kept)?;

    let listener: Box<dyn Listener> = if arguments.json {
        Box::new(Lines { out: io::stdout(), updates: arguments.updates })
    } else {
        Box::new(Readable(io::stdout()))
    };
    let listener = alarmed(config, &plan, listener);
    let listener = Box::new(Counted { inner: listener, meters: plan.meters.clone() });
    let terms = terms(config, &bundle, &inquirer);
    let runs_on = runs_on(config, confirming.as_ref());
    if let Some(runs_on) = &runs_on {
        tracing::info!("{runs_on}");
    }
    if !arguments.json {
        greet(&cameras, &terms);
        println(&format!("memory: {}", inquirer.engine().footprint()));
        if let Some(line) = &line {
            println(&format!("reports to {}", line.describe()));
        }
        if let Some(mirroring) = &mirroring {
            println(&format!("tells {}", mirroring.describe()));
        }
        if let Some(polling) = &polling {
            println(&format!("follows {}", polling.describe()));
        }
        if let Some(runs_on) = &runs_on {
            println(runs_on);
        }
    }
    plan.meters.decided_by(&terms.bundle, &terms.engine);
    let mut concluder = Concluder::new(&store, log, terms, listener);
    if let Some(sentence) = other_policy {
        concluder.health(installed::POLICY, &sentence, json!({"runs": bundle.id()}))?;
    }
    if !recovery.is_clean() {
        let sentence = format!(
            "the frame store was not closed: {} frames were lost, {} are there",
            recovery.frames_lost, recovery.frames
        );
        concluder.health("frame-store-recovered", &sentence, json!(recovery))?;
    }
    if !orphans.is_empty() {
        tracing::info!(orphans = orphans.len(), "removed evidence that no event cites");
    }
    // Last, since a watchdog counts from here on: what takes minutes has been done.
    let notify = Notify::from_environment();
    notify.ready();
    notify.status(&format!("watches {} cameras", cameras.len()));
    let (board, parts) = LinuxBoard::open(&description, notify)?;
    for state in &parts {
        report_part(state, &mut concluder)?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let scraping = scraped.map(|scraped| scraped.serve(over.clone())).transpose()?;
    let (board, by) = (Some(board), &mut inquirer);
    let outward = Outward { line, mirroring, polling, confirming };
    let tally = watch::watch(cameras, &plan, &store, by, &mut concluder, board, outward, stop)?;
    over.store(true, Ordering::Relaxed);
    scraping.map(thread::JoinHandle::join);
    close(&store)?;
    drop(concluder);
    if let Err(error) = installed::called_off(&config.device.data_dir) {
        tracing::warn!("the trial of a new policy cannot be called off: {error:#}");
    }
    if !arguments.json {
        println(&format!(
            "watched {} frames, {} inquiries, {} events; data in {}",
            tally.frames,
            tally.inquiries,
            tally.events,
            config.device.data_dir.display()
        ));
    }
    Ok(if passed.load(Ordering::Relaxed) { Next::Again } else { Next::Rest })
}

/// An accelerator may have to compile the policy first.
fn patience() -> Patience {
    const EVERY: Duration = Duration::from_secs(20);
    // A new system has a quarter of an hour, of which it has to watch for five minutes.
    const LONGEST: Duration = Duration::from_secs(8 * 60);
    let notify = Notify::from_environment();
    notify.status("loads the policy, which an accelerator may have to compile first");
    notify.patience(EVERY, LONGEST)
}

/// A policy that came while the device watched and cannot be tried beside a watch is tried before one.
fn try_what_is_staged(config: &Config, live: bool) -> Result<()> {
    let data_dir = &config.device.data_dir;
    let underway = Record::read(Kind::Policy, data_dir).plan.stage;
    let fixed = !config.inquiry.bundle.as_os_str().is_empty();
    if fixed || !matches!(underway, Stage::Staged | Stage::Trial) {
        return Ok(());
    }
    let (mut log, _) = parts::log(data_dir)?;
    installed::started(&mut log)?;
    let mut record = Record::of(Kind::Policy, &log)?;
    if live && poll::trial_of(config).is_some() && staging::fits_beside(config, &record)? {
        return Ok(());
    }
    let mut say = |sentence: &str| {
        tracing::info!("{sentence}");
        Ok(())
    };
    let (record, ledger) = (&mut record, &mut log);
    Steps { config, record, ledger, say: &mut say }.try_it()
}

/// Which system runs, if it says so.
fn runs_on(config: &Config, confirming: Option<&Confirming>) -> Option<String> {
    let system = System::of(config);
    system.booted.root.as_ref()?;
    let next = confirming.map_or_else(|| "confirmed".to_owned(), Confirming::describe);
    Some(format!("runs on the system {}: {next}", system.booted.describe()))
}

/// What the conclusions of a watch with this configuration and policy need to know.
pub fn terms(config: &Config, bundle: &Bundle, inquirer: &Inquirer) -> Terms {
    let manifest = &bundle.manifest;
    Terms {
        thresholds: Thresholds {
            notice: config.events.notice_at.unwrap_or(manifest.thresholds.notice) as f32,
            alert: config.events.alert_at.unwrap_or(manifest.thresholds.alert) as f32,
        },
        cameras: config.cameras.iter().map(|c| c.name.clone()).collect(),
        report_normal: config.events.report_normal,
        rows_max: config.events.rows_max,
        merge_gap_s: config.events.merge_gap_s,
        bundle: inquirer.bundle_id().to_owned(),
        engine: inquirer.engine().id().to_owned(),
        clock: parts::now,
    }
}

/// How this configuration wants its cameras watched.
pub fn plan(config: &Config) -> Plan {
    Plan {
        sentinel: config.sentinel.options(),
        look_back_s: config.inquiry.look_back_s,
        settle_s: config.inquiry.settle_s,
        signs: Arc::new(Signs::new(config.cameras.len())),
        meters: Arc::new(Meters::new(config.cameras.iter().map(|camera| &*camera.name))),
        shadow: Arc::default(),
    }
}

/// The listener, with the alarm before it if events are to set that off.
fn alarmed(config: &Config, plan: &Plan, inner: Box<dyn Listener>) -> Box<dyn Listener> {
    let Some(at) = config.board.alarm_level() else { return inner };
    let hold_ms = (config.board.alarm_s * 1000.0) as u64;
    Box::new(Alarmed { inner, signs: plan.signs.clone(), at, hold_ms })
}

/// A part of the board that cannot be used is an event; the others are as they should be.
fn report_part(state: &PartState, concluder: &mut Concluder<'_>) -> Result<()> {
    match &state.found {
        Ok(found) => tracing::info!(part = state.part, %found, "opened"),
        Err(error) => {
            let sentence = format!("the board's {} cannot be used: {error}", state.part);
            concluder.health("board", &sentence, json!({"part": state.part}))?;
        }
    }
    Ok(())
}

/// A camera given on the command line, named after its source.
fn named((number, source): (usize, String)) -> config::Camera {
    let kind = source.split(':').next().unwrap_or("camera");
    config::Camera { name: format!("{kind}-{number}"), source, ..config::Camera::default() }
}

fn open_cameras(config: &Config, stop: &Arc<AtomicBool>) -> Result<Vec<Watched>> {
    let mut cameras = vec![];
    for (number, c) in config.cameras.iter().enumerate() {
        let (camera, pace) = camera::open(&c.source, stop.clone())?;
        let id = CameraId(u16::try_from(number).context("too many cameras")?);
        cameras.push(Watched { id, camera, pace, normal: c.normal.clone() });
    }
    Ok(cameras)
}

fn greet(cameras: &[Watched], terms: &Terms) {
    for (watched, name) in cameras.iter().zip(&terms.cameras) {
        println(&format!("watching {name}: {}", watched.camera.describe()));
    }
    println(&format!("policy {} on {}", terms.bundle, terms.engine));
}

fn close(store: &FrameStore) -> Result<()> {
    store.close().context("the frame store could not be closed cleanly")
}

/// SIGINT and SIGTERM end the watch cleanly; a second one ends the process at once.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .context("cannot listen for signals")?;
    }
    Ok(stop)
}

/// Whether a signal came, whatever else ends a watch.
fn told_by_signals() -> Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, told.clone()).context("cannot listen for signals")?;
    }
    Ok(told)
}

fn println(line: &str) {
    use io::Write;
    // A closed pipe is no reason to stop watching.
    let _ = writeln!(io::stdout(), "{line}");
}
