//! New policies while the device watches: asked for now and then, fetched, verified and laid out. The next start
//! tries what is there, so that a watch is never held up by it.

use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    installed::{Ledger, Record},
    line::{Dice, GLANCE},
    staging::{Offer, Steps},
};
use anyhow::Result;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use serde_json::{Value, json};
use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The first time it is asked within this, so that many cameras that start together do not ask together.
const FIRST_WITHIN: Duration = Duration::from_secs(600);
/// After so many times in a row without an answer it is told.
const FAILURES_UNTIL_TOLD: u32 = 3;

/// A device that follows a channel.
pub struct Polling {
    config: Config,
    record: Record,
    every: Duration,
}

impl Polling {
    /// Of this configuration, if it names a repository, and nothing but updates decides what runs.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        let (update, fixed) = (&config.update, !config.inquiry.bundle.as_os_str().is_empty());
        let Some(hours) = update.poll_hours.filter(|_| !update.repository.is_empty() && !fixed)
        else {
            return Ok(None);
        };
        let record = Record::read(&config.device.data_dir)?;
        let every = Duration::from_secs_f64(hours * 3600.0);
        Ok(Some(Self { config: config.clone(), record, every }))
    }

    /// Whom it asks, and how often.
    pub fn describe(&self) -> String {
        format!("channel {} of {}", self.config.update.channel, self.config.update.repository)
    }
}

/// What is to be written down, on its way to the one thread that writes.
struct Reported(Sender<Conclusion>);

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

/// Passes on what is to be written down until the watch is `over`. What waits for the network is a thread of its
/// own, which nobody waits for: what it has not finished it goes on with after the next start.
pub fn poll(polling: Polling, report: &Sender<Conclusion>, over: &AtomicBool) {
    let (reported, to_report) = unbounded();
    let called_off = Arc::new(AtomicBool::new(false));
    let asking = called_off.clone();
    let spawned = thread::Builder::new()
        .name("update".to_owned())
        .spawn(move || ask_again_and_again(polling, &mut Reported(reported), &asking));
    if let Err(error) = spawned {
        tracing::warn!(%error, "new policies are not asked for");
        return;
    }
    pass_on(&to_report, report, over);
    called_off.store(true, Ordering::Relaxed);
}

fn pass_on(from: &Receiver<Conclusion>, to: &Sender<Conclusion>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match from.recv_timeout(GLANCE) {
            Ok(conclusion) => {
                if to.send(conclusion).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn ask_again_and_again(mut polling: Polling, ledger: &mut Reported, called_off: &AtomicBool) {
    let mut dice = Dice::new();
    let mut wait = polling.every.min(FIRST_WITHIN).mul_f64(dice.next());
    let (mut failures, mut told) = (0, false);
    loop {
        thread::sleep(wait);
        if called_off.load(Ordering::Relaxed) {
            return;
        }
        match ask(&mut polling, ledger, called_off) {
            Ok(()) => (failures, told) = (0, false),
            Err(error) => {
                failures += 1;
                if (!is_away(&error) || failures >= FAILURES_UNTIL_TOLD) && !told {
                    told = true;
                    let sentence = format!("no new policy can be had: {error:#}");
                    let fields = json!({"repository": polling.config.update.repository});
                    let trouble = Trouble::Board { kind: "update", sentence, fields };
                    let _ = ledger.send(Conclusion::Trouble(trouble));
                }
                tracing::debug!(%error, "update");
            }
        }
        // Between half and one and a half of it.
        wait = polling.every.mul_f64(0.5 + dice.next());
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

fn ask(polling: &mut Polling, ledger: &mut Reported, called_off: &AtomicBool) -> Result<()> {
    let Polling { config, record, .. } = polling;
    let before = record.trust.clone();
    let offer = Offer::ask(config, record);
    if record.trust != before {
        ledger.keep(record)?;
    }
    let offer = offer?;
    let mut watch = |_| match called_off.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut say = |_: &str| Ok(());
    let mut steps = Steps { config, record, ledger, say: &mut say };
    steps.stage(&offer, &mut watch).map(drop)
}
