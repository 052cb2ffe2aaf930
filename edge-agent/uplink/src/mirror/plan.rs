//! What is still to be told, of all that the log holds: pure.

use event_log::{EventId, EventKind, EventRow, Phase};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the broker has acknowledged; the log remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Every event whose newest change has a seq up to this was told as it stood, or passed over.
    pub seq: u64,
    /// Incidents that were told as new and not yet as ended, with their camera.
    pub open: BTreeMap<EventId, String>,
    /// Events that were passed over since people were last told how many.
    pub passed_over: u64,
    /// The cameras that the broker was last told of.
    #[serde(default)]
    pub cameras: Vec<String>,
    /// Cameras that it was told of once and that the device no longer has, the last to go at the end.
    #[serde(default)]
    pub departed: Vec<String>,
}

/// So many departed cameras are remembered: whoever listens has long forgotten those before them.
const DEPARTED_MAX: usize = 32;

/// The newest change of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// The event.
    pub event: EventId,
    /// The incident's camera; `None`: something of the device itself.
    pub camera: Option<String>,
    /// Where the event stands.
    pub phase: Phase,
}

impl Change {
    /// Of the event `row`.
    pub fn of(row: &EventRow) -> Self {
        let camera = match row.kind {
            EventKind::Incident => Some(row.camera.clone().unwrap_or_default()),
            EventKind::Health => None,
        };
        Self { seq: row.seq, event: row.id.clone(), camera, phase: row.phase }
    }
}

impl Told {
    /// In which phases `change` is to be told, in order. The log keeps how an incident stands, not how it
    /// came there: one that began and ended while nobody listened is told as new and at once as ended.
    pub fn missing(&self, change: &Change) -> Vec<Phase> {
        if change.seq <= self.seq {
            return vec![];
        }
        match (self.open.contains_key(&change.event), change.phase) {
            _ if change.camera.is_none() => vec![Phase::New],
            (false, Phase::End) => vec![Phase::New, Phase::End],
            (false, _) => vec![Phase::New],
            (true, Phase::End) => vec![Phase::End],
            (true, _) => vec![Phase::Update],
        }
    }

    /// Once `change` was told in `phase`.
    pub fn after(mut self, change: &Change, phase: Phase) -> Self {
        let last = self.missing(change).last() == Some(&phase);
        match (&change.camera, phase) {
            (Some(camera), Phase::New) => {
                drop(self.open.insert(change.event.clone(), camera.clone()))
            }
            (_, Phase::End) => drop(self.open.remove(&change.event)),
            _ => {}
        }
        if last {
            self.seq = change.seq;
        }
        self
    }

    /// Once the device is one with these cameras, and no others.
    pub fn with_cameras(mut self, cameras: &[String]) -> Self {
        let before = std::mem::replace(&mut self.cameras, cameras.to_vec());
        self.departed.extend(before);
        let mut seen = BTreeSet::new();
        self.departed.retain(|camera| !cameras.contains(camera) && seen.insert(camera.clone()));
        let too_many = self.departed.len().saturating_sub(DEPARTED_MAX);
        self.departed.drain(..too_many);
        self
    }

    /// Whether an incident of `camera` goes on, as far as was told.
    pub fn is_busy(&self, camera: &str) -> bool {
        self.open.values().any(|open| open == camera)
    }
}

/// What to tell next of events that are worth it: that which changed first.
pub fn next(told: &Told, events: impl IntoIterator<Item = EventRow>) -> Option<EventRow> {
    events.into_iter().filter(|row| row.seq > told.seq).min_by_key(|row| row.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(seq: u64, camera: Option<&str>, phase: Phase) -> Change {
        Change {
            seq,
            event: "0000000070000007".parse().unwrap(),
            camera: camera.map(str::to_owned),
            phase,
        }
    }

    #[test]
    fn an_incident_is_told_as_new_before_anything_else_and_as_ended_once() {
        let gate = Some("gate");
        for (told_before, newest, expected) in [
            (vec![], Phase::New, vec![Phase::New]),
            (vec![], Phase::Update, vec![Phase::New]),
            (vec![], Phase::End, vec![Phase::New, Phase::End]),
            (vec![Phase::New], Phase::Update, vec![Phase::Update]),
            (vec![Phase::New], Phase::End, vec![Phase::End]),
        ] {
            let mut told = Told::default();
            for phase in told_before {
                told = told.after(&change(1, gate, phase), phase);
            }
            assert_eq!(told.missing(&change(2, gate, newest)), expected, "{newest:?}");
        }
    }

    #[test]
    fn a_cut_between_new_and_end_leaves_only_the_end_to_be_told() {
        let ended = change(5, Some("gate"), Phase::End);
        let told = Told { seq: 4, ..Told::default() }.after(&ended, Phase::New);
        assert_eq!((told.seq, told.is_busy("gate")), (4, true), "its cursor has not moved");
        assert_eq!(told.missing(&ended), [Phase::End]);
        let told = told.after(&ended, Phase::End);
        assert_eq!((told.seq, told.is_busy("gate")), (5, false));
        assert!(told.missing(&ended).is_empty());
    }

    #[test]
    fn what_happened_to_the_device_is_told_once_and_leaves_nothing_open() {
        let health = change(1, None, Phase::End);
        assert_eq!(Told::default().missing(&health), [Phase::New]);
        let told = Told::default().after(&health, Phase::New);
        assert_eq!(told, Told { seq: 1, ..Told::default() });
    }

    #[test]
    fn what_was_told_survives_the_log() {
        let told = Told::default().after(&change(3, Some("a \"b\""), Phase::New), Phase::New);
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told);
    }
}
