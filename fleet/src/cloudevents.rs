//! What a batch of CloudEvents says: pure, from bytes to typed changes of events.
//!
//! Strict in what the contract names; attributes and keys that it does not name are left alone. The
//! character U+0000, which PostgreSQL cannot hold, becomes U+FFFD in every text: refusing it would make
//! a camera send the same batch for ever.

mod elements;
#[cfg(test)]
mod tests;

use crate::ids::{ContentHash, DeviceId, Epoch, EventId};
use crate::ledger::SEQ_MAX;
use crate::moment::Moment;
use release::{WAVES_MAX, is_label};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::fmt;

/// The media type of a batch.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";
/// The most bytes in a batch.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// The most events in a batch.
pub const BATCH_EVENTS_MAX: usize = 1000;
/// The most bytes in one event, as sent.
pub const EVENT_BYTES_MAX: usize = 64 << 10;
/// The label of a health event whose `fields.seqs` will never be sent.
const EVENTS_DROPPED: &str = "events dropped";
/// The labels of health events that tell where the update of a device's policy, or of its system, stands.
const UPDATES: [&str; 2] = ["policy", "system"];
/// The longest id of a bundle, and the longest reason, in bytes; more of a reason is cut off.
const BUNDLE_MAX: usize = 200;
const WHY_MAX: usize = 500;
/// The most stretches that one drop event may name: as many as fit into [`EVENT_BYTES_MAX`].
const DROPPED_SPANS_MAX: usize = 16_384;

/// Changes of events: of one epoch, in ascending seq.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Their epoch.
    pub epoch: Epoch,
    /// At least one.
    pub changes: Vec<Change>,
}

/// One change of an event, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its number within the epoch, from 1.
    pub seq: u64,
    /// The event that changed.
    pub event: EventId,
    /// Incident or health.
    pub kind: Kind,
    /// What the change brought it to.
    pub phase: Phase,
    /// How much it asks of people.
    pub level: Level,
    /// The camera's name; incidents only.
    pub camera: Option<String>,
    /// What it is, in a word or two.
    pub label: String,
    /// How probable, 0 to 1.
    pub score: Option<f32>,
    /// What happened.
    pub sentence: String,
    /// When it began.
    pub start: Moment,
    /// When it ended, or what is known of it so far.
    pub end: Moment,
    /// How far those can be trusted.
    pub clock: Clock,
    /// When the camera recorded it.
    pub recorded: Moment,
    /// The event as the camera prints it.
    pub data: Data,
    /// The larger object that holds what `data` lacks.
    pub dataref: Option<ContentHash>,
    /// Stretches of seqs, both ends included, that will never be sent.
    pub dropped: Vec<(u64, u64)>,
    /// Where an update of the device's policy stands, if it tells of one.
    pub policy: Option<PolicyStep>,
}

/// Where a device stands with what a channel offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// The channel.
    pub channel: String,
    /// The channel's number.
    pub number: i64,
    /// The policy, `name@version+hash`.
    pub bundle: String,
    /// The wave that the device is in, from 1; 0 if it does not say.
    pub wave: i32,
    /// How far it is.
    pub stage: Stage,
    /// Why it was not kept.
    pub why: Option<String>,
}

/// JSON as its text: as a tree, a batch of zeros would be thirty times as large.
#[derive(Clone, Debug, Serialize)]
pub struct Data(Box<RawValue>);

impl Data {
    /// The text of `value`.
    ///
    /// # Errors
    /// None that is known: a value that was parsed can be written.
    pub fn of(value: &Value) -> serde_json::Result<Self> {
        to_raw_value(value).map(Self)
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// Makes an enum whose variants have one name on the wire, in the database and on the page.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type { $($(#[$vdoc])* $variant),+ }

        impl $type {
            /// Every word there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Every word, for a sentence.
            pub const EXPECTED: &'static str = concat!("one of", $(" ", $word),+);

            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The one of this word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words!(
    /// How far an update is.
    Stage {
        /// It waits, since its rollout was halted.
        Idle = "Idle",
        /// Its files are coming.
        Fetching = "Fetching",
        /// They are there.
        Verified = "Verified",
        /// They are a bundle.
        Staged = "Staged",
        /// It is tried.
        Trial = "Trial",
        /// It is the device's policy.
        Committed = "Committed",
        /// It is not.
        RolledBack = "RolledBack",
    }
);
words!(
    /// What an event is about.
    Kind {
        /// Something that a camera saw.
        Incident = "incident",
        /// Something that happened to the device.
        Health = "health",
    }
);
words!(
    /// Where an event stands.
    Phase {
        /// It has begun.
        New = "new",
        /// It goes on.
        Update = "update",
        /// It is over.
        End = "end",
    }
);
words!(
    /// How much an event asks of people, ascending.
    Level {
        /// Nothing.
        Info = "info",
        /// To be looked at some time.
        Notice = "notice",
        /// To be looked at now.
        Alert = "alert",
    }
);
words!(
    /// How far a device's wall clock can be trusted.
    Clock {
        /// It was never set.
        Unsynced = "unsynced",
        /// It follows a time server.
        Ntp = "ntp",
    }
);

/// Why a batch is refused. Nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no array, or too short or long.
    #[error("the body is not a JSON array of 1 to {BATCH_EVENTS_MAX} CloudEvents: {0}")]
    NoBatch(String),
    /// One event breaks the contract.
    #[error("event {index}: {key} is {found}, it must be {expected}")]
    Key {
        /// Which event, counted from 0.
        index: usize,
        /// Such as `data.label`.
        key: String,
        /// What was sent, shortened.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// One event is no JSON.
    #[error("event {index}: this is not JSON: {reason}")]
    Syntax {
        /// Which event, counted from 0.
        index: usize,
        /// What the parser found.
        reason: String,
    },
    /// One event is too large.
    #[error(
        "event {index} has {bytes} bytes, at most {EVENT_BYTES_MAX} are taken: leave the trajectory out \
         and upload it as evidence named by dataref"
    )]
    EventTooLarge {
        /// Which event, counted from 0.
        index: usize,
        /// How many it has.
        bytes: usize,
    },
    /// One event is of another device.
    #[error(
        "event {index}: source is {found}, the certificate is that of device {device}: send its own \
         events only"
    )]
    ForeignSource {
        /// Which event, counted from 0.
        index: usize,
        /// What was sent, shortened.
        found: String,
        /// The device of the certificate.
        device: DeviceId,
    },
}

/// Reads the `body` of a batch that `device` sent.
///
/// # Errors
/// [`Refusal`], which names the event and the key.
pub fn parse_batch(body: &[u8], device: &DeviceId) -> Result<Batch, Refusal> {
    let body = std::str::from_utf8(body)
        .map_err(|e| Refusal::NoBatch(format!("byte {} is not UTF-8", e.valid_up_to())))?;
    let elements = elements::split(body).map_err(Refusal::NoBatch)?;
    if !(1..=BATCH_EVENTS_MAX).contains(&elements.len()) {
        return Err(Refusal::NoBatch(format!("it has {} elements", elements.len())));
    }
    let mut changes: Vec<Change> = Vec::with_capacity(elements.len());
    let mut of_batch: Option<Epoch> = None;
    for (index, text) in elements.into_iter().enumerate() {
        if text.len() > EVENT_BYTES_MAX {
            return Err(Refusal::EventTooLarge { index, bytes: text.len() });
        }
        let mut value: Value = serde_json::from_str(text)
            .map_err(|e| Refusal::Syntax { index, reason: e.to_string() })?;
        replace_nul(&mut value);
        let Value::Object(attributes) = value else {
            return Err(Refusal::Key {
                index,
                key: "the event".into(),
                found: short(&value),
                expected: "a JSON object".into(),
            });
        };
        let (epoch, change) = Event { index, attributes }.read(device)?;
        let wrong = |key: &str, found: String, expected: String| {
            Err(Refusal::Key { index, key: key.into(), found, expected })
        };
        if let Some(first) = of_batch.as_ref().filter(|first| **first != epoch) {
            return wrong("epoch", epoch.to_string(), format!("{first} as in the events before"));
        }
        if let Some(before) = changes.last().filter(|before| before.seq >= change.seq) {
            return wrong(
                "sequence",
                change.seq.to_string(),
                format!("higher than that of the event before, {}", before.seq),
            );
        }
        of_batch = Some(epoch);
        changes.push(change);
    }
    // There is at least one event.
    let epoch = of_batch.ok_or_else(|| Refusal::NoBatch("it is empty".into()))?;
    Ok(Batch { epoch, changes })
}

/// One event while it is read: what is taken is checked.
struct Event {
    index: usize,
    attributes: Map<String, Value>,
}

impl Event {
    fn read(mut self, device: &DeviceId) -> Result<(Epoch, Change), Refusal> {
        self.fixed("specversion", "1.0")?;
        let source = self.text("source")?;
        if source.strip_prefix("urn:lookback:device:") != Some(device.as_str()) {
            let found = short(&Value::String(source.into()));
            return Err(Refusal::ForeignSource {
                index: self.index,
                found,
                device: device.clone(),
            });
        }
        let kind = match self.text("type")? {
            "dev.lookback.incident" => Kind::Incident,
            "dev.lookback.health" => Kind::Health,
            _ => return self.wrong("type", "dev.lookback.incident or dev.lookback.health"),
        };
        self.fixed("datacontenttype", "application/json")?;
        let Some(epoch) = Epoch::parse(self.text("epoch")?) else {
            return self.wrong("epoch", "16 lower-case hex digits");
        };
        let seq = self.sequence()?;
        if self.text("id")? != format!("{epoch}-{seq}") {
            return self.wrong("id", &format!("\"{epoch}-{seq}\", of epoch and sequence"));
        }
        let level = self.word("severity", Level::parse, Level::EXPECTED)?;
        let phase = self.word("phase", Phase::parse, Phase::EXPECTED)?;
        let clock = self.word("clock", Clock::parse, Clock::EXPECTED)?;
        let start = self.moment("time")?;
        let recorded = self.moment("recordedtime")?;
        let camera = self.camera(kind)?;
        let dataref = self.dataref()?;
        let Some(data) = self.attributes.get("data").filter(|data| data.is_object()) else {
            return self
                .wrong("data", "a JSON object, the event as `lookback events --json` prints it");
        };
        if data.get("kind").is_some_and(|given| given != kind.word()) {
            return self.wrong("data.kind", &format!("\"{}\", as type says", kind.word()));
        }
        let Some(event) = EventId::parse(self.text("data.id")?) else {
            return self.wrong("data.id", "16 characters of 0-9 and a-z");
        };
        let label = self.text("data.label")?.to_owned();
        let sentence = self.text("data.sentence")?.to_owned();
        let end = self.moment("data.end")?;
        let score = self.score()?;
        let dropped = match kind == Kind::Health && label == EVENTS_DROPPED {
            true => self.dropped()?,
            false => Vec::new(),
        };
        let policy = self.policy_step(kind, &label);
        let data = Data::of(&self.attributes.remove("data").unwrap_or_default())
            .map_err(|e| Refusal::Syntax { index: self.index, reason: e.to_string() })?;
        let change = Change {
            seq,
            event,
            kind,
            phase,
            level,
            camera,
            label,
            score,
            sentence,
            start,
            end,
            clock,
            recorded,
            data,
            dataref,
            dropped,
            policy,
        };
        Ok((epoch, change))
    }

    /// The value of a key; `data.x` is `x` of `data`.
    fn value(&self, key: &str) -> &Value {
        let found = match key.split_once('.') {
            Some((outer, inner)) => self.attributes.get(outer).and_then(|outer| outer.get(inner)),
            None => self.attributes.get(key),
        };
        found.unwrap_or(&Value::Null)
    }

    fn text(&self, key: &str) -> Result<&str, Refusal> {
        match self.value(key) {
            Value::String(text) => Ok(text),
            _ => self.wrong(key, "text"),
        }
    }

    fn fixed(&self, key: &str, expected: &str) -> Result<(), Refusal> {
        match self.value(key) == expected {
            true => Ok(()),
            false => self.wrong(key, &format!("\"{expected}\"")),
        }
    }

    fn word<T>(
        &self,
        key: &str,
        parse: fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, Refusal> {
        match parse(self.text(key)?) {
            Some(word) => Ok(word),
            None => self.wrong(key, expected),
        }
    }

    fn moment(&self, key: &str) -> Result<Moment, Refusal> {
        match Moment::parse(self.text(key)?) {
            Some(moment) => Ok(moment),
            None => self.wrong(key, "a time as RFC 3339 writes it"),
        }
    }

    fn sequence(&self) -> Result<u64, Refusal> {
        let text = self.text("sequence")?;
        let digits = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(seq) if digits && (1..=SEQ_MAX).contains(&seq) => Ok(seq),
            _ => self.wrong("sequence", "20 digits with leading zeros, from 1"),
        }
    }

    fn camera(&self, kind: Kind) -> Result<Option<String>, Refusal> {
        match (kind, self.value("subject")) {
            (Kind::Incident, _) => self.text("subject").map(|name| Some(name.to_owned())),
            (Kind::Health, Value::Null) => Ok(None),
            (Kind::Health, _) => self.wrong("subject", "absent from an event of health"),
        }
    }

    fn dataref(&self) -> Result<Option<ContentHash>, Refusal> {
        if self.value("dataref").is_null() {
            return Ok(None);
        }
        match ContentHash::parse(self.text("dataref")?) {
            None => self.wrong("dataref", "64 lower-case hex digits"),
            Some(_) if !self.value("data.trajectory").is_null() => {
                self.wrong("data.trajectory", "absent where there is a dataref")
            }
            hash => Ok(hash),
        }
    }

    fn score(&self) -> Result<Option<f32>, Refusal> {
        match self.value("data.score") {
            Value::Null => Ok(None),
            value => match value.as_f64() {
                Some(score) if (0.0..=1.0).contains(&score) => Ok(Some(score as f32)),
                _ => self.wrong("data.score", "a number from 0 to 1, or null"),
            },
        }
    }

    fn dropped(&self) -> Result<Vec<(u64, u64)>, Refusal> {
        const KEY: &str = "data.fields.seqs";
        let spans = &self.value("data.fields")["seqs"];
        let read = |span: &Value| match span.as_array()?.as_slice() {
            [first, last] => Some((first.as_u64()?, last.as_u64()?))
                .filter(|(first, last)| (1..=*last).contains(first) && *last <= SEQ_MAX),
            _ => None,
        };
        let spans = spans
            .as_array()
            .filter(|spans| spans.len() <= DROPPED_SPANS_MAX)
            .and_then(|spans| spans.iter().map(read).collect());
        match spans {
            Some(spans) => Ok(spans),
            None => Err(Refusal::Key {
                index: self.index,
                key: KEY.into(),
                found: short(&self.value("data.fields")["seqs"]),
                expected: "pairs [first, last] of seqs from 1, first not above last".into(),
            }),
        }
    }

    /// What it says of an update. That it says nothing that is understood is no fault: the event is stored all the same.
    fn policy_step(&self, kind: Kind, label: &str) -> Option<PolicyStep> {
        if kind != Kind::Health || !UPDATES.contains(&label) {
            return None;
        }
        let fields = &self.value("data.fields");
        let bundle = fields["bundle"].as_str().filter(|id| (1..=BUNDLE_MAX).contains(&id.len()))?;
        let why =
            fields["why"].as_str().map(|why| why[..why.floor_char_boundary(WHY_MAX)].to_owned());
        let wave = fields["wave"].as_u64().filter(|wave| *wave <= WAVES_MAX as u64);
        Some(PolicyStep {
            channel: fields["channel"].as_str().filter(|name| is_label(name))?.to_owned(),
            number: i64::try_from(fields["number"].as_u64()?).ok()?,
            bundle: bundle.to_owned(),
            wave: wave.and_then(|wave| i32::try_from(wave).ok()).unwrap_or_default(),
            stage: Stage::parse(fields["stage"].as_str()?)?,
            why,
        })
    }

    fn wrong<T>(&self, key: &str, expected: &str) -> Result<T, Refusal> {
        Err(Refusal::Key {
            index: self.index,
            key: key.to_owned(),
            found: short(self.value(key)),
            expected: expected.to_owned(),
        })
    }
}

/// A value for a sentence: never longer than a line, and in ASCII, as it goes into a log as well.
fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Null => return "absent".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => {
            let start: String = text.chars().take(LONGEST).flat_map(char::escape_default).collect();
            let more = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
            return format!("\"{start}{more}\"");
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    text.chars().take(LONGEST).collect()
}

fn replace_nul(value: &mut Value) {
    let clean = |text: &mut String| {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    };
    match value {
        Value::String(text) => clean(text),
        Value::Array(values) => values.iter_mut().for_each(replace_nul),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains('\0')) {
                let entries = std::mem::take(map).into_iter();
                map.extend(entries.map(|(mut key, value)| {
                    clean(&mut key);
                    (key, value)
                }));
            }
            map.values_mut().for_each(replace_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
