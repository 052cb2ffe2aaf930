//! The mirror: what was committed is told to an MQTT broker too, for home automation and video systems.
//!
//! It is never the system of record. It reads the log on its own, behind a cursor of its own
//! ([`Told`]), and holds nobody up. An incident is told as `new`, then as `update` while it goes on,
//! then as `end`, in that order; the cursor moves when the broker has acknowledged what was told.
//! After a long absence it tells the newest [`REPEATED_MAX`] events and whatever is not over, and says
//! how many it passed over.

mod broker;
mod discovery;
mod message;
mod plan;
mod topic;

pub use broker::{Access, BrokerAddress, BrokerError, Mqtt};
pub use message::Message;
pub use plan::{Change, Told};
pub use topic::{Topics, prefix_problem};

use crate::Backoff;
use event_log::{EventId, EventRow};
use std::{collections::BTreeSet, time::Duration};

/// So many of the newest events are told after an absence: about a busy day of a camera. Beyond it
/// nobody would read them one by one, and the log has them all.
pub const REPEATED_MAX: u64 = 200;

/// Between two looks for something new: what a person takes for at once.
const POLL: Duration = Duration::from_millis(250);
/// The first wait after a failure is at most so long, and none is longer than the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// After so many failures in a row people are told; at once, if waiting will not help.
const FAILURES_UNTIL_TOLD: u32 = 3;
/// Two clients of one name throw each other out: whoever comes back slowly spares the broker.
const AFTER_TAKEN_OVER: Duration = Duration::from_secs(30);

/// A connection that breaks sooner was broken on purpose, if that happens [`SHORT_LIVED_MAX`] times in a
/// row: brokers throw out the older of two clients of one name, and not all of them say why.
const LIVED: Duration = Duration::from_secs(30);
const SHORT_LIVED_MAX: u32 = 3;

/// An MQTT broker.
pub trait Broker {
    /// Whether there is a connection, as far as is known.
    fn is_connected(&self) -> bool;

    /// Connects anew.
    ///
    /// # Errors
    /// [`BrokerError`]
    fn connect(&mut self) -> Result<(), BrokerError>;

    /// Publishes messages in this order; returns once the broker has acknowledged them all.
    ///
    /// # Errors
    /// [`BrokerError`]; some of them may have arrived all the same.
    fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError>;

    /// Keeps the connection alive for so long.
    ///
    /// # Errors
    /// [`BrokerError`] if it broke.
    fn rest(&mut self, wait: Duration) -> Result<(), BrokerError>;

    /// Says goodbye, so that the last will is not told.
    fn close(&mut self);
}

/// Where events come from, and where what was told is remembered.
pub trait Journal {
    /// What went wrong in it.
    type Error;

    /// The newest seq that there is.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn newest(&mut self) -> Result<u64, Self::Error>;

    /// The seq up to which all events reach but the `newest` that changed last.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn floor(&mut self, newest: u64) -> Result<u64, Self::Error>;

    /// The event that changed next after seq `after`; up to `floor` only an incident that is not over.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn changed_after(&mut self, after: u64, floor: u64) -> Result<Option<EventRow>, Self::Error>;

    /// How many events that are over changed last after seq `after`, up to `until`.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn over_between(&mut self, after: u64, until: u64) -> Result<u64, Self::Error>;

    /// The event as it stands; `None` if it is gone.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, Self::Error>;

    /// The broker has acknowledged this much.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn remember(&mut self, told: &Told) -> Result<(), Self::Error>;

    /// Something about the mirror that a person should know.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn notice(&mut self, notice: Remark) -> Result<(), Self::Error>;
}

/// Something about the mirror that a person should know; each is told once until it is over.
#[derive(Debug)]
pub enum Remark {
    /// Nothing gets through.
    Down(BrokerError),
    /// It does again.
    Up,
    /// So many events were not told, since they were too old when the broker came back.
    PassedOver(u64),
    /// The broker takes events, and no word to Home Assistant.
    Undiscovered(BrokerError),
}

/// What the mirror has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Whether there is a connection.
    pub connected: bool,
    /// Messages that were acknowledged.
    pub messages: u64,
    /// Connections that failed or broke.
    pub failures: u64,
}

/// What is told beside events, whenever a connection is made.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// What people call the device.
    pub device: String,
    /// Its cameras.
    pub cameras: Vec<String>,
    /// Where Home Assistant looks for devices; `None`: it is told of none.
    pub discovery: Option<String>,
}

/// Tells what is committed.
pub struct Mirror<B, J> {
    broker: B,
    journal: J,
    topics: Topics,
    greeting: Greeting,
    told: Told,
    backoff: Backoff,
    status: MirrorStatus,
    /// Of the connection that broke while nothing was to be told.
    broke: Option<BrokerError>,
    /// How long the connection has lived, as far as it was rested on; `None`: there was none.
    lived: Option<Duration>,
    /// Connections in a row that broke soon.
    short_lived: u32,
    told_down: bool,
    told_undiscovered: bool,
    told_taken_over: bool,
}

impl<B: Broker, J: Journal> Mirror<B, J> {
    /// A mirror whose broker has acknowledged what `told` says.
    pub fn new(broker: B, journal: J, topics: Topics, greeting: Greeting, told: Told) -> Self {
        Self {
            broker,
            journal,
            topics,
            greeting,
            told,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            status: MirrorStatus::default(),
            broke: None,
            lived: None,
            short_lived: 0,
            told_down: false,
            told_undiscovered: false,
            told_taken_over: false,
        }
    }

    /// What was done so far.
    pub fn status(&self) -> MirrorStatus {
        MirrorStatus { connected: self.broker.is_connected(), ..self.status.clone() }
    }

    /// One exchange, if there is something to tell; returns how long to [`rest`](Self::rest) before
    /// the next. `dice` is drawn evenly from 0 to 1.
    ///
    /// # Errors
    /// If the journal cannot be read or written. The broker's failures are waited out.
    pub fn step(&mut self, dice: f64) -> Result<Duration, J::Error> {
        let exchanged = match self.broke.take() {
            Some(error) => Err(error),
            None => self.exchange()?,
        };
        match exchanged {
            Ok(wait) => {
                self.backoff.succeeded();
                if std::mem::take(&mut self.told_down) {
                    self.journal.notice(Remark::Up)?;
                }
                Ok(wait)
            }
            Err(error) => self.failed(error, dice),
        }
    }

    /// Whether resting makes sense: `false` after the connection broke, which [`step`](Self::step) takes
    /// care of.
    pub fn is_whole(&self) -> bool {
        self.broke.is_none()
    }

    /// Keeps the connection alive for so long, or waits if there is none.
    pub fn rest(&mut self, wait: Duration) {
        if !self.broker.is_connected() {
            std::thread::sleep(wait);
            return;
        }
        match self.broker.rest(wait) {
            Ok(()) => self.lived = self.lived.map(|lived| lived + wait),
            Err(error) => self.broke = Some(error),
        }
    }

    /// Says that the device is away, and goodbye.
    pub fn close(mut self) -> MirrorStatus {
        if self.broker.is_connected() {
            let away = message::available(&self.topics, false);
            if let Err(error) = self.broker.publish(&[away]) {
                // Then its last will says so.
                tracing::debug!(%error, "the broker was not told that this device goes");
                return self.status();
            }
            self.broker.close();
        }
        self.status()
    }

    fn exchange(&mut self) -> Result<Result<Duration, BrokerError>, J::Error> {
        if !self.broker.is_connected() {
            let told = self.told.clone().with_cameras(&self.greeting.cameras);
            if told != self.told {
                // Before it is told, so that a power cut between the two forgets no camera.
                self.journal.remember(&told)?;
                self.told = told;
            }
            match self.greet() {
                Ok(None) => {}
                Ok(Some(refused)) => {
                    if !std::mem::replace(&mut self.told_undiscovered, true) {
                        self.journal.notice(Remark::Undiscovered(refused))?;
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
        let newest = self.journal.newest()?;
        if newest <= self.told.seq {
            if self.told.passed_over > 0 {
                self.journal.notice(Remark::PassedOver(self.told.passed_over))?;
                self.told.passed_over = 0;
                self.journal.remember(&self.told)?;
            }
            return Ok(Ok(POLL));
        }
        let mut announced = vec![];
        for id in self.told.open.keys().cloned().collect::<Vec<_>>() {
            match self.journal.event(&id)? {
                None => return self.end_unseen(&id),
                Some(row) => announced.push(row),
            }
        }
        let floor = self.journal.floor(REPEATED_MAX)?;
        let kept = self.journal.changed_after(self.told.seq, floor)?;
        let Some(row) = plan::next(&self.told, announced.into_iter().chain(kept)) else {
            // What there was is gone from the log, or was passed over.
            self.pass_over(floor)?;
            self.told.seq = self.told.seq.max(newest);
            self.journal.remember(&self.told)?;
            return Ok(Ok(Duration::ZERO));
        };
        self.pass_over(floor.min(row.seq - 1))?;
        self.tell(&row)
    }

    /// Connects, and tells that the device is there, what Home Assistant wants to know of it, and of each camera
    /// whether an incident goes on. Returns the error if only Home Assistant's part was refused.
    fn greet(&mut self) -> Result<Option<BrokerError>, BrokerError> {
        self.broker.connect()?;
        self.lived = Some(Duration::ZERO);
        let Greeting { device, cameras, discovery } = &self.greeting;
        let mut refused = None;
        if let Some(prefix) = discovery {
            let departed = &self.told.departed;
            let config = discovery::config(&self.topics, prefix, device, cameras, departed);
            match self.broker.publish(&[config]) {
                Err(error @ BrokerError::Forbidden { .. }) => refused = Some(error),
                other => other?,
            }
        }
        let busy: BTreeSet<&String> = self.told.open.values().collect();
        let all: BTreeSet<&String> = cameras.iter().chain(busy.iter().copied()).collect();
        let states = all.iter().map(|c| message::state(&self.topics, c, busy.contains(c)));
        let departed = self.told.departed.iter().filter(|camera| !all.contains(camera));
        let nothing = departed.flat_map(|camera| message::nothing(&self.topics, camera));
        // Last: what a subscriber is told to be there shall be there.
        let greeting: Vec<Message> =
            states.chain(nothing).chain([message::available(&self.topics, true)]).collect();
        self.broker.publish(&greeting)?;
        self.status.messages += greeting.len() as u64 + u64::from(discovery.is_some());
        Ok(refused)
    }

    /// Tells what is still to be told of `row`, one phase after the other.
    fn tell(&mut self, row: &EventRow) -> Result<Result<Duration, BrokerError>, J::Error> {
        let change = Change::of(row);
        for phase in self.told.missing(&change) {
            let after = self.told.clone().after(&change, phase);
            let busy = change.camera.as_deref().is_some_and(|camera| after.is_busy(camera));
            let device = &self.greeting.device;
            let messages = message::change(&self.topics, device, row, phase, busy);
            if let Err(error) = self.publish(&messages) {
                return Ok(Err(error));
            }
            self.told = after;
            self.journal.remember(&self.told)?;
        }
        Ok(Ok(Duration::ZERO))
    }

    /// Ends an incident that the log no longer has: whoever was told that it goes on must hear more.
    fn end_unseen(&mut self, id: &EventId) -> Result<Result<Duration, BrokerError>, J::Error> {
        let mut after = self.told.clone();
        let camera = after.open.remove(id).unwrap_or_default();
        let busy = after.is_busy(&camera);
        let messages = message::gone(&self.topics, &self.greeting.device, id, &camera, busy);
        if let Err(error) = self.publish(&messages) {
            return Ok(Err(error));
        }
        self.told = after;
        self.journal.remember(&self.told)?;
        Ok(Ok(Duration::ZERO))
    }

    /// Passes over what is over and changed last up to `seq`: there is newer to tell.
    fn pass_over(&mut self, seq: u64) -> Result<(), J::Error> {
        if seq > self.told.seq {
            self.told.passed_over += self.journal.over_between(self.told.seq, seq)?;
            self.told.seq = seq;
        }
        Ok(())
    }

    fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        self.broker.publish(messages)?;
        self.status.messages += messages.len() as u64;
        Ok(())
    }

    /// What an error means, after those before it.
    fn understood(&mut self, error: BrokerError) -> BrokerError {
        let Some(lived) = self.lived.take() else { return error };
        self.short_lived = if lived < LIVED { self.short_lived + 1 } else { 0 };
        match error {
            BrokerError::Broke { broker, .. } if self.short_lived >= SHORT_LIVED_MAX => {
                BrokerError::TakenOver { broker, client: self.topics.client_id() }
            }
            other => other,
        }
    }

    fn failed(&mut self, error: BrokerError, dice: f64) -> Result<Duration, J::Error> {
        self.status.failures += 1;
        let error = self.understood(error);
        let taken_over = matches!(error, BrokerError::TakenOver { .. });
        let wait = self.backoff.failed(dice, taken_over.then_some(AFTER_TAKEN_OVER));
        let due = error.is_lasting() || self.backoff.failures() >= FAILURES_UNTIL_TOLD;
        // Between two that throw each other out every exchange succeeds: that is no news.
        let again = taken_over && std::mem::replace(&mut self.told_taken_over, true);
        if due && !again && !std::mem::replace(&mut self.told_down, !taken_over) {
            self.journal.notice(Remark::Down(error))?;
        } else {
            tracing::debug!(%error, "the broker");
        }
        Ok(wait)
    }
}
