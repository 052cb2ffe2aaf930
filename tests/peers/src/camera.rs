//! One camera: a real event log, the real uplink, and a record of what the log said.

use crate::dice::Dice;
use crate::incidents::{Scene, now, picture};
use crate::truth::{Change, Truth, hex};
use crate::watch::Watch;
use anyhow::{Context, Result};
use event_log::{Bound, EventId, EventLog, EventRow, Level, LogError, LogReader, Outgoing, Phase};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uplink::{
    Failure, Had, Https, Identity, Notice, Options, Outbox, Part, Server, Uplink, Waiting,
};

/// Where the agent's log remembers whose evidence was sent last.
const EVIDENCE_SENT: &str = "uplink evidence";
/// A camera whose next turn is further away than this need not keep its files open.
const SLEEP: Duration = Duration::from_secs(1);

/// A camera's log as it lies on its disk, and what is known of it.
pub struct Shelf {
    path: PathBuf,
    open: Option<(EventLog, LogReader)>,
    /// One for each life of the log; the last is the one that goes on.
    pub truths: Vec<Truth>,
    device: String,
    evidence_sent: String,
    /// Objects of the evidence in hand.
    in_hand: Vec<u64>,
    watch: Arc<Watch>,
}

impl Shelf {
    fn open(&mut self) -> Result<&mut (EventLog, LogReader), LogError> {
        if self.open.is_none() {
            let (log, report) = EventLog::open(&self.path, now())?;
            let reader = LogReader::open(&self.path)?;
            let (epoch, _, acknowledged) = reader.names()?;
            self.evidence_sent = reader.state_get(EVIDENCE_SENT)?.unwrap_or_default();
            if report.begun {
                let device = self.device.clone();
                self.truths.iter_mut().for_each(|truth| truth.destroyed = true);
                self.truths.push(Truth { device, epoch, acknowledged, ..Truth::default() });
            }
            self.open = Some((log, reader));
            self.watch.opened(1);
            self.observe()?;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            None => unreachable!("it was just opened"),
        }
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.watch.opened(-1);
        }
    }

    fn truth(&mut self) -> &mut Truth {
        if self.truths.is_empty() {
            self.truths.push(Truth::default());
        }
        let last = self.truths.len() - 1;
        &mut self.truths[last]
    }

    /// Takes down what the log has given out since.
    fn observe(&mut self) -> Result<(), LogError> {
        loop {
            let seen = self.truth().changes.len() as u64;
            let Some((_, reader)) = &self.open else { return Ok(()) };
            let news = reader.outbox(seen, 1000, Level::Info)?;
            if news.is_empty() {
                return Ok(());
            }
            let mut changes = Vec::with_capacity(news.len());
            let mut skipped = 0;
            for change in &news {
                while seen + (changes.len() as u64) < change.seq - 1 {
                    changes.push(Change::default());
                    skipped += 1;
                }
                let row = reader.event(change.event.as_str())?;
                changes.push(Change::new(change, row.as_ref()));
            }
            self.watch.wrote(changes.len() as u64);
            let truth = self.truth();
            truth.changes.extend(changes);
            truth.skipped += skipped;
        }
    }

    fn names(&mut self) -> Result<(String, u64, u64), LogError> {
        self.open()?.1.names()
    }
}

/// A [`Shelf`] that the uplink and the watch share; only one of them is at it at a time.
#[derive(Clone)]
struct Shared(Arc<Mutex<Shelf>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// As edge-agent/agent/src/line.rs has it, with the log's writer in the same thread.
impl Outbox for Shared {
    type Error = LogError;

    fn waiting(&mut self, after: u64, limit: usize) -> Result<Waiting, LogError> {
        let mut shelf = self.lock();
        let (_, reader) = shelf.open()?;
        Ok(Waiting {
            oldest: reader.outbox(after, limit, Level::Info)?,
            alerts: reader.outbox(after, limit, Level::Alert)?,
            newest: reader.names()?.1,
        })
    }

    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, LogError> {
        self.lock().open()?.1.event(id.as_str())
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), LogError> {
        let mut shelf = self.lock();
        shelf.open()?.0.acknowledge(seq)?;
        let before = std::mem::replace(&mut shelf.truth().acknowledged, seq);
        shelf.watch.acknowledged(seq.saturating_sub(before));
        Ok(())
    }

    fn give_up(&mut self, seqs: (u64, u64), why: &str) -> Result<(), LogError> {
        let mut shelf = self.lock();
        shelf.open()?.0.give_up(seqs.0, seqs.1, why, now())?;
        shelf.truth().given_up += seqs.1 - seqs.0 + 1;
        shelf.observe()
    }

    fn notice(&mut self, notice: Notice) -> Result<(), LogError> {
        let sentence = match notice {
            Notice::Down(failure) => format!("events wait on the device: {failure}"),
            Notice::Up => "events get through again".to_owned(),
            Notice::Lying { says, newest } => {
                format!("the server says {says}, the newest is {newest}")
            }
            Notice::EvidenceWaits(failure) => format!("pictures wait on the device: {failure}"),
        };
        let mut shelf = self.lock();
        shelf.open()?.0.health("uplink", &sentence, json!({}), now())?;
        shelf.observe()
    }

    fn unsent_evidence(&mut self) -> Result<Option<EventRow>, LogError> {
        let mut shelf = self.lock();
        shelf.open()?;
        let sent = shelf.evidence_sent.clone();
        let row = shelf.open()?.1.incident_after(&sent)?;
        Ok(row.filter(|row| row.phase == Phase::End))
    }

    fn pictures(&mut self, event: &EventRow) -> Result<Vec<Vec<u8>>, LogError> {
        let mut shelf = self.lock();
        let (device, epoch) = (shelf.device.clone(), shelf.truth().epoch.clone());
        let change = Outgoing {
            seq: event.seq,
            event: event.id.clone(),
            phase: event.phase,
            level: event.level,
        };
        let whole = uplink::carried(&uplink::Sender { device, epoch }, &change, event).attached;
        let hashes = event.evidence.iter().map(|item| &item.hash);
        shelf.in_hand = hashes
            .chain(whole.as_ref().map(|whole| &whole.hash))
            .filter_map(|hash| hex(hash))
            .collect();
        Ok(event.evidence.iter().map(|item| picture(&item.frame_id)).collect())
    }

    fn evidence_sent(&mut self, event: &EventId) -> Result<(), LogError> {
        let mut shelf = self.lock();
        shelf.open()?.0.state_set(EVIDENCE_SENT, event.as_str())?;
        shelf.evidence_sent = event.as_str().to_owned();
        let sent = std::mem::take(&mut shelf.in_hand);
        shelf.truth().objects.extend(sent);
        Ok(())
    }
}

/// The server, with a note of everything that it is asked and answers.
struct Watched {
    https: Https,
    shelf: Shared,
    device: String,
}

impl Watched {
    fn watch(&self) -> Arc<Watch> {
        self.shelf.lock().watch.clone()
    }
}

impl Server for Watched {
    fn name(&self) -> &str {
        self.https.name()
    }

    fn deliver(&mut self, epoch: &str, batch: &[u8]) -> Result<u64, Failure> {
        let watch = self.watch();
        watch.asking();
        let answer = self.https.deliver(epoch, batch);
        watch.told(answer.as_ref().err());
        if let Ok(committed) = answer {
            let mut shelf = self.shelf.lock();
            let truth = shelf.truth();
            truth.answered = truth.answered.max(committed);
            drop(shelf);
            watch.audit(&self.device, epoch, committed);
        }
        answer
    }

    fn evidence(&mut self, hash: &str) -> Result<Had, Failure> {
        let watch = self.watch();
        watch.asking();
        let answer = self.https.evidence(hash);
        watch.told(answer.as_ref().err());
        answer
    }

    fn append(&mut self, part: &Part<'_>) -> Result<Had, Failure> {
        let watch = self.watch();
        watch.asking();
        let answer = self.https.append(part);
        watch.told(answer.as_ref().err());
        answer
    }
}

/// How a camera lives.
#[derive(Clone, Debug)]
pub struct Life {
    /// Changes that it writes in all.
    pub quota: u64,
    /// Its log is pruned to so many events.
    pub rows: u64,
    /// Per turn: the chance that its power is cut.
    pub power_cut: f64,
    /// With a cut: the chance that the log is destroyed by it.
    pub destroyed: f64,
    /// The share of incidents with pictures.
    pub pictures: f64,
    /// How the line is used.
    pub options: Options,
    /// No request takes longer.
    pub patience: Duration,
}

/// What a camera wants after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another one, after so long.
    Again(Duration),
    /// Nothing: all is written, and the server has all of it.
    Done,
}

/// A camera of the fleet.
pub struct Camera {
    dice: Dice,
    life: Life,
    scene: Scene,
    identity: Identity,
    shelf: Shared,
    watch: Arc<Watch>,
    uplink: Option<Uplink<Watched, Shared>>,
    written: u64,
    turns: u64,
}

/// A turn's share of the worker's time.
const STEPS: usize = 16;
/// A burst is at most so large.
const BURST: u64 = 120;
/// A camera with more than this before it writes no more until some of it is gone.
const BACKLOG: u64 = 2_000;

impl Camera {
    /// A camera with its log in `dir`, to which nothing has happened yet.
    pub fn new(dir: &Path, identity: Identity, life: Life, dice: Dice, watch: Arc<Watch>) -> Self {
        let shelf = Shelf {
            path: dir.join("events.sqlite"),
            open: None,
            truths: vec![],
            device: identity.device.clone(),
            evidence_sent: String::new(),
            in_hand: vec![],
            watch: watch.clone(),
        };
        let (scene, shelf) = (Scene::new(life.pictures), Shared(Arc::new(Mutex::new(shelf))));
        Self { dice, life, scene, identity, shelf, watch, uplink: None, written: 0, turns: 0 }
    }

    /// One turn of a camera that writes and sends for as long as it has something: a burst of changes, then
    /// as many exchanges as there are until it has to wait.
    ///
    /// # Errors
    /// If its log fails.
    pub fn turn(&mut self, at: Duration) -> Result<Turn> {
        self.turns += 1;
        if self.dice.happens(self.life.power_cut) {
            self.cut_the_power()?;
        }
        self.write_some()?;
        let wait = self.exchange(at, STEPS)?;
        let whole = self.written >= self.life.quota;
        if whole && self.is_drained()? {
            self.rest();
            return Ok(Turn::Done);
        }
        if !whole && wait == self.life.options.poll {
            return Ok(Turn::Again(Duration::ZERO));
        }
        if wait > SLEEP && self.watch.is_crowded() {
            self.shelf.lock().close();
        }
        Ok(Turn::Again(wait))
    }

    /// What it has not written yet it will not write.
    pub fn write_no_more(&mut self) {
        if self.written < self.life.quota {
            self.life.quota = self.written;
            self.scene.forget();
        }
    }

    /// One turn of a camera that only sends.
    ///
    /// # Errors
    /// If its log fails.
    pub fn send(&mut self, at: Duration) -> Result<Turn> {
        let wait = self.exchange(at, STEPS)?;
        if self.is_drained()? {
            self.rest();
            return Ok(Turn::Done);
        }
        if wait > SLEEP && self.watch.is_crowded() {
            self.shelf.lock().close();
        }
        Ok(Turn::Again(wait))
    }

    /// Lives through `outage`, in which nobody answers: its quota of changes is written evenly over it, from
    /// a moment of its own, or from the beginning if something happened before all cameras `together`. The
    /// clock is not the wall's. Returns when, after the end of the outage, it would try again.
    ///
    /// # Errors
    /// If its log fails.
    pub fn live_through(&mut self, outage: Duration, together: bool) -> Result<Duration> {
        let between = outage.div_f64(self.life.quota.max(1) as f64);
        let mut at = between.mul_f64(if together { 0.0 } else { self.dice.unit() });
        let mut next_change = at;
        while at < outage {
            while next_change <= at && self.written < self.life.quota {
                let mut shelf = self.shelf.lock();
                self.scene.change(&mut shelf.open()?.0, &mut self.dice)?;
                shelf.observe()?;
                self.written += 1;
                next_change += between;
            }
            let wait = self.exchange(at, 1)?;
            // A line that polls an empty outbox would only be looked at: on to the next change.
            at += if wait == self.life.options.poll { between.max(wait) } else { wait };
        }
        self.end_what_is_open()?;
        self.shelf.lock().close();
        Ok(at - outage)
    }

    /// Writes `n` changes at once.
    ///
    /// # Errors
    /// If its log fails.
    pub fn write(&mut self, n: u64) -> Result<()> {
        let mut shelf = self.shelf.lock();
        for _ in 0..n {
            self.scene.change(&mut shelf.open()?.0, &mut self.dice)?;
        }
        self.written += n;
        Ok(shelf.observe()?)
    }

    /// Exchanges until there is something to wait for, at most `steps`.
    ///
    /// # Errors
    /// If its log fails.
    pub fn exchange(&mut self, at: Duration, steps: usize) -> Result<Duration> {
        let mut wait = Duration::ZERO;
        for _ in 0..steps {
            let dice = if self.watch.jitter() { self.dice.unit() } else { 1.0 };
            let uplink = match &mut self.uplink {
                Some(uplink) => uplink,
                None => {
                    let new = self.begin(at)?;
                    self.uplink.insert(new)
                }
            };
            wait = uplink.step(at, dice)?;
            if !wait.is_zero() {
                break;
            }
        }
        Ok(wait)
    }

    /// From now on another watch counts what it does.
    pub fn watched_by(&mut self, watch: &Arc<Watch>) {
        self.watch = watch.clone();
        self.shelf.lock().watch = watch.clone();
    }

    /// Its events as they stand, oldest first, at most `limit`.
    ///
    /// # Errors
    /// If its log fails.
    pub fn rows(&self, limit: usize) -> Result<Vec<EventRow>> {
        let query = event_log::Query { limit, ..event_log::Query::default() };
        Ok(self.shelf.lock().open()?.1.events(&query)?)
    }

    /// Takes what its logs said away, to be judged.
    pub fn into_truths(self) -> Vec<Truth> {
        std::mem::take(&mut self.shelf.lock().truths)
    }

    fn begin(&self, at: Duration) -> Result<Uplink<Watched, Shared>> {
        let https = Https::new(&self.identity, self.life.patience)?;
        let (epoch, _, acknowledged) = self.shelf.lock().names()?;
        let device = self.identity.device.clone();
        let server = Watched { https, shelf: self.shelf.clone(), device: device.clone() };
        let sender = uplink::Sender { device, epoch };
        let options = self.life.options.clone();
        Ok(Uplink::new(sender, server, self.shelf.clone(), options, acknowledged, at))
    }

    fn write_some(&mut self) -> Result<()> {
        let left = self.life.quota.saturating_sub(self.written);
        if left > 0 {
            let mut shelf = self.shelf.lock();
            let (_, newest, acknowledged) = shelf.names()?;
            if newest - acknowledged < BACKLOG {
                let burst = self.dice.between(1, BURST).min(left);
                for _ in 0..burst {
                    self.scene.change(&mut shelf.open()?.0, &mut self.dice)?;
                }
                self.written += burst;
                shelf.observe()?;
            }
        }
        if left > 0 && self.written >= self.life.quota {
            self.end_what_is_open()?;
        }
        if self.turns.is_multiple_of(8) && left > 0 {
            let mut shelf = self.shelf.lock();
            let bound = Bound { rows: Some(self.life.rows), bytes: None };
            shelf.open()?.0.prune(bound, now())?;
            shelf.observe()?;
        }
        Ok(())
    }

    fn end_what_is_open(&mut self) -> Result<()> {
        self.scene.forget();
        let mut shelf = self.shelf.lock();
        shelf.open()?.0.end_open()?;
        Ok(shelf.observe()?)
    }

    /// The process is gone, and comes back as a watch begins: with what the log remembers, or with a log that
    /// cannot be used.
    fn cut_the_power(&mut self) -> Result<()> {
        self.uplink = None;
        self.shelf.lock().close();
        if self.dice.happens(self.life.destroyed) {
            let path = self.shelf.lock().path.clone();
            let mut file =
                fs::OpenOptions::new().write(true).open(&path).context("a camera's log")?;
            file.write_all(&[0xa5; 4096])?;
        }
        self.end_what_is_open()
    }

    fn is_drained(&self) -> Result<bool> {
        let mut shelf = self.shelf.lock();
        let (_, newest, acknowledged) = shelf.names()?;
        let sent = shelf.evidence_sent.clone();
        let (_, reader) = shelf.open()?;
        let pictures = self.life.options.evidence
            && reader.incident_after(&sent)?.is_some_and(|row| row.phase == Phase::End);
        Ok(newest == acknowledged && !pictures)
    }

    fn rest(&mut self) {
        self.uplink = None;
        self.shelf.lock().close();
    }
}
