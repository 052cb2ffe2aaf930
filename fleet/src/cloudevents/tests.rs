use super::*;
use proptest::prelude::*;
use serde_json::json;

fn device() -> DeviceId {
    DeviceId::parse("abcdefgh01234567").unwrap()
}

fn incident(seq: u64) -> Value {
    json!({
        "specversion": "1.0", "id": format!("00000000000000aa-{seq}"),
        "source": "urn:lookback:device:abcdefgh01234567", "type": "dev.lookback.incident",
        "time": "2026-11-03T12:34:56.789Z", "subject": "front-door",
        "datacontenttype": "application/json", "sequence": format!("{seq:020}"),
        "epoch": "00000000000000aa", "severity": "alert", "phase": "new", "clock": "ntp",
        "recordedtime": "2026-11-03T12:35:00Z",
        "data": {"id": "0123456789abcdef", "kind": "incident", "label": "fall", "score": 0.8,
                 "sentence": "A person fell.", "end": "2026-11-03T12:34:58Z", "trajectory": []},
    })
}

fn dropped(seqs: Value) -> Value {
    let mut event = incident(9);
    event["type"] = json!("dev.lookback.health");
    event.as_object_mut().unwrap().remove("subject");
    event["data"]["kind"] = json!("health");
    event["data"]["label"] = json!("events dropped");
    event["data"]["fields"] = json!({"seqs": seqs});
    event
}

fn parse(events: &[Value]) -> Result<Batch, Refusal> {
    parse_batch(&serde_json::to_vec(events).unwrap(), &device())
}

/// The incident with one key changed; `null` removes it.
fn with(key: &str, value: Value) -> Value {
    let mut event = incident(7);
    let (map, key) = match key.split_once('.') {
        Some((outer, inner)) => (event[outer].as_object_mut().unwrap(), inner),
        None => (event.as_object_mut().unwrap(), key),
    };
    if value.is_null() {
        map.remove(key)
    } else {
        map.insert(key.into(), value)
    };
    event
}

#[test]
fn a_batch_is_read_whole() {
    let batch = parse(&[incident(3), incident(8)]).unwrap();
    assert_eq!(batch.epoch.as_str(), "00000000000000aa");
    assert_eq!(batch.changes.iter().map(|c| c.seq).collect::<Vec<_>>(), [3, 8]);
    let change = &batch.changes[0];
    assert_eq!(
        (change.kind, change.phase, change.level),
        (Kind::Incident, Phase::New, Level::Alert)
    );
    assert_eq!((change.camera.as_deref(), change.score), (Some("front-door"), Some(0.8)));
    assert_eq!(change.start.unix_us(), 1_793_709_296_789_000);
    let data: Value = serde_json::from_str(&change.data.to_string()).unwrap();
    assert_eq!(data, incident(3)["data"]);
}

#[test]
fn a_drop_event_names_what_will_never_come() {
    let batch = parse(&[dropped(json!([[1, 4], [6, 6]]))]).unwrap();
    assert_eq!(batch.changes[0].dropped, [(1, 4), (6, 6)]);
    for wrong in
        [json!(null), json!([[4, 1]]), json!([[0, 1]]), json!([[1]]), json!([[1, -2]]), json!("1")]
    {
        let said = parse(&[dropped(wrong.clone())]).unwrap_err().to_string();
        assert!(said.contains("event 0: data.fields.seqs"), "{wrong}: {said}");
    }
}

#[test]
fn an_update_is_told_by_what_makes_sense_and_by_nothing_else() {
    let told = |label: &str, fields: Value| {
        let mut event = dropped(json!([[1, 1]]));
        event["data"]["label"] = json!(label);
        event["data"]["fields"] = fields;
        parse(&[event]).unwrap().changes.remove(0).policy
    };
    let fields = json!({
        "stage": "RolledBack", "bundle": "nano@0.2.0+aa", "channel": "stable", "number": 7, "wave": 2,
        "why": "é".repeat(400),
    });
    let step = told("policy", fields.clone()).unwrap();
    assert_eq!((step.stage, step.number, step.wave), (Stage::RolledBack, 7, 2));
    assert_eq!(step.why.as_deref().map(str::len), Some(500), "a reason has its bounds");
    assert_eq!(told("system", fields.clone()), Some(step), "of a system it is the same");
    assert_eq!(told("events kept", fields.clone()), None);
    for (key, wrong) in [
        ("stage", json!("Flying")),
        ("bundle", json!("")),
        ("bundle", json!("b".repeat(201))),
        ("channel", json!("a b")),
        ("channel", Value::Null),
        ("number", json!(-1)),
        ("number", json!(u64::MAX)),
        ("number", json!(1.5)),
    ] {
        let mut broken = fields.clone();
        broken[key] = wrong;
        assert_eq!(told("policy", broken), None, "{key}");
    }
    let mut beyond = fields;
    beyond["wave"] = json!(65);
    assert_eq!(told("policy", beyond).unwrap().wave, 0);
    assert_eq!(told("policy", Value::Null), None);
}

#[test]
fn every_broken_key_is_named_with_the_number_of_its_event() {
    for (key, value) in [
        ("specversion", json!("0.3")),
        ("specversion", json!(null)),
        ("specversion", json!(1.0)),
        ("id", json!("00000000000000aa-8")),
        ("id", json!("00000000000000aa-07")),
        ("type", json!("dev.lookback.other")),
        ("time", json!("yesterday")),
        ("time", json!(1)),
        ("subject", json!(null)),
        ("datacontenttype", json!("text/plain")),
        ("sequence", json!("7")),
        ("sequence", json!(7)),
        ("sequence", json!("00000000000000000000")),
        ("sequence", json!("18446744073709551615")),
        ("sequence", json!("+0000000000000000007")),
        ("epoch", json!("00000000000000AA")),
        ("severity", json!("fatal")),
        ("phase", json!("")),
        ("clock", json!("gps")),
        ("recordedtime", json!("2026-02-30T00:00:00Z")),
        ("dataref", json!("../../../etc/passwd")),
        ("data", json!("text")),
        ("data", json!(null)),
        ("data.id", json!("0123456789abcdeF")),
        ("data.kind", json!("health")),
        ("data.label", json!(null)),
        ("data.score", json!(1.5)),
        ("data.score", json!("high")),
        ("data.sentence", json!({"html": "<b>"})),
        ("data.end", json!("soon")),
    ] {
        let said = parse(&[incident(1), with(key, value.clone())]).unwrap_err().to_string();
        assert!(said.starts_with(&format!("event 1: {key} is ")), "{key} {value}: {said}");
    }
}

#[test]
fn events_of_another_device_are_refused_as_such() {
    let foreign = with("source", json!("urn:lookback:device:zzzzzzzzzzzzzzzz"));
    assert!(matches!(parse(&[foreign]), Err(Refusal::ForeignSource { index: 0, .. })));
}

#[test]
fn a_batch_is_of_one_epoch_and_ascends() {
    let mut other = incident(9);
    other["epoch"] = json!("00000000000000bb");
    other["id"] = json!("00000000000000bb-9");
    for (second, key) in [(other, "epoch"), (incident(7), "sequence"), (incident(6), "sequence")] {
        let said = parse(&[incident(7), second]).unwrap_err().to_string();
        assert!(said.starts_with(&format!("event 1: {key} is ")), "{said}");
    }
}

#[test]
fn what_is_no_batch_is_refused() {
    let body = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
    for text in ["", "{}", "[]", "null", "[1", &body(BATCH_EVENTS_MAX + 1)] {
        assert!(
            matches!(parse_batch(text.as_bytes(), &device()), Err(Refusal::NoBatch(_))),
            "{text}"
        );
    }
    assert!(matches!(parse_batch(b"[\xff]", &device()), Err(Refusal::NoBatch(_))));
    assert!(matches!(parse_batch(b"[{,}]", &device()), Err(Refusal::Syntax { index: 0, .. })));
    let deep = format!("[{}{}]", "[".repeat(5000), "]".repeat(5000));
    assert!(matches!(
        parse_batch(deep.as_bytes(), &device()),
        Err(Refusal::Syntax { index: 0, .. })
    ));
}

#[test]
fn a_large_event_is_refused_by_its_size_as_sent() {
    let large = with("data.sentence", json!("x".repeat(EVENT_BYTES_MAX)));
    assert!(matches!(parse(&[incident(1), large]), Err(Refusal::EventTooLarge { index: 1, .. })));
}

#[test]
fn the_character_that_postgresql_cannot_hold_is_replaced_everywhere() {
    let mut event = incident(1);
    event["data"]["sentence"] = json!("a\0b");
    event["data"]["ke\0y"] = json!(["\0"]);
    event["subject"] = json!("\0");
    let change = parse(&[event]).unwrap().changes.remove(0);
    assert_eq!(
        (change.sentence.as_str(), change.camera.as_deref()),
        ("a\u{fffd}b", Some("\u{fffd}"))
    );
    assert!(!change.data.to_string().contains("\\u0000"));
    let data: Value = serde_json::from_str(&change.data.to_string()).unwrap();
    assert_eq!(data["ke\u{fffd}y"][0], "\u{fffd}");
}

#[test]
fn a_data_reference_stands_for_the_trajectory() {
    let mut event = incident(1);
    event["dataref"] = json!("a".repeat(64));
    assert!(parse(&[event.clone()]).unwrap_err().to_string().contains("data.trajectory"));
    event["data"].as_object_mut().unwrap().remove("trajectory");
    assert_eq!(parse(&[event]).unwrap().changes[0].dataref, ContentHash::parse(&"a".repeat(64)));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_batch(&bytes, &device());
    }

    #[test]
    fn no_text_like_json_panics(text in "[\\[\\]{}\",:\\\\0-9a-z \u{0}é]{0,200}") {
        let _ = parse_batch(text.as_bytes(), &device());
    }

    #[test]
    fn no_damaged_batch_panics(at in 0usize..700, byte in any::<u8>(), cut in 0usize..1400) {
        let mut bytes = serde_json::to_vec(&[incident(1), dropped(json!([[1, 2]]))]).unwrap();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut);
        let _ = parse_batch(&bytes, &device());
    }
}
