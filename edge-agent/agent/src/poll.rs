//! New policies while the device watches: asked for now and then, fetched, verified, laid out, and tried beside the one
//! that watches. What has passed watches after the watch has begun anew, which this ends for it. New systems come the
//! same way, once the one that runs is confirmed, and go to RAUC.

use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    installed::{self, Ledger, Record},
    line::{Dice, GLANCE},
    parts,
    staging::{self, Offer, Steps},
    system::Desk,
    trial::Shadow,
};
use anyhow::Result;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use release::Kind;
use serde_json::{Value, json};
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use updater::{FetchError, Input, Stage, Window};

/// The first time it is asked within this, so that many cameras that start together do not ask together.
const FIRST_WITHIN: Duration = Duration::from_secs(600);
/// After so many times in a row without an answer it is told.
const FAILURES_UNTIL_TOLD: u32 = 3;

/// How often it is looked whether a stick was plugged in.
const STICK_GLANCE: Duration = Duration::from_secs(5);

/// A device that follows a channel, or one for policies and one for systems.
pub struct Polling {
    config: Config,
    /// Whether policies are asked for: not if something else than updates decides what runs.
    policies: bool,
    /// Where the record of the system lies, if systems are asked for.
    desk: Option<Desk>,
    /// When it may be fetched; `None`: at any time.
    window: Option<Window>,
    record: Record,
    every: Duration,
    /// How long a trial lasts; `None`: nothing is tried while it watches.
    trial: Option<Duration>,
    shadow: Arc<Shadow>,
    passed: Arc<AtomicBool>,
}

impl Polling {
    /// Of this configuration, if it names a repository and something to ask it for. The record of the system is taken
    /// from `desk` when it lies there.
    pub fn of(
        config: &Config,
        shadow: Arc<Shadow>,
        passed: Arc<AtomicBool>,
        desk: Desk,
    ) -> Option<Self> {
        let (every, policies) = (every(config)?, is_open_to_policies(config));
        let desk = (!config.os.channel.is_empty()).then_some(desk);
        if !policies && desk.is_none() {
            return None;
        }
        let window = config.update.fetching_window().ok()?;
        let record = Record::read(Kind::Policy, &config.device.data_dir);
        let (config, trial) = (config.clone(), trial_of(config));
        Some(Self { config, policies, desk, window, record, every, trial, shadow, passed })
    }

    /// Whom it asks, and how often.
    pub fn describe(&self) -> String {
        let update = &self.config.update;
        let sticks = (!update.stick.as_os_str().is_empty())
            .then(|| format!("sticks in {}", update.stick.display()));
        let places =
            [Some(update.repository.clone()).filter(|address| !address.is_empty()), sticks];
        let places: Vec<String> = places.into_iter().flatten().collect();
        let policies = self.policies.then_some(update.channel.as_str());
        let systems = self.desk.as_ref().map(|_| self.config.os.channel.as_str());
        let channels: Vec<&str> = policies.into_iter().chain(systems).collect();
        let word = if channels.len() == 1 { "channel" } else { "channels" };
        format!("{word} {} of {}", channels.join(" and "), places.join(" and "))
    }

    /// What it asks for.
    fn wants(&self) -> &'static str {
        match (self.policies, self.desk.is_some()) {
            (_, false) => "policy",
            (true, true) => "policy or system",
            (false, true) => "system",
        }
    }

    /// Whether something is on its way.
    fn is_fetching(&self) -> bool {
        let system = self.desk.as_ref().and_then(|desk| {
            let record = desk.take()?;
            let stage = record.plan.stage;
            desk.put(record);
            Some(stage)
        });
        [Some(self.record.plan.stage), system].contains(&Some(Stage::Fetching))
    }
}

/// How long a trial lasts beside a watch, by this configuration; `None`: there is none.
pub fn trial_of(config: &Config) -> Option<Duration> {
    let minutes = config.update.trial_minutes.filter(|_| is_open_to_policies(config))?;
    every(config).map(|_| Duration::from_secs_f64(minutes * 60.0))
}

/// Whether updates decide what runs.
fn is_open_to_policies(config: &Config) -> bool {
    config.inquiry.bundle.as_os_str().is_empty()
}

/// How often it is asked, by this configuration; `None`: never.
fn every(config: &Config) -> Option<Duration> {
    let update = &config.update;
    let somewhere = !update.repository.is_empty() || !update.stick.as_os_str().is_empty();
    let hours = update.poll_hours.filter(|_| somewhere)?;
    Some(Duration::from_secs_f64(hours * 3600.0))
}

/// What is to be written down, on its way to the one thread that writes.
pub struct Reported(pub Sender<Conclusion>);

impl Reported {
    fn send(&self, conclusion: Conclusion) -> Result<()> {
        self.0.send(conclusion).map_err(|_| anyhow::anyhow!("the watch is over"))
    }
}

impl Ledger for Reported {
    fn tell(&mut self, sentence: &str, fields: &Value, record: &Record) -> Result<()> {
        let told = Some((sentence.to_owned(), fields.clone()));
        self.send(Conclusion::Updated { told, record: Box::new(record.clone()) })
    }

    fn keep(&mut self, record: &Record) -> Result<()> {
        self.send(Conclusion::Updated { told: None, record: Box::new(record.clone()) })
    }
}

/// Passes on what is to be written down until the watch is `over`; if a policy has passed its trial, sees to it by
/// `stop` that the watch ends. What waits for the network is a thread of its own, which nobody waits for: what it has
/// not finished it goes on with after the next start.
pub fn poll(polling: Polling, report: &Sender<Conclusion>, over: &AtomicBool, stop: &AtomicBool) {
    let (reported, to_report) = unbounded();
    let called_off = Arc::new(AtomicBool::new(false));
    let (asking, passed, shadow) =
        (called_off.clone(), polling.passed.clone(), polling.shadow.clone());
    let spawned = thread::Builder::new()
        .name("update".to_owned())
        .spawn(move || ask_again_and_again(polling, &mut Reported(reported), &asking));
    if let Err(error) = spawned {
        tracing::warn!(%error, "new policies are not asked for");
        return;
    }
    while !over.load(Ordering::Relaxed) {
        let ends = passed.load(Ordering::Acquire);
        let more = pass_on(&to_report, report);
        // What was told before it passed has been passed on by now.
        stop.fetch_or(ends, Ordering::Relaxed);
        if !more && ends == passed.load(Ordering::Acquire) {
            break;
        }
    }
    called_off.store(true, Ordering::Relaxed);
    shadow.end();
}

/// Passes on what there is, or waits a little; `false` if nothing will come any more.
fn pass_on(from: &Receiver<Conclusion>, to: &Sender<Conclusion>) -> bool {
    let mut next = from.recv_timeout(GLANCE);
    loop {
        match next {
            Ok(conclusion) => {
                if to.send(conclusion).is_err() {
                    return false;
                }
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        next = from.recv_timeout(Duration::ZERO);
    }
}

fn ask_again_and_again(mut polling: Polling, ledger: &mut Reported, called_off: &AtomicBool) {
    let mut dice = Dice::new();
    let mut wait = polling.every.min(FIRST_WITHIN).mul_f64(dice.next());
    let (mut failures, mut told) = (0, false);
    if let Err(error) = installed::tidy(&polling.record.plan, &polling.config.device.data_dir) {
        tracing::warn!("what an update left behind cannot be removed: {error:#}");
    }
    let mut sticks = Sticks::default();
    loop {
        sticks.wait(wait, &polling.config, called_off);
        if called_off.load(Ordering::Relaxed) {
            return;
        }
        sticks.take_from_each(&mut polling, ledger, called_off);
        let asked = match polling.config.update.repository.is_empty() {
            true => Ok(()),
            false => ask_for_all(None, &mut polling, ledger, called_off),
        };
        // What came before is tried whether anybody answers now or not.
        let asked = try_beside(&mut polling, ledger, called_off).and(asked);
        if polling.passed.load(Ordering::Relaxed) {
            return;
        }
        match asked {
            Ok(()) => (failures, told) = (0, false),
            Err(error) => {
                failures += 1;
                if (!is_away(&error) || failures >= FAILURES_UNTIL_TOLD) && !told {
                    told = true;
                    let sentence = format!("no new {} can be had: {error:#}", polling.wants());
                    let fields = json!({"repository": polling.config.update.repository});
                    let trouble = Trouble::Board { kind: "update", sentence, fields };
                    let _ = ledger.send(Conclusion::Trouble(trouble));
                }
                tracing::debug!(%error, "update");
            }
        }
        // Between half and one and a half of it.
        wait = polling.every.mul_f64(0.5 + dice.next());
        if let Some(window) = polling.window.filter(|_| polling.is_fetching()) {
            wait = wait.min(window.opens_in(unix_s(), dice.next()).max(GLANCE));
        }
    }
}

fn unix_s() -> i64 {
    parts::now().unix_us / 1_000_000
}

/// Sticks that are plugged in, and have been asked since they are.
#[derive(Default)]
struct Sticks {
    known: Vec<PathBuf>,
}

impl Sticks {
    /// Waits so long, or until there is a stick that was not there before.
    fn wait(&mut self, wait: Duration, config: &Config, called_off: &AtomicBool) {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if config.update.stick.as_os_str().is_empty() {
                return thread::sleep(left);
            }
            let there = config.update.sticks();
            self.known.retain(|path| there.contains(path));
            let is_new = there.iter().any(|path| !self.known.contains(path));
            if is_new || left.is_zero() || called_off.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(left.min(STICK_GLANCE));
        }
    }

    /// What is wrong with a stick is told once for each time that it is plugged in.
    fn take_from_each(
        &mut self,
        polling: &mut Polling,
        ledger: &mut Reported,
        called_off: &AtomicBool,
    ) {
        for path in polling.config.update.sticks() {
            let is_new = !self.known.contains(&path);
            let asked = ask_for_all(Some(&path), polling, ledger, called_off);
            if is_new {
                self.known.push(path.clone());
            }
            let Err(error) = asked.as_ref() else { continue };
            if is_new && !called_off.load(Ordering::Relaxed) {
                let sentence =
                    format!("no new {} can be had from the stick: {error:#}", polling.wants());
                let fields = json!({"repository": path});
                let trouble = Trouble::Board { kind: "update", sentence, fields };
                let _ = ledger.send(Conclusion::Trouble(trouble));
            }
        }
    }
}

/// Whether an error may be over by itself, as when a line breaks.
pub fn is_away(error: &anyhow::Error) -> bool {
    use updater::{FetchError, SourceError::Unreachable, TrustError};
    matches!(error.downcast_ref(), Some(TrustError::Source(Unreachable { .. })))
        || matches!(
            error.downcast_ref(),
            Some(FetchError::CalledOff | FetchError::Source(Unreachable { .. }))
        )
}

/// Asks the repository, or the one on a stick, for a policy and for a system, each whatever becomes of the other.
fn ask_for_all(
    stick: Option<&Path>,
    polling: &mut Polling,
    ledger: &mut Reported,
    called_off: &AtomicBool,
) -> Result<()> {
    let Polling { config, policies, desk, window, record, .. } = polling;
    let window = window.filter(|_| stick.is_none());
    let mut ask = |record: &mut Record| ask(stick, config, window, record, ledger, called_off);
    let policy = if *policies { ask(record) } else { Ok(()) };
    // While the system that runs is not confirmed there is nothing on the desk.
    let Some((desk, mut record)) = desk.as_ref().and_then(|desk| Some((desk, desk.take()?))) else {
        return policy;
    };
    let system = ask(&mut record);
    desk.put(record);
    policy.and(system)
}

/// Asks the repository, or the one on a stick, which waits for no window.
fn ask(
    stick: Option<&Path>,
    config: &Config,
    window: Option<Window>,
    record: &mut Record,
    ledger: &mut Reported,
    called_off: &AtomicBool,
) -> Result<()> {
    let is_closed = || window.is_some_and(|window| !window.is_open(unix_s()));
    let before = record.trust.clone();
    let offer = match stick {
        Some(path) => Offer::ask_at(&path.to_string_lossy(), config, record),
        None => Offer::ask(config, record),
    };
    if record.trust != before {
        ledger.keep(record)?;
    }
    let offer = offer?;
    let mut watch = |_| match called_off.load(Ordering::Relaxed) || is_closed() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut say = |_: &str| Ok(());
    let mut steps = Steps { config, record, ledger, say: &mut say };
    match steps.stage(&offer, &mut watch) {
        Err(error)
            if is_closed() && matches!(error.downcast_ref(), Some(FetchError::CalledOff)) =>
        {
            tracing::debug!("fetching goes on when the window opens");
            Ok(())
        }
        staged => staged.map(drop),
    }
}

/// Tries what is staged beside the policy that watches, if there is room for both.
fn try_beside(polling: &mut Polling, ledger: &mut Reported, called_off: &AtomicBool) -> Result<()> {
    let Polling { config, record, trial: Some(lasts), shadow, passed, .. } = polling else {
        return Ok(());
    };
    let mut say = |_: &str| Ok(());
    if record.plan.stage != Stage::Staged || !staging::fits_beside(config, record)? {
        return Ok(());
    }
    let mut steps = Steps { config, record, ledger, say: &mut say };
    let Some(candidate) = steps.begin_trial()? else { return Ok(()) };
    shadow.begin(candidate, *lasts);
    let begun = Instant::now();
    let ended = loop {
        thread::sleep(GLANCE);
        let seen = shadow.seen();
        // Where nothing was to be asked there is nothing to judge by.
        let over = begun.elapsed() >= *lasts && seen.inquiries > 0;
        if called_off.load(Ordering::Relaxed) {
            return Ok(());
        }
        match seen.failure(over) {
            Some(why) => break Input::Failed(why),
            None if over => break Input::Passed(seen.told()),
            None => {}
        }
    };
    shadow.end();
    let has_passed = matches!(ended, Input::Passed(_));
    steps.take(ended)?;
    passed.store(has_passed, Ordering::Release);
    Ok(())
}
