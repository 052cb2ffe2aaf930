//! What is told: the messages, and their JSON.

use super::topic::Topics;
use event_log::{EventId, EventKind, EventRow, Phase, rfc3339};
use hal_camera::MediaTime;
use serde_json::{Map, Value, json};

/// Larger ones many brokers refuse, and nobody reads them on a telephone.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// What is kept of each of an event's texts where even the short form is too large.
const TEXT_CHARS_KEPT: usize = 2000;

/// A message that is to be published and acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for those who come later.
    pub retain: bool,
}

/// The whole of a change of `row`, which is told in `phase`; the event itself goes first, with all that
/// a notification needs. `busy`: an incident of the camera goes on after it.
pub fn change(
    topics: &Topics,
    device: &str,
    row: &EventRow,
    phase: Phase,
    busy: bool,
) -> Vec<Message> {
    let told = event(device, row, phase);
    if row.kind == EventKind::Health {
        return vec![passing(topics.health(), told)];
    }
    let camera = row.camera.as_deref().unwrap_or_default();
    // What is kept goes into the attributes of an entity, which should stay small.
    let mut last = told.clone();
    last.as_object_mut().map(|last| last.remove("explanation"));
    let last = kept(topics.last(camera), &last);
    vec![
        passing(topics.event(camera), told),
        last,
        state(topics, camera, busy),
        passing(topics.onvif(camera), onvif(row, camera, phase)),
    ]
}

/// That an incident has ended of which the log has no more than the name.
pub fn gone(topics: &Topics, device: &str, id: &EventId, camera: &str, busy: bool) -> Vec<Message> {
    let told = json!({"type": Phase::End.name(), "id": id, "device": device, "camera": camera});
    vec![passing(topics.event(camera), told), state(topics, camera, busy)]
}

/// Whether an incident of `camera` goes on.
pub fn state(topics: &Topics, camera: &str, busy: bool) -> Message {
    let payload = if busy { "ON" } else { "OFF" };
    Message { topic: topics.incident(camera), payload: payload.into(), retain: true }
}

/// That the broker keeps nothing of a camera any more.
pub fn nothing(topics: &Topics, camera: &str) -> [Message; 2] {
    [topics.incident(camera), topics.last(camera)].map(|topic| Message {
        topic,
        payload: vec![],
        retain: true,
    })
}

/// Whether the device is there.
pub fn available(topics: &Topics, online: bool) -> Message {
    let payload = if online { "online" } else { "offline" };
    Message { topic: topics.available(), payload: payload.into(), retain: true }
}

fn passing(topic: String, payload: Value) -> Message {
    Message { topic, payload: payload.to_string().into(), retain: false }
}

fn kept(topic: String, payload: &Value) -> Message {
    Message { topic, payload: payload.to_string().into(), retain: true }
}

/// An event for people and for programs, within [`PAYLOAD_BYTES_MAX`].
fn event(device: &str, row: &EventRow, phase: Phase) -> Value {
    let mut told = json!({
        "type": phase.name(),
        "id": row.id,
        "seq": row.seq,
        "device": device,
        "camera": row.camera,
        "level": row.level,
        "score": row.score.map(shortest),
        "label": row.label,
        "sentence": row.sentence,
        "start": rfc3339(row.start.unix_us),
        "end": rfc3339(row.end.unix_us),
        "start_s": row.start_s.map(MediaTime::as_s),
        "end_s": row.end_s.map(MediaTime::as_s),
        "clock": row.clock,
        "frames_used": row.frames_used,
        "explanation": explanation(&row.trajectory),
    });
    if row.kind == EventKind::Health {
        told["fields"] = row.fields.clone();
    }
    for drop in ["explanation", "fields"] {
        if told.to_string().len() > PAYLOAD_BYTES_MAX && told.get(drop).is_some() {
            told[drop] = Value::Null;
        }
    }
    if told.to_string().len() > PAYLOAD_BYTES_MAX {
        for text in ["sentence", "label", "camera", "device"] {
            if let Some(whole) = told[text].as_str() {
                told[text] = whole.chars().take(TEXT_CHARS_KEPT).collect::<String>().into();
            }
        }
    }
    told
}

/// Why: what was looked at in turn, what was thought, and what it made of the probability. Frames and
/// tokens are for a replay, and stay in the log.
fn explanation(trajectory: &Value) -> Value {
    let step = |step: &Value| {
        let told: Map<String, Value> = ["op", "args", "thought", "p"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), step.get(key)?.clone())))
            .collect();
        Value::Object(told)
    };
    trajectory.as_array().map_or(Value::Null, |steps| steps.iter().map(step).collect())
}

/// The same for a video management system that reads ONVIF's events from a broker.
fn onvif(row: &EventRow, camera: &str, phase: Phase) -> Value {
    let at = match phase {
        Phase::New => row.start,
        Phase::Update | Phase::End => row.end,
    };
    json!({
        "UtcTime": rfc3339(at.unix_us),
        "Source": {"VideoSource": camera, "Rule": "Lookback"},
        "Key": {"IncidentId": row.id},
        "Data": {
            "State": phase != Phase::End,
            "Label": row.label,
            "Level": row.level,
            "Likelihood": row.score.map(shortest),
            "Description": row.sentence.chars().take(TEXT_CHARS_KEPT).collect::<String>(),
        },
    })
}

/// The f64 that is written with the same few digits as `number`.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_log::{EvidenceItem, Level};
    use hal_camera::{CameraId, ClockQuality, WallTime};

    fn row() -> EventRow {
        let at = |s: i64| WallTime {
            unix_us: (1_793_707_200 + s) * 1_000_000,
            quality: ClockQuality::Ntp,
        };
        EventRow {
            id: "1n6b0000000000a7".parse().unwrap(),
            seq: 3,
            kind: EventKind::Incident,
            phase: Phase::New,
            camera: Some("front \"door\"/+#".to_owned()),
            camera_id: Some(CameraId(0)),
            start_s: Some(MediaTime::from_s(60.0)),
            end_s: Some(MediaTime::from_s(80.0)),
            start: at(60),
            end: at(80),
            clock: ClockQuality::Ntp,
            committed: at(82).unix_us,
            level: Level::Alert,
            label: "fall".to_owned(),
            score: Some(0.8),
            sentence: "A person fell.\n{{ states }}".to_owned(),
            clips: json!([]),
            trajectory: json!([{"step": 0, "op": "glance", "args": {"start": 1}, "thought": "Why?",
                "p": 0.4, "frames": [{"id": "f"}], "tokens": [1, 2]}]),
            frames_used: Some(14),
            evidence: vec![EvidenceItem {
                frame_id: "f".to_owned(),
                media_time: MediaTime(1),
                hash: "ab".to_owned(),
            }],
            bundle: Some("nano".to_owned()),
            engine: Some("tract".to_owned()),
            stopped_by: Some("final".to_owned()),
            pin: Some(1),
            fields: Value::Null,
        }
    }

    fn read(message: &Message) -> Value {
        serde_json::from_slice(&message.payload).unwrap()
    }

    #[test]
    fn the_first_message_has_all_that_a_notification_needs() {
        let topics = Topics::new("lookback", "cam");
        let messages = change(&topics, "cam", &row(), Phase::New, true);
        let [event, last, state, onvif] = &messages[..] else { panic!("{messages:?}") };
        let camera = event.topic.strip_prefix("lookback/cam/event/").unwrap();
        assert_eq!(
            read(event),
            json!({
                "type": "new", "id": row().id, "seq": 3, "device": "cam",
                "camera": "front \"door\"/+#", "level": "alert", "score": 0.8, "label": "fall",
                "sentence": "A person fell.\n{{ states }}", "start": "2026-11-03T12:01:00.000Z",
                "end": "2026-11-03T12:01:20.000Z", "start_s": 60.0, "end_s": 80.0, "clock": "ntp",
                "frames_used": 14,
                "explanation": [{"op": "glance", "args": {"start": 1}, "thought": "Why?", "p": 0.4}],
            })
        );
        let mut short = read(event);
        short.as_object_mut().unwrap().remove("explanation");
        assert_eq!((read(last), last.retain, event.retain), (short, true, false));
        assert_eq!(last.topic, format!("lookback/cam/camera/{camera}/last"));
        assert_eq!((&state.payload[..], state.retain), (&b"ON"[..], true));
        assert_eq!(onvif.topic, format!("lookback/cam/onvif-ej/RuleEngine/Incident/{camera}"));
        let onvif = read(onvif);
        assert_eq!(onvif["UtcTime"], "2026-11-03T12:01:00.000Z");
        assert_eq!(
            onvif["Source"],
            json!({"VideoSource": "front \"door\"/+#", "Rule": "Lookback"})
        );
        assert_eq!(onvif["Key"], json!({"IncidentId": row().id}));
        assert_eq!(
            onvif["Data"],
            json!({"State": true, "Label": "fall", "Level": "alert", "Likelihood": 0.8,
                "Description": "A person fell.\n{{ states }}"})
        );
    }

    #[test]
    fn at_the_end_of_the_last_incident_of_a_camera_it_is_quiet() {
        let topics = Topics::new("lookback", "cam");
        for (busy, payload) in [(true, &b"ON"[..]), (false, b"OFF")] {
            let messages = change(&topics, "cam", &row(), Phase::End, busy);
            assert_eq!(read(&messages[0])["type"], "end");
            assert_eq!(messages[2].payload, payload);
            assert_eq!(read(&messages[3])["Data"]["State"], false);
        }
    }

    #[test]
    fn whatever_a_policy_says_a_message_stays_within_its_bound() {
        let topics = Topics::new("lookback", "cam");
        let mut long = row();
        long.trajectory = json!([{"op": "glance", "thought": "x".repeat(100_000), "p": 0.4}]);
        let told = read(&change(&topics, "cam", &long, Phase::New, true)[0]);
        assert_eq!((&told["explanation"], &told["label"]), (&Value::Null, &json!("fall")));
        long.sentence = "\u{1}".repeat(1_000_000);
        for message in change(&topics, "cam", &long, Phase::New, true) {
            assert!(message.payload.len() <= PAYLOAD_BYTES_MAX, "{}", message.topic);
        }
        long.kind = EventKind::Health;
        long.fields = json!({"seqs": vec![(1, 2); 100_000]});
        let [health] = &change(&topics, "cam", &long, Phase::New, false)[..] else { panic!() };
        assert!(health.payload.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(health.topic, "lookback/cam/health");
    }
}
