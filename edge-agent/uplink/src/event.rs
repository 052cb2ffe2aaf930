//! A change of an event as the server reads it: CloudEvents 1.0, JSON, in batches.

use event_log::{EventKind, EventRow, Outgoing, rfc3339};
use serde_json::{Map, Value, json};

/// Intermediaries forward events of this size (CloudEvents 1.0, "Size Limits"); what is larger goes
/// by its hash.
pub const EVENT_BYTES_MAX: usize = 64 << 10;

/// What is kept of a sentence where even the short form is too large.
const SENTENCE_CHARS_KEPT: usize = 2000;

/// Who sends: the device as the server knows it, and which life of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The device's id, from its certificate.
    pub device: String,
    /// The log's own name: seqs are counted within it.
    pub epoch: String,
}

/// A CloudEvent, ready to be put into a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The event as JSON, at most [`EVENT_BYTES_MAX`] bytes.
    pub json: Vec<u8>,
    /// What did not fit; the event names it by its hash.
    pub attached: Option<Attached>,
}

/// Something that is uploaded by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// blake3 of `bytes`, 64 hexadecimal digits.
    pub hash: String,
    /// The whole of it.
    pub bytes: Vec<u8>,
}

/// `change` of the event `row`, which is as it stands now: a later change brings what comes after.
pub fn carried(sender: &Sender, change: &Outgoing, row: &EventRow) -> Carried {
    let data = serde_json::to_value(row).unwrap_or(Value::Null);
    let whole = event(sender, change, row, data.clone(), None);
    if whole.len() <= EVENT_BYTES_MAX {
        return Carried { json: whole, attached: None };
    }
    // The steps that led there are the bulk of an event; a person asks for them later, if at all.
    let attached = attachment(&data);
    let without = |keys: &[&str]| {
        let mut data = data.clone();
        let fields = data.as_object_mut();
        fields.into_iter().for_each(|map| keys.iter().for_each(|key| drop(map.remove(*key))));
        data
    };
    let mut json = event(sender, change, row, without(&["trajectory"]), Some(&attached.hash));
    if json.len() > EVENT_BYTES_MAX {
        let mut short = without(&["trajectory", "clips", "evidence", "fields"]);
        for key in ["sentence", "label"] {
            let text: Option<String> =
                short[key].as_str().map(|text| text.chars().take(SENTENCE_CHARS_KEPT).collect());
            short[key] = text.into();
        }
        json = event(sender, change, row, short, Some(&attached.hash));
    }
    Carried { json, attached: Some(attached) }
}

fn attachment(data: &Value) -> Attached {
    let bytes = serde_json::to_vec(data).unwrap_or_default();
    Attached { hash: blake3::hash(&bytes).to_hex().to_string(), bytes }
}

fn event(
    sender: &Sender,
    change: &Outgoing,
    row: &EventRow,
    data: Value,
    dataref: Option<&str>,
) -> Vec<u8> {
    let Sender { device, epoch } = sender;
    let kind = match row.kind {
        EventKind::Incident => "incident",
        EventKind::Health => "health",
    };
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    put("specversion", "1.0".into());
    put("id", format!("{epoch}-{}", change.seq).into());
    put("source", format!("urn:lookback:device:{device}").into());
    put("type", format!("dev.lookback.{kind}").into());
    put("time", rfc3339(row.start.unix_us).into());
    if let Some(camera) = &row.camera {
        put("subject", camera.as_str().into());
    }
    put("datacontenttype", "application/json".into());
    // Zeros in front: the extension is compared as text.
    put("sequence", format!("{:020}", change.seq).into());
    put("epoch", epoch.as_str().into());
    put("severity", change.level.name().into());
    put("phase", change.phase.name().into());
    put("clock", json!(row.clock));
    put("recordedtime", rfc3339(row.committed).into());
    if let Some(hash) = dataref {
        put("dataref", hash.into());
    }
    put("data", data);
    serde_json::to_vec(&Value::Object(fields)).unwrap_or_default()
}

/// The events as one body, at most `bytes_max` of it: as many as fit, but at least one.
pub fn batch(events: &[Carried], bytes_max: usize) -> (Vec<u8>, usize) {
    let mut body = vec![b'['];
    let mut count = 0;
    for event in events {
        if count > 0 && body.len() + event.json.len() + 2 > bytes_max {
            break;
        }
        if count > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
        count += 1;
    }
    body.push(b']');
    (body, count)
}
