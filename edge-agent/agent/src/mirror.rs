//! The mirror beside the path of a frame: an MQTT broker is told what was committed.

use crate::{
    conclude::{Conclusion, Trouble},
    config::Config,
    line::{Delivered, Dice, FAREWELL, GLANCE, LOG_TRIED_EVERY},
    meters::Meters,
    parts,
};
use anyhow::Result;
use crossbeam_channel::Sender;
use event_log::{EventId, EventRow, LogError, LogReader};
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use uplink::{Greeting, Journal, Message, Mirror, MirrorStatus, Mqtt, Remark, Told, Topics};

/// Where the log remembers what the broker was told.
pub const MIRRORED: &str = "mqtt mirror";

/// A device with a broker, and its log.
pub struct Mirroring {
    broker: Mqtt,
    url: String,
    topics: Topics,
    greeting: Greeting,
    log: LogReader,
    told: Told,
}

impl Mirroring {
    /// The mirror of this configuration, if it names a broker; its log is there already. What was
    /// recorded before there was a mirror is not told.
    ///
    /// # Errors
    /// If a file of the `[mqtt]` section cannot be used, or the log not be read.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        if !config.mqtt.is_on() {
            return Ok(None);
        }
        let topics = Topics::new(&config.mqtt.prefix, &config.device.name);
        let will = Message { topic: topics.available(), payload: b"offline".into(), retain: true };
        let broker = Mqtt::new(&config.mqtt.access(), &topics.client_id(), Some(will))?;
        let log = LogReader::open(&parts::log_path(&config.device.data_dir))?;
        let told = log.state_get(MIRRORED)?.and_then(|told| serde_json::from_str(&told).ok());
        let told = match told {
            Some(told) => told,
            None => Told { seq: log.names()?.1, ..Told::default() },
        };
        let greeting = Greeting {
            device: config.device.name.clone(),
            cameras: config.cameras.iter().map(|camera| camera.name.clone()).collect(),
            discovery: config.mqtt.discovery(),
        };
        let url = config.mqtt.broker.clone();
        Ok(Some(Self { broker, url, topics, greeting, log, told }))
    }

    /// Whom it tells.
    pub fn describe(&self) -> String {
        format!("{} as {}", self.url, self.topics.client_id())
    }
}

/// Tells until the watch is `over`, and a little longer.
pub fn mirror(
    mirroring: Mirroring,
    report: &Sender<Conclusion>,
    meters: &Meters,
    over: &AtomicBool,
) {
    let Mirroring { broker, url, topics, greeting, log, told } = mirroring;
    let mut journal = Kept { log, report, url };
    // From here on everything counts, also if the broker is away until the next start.
    let _ = journal.remember(&told);
    let mut mirror = Mirror::new(broker, journal, topics, greeting, told);
    let mut dice = Dice::new();
    while !over.load(Ordering::Relaxed) {
        let wait = mirror.step(dice.next()).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is to be told to the broker cannot be read");
            LOG_TRIED_EVERY
        });
        meters.mqtt(mirror.status());
        let begun = Instant::now();
        while !over.load(Ordering::Relaxed)
            && let Some(left) = wait.checked_sub(begun.elapsed())
            && !left.is_zero()
            && mirror.is_whole()
        {
            mirror.rest(left.min(GLANCE));
        }
    }
    let parted = Instant::now();
    // A broker that has failed already is not waited for.
    let hopeful = |status: &MirrorStatus| status.connected || status.failures == 0;
    while parted.elapsed() < FAREWELL && hopeful(&mirror.status()) {
        // Zero: there may be more. Any other wait: nothing is left, or the broker is away.
        match mirror.step(dice.next()) {
            Ok(Duration::ZERO) => {}
            Ok(_) => break,
            Err(error) => {
                tracing::warn!(%error, "what is to be told to the broker cannot be read");
                break;
            }
        }
    }
    let status = mirror.close();
    let (messages, failures) = (status.messages, status.failures);
    tracing::info!(messages, failures, "told to the broker");
    meters.mqtt(status);
}

/// The log as it is read here, and written by the thread that owns it.
struct Kept<'a> {
    log: LogReader,
    report: &'a Sender<Conclusion>,
    url: String,
}

impl Journal for Kept<'_> {
    type Error = LogError;

    fn newest(&mut self) -> Result<u64, LogError> {
        Ok(self.log.names()?.1)
    }

    fn floor(&mut self, newest: u64) -> Result<u64, LogError> {
        self.log.floor(newest)
    }

    fn changed_after(&mut self, after: u64, floor: u64) -> Result<Option<EventRow>, LogError> {
        self.log.changed_after(after, floor)
    }

    fn over_between(&mut self, after: u64, until: u64) -> Result<u64, LogError> {
        self.log.over_between(after, until)
    }

    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, LogError> {
        self.log.event(id.as_str())
    }

    fn remember(&mut self, told: &Told) -> Result<(), LogError> {
        let told = serde_json::to_string(told).unwrap_or_default();
        // Where nobody takes it any more, it is told again after the next start.
        let _ = self.report.send(Conclusion::Delivered(Delivered::Mirrored(told)));
        Ok(())
    }

    fn notice(&mut self, remark: Remark) -> Result<(), LogError> {
        let url = &self.url;
        let (sentence, state) = match remark {
            Remark::Down(error) => (format!("{error}; events wait in the log meanwhile"), "down"),
            Remark::Up => (format!("the MQTT broker {url} is told of events again"), "up"),
            Remark::PassedOver(events) => (
                format!(
                    "the MQTT broker {url} was away for so long that {events} events were not told \
                     there: the log has them (`lookback events`)"
                ),
                "passed-over",
            ),
            Remark::Undiscovered(error) => {
                (format!("Home Assistant is not told of this device: {error}"), "undiscovered")
            }
        };
        let fields = json!({"broker": url, "state": state});
        let trouble = Trouble::Board { kind: "mqtt", sentence, fields };
        let _ = self.report.send(Conclusion::Trouble(trouble));
        Ok(())
    }
}
