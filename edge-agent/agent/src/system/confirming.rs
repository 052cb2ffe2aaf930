//! Confirming a new system: it watches in good health for a while, as the board's watchdog would have it, and is good
//! from then on. Until then the image goes back to the other slot by itself.

use super::{System, started};
use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    installed::{self, Record},
    line::GLANCE,
    poll::Reported,
    signs::Signs,
    tend,
};
use anyhow::Result;
use crossbeam_channel::Sender;
use event_log::EventLog;
use hal_board::{Millis, Pace, Progress, Watchdog, WatchdogOptions};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use updater::{Effect, Input, Stage};

/// Between two tries where RAUC or the disk fails.
const AGAIN_AFTER: Duration = Duration::from_secs(20);

/// Where the record of the system lies while nobody works on it: it is confirmed first, and only then updated.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Option<Record>>>);

impl Desk {
    /// Takes it up; `None`: it is in work.
    pub fn take(&self) -> Option<Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Lays it down.
    pub fn put(&self, record: Record) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }
}

/// A system that is to be confirmed.
pub struct Confirming {
    system: System,
    root: String,
    after: Duration,
    record: Record,
    data_dir: PathBuf,
    desk: Desk,
}

impl Confirming {
    /// Of a program that has started with this log: `None` if nothing is to be confirmed. The record is on `desk` when
    /// nothing is to be confirmed any more.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub fn begin(config: &Config, log: &mut EventLog, desk: &Desk) -> Result<Option<Self>> {
        let record = started(config, log)?;
        let system = System::of(config);
        let root = system.booted.root.clone().filter(|root| !system.confirmed.has(root));
        let Some(root) = root else {
            desk.put(record);
            return Ok(None);
        };
        let after = Duration::from_secs_f64(config.os.confirm_minutes * 60.0);
        let (data_dir, desk) = (config.device.data_dir.clone(), desk.clone());
        Ok(Some(Self { system, root, after, record, data_dir, desk }))
    }

    /// What is tried, and for how long.
    pub fn describe(&self) -> String {
        let minutes = self.after.as_secs_f64() / 60.0;
        format!("it is confirmed when it has watched well for {minutes} minutes")
    }

    /// Marks it good, which the image and the boot loader go by from then on, and writes that down.
    fn settle(&mut self, report: &Sender<Conclusion>) -> Result<()> {
        self.system.rauc.mark_good()?;
        self.system.confirmed.add(&self.root)?;
        let mut facts = self.system.facts();
        facts["watched_s"] = self.after.as_secs_f64().into();
        match self.record.plan.stage {
            Stage::Trial => {
                let ledger = &mut Reported(report.clone());
                let (_, effects) = self.record.step(Input::Passed(facts), ledger)?;
                if effects.contains(&Effect::Clear) {
                    // What is left there is not needed any more, and can be removed another time.
                    let _ = installed::tidy(&self.record.plan, &self.data_dir);
                }
            }
            _ => {
                let sentence = format!("the system {} is confirmed", self.system.booted.describe());
                tell(report, sentence, facts);
            }
        }
        Ok(())
    }
}

/// Confirms the system once the watch was in good health for long enough, unless the watch is `over` before.
pub fn confirm(
    mut confirming: Confirming,
    report: &Sender<Conclusion>,
    signs: &Signs,
    over: &AtomicBool,
) {
    let mut health = Health::new(confirming.after);
    while !over.load(Ordering::Relaxed) {
        thread::sleep(GLANCE);
        let now = tend::now();
        if !health.step(now, &signs.told(now).progress, signs.has_stored()) {
            continue;
        }
        match confirming.settle(report) {
            Ok(()) => return confirming.desk.clone().put(confirming.record),
            Err(error) => {
                let sentence = format!("the system that runs cannot be confirmed: {error:#}");
                if health.is_news() {
                    tell(report, sentence, confirming.system.facts());
                }
                let until = tend::now().0 + AGAIN_AFTER.as_millis() as u64;
                while !over.load(Ordering::Relaxed) && tend::now().0 < until {
                    thread::sleep(GLANCE);
                    let now = tend::now();
                    health.step(now, &signs.told(now).progress, signs.has_stored());
                }
            }
        }
    }
}

fn tell(report: &Sender<Conclusion>, sentence: String, fields: Value) {
    let trouble = Trouble::Board { kind: installed::SYSTEM, sentence, fields: json!(fields) };
    let _ = report.send(Conclusion::Trouble(trouble));
}

/// Whether a watch has been in good health, and for how long. Pure.
pub(super) struct Health {
    watchdog: Watchdog,
    options: WatchdogOptions,
    after: Duration,
    /// Since when, and where all parts were then.
    since: Option<(Millis, Progress)>,
    /// That it cannot be confirmed was told.
    told: bool,
}

impl Health {
    /// Good enough after this.
    pub fn new(after: Duration) -> Self {
        // Whoever is to be confirmed is given no grace.
        let options = WatchdogOptions { grace_ms: 0, ..WatchdogOptions::default() };
        Self { watchdog: Watchdog::default(), options, after, since: None, told: false }
    }

    /// Whether it is good enough at `now`: so long no part stood still, each has come round in that time, and a frame
    /// was stored.
    pub fn step(&mut self, now: Millis, progress: &Progress, stored: bool) -> bool {
        self.watchdog.step(&self.options, now, progress);
        if self.watchdog.is_stuck() {
            self.since = None;
            return false;
        }
        let (since, then) = *self.since.get_or_insert((now, *progress));
        let parts = |of: &Progress| {
            let [a, b, c, d] = of.capture;
            [a, b, c, d, of.store, of.inquiry]
        };
        let moved = |(then, now): (Pace, Pace)| now == Pace::Idle || now != then;
        let all_moved = parts(&then).into_iter().zip(parts(progress)).all(moved);
        stored && all_moved && u128::from(now.since(since)) >= self.after.as_millis()
    }

    /// Whether nobody was told yet that it cannot be confirmed.
    fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}
