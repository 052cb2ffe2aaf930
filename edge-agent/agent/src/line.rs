//! The line to the fleet server, beside the path of a frame: what was committed is sent.

use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    meters::Meters,
    parts,
};
use anyhow::{Context, Result};
use crossbeam_channel::Sender;
use event_log::{EventId, EventRow, Level, LogError, LogReader, Phase};
use frame_store::{PinId, RealFs, read_pinned_in};
use serde_json::json;
use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use uplink::{Https, Identity, Notice, Options, Outbox, Uplink, Waiting};

/// Where the log remembers whose evidence was sent last.
pub const EVIDENCE_SENT: &str = "uplink evidence";

/// No request takes longer: a line that carries a batch in less is none.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long a policy waits for its server's word, which what the server said before stands in for.
const HALTS_PATIENCE: Duration = Duration::from_secs(10);
/// The log keeps so many of them; the server tells the newest first.
const HALTS_KEPT: usize = 1000;
/// How often a pause is looked up from; here, and by the mirror.
pub const GLANCE: Duration = Duration::from_millis(100);
/// When the watch is over, so long what waits is still sent if the line is good.
pub const FAREWELL: Duration = Duration::from_secs(10);
/// Between two tries where the log cannot be read.
pub const LOG_TRIED_EVERY: Duration = Duration::from_secs(60);

/// A device that has a server, and its log and store.
pub struct Line {
    identity: Identity,
    options: Options,
    log: PathBuf,
    store: PathBuf,
}

/// What became of what was sent; the log is written by one thread alone.
pub enum Delivered {
    /// The server has everything up to this seq.
    UpTo(u64),
    /// It will never have these, both ends included.
    GivenUp {
        /// First and last seq.
        seqs: (u64, u64),
        /// Why.
        why: String,
    },
    /// It has the evidence of this event and of all before it.
    Evidence(EventId),
    /// A broker was told this much, in the mirror's own words.
    Mirrored(String),
}

/// Where the device's key and certificate lie.
pub fn identity_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

impl Line {
    /// The line of a device that was enrolled; `None` for one that reports to nobody.
    ///
    /// # Errors
    /// If its identity is damaged.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        let data_dir = &config.device.data_dir;
        let Some(identity) = Identity::load(&identity_dir(data_dir))? else { return Ok(None) };
        let options = config.uplink.options();
        let (log, store) = (parts::log_path(data_dir), parts::store_dir(data_dir));
        Ok(Some(Self { identity, options, log, store }))
    }

    /// The numbers of `channel` whose rollout its server has halted.
    ///
    /// # Errors
    /// If it does not say.
    pub fn halted(&self, channel: &str) -> Result<Vec<u64>> {
        let mut numbers = Https::new(&self.identity, HALTS_PATIENCE)?.halted(channel)?;
        numbers.truncate(HALTS_KEPT);
        Ok(numbers)
    }

    /// Whom it reports to, and as whom.
    pub fn describe(&self) -> String {
        format!("{} as {}", self.identity.server, self.identity.device)
    }
}

/// Sends until the watch is `over`, and a little longer.
pub fn send(line: Line, report: &Sender<Conclusion>, meters: &Meters, over: &AtomicBool) {
    if let Err(error) = send_all(&line, report, meters, over) {
        let sentence = format!("nothing is sent to {}: {error:#}", line.identity.server);
        tell(report, sentence, json!({"server": line.identity.server}));
    }
}

fn send_all(
    line: &Line,
    report: &Sender<Conclusion>,
    meters: &Meters,
    over: &AtomicBool,
) -> Result<()> {
    let server = Https::new(&line.identity, PATIENCE)?;
    let log = LogReader::open(&line.log)?;
    let (epoch, _, acknowledged) = log.names()?;
    let evidence_sent = log.state_get(EVIDENCE_SENT)?.unwrap_or_default();
    let device = line.identity.device.clone();
    let (begun, store) = (Instant::now(), &line.store);
    let outbox = Sent { log, store, report, evidence_sent, server: line.identity.server.clone() };
    let sender = uplink::Sender { device, epoch };
    let options = line.options.clone();
    let mut uplink = Uplink::new(sender, server, outbox, options, acknowledged, Duration::ZERO);
    let mut dice = Dice::new();
    while !over.load(Ordering::Relaxed) {
        let wait = match uplink.step(begun.elapsed(), dice.next()) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "what is to be sent cannot be read");
                LOG_TRIED_EVERY
            }
        };
        meters.uplink(uplink.status());
        pause(wait, over);
    }
    let parted = Instant::now();
    while parted.elapsed() < FAREWELL {
        let wait = uplink.step(begun.elapsed(), dice.next()).context("the event log")?;
        if !wait.is_zero() {
            break;
        }
    }
    let status = uplink.status();
    tracing::info!(
        events = status.events,
        bytes = status.event_bytes,
        evidence_bytes = status.evidence_bytes,
        failures = status.failures,
        "sent to the server"
    );
    Ok(())
}

fn pause(wait: Duration, over: &AtomicBool) {
    let begun = Instant::now();
    while !over.load(Ordering::Relaxed)
        && let Some(left) = wait.checked_sub(begun.elapsed())
        && !left.is_zero()
    {
        thread::sleep(left.min(GLANCE));
    }
}

fn tell(report: &Sender<Conclusion>, sentence: String, fields: serde_json::Value) {
    let trouble = Trouble::Board { kind: "uplink", sentence, fields };
    let _ = report.send(Conclusion::Trouble(trouble));
}

/// The log as it is read here, and written by the thread that owns it.
struct Sent<'a> {
    log: LogReader,
    store: &'a Path,
    report: &'a Sender<Conclusion>,
    evidence_sent: String,
    server: String,
}

impl Sent<'_> {
    fn deliver(&self, delivered: Delivered) {
        // Where nobody takes it any more, it is sent again after the next start.
        let _ = self.report.send(Conclusion::Delivered(delivered));
    }
}

impl Outbox for Sent<'_> {
    type Error = LogError;

    fn waiting(&mut self, after: u64, limit: usize) -> Result<Waiting, LogError> {
        Ok(Waiting {
            oldest: self.log.outbox(after, limit, Level::Info)?,
            alerts: self.log.outbox(after, limit, Level::Alert)?,
            newest: self.log.names()?.1,
        })
    }

    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, LogError> {
        self.log.event(id.as_str())
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), LogError> {
        self.deliver(Delivered::UpTo(seq));
        Ok(())
    }

    fn give_up(&mut self, seqs: (u64, u64), why: &str) -> Result<(), LogError> {
        self.deliver(Delivered::GivenUp { seqs, why: why.to_owned() });
        Ok(())
    }

    fn notice(&mut self, notice: Notice) -> Result<(), LogError> {
        let server = &self.server;
        let (sentence, what) = match notice {
            Notice::Down(failure) => {
                (format!("events wait on the device, as nothing gets through: {failure}"), "down")
            }
            Notice::Up => (format!("events get through to {server} again"), "up"),
            Notice::Lying { says, newest } => (
                format!(
                    "{server} says that it has change {says} of this device, whose newest is \
                     {newest}: it is not believed, and everything stays here; look at the server"
                ),
                "lying",
            ),
            Notice::EvidenceWaits(failure) => (
                format!(
                    "pictures wait on the device, as the server does not take them: {failure}; \
                     events get through"
                ),
                "evidence waits",
            ),
        };
        tell(self.report, sentence, json!({"server": server, "line": what}));
        Ok(())
    }

    fn unsent_evidence(&mut self) -> Result<Option<EventRow>, LogError> {
        // One that goes on may get other evidence yet.
        Ok(self.log.incident_after(&self.evidence_sent)?.filter(|row| row.phase == Phase::End))
    }

    fn pictures(&mut self, event: &EventRow) -> Result<Vec<Vec<u8>>, LogError> {
        let Some(pin) = event.pin else { return Ok(vec![]) };
        match read_pinned_in(self.store, PinId(pin), &RealFs) {
            Ok(frames) => Ok(frames.into_iter().map(|stored| stored.frame.bytes).collect()),
            Err(error) => {
                // `doctor` and `show` say so too; the event itself has arrived.
                tracing::warn!(event = event.id.as_str(), %error, "evidence cannot be sent");
                Ok(vec![])
            }
        }
    }

    fn evidence_sent(&mut self, event: &EventId) -> Result<(), LogError> {
        self.evidence_sent = event.as_str().to_owned();
        self.deliver(Delivered::Evidence(event.clone()));
        Ok(())
    }
}

/// Chance, for waits that differ from camera to camera (Marsaglia's xorshift).
pub struct Dice(u64);

impl Dice {
    /// Differs from process to process.
    pub fn new() -> Self {
        Self(RandomState::new().hash_one(std::process::id()) | 1)
    }

    /// From 0 to 1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
