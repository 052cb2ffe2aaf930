//! A search for batches that the parser cannot stand: it knows what a batch looks like, writes one, breaks it
//! and hands it in. `PROPTEST_CASES` says how often; `tests/long fuzz` is the long form.

use fleet::cloudevents::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, Change, Clock, Data, EVENT_BYTES_MAX, Kind, Level,
    Phase, parse_batch,
};
use fleet::ids::{ContentHash, DeviceId, Epoch, EventId};
use fleet::ledger::SEQ_MAX;
use fleet::moment::{Moment, shown};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

/// The most memory that a batch of so many bytes may take. One event at a time is a tree, in which `0,` of two
/// bytes is a value of nine words; what is kept is text, and stretches of seqs of which `[1,1],` is one.
const fn most(bytes: usize) -> usize {
    let tree = if bytes < EVENT_BYTES_MAX { bytes } else { EVENT_BYTES_MAX };
    48 * tree + 4 * bytes + (64 << 10)
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came; the counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `work` returns, and how much memory it held at most beyond what was held before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let done = work();
    (done, PEAK.get().saturating_sub(before))
}

fn device() -> DeviceId {
    DeviceId::parse("abcdefgh01234567").unwrap()
}

fn text_of(moment: Moment) -> String {
    let (seconds, us) =
        (moment.unix_us().div_euclid(1_000_000), moment.unix_us().rem_euclid(1_000_000));
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
    format!("{}.{us:06}Z", shown(time).replace(' ', "T"))
}

/// The batch as a camera would send it.
fn render(batch: &Batch) -> Vec<Value> {
    let event = |c: &Change| {
        let mut event = json!({
            "specversion": "1.0",
            "id": format!("{}-{}", batch.epoch, c.seq),
            "source": format!("urn:lookback:device:{}", device()),
            "type": format!("dev.lookback.{}", c.kind.word()),
            "time": text_of(c.start),
            "datacontenttype": "application/json",
            "sequence": format!("{:020}", c.seq),
            "epoch": batch.epoch.as_str(),
            "severity": c.level.word(),
            "phase": c.phase.word(),
            "clock": c.clock.word(),
            "recordedtime": text_of(c.recorded),
            "data": c.data,
        });
        if let Some(camera) = &c.camera {
            event["subject"] = camera.as_str().into();
        }
        if let Some(hash) = &c.dataref {
            event["dataref"] = hash.as_str().into();
        }
        event
    };
    batch.changes.iter().map(event).collect()
}

fn body(events: &[Value]) -> Vec<u8> {
    serde_json::to_vec(events).unwrap()
}

fn moment() -> impl Strategy<Value = Moment> {
    (-62_000_000_000i64..253_000_000_000, 0i64..1_000_000).prop_map(|(s, us)| {
        let distance = Duration::from_secs(s.unsigned_abs());
        let time = if s < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
        Moment::parse(&format!("{}.{us:06}Z", shown(time).replace(' ', "T"))).unwrap()
    })
}

/// Any text but for U+0000, which becomes another.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

/// Any JSON whose numbers are the same however they are read.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4000i32..4000).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..5).prop_map(|entries| {
                Value::Object(entries.into_iter().collect::<Map<String, Value>>())
            }),
        ]
    })
}

prop_compose! {
    fn change()(
        (kind, phase, level, clock) in (select(Kind::ALL), select(Phase::ALL), select(Level::ALL), select(Clock::ALL)),
        event in "[0-9a-z]{16}",
        (camera, label, sentence) in (text(), text(), text()),
        score in prop::option::of(0u16..=1024),
        (start, end, recorded) in (moment(), moment(), moment()),
        dataref in prop::option::weighted(0.2, "[0-9a-f]{64}"),
        drops in prop::option::weighted(0.3, prop::collection::vec((1u64..1000, 0u64..9), 0..4)),
        (trajectory, more) in (value(), value()),
    ) -> Change {
        let drops = drops.filter(|_| kind == Kind::Health);
        let dropped: Vec<(u64, u64)> =
            drops.iter().flatten().map(|&(first, more)| (first, first + more)).collect();
        let label = if drops.is_some() { "events dropped".to_owned() } else { label };
        // Such numbers are the same however they are read.
        let score = score.map(|n| f32::from(n) / 1024.0);
        let mut data = json!({
            "id": event, "kind": kind.word(), "label": label, "sentence": sentence,
            "end": text_of(end), "score": score.map(f64::from), "more": more,
        });
        if dataref.is_none() {
            data["trajectory"] = trajectory;
        }
        if drops.is_some() {
            data["fields"] = json!({"seqs": dropped});
        }
        Change {
            seq: 0, event: EventId::parse(&event).unwrap(), kind, phase, level,
            camera: (kind == Kind::Incident).then_some(camera), label, score, sentence,
            start, end, clock, recorded, data: Data::of(&data).unwrap(),
            dataref: dataref.as_deref().and_then(ContentHash::parse), dropped,
            policy: None,
        }
    }
}

prop_compose! {
    fn batch()(
        epoch in "[0-9a-f]{16}",
        changes in prop::collection::vec((change(), prop_oneof![1u64..4, Just(1 << 60)]), 1..6),
    ) -> Batch {
        let mut seq = 0u64;
        let changes = changes
            .into_iter()
            .map(|(change, step)| {
                seq = (seq + step).min(SEQ_MAX);
                Change { seq, ..change }
            })
            .collect();
        Batch { epoch: Epoch::parse(&epoch).unwrap(), changes }
    }
}

/// The batch without the last digits of its numbers, which may differ by how they are written.
fn coarse(batch: &Batch) -> Batch {
    fn round(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => {
                *value = format!("{:.9e}", number.as_f64().unwrap_or_default()).into();
            }
            Value::Array(values) => values.iter_mut().for_each(round),
            Value::Object(map) => map.values_mut().for_each(round),
            _ => {}
        }
    }
    let mut batch = batch.clone();
    for change in &mut batch.changes {
        let mut data: Value = serde_json::from_str(&change.data.to_string()).unwrap();
        round(&mut data);
        change.data = Data::of(&data).unwrap();
        change.score = change.score.map(|score| (score * 1e6).round());
    }
    batch
}

/// One way to break a batch.
#[derive(Clone, Debug)]
enum Break {
    /// A value somewhere within becomes another.
    Put(Vec<Index>, Value),
    /// A key or an element somewhere within goes.
    Remove(Vec<Index>),
    /// A value somewhere within takes the place of another.
    Move(Vec<Index>, Vec<Index>),
    /// A value somewhere within sinks below so many brackets.
    Sink(Vec<Index>, usize),
    /// A text somewhere within is repeated.
    Swell(Vec<Index>, usize),
    /// An event comes twice.
    Again(Index),
    /// A byte becomes another.
    Flip(Index, u8),
    /// It ends early.
    Cut(Index),
    /// A piece of it comes twice.
    Splice(Index, Index, Index),
    /// A key comes twice, with two values.
    SecondKey(Value),
}

fn way() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..5)
}

fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        value(),
        select(vec![
            json!(null),
            json!(-1),
            json!(u64::MAX),
            json!(1e308),
            json!("\0"),
            json!("9".repeat(400)),
            json!([[1, 2], [u64::MAX, 1]]),
            json!("99999999999999999999"),
            json!("0000-00-00T00:00:00Z"),
            json!({"kind": 7}),
            json!("urn:lookback:device:"),
            json!([[]]),
            json!(0.1),
        ]),
    ]
}

fn breaks() -> impl Strategy<Value = Vec<Break>> {
    let one = prop_oneof![
        (way(), odd()).prop_map(|(way, value)| Break::Put(way, value)),
        way().prop_map(Break::Remove),
        (way(), way()).prop_map(|(from, to)| Break::Move(from, to)),
        (way(), 1usize..300).prop_map(|(way, depth)| Break::Sink(way, depth)),
        (way(), 1usize..20_000).prop_map(|(way, times)| Break::Swell(way, times)),
        any::<Index>().prop_map(Break::Again),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Break::Flip(at, byte)),
        any::<Index>().prop_map(Break::Cut),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(a, b, c)| Break::Splice(a, b, c)),
        odd().prop_map(Break::SecondKey),
    ];
    prop::collection::vec(one, 0..4)
}

/// The value at the end of the way; one that ends too early ends where it is.
fn at<'a>(value: &'a mut Value, way: &[Index]) -> &'a mut Value {
    let Some((next, rest)) = way.split_first() else { return value };
    let length = match &*value {
        Value::Array(values) => values.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if length == 0 {
        return value;
    }
    let n = next.index(length);
    let below = match value {
        Value::Array(values) => values.get_mut(n),
        Value::Object(map) => map.values_mut().nth(n),
        _ => None,
    };
    match below {
        Some(below) => at(below, rest),
        None => unreachable!("it has so many"),
    }
}

fn broken(batch: &Batch, breaks: &[Break]) -> Vec<u8> {
    let mut whole = Value::from(render(batch));
    for one in breaks {
        match one {
            Break::Put(way, value) => *at(&mut whole, way) = value.clone(),
            Break::Remove(way) => match (at(&mut whole, way), way.first()) {
                (Value::Array(values), Some(n)) if !values.is_empty() => {
                    drop(values.remove(n.index(values.len())));
                }
                (Value::Object(map), Some(n)) if !map.is_empty() => {
                    let key = map.keys().nth(n.index(map.len())).cloned().unwrap();
                    map.remove(&key);
                }
                (other, _) => *other = Value::Null,
            },
            Break::Move(from, to) => {
                let value = at(&mut whole, from).clone();
                *at(&mut whole, to) = value;
            }
            Break::Sink(way, depth) => {
                let value = at(&mut whole, way);
                for _ in 0..*depth {
                    *value = Value::from(vec![value.take()]);
                }
            }
            Break::Swell(way, times) => {
                let value = at(&mut whole, way);
                match value.as_str() {
                    Some(text) if text.len() < 100 => *value = text.repeat(*times).into(),
                    _ => {}
                }
            }
            Break::Again(n) => {
                if let Value::Array(events) = &mut whole
                    && !events.is_empty()
                {
                    let event = events[n.index(events.len())].clone();
                    events.push(event);
                }
            }
            _ => {}
        }
    }
    let mut bytes = serde_json::to_vec(&whole).unwrap();
    for one in breaks {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match one {
            Break::Flip(at, byte) => bytes[at.index(length)] = *byte,
            Break::Cut(at) => bytes.truncate(at.index(length)),
            Break::Splice(from, to, into) => {
                let (a, b) = (from.index(length), to.index(length));
                let piece = bytes[a.min(b)..a.max(b)].to_vec();
                let into = into.index(length);
                bytes.splice(into..into, piece);
            }
            Break::SecondKey(value) => {
                let key = format!("\"sequence\":{value},\"epoch\":");
                bytes =
                    String::from_utf8_lossy(&bytes).replacen("\"epoch\":", &key, 1).into_bytes();
            }
            _ => {}
        }
    }
    bytes
}

proptest! {
    #[test]
    fn a_batch_that_is_written_and_read_is_the_same(batch in batch()) {
        prop_assume!(batch.changes.windows(2).all(|w| w[0].seq < w[1].seq));
        let read = parse_batch(&body(&render(&batch)), &device());
        prop_assert_eq!(read, Ok(batch));
    }

    #[test]
    fn a_broken_batch_is_refused_in_a_sentence_or_means_what_it_says(batch in batch(), breaks in breaks()) {
        let bytes = broken(&batch, &breaks);
        let (read, held) = measured(|| parse_batch(&bytes, &device()));
        prop_assert!(held <= most(bytes.len()), "{held} bytes for {}", bytes.len());
        match read {
            Ok(read) => {
                prop_assert!((1..=BATCH_EVENTS_MAX).contains(&read.changes.len()));
                prop_assert!(read.changes.windows(2).all(|w| w[0].seq < w[1].seq));
                prop_assert!(read.changes.iter().all(|c| (1..=SEQ_MAX).contains(&c.seq)));
                prop_assert!(read.changes.iter().flat_map(|c| &c.dropped).all(|(a, b)| a <= b && *b <= SEQ_MAX));
                prop_assert!(!read.changes.iter().any(|c| c.data.to_string().contains("\\u0000")));
                let again = parse_batch(&body(&render(&read)), &device());
                prop_assert_eq!(again.as_ref().map(coarse), Ok(coarse(&read)));
            }
            Err(refusal) => {
                let said = refusal.to_string();
                prop_assert!(said.len() < 600 && !said.contains('\n'), "{said}");
            }
        }
    }
}

#[test]
fn the_most_costly_batch_is_bounded() {
    // As many small values as there can be, in as many events as there can be.
    let event = |seq: u64| {
        let mut event = json!({
            "specversion": "1.0", "id": format!("00000000000000aa-{seq}"),
            "source": "urn:lookback:device:abcdefgh01234567", "type": "dev.lookback.health",
            "time": "2026-11-03T12:34:56Z", "datacontenttype": "application/json",
            "sequence": format!("{seq:020}"), "epoch": "00000000000000aa", "severity": "info",
            "phase": "end", "clock": "ntp", "recordedtime": "2026-11-03T12:35:00Z",
            "data": {"id": "0123456789abcdef", "label": "x", "sentence": "x", "end": "2026-11-03T12:34:58Z"},
        });
        event["data"]["more"] = vec![0; (EVENT_BYTES_MAX - 700) / 2].into();
        event
    };
    let events: Vec<Value> =
        (1..=BATCH_BYTES_MAX as u64 / EVENT_BYTES_MAX as u64).map(event).collect();
    let bytes = body(&events);
    let (read, held) = measured(|| parse_batch(&bytes, &device()));
    assert_eq!(read.map(|batch| batch.changes.len()), Ok(events.len()));
    assert!(held <= most(bytes.len()), "{held} bytes for {}", bytes.len());
}
