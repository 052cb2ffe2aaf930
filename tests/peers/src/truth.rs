//! What the cameras' logs said: one small record of every change, to be compared with the database.
//!
//! What is sent for a seq is the event as it stands at that moment, so the data of a change may be that of a
//! later change of the same event; it says of which in its `seq`. What is kept here is therefore the hash of
//! each state that an event was ever in.

use event_log::{EventRow, Level, Outgoing, Phase};
use serde_json::Value;

/// Everything that one life of a camera's log gave out.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The device.
    pub device: String,
    /// The life of its log.
    pub epoch: String,
    /// Seq 1 first.
    pub changes: Vec<Change>,
    /// Up to where the log was told that the server has all.
    pub acknowledged: u64,
    /// The highest that the server answered.
    pub answered: u64,
    /// The log was destroyed with whatever waited in it: only what was acknowledged must be at the server.
    pub destroyed: bool,
    /// Seqs that the log left out.
    pub skipped: u64,
    /// Seqs that the camera gave up, since the server would not have them.
    pub given_up: u64,
    /// Hashes of objects of which the camera believes that the server has them.
    pub objects: Vec<u64>,
}

/// A change of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Which event, by the hash of its id.
    pub event: u64,
    /// What it came to.
    pub phase: u8,
    /// How much it asks of people.
    pub level: u8,
    /// The event then; 0 if nobody saw it in this state.
    pub whole: u64,
    /// The same without its trajectory.
    pub short: u64,
    /// The hash of the object that holds it all.
    pub object: u64,
}

impl Change {
    /// A change and the event as it stands now, if it is still there.
    pub fn new(change: &Outgoing, row: Option<&EventRow>) -> Self {
        let mut new = Self {
            event: name(change.event.as_str()),
            phase: change.phase as u8,
            level: change.level as u8,
            ..Self::default()
        };
        if let Some(row) = row.filter(|row| row.seq == change.seq) {
            let data = serde_json::to_value(row).unwrap_or_default();
            new.whole = digest(&data, None);
            new.short = digest(&data, Some("trajectory"));
            new.object = first(&blake3::hash(&serde_json::to_vec(&data).unwrap_or_default()));
        }
        new
    }
}

/// The number of a phase as the database writes it.
pub fn phase(word: &str) -> Option<u8> {
    [Phase::New, Phase::Update, Phase::End].into_iter().find(|p| p.name() == word).map(|p| p as u8)
}

/// The number of a level as the database writes it.
pub fn level(number: i16) -> Option<u8> {
    [Level::Info, Level::Notice, Level::Alert]
        .map(|l| l as u8)
        .into_iter()
        .find(|l| i16::from(*l) == number)
}

/// A text, in 64 bits.
pub fn name(text: &str) -> u64 {
    first(&blake3::hash(text.as_bytes()))
}

/// The beginning of a BLAKE3 hash that is written in hex.
pub fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.get(..16)?, 16).ok()
}

fn first(hash: &blake3::Hash) -> u64 {
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
}

/// The content of `value`, whatever the order of its keys and the way its numbers are written; without the
/// key `but` of its outermost object. U+0000 is U+FFFD, as the server's contract says.
pub fn digest(value: &Value, but: Option<&str>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    take_in(&mut hasher, value, but);
    // 0 stands for a state that nobody saw.
    first(&hasher.finalize()).max(1)
}

fn take_in(hasher: &mut blake3::Hasher, value: &Value, but: Option<&str>) {
    match value {
        Value::Null => drop(hasher.update(b"n")),
        Value::Bool(truth) => drop(hasher.update(if *truth { b"t" } else { b"f" })),
        Value::Number(number) => {
            // Plus 0: there is no -0 in PostgreSQL.
            let number = number.as_f64().unwrap_or(f64::NAN) + 0.0;
            hasher.update(b"#").update(&number.to_bits().to_le_bytes());
        }
        Value::String(text) => take_in_text(hasher, text),
        Value::Array(values) => {
            hasher.update(b"[");
            values.iter().for_each(|value| take_in(hasher, value, None));
            hasher.update(b"]");
        }
        Value::Object(map) => {
            let mut entries: Vec<_> =
                map.iter().filter(|(key, _)| Some(key.as_str()) != but).collect();
            entries.sort_by_key(|(key, _)| *key);
            hasher.update(b"{");
            for (key, value) in entries {
                take_in_text(hasher, key);
                take_in(hasher, value, None);
            }
            hasher.update(b"}");
        }
    }
}

fn take_in_text(hasher: &mut blake3::Hasher, text: &str) {
    let clean = text.contains('\0').then(|| text.replace('\0', "\u{fffd}"));
    let text = clean.as_deref().unwrap_or(text);
    hasher.update(b"\"").update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_is_the_same_however_it_is_written_and_another_where_a_byte_differs() {
        let one = json!({"a": [1, 2.5, -0.0], "b": "x\0", "c": null});
        let same: Value = serde_json::from_str(r#"{"c":null,"b":"x�","a":[1.0,25e-1,0]}"#).unwrap();
        assert_eq!(digest(&one, None), digest(&same, None));
        for other in
            [json!({"a": [1, 2.5, 0]}), json!({"a": [2.5, 1, 0], "b": "x\0", "c": null}), json!([])]
        {
            assert_ne!(digest(&one, None), digest(&other, None));
        }
        assert_eq!(digest(&one, Some("b")), digest(&json!({"a": [1, 2.5, 0], "c": null}), None));
    }
}
