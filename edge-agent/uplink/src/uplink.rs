//! One exchange after another with the server.

use crate::{
    Answer, Attached, Backoff, Carried, Failure, Had, Part, Plan, Sender, Server, Waiting, batch,
    budget::Budget, carried,
};
use event_log::{EventId, EventRow, Level, Outgoing, Phase};
use std::time::Duration;

/// Where events come from, and where what became of them is remembered.
pub trait Outbox {
    /// What went wrong in it.
    type Error;

    /// What waits after seq `after`: at most `limit` changes, and at most `limit` alerts.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn waiting(&mut self, after: u64, limit: usize) -> Result<Waiting, Self::Error>;

    /// The event as it stands; `None` if it is gone.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, Self::Error>;

    /// The server has everything up to `seq`.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn acknowledge(&mut self, seq: u64) -> Result<(), Self::Error>;

    /// The server will never have these seqs, both ends included: nothing waits for them any more, and
    /// an event says so to people and to the server.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn give_up(&mut self, seqs: (u64, u64), why: &str) -> Result<(), Self::Error>;

    /// Something about the line that a person should know.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn notice(&mut self, notice: Notice) -> Result<(), Self::Error>;

    /// The oldest event whose evidence was not sent yet.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn unsent_evidence(&mut self) -> Result<Option<EventRow>, Self::Error>;

    /// The pictures of an event's evidence, JPEG; those that are gone are missing.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn pictures(&mut self, event: &EventRow) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// The evidence of this event, and of all before it, was sent.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn evidence_sent(&mut self, event: &EventId) -> Result<(), Self::Error>;
}

/// Something about the line that a person should know; each is told once until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing gets through for long.
    Down(Failure),
    /// It does again.
    Up,
    /// The server answers what cannot be.
    Lying {
        /// What it says it has.
        says: u64,
        /// The newest seq that there is.
        newest: u64,
    },
    /// Evidence is not taken for long, though events are.
    EvidenceWaits(Failure),
}

/// How the line is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most events of a batch.
    pub batch: usize,
    /// Most bytes of a batch.
    pub batch_bytes: usize,
    /// Bytes of a piece of evidence: what an interruption costs at most.
    pub part_bytes: usize,
    /// Bytes that may go over the line in an hour; alerts go all the same.
    pub bytes_per_hour: Option<u64>,
    /// Whether pictures are sent.
    pub evidence: bool,
    /// Between two looks into an empty outbox.
    pub poll: Duration,
    /// The first wait after a failure is at most so long.
    pub backoff: Duration,
    /// No wait is longer.
    pub backoff_cap: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch: 200,
            batch_bytes: 1 << 20,
            part_bytes: 256 << 10,
            bytes_per_hour: None,
            evidence: true,
            poll: Duration::from_secs(2),
            backoff: Duration::from_secs(2),
            backoff_cap: Duration::from_secs(300),
        }
    }
}

/// What the uplink has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the last exchange went well; none before the first.
    pub up: Option<bool>,
    /// Changes delivered, those included that were sent again.
    pub events: u64,
    /// Bytes of batches.
    pub event_bytes: u64,
    /// Bytes of evidence.
    pub evidence_bytes: u64,
    /// Exchanges that failed.
    pub failures: u64,
    /// The highest seq that the server has acknowledged.
    pub acknowledged: u64,
    /// The newest seq that there is, when it was last looked up.
    pub newest: u64,
}

/// After so many failures in a row people are told that the line is down.
const FAILURES_UNTIL_TOLD: u32 = 5;
/// So often a single event is offered to a server that refuses it.
const OFFERS: u32 = 12;

/// Sends what waits.
pub struct Uplink<S, O> {
    sender: Sender,
    server: S,
    outbox: O,
    options: Options,
    plan: Plan,
    backoff: Backoff,
    budget: Budget,
    status: Status,
    told_down: bool,
    told_lying: bool,
    /// Events of a batch: fewer after a batch was refused, to find the one that is.
    batch: usize,
    /// How often the first of a batch of one was refused.
    refusals: u32,
    /// The evidence in hand.
    sending: Option<Sending>,
    /// When evidence is offered again, after the server did not take some: it may have no room for
    /// pictures, or have had enough of this device's, and events must not wait for that.
    evidence_from: Duration,
    evidence_backoff: Backoff,
}

/// The evidence of one event on its way.
struct Sending {
    event: EventId,
    objects: Vec<Object>,
}

struct Object {
    hash: String,
    media_type: &'static str,
    bytes: Vec<u8>,
    /// What the server has of it; not known before it was asked.
    had: Option<u64>,
}

impl<S: Server, O: Outbox> Uplink<S, O> {
    /// An uplink of the log that `sender` names, whose server had acknowledged everything up to
    /// `acknowledged`. `now` is any clock that does not run backwards.
    pub fn new(
        sender: Sender,
        server: S,
        outbox: O,
        options: Options,
        acknowledged: u64,
        now: Duration,
    ) -> Self {
        Self {
            sender,
            server,
            outbox,
            plan: Plan::new(acknowledged),
            backoff: Backoff::new(options.backoff, options.backoff_cap),
            budget: Budget::new(options.bytes_per_hour, now),
            status: Status { acknowledged, ..Status::default() },
            told_down: false,
            told_lying: false,
            batch: options.batch,
            refusals: 0,
            sending: None,
            evidence_from: Duration::ZERO,
            evidence_backoff: Backoff::new(options.backoff, options.backoff_cap),
            options,
        }
    }

    /// What was done so far.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// One exchange, if there is something to send; returns how long to wait before the next. `dice`
    /// is drawn evenly from 0 to 1.
    ///
    /// # Errors
    /// If the outbox cannot be read or written. The server's failures are waited out.
    pub fn step(&mut self, now: Duration, dice: f64) -> Result<Duration, O::Error> {
        let waiting = self.outbox.waiting(self.plan.cursor(), self.options.batch)?;
        self.status.newest = waiting.newest;
        let chosen: Vec<Outgoing> =
            self.plan.next(&waiting, self.batch).into_iter().cloned().collect();
        let exchanged = if chosen.is_empty() {
            let before = self.plan.cursor();
            let (plan, acknowledged) = std::mem::take(&mut self.plan).settled(&waiting);
            self.plan = plan;
            self.acknowledge(acknowledged)?;
            if self.plan.cursor() > before {
                // All that was read had overtaken already: what comes after it was not read yet.
                return Ok(Duration::ZERO);
            }
            self.send_evidence(now, dice)?
        } else {
            self.send_events(&waiting, &chosen, now)?
        };
        match exchanged {
            Ok(wait) => Ok(wait),
            Err(failure) => self.failed(failure, dice),
        }
    }

    /// Sends `chosen`, or as many of them as fit into a batch.
    fn send_events(
        &mut self,
        waiting: &Waiting,
        chosen: &[Outgoing],
        now: Duration,
    ) -> Result<Result<Duration, Failure>, O::Error> {
        let (mut seqs, mut events): (Vec<u64>, Vec<Carried>) = (vec![], vec![]);
        for change in chosen {
            // What was dropped in between is told of by another event.
            let Some(row) = self.outbox.event(&change.event)? else { continue };
            events.push(carried(&self.sender, change, &row));
            seqs.push(change.seq);
        }
        if events.is_empty() {
            return Ok(Ok(self.options.poll));
        }
        let (body, count) = batch(&events, self.options.batch_bytes);
        let urgent = chosen.iter().any(|o| o.level == Level::Alert);
        let wait = self.budget.wait(body.len(), now);
        if !urgent && !wait.is_zero() {
            return Ok(Ok(wait));
        }
        let sent = &seqs[..count];
        self.budget.spent(body.len());
        self.status.event_bytes += body.len() as u64;
        let committed = match self.server.deliver(&self.sender.epoch, &body) {
            Ok(committed) => committed,
            Err(failure) => return self.refused(sent, failure).map(Err),
        };
        self.status.events += count as u64;
        let (plan, answer) = std::mem::take(&mut self.plan).answered(sent, committed, waiting);
        self.plan = plan;
        match answer {
            Answer::NeverSent { says, newest } => {
                if !std::mem::replace(&mut self.told_lying, true) {
                    self.outbox.notice(Notice::Lying { says, newest })?;
                }
                let why = format!("it says it has change {says}, and {newest} is the newest");
                let server = self.server.name().to_owned();
                return Ok(Err(Failure::Nonsense { server, why }));
            }
            Answer::Lost { says, had } => {
                let why = format!("the server lost what it had: it has nothing beyond {says} now");
                self.outbox.give_up((says + 1, had), &why)?;
            }
            Answer::Acknowledged(seq) => self.acknowledge(seq)?,
        }
        self.batch = self.options.batch;
        self.refusals = 0;
        self.went_well()?;
        Ok(Ok(Duration::ZERO))
    }

    /// After a batch was refused for what is in it: the next one is smaller, and what is refused by
    /// itself again and again is given up, or it would hold up all that comes after it.
    fn refused(&mut self, sent: &[u64], failure: Failure) -> Result<Failure, O::Error> {
        if let Failure::Refused { status: 400 | 413 | 415 | 422, why, .. } = &failure {
            if sent.len() > 1 {
                self.batch = (sent.len() / 2).max(1);
            } else {
                self.refusals += 1;
                if self.refusals >= OFFERS {
                    self.refusals = 0;
                    self.batch = self.options.batch;
                    let seq = sent[0];
                    self.outbox.give_up((seq, seq), &format!("the server refuses it: {why}"))?;
                }
            }
        }
        Ok(failure)
    }

    /// Sends a piece of evidence, or asks what the server has of it.
    fn send_evidence(
        &mut self,
        now: Duration,
        dice: f64,
    ) -> Result<Result<Duration, Failure>, O::Error> {
        if !self.options.evidence || now < self.evidence_from {
            return Ok(Ok(self.options.poll));
        }
        if self.sending.is_none() {
            let Some(row) = self.outbox.unsent_evidence()? else {
                return Ok(Ok(self.options.poll));
            };
            let pictures = self.outbox.pictures(&row)?;
            self.sending =
                Some(Sending { objects: objects(&self.sender, &row, pictures), event: row.id });
        }
        let Some(sending) = &mut self.sending else { return Ok(Ok(self.options.poll)) };
        let Some(object) = sending.objects.last_mut() else {
            self.outbox.evidence_sent(&sending.event)?;
            self.sending = None;
            return Ok(Ok(Duration::ZERO));
        };
        let total = object.bytes.len() as u64;
        let answer = match object.had {
            None => self.server.evidence(&object.hash),
            Some(offset) => {
                let rest = &object.bytes[offset.min(total) as usize..];
                let bytes = &rest[..rest.len().min(self.options.part_bytes)];
                let wait = self.budget.wait(bytes.len(), now);
                if !wait.is_zero() {
                    // Not all of it: an event may come meanwhile.
                    return Ok(Ok(wait.min(self.options.poll)));
                }
                self.budget.spent(bytes.len());
                self.status.evidence_bytes += bytes.len() as u64;
                let (hash, media_type) = (&object.hash[..], object.media_type);
                self.server.append(&Part { hash, media_type, offset, total, bytes })
            }
        };
        match answer {
            Ok(Had::Whole) => drop(sending.objects.pop()),
            Ok(Had::Bytes(bytes)) if bytes <= total => object.had = Some(bytes),
            // It has another object under this hash, or none that is right: begin anew.
            Ok(Had::Bytes(_)) | Err(Failure::Refused { status: 422, .. }) => object.had = Some(0),
            // It does not want this one, whatever we do; the events are what counts.
            Err(Failure::Refused { status: 400 | 413 | 415, .. }) => drop(sending.objects.pop()),
            Err(failure @ Failure::Unreachable { .. }) => return Ok(Err(failure)),
            Err(failure) => return self.evidence_failed(failure, now, dice).map(Ok),
        }
        self.evidence_backoff.succeeded();
        self.went_well()?;
        Ok(Ok(Duration::ZERO))
    }

    /// The server answered, and did not take evidence: it is offered again later, alone.
    fn evidence_failed(
        &mut self,
        failure: Failure,
        now: Duration,
        dice: f64,
    ) -> Result<Duration, O::Error> {
        self.status.failures += 1;
        self.evidence_from = now + self.evidence_backoff.failed(dice, failure.retry_after());
        if self.evidence_backoff.failures() == FAILURES_UNTIL_TOLD {
            self.outbox.notice(Notice::EvidenceWaits(failure))?;
        }
        Ok(self.options.poll)
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), O::Error> {
        if seq > self.status.acknowledged {
            self.outbox.acknowledge(seq)?;
            self.status.acknowledged = seq;
        }
        Ok(())
    }

    fn went_well(&mut self) -> Result<(), O::Error> {
        self.backoff.succeeded();
        self.status.up = Some(true);
        match std::mem::take(&mut self.told_down) {
            true => self.outbox.notice(Notice::Up),
            false => Ok(()),
        }
    }

    fn failed(&mut self, failure: Failure, dice: f64) -> Result<Duration, O::Error> {
        self.status.failures += 1;
        self.status.up = Some(false);
        let wait = self.backoff.failed(dice, failure.retry_after());
        if self.backoff.failures() >= FAILURES_UNTIL_TOLD && !self.told_down {
            self.told_down = true;
            self.outbox.notice(Notice::Down(failure))?;
        }
        Ok(wait)
    }
}

/// What an event refers to by hash: its pictures, and itself if it did not fit into a batch. The last
/// goes first.
fn objects(sender: &Sender, row: &EventRow, pictures: Vec<Vec<u8>>) -> Vec<Object> {
    let change =
        Outgoing { seq: row.seq, event: row.id.clone(), phase: Phase::End, level: row.level };
    let object = |media_type, hash, bytes| Object { hash, media_type, bytes, had: None };
    let picture =
        |bytes: Vec<u8>| object("image/jpeg", blake3::hash(&bytes).to_hex().to_string(), bytes);
    let whole = carried(sender, &change, row).attached;
    let whole = whole.map(|Attached { hash, bytes }| object("application/json", hash, bytes));
    let mut objects: Vec<Object> = pictures.into_iter().map(picture).chain(whole).collect();
    objects.reverse();
    objects
}
