//! The uplink between a real event log and a server that keeps the contract, over a line that does
//! not: replies are lost, requests repeated, everything is slow or refused.

use event_log::{
    Bound, EVENTS_DROPPED, EventId, EventLog, EventRow, EvidenceItem, Incident, Level, LogReader,
    Phase,
};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tempfile::{TempDir, tempdir};
use uplink::{
    EVENT_BYTES_MAX, Failure, Had, Notice, Options, Outbox, Part, Sender, Server, Uplink, Waiting,
};

fn at(seconds: i64) -> WallTime {
    WallTime { unix_us: (1_793_707_200 + seconds) * 1_000_000, quality: ClockQuality::Ntp }
}

fn incident(level: Level, sentence: &str, pictures: &[Vec<u8>]) -> Incident {
    let evidence = pictures.iter().map(|picture| EvidenceItem {
        frame_id: "f1".to_owned(),
        media_time: MediaTime(1),
        hash: blake3::hash(picture).to_hex().to_string(),
    });
    Incident {
        camera: CameraId(0),
        camera_name: "yard".to_owned(),
        start: at(0),
        end: at(1),
        start_media: MediaTime(0),
        end_media: MediaTime(1),
        level,
        label: "fall".to_owned(),
        score: 0.5,
        sentence: sentence.to_owned(),
        clips: json!([]),
        trajectory: json!([{"step": 0}]),
        frames_used: 2,
        bundle: "nano".to_owned(),
        engine: "tract".to_owned(),
        stopped_by: "final".to_owned(),
        evidence: evidence.collect(),
        pin: Some(1),
    }
}

/// A device: its log, and the pictures that its store would have.
struct Device {
    dir: TempDir,
    log: EventLog,
    pictures: Vec<Vec<u8>>,
    notices: Vec<Notice>,
}

impl Device {
    fn new() -> Rc<RefCell<Self>> {
        let dir = tempdir().unwrap();
        let (log, _) = EventLog::open(&dir.path().join("events.sqlite"), at(0)).unwrap();
        Rc::new(RefCell::new(Self { dir, log, pictures: vec![], notices: vec![] }))
    }

    fn reader(&self) -> LogReader {
        LogReader::open(&self.dir.path().join("events.sqlite")).unwrap()
    }

    fn record(&mut self, level: Level, sentence: &str) -> EventId {
        self.log.record(&incident(level, sentence, &[]), at(0)).unwrap()
    }
}

const CURSOR: &str = "uplink evidence";

struct OfDevice(Rc<RefCell<Device>>);

impl Outbox for OfDevice {
    type Error = event_log::LogError;

    fn waiting(&mut self, after: u64, limit: usize) -> Result<Waiting, Self::Error> {
        let reader = self.0.borrow().reader();
        Ok(Waiting {
            oldest: reader.outbox(after, limit, Level::Info)?,
            alerts: reader.outbox(after, limit, Level::Alert)?,
            newest: reader.names()?.1,
        })
    }

    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, Self::Error> {
        self.0.borrow().log.event(id.as_str())
    }

    fn acknowledge(&mut self, seq: u64) -> Result<(), Self::Error> {
        self.0.borrow_mut().log.acknowledge(seq)
    }

    fn give_up(&mut self, (first, last): (u64, u64), why: &str) -> Result<(), Self::Error> {
        self.0.borrow_mut().log.give_up(first, last, why, at(2)).map(drop)
    }

    fn notice(&mut self, notice: Notice) -> Result<(), Self::Error> {
        self.0.borrow_mut().notices.push(notice);
        Ok(())
    }

    fn unsent_evidence(&mut self) -> Result<Option<EventRow>, Self::Error> {
        let device = self.0.borrow();
        let cursor = device.log.state_get(CURSOR)?.unwrap_or_default();
        let next = device.reader().incident_after(&cursor)?;
        Ok(next.filter(|row| row.phase == Phase::End))
    }

    fn pictures(&mut self, _: &EventRow) -> Result<Vec<Vec<u8>>, Self::Error> {
        Ok(self.0.borrow().pictures.clone())
    }

    fn evidence_sent(&mut self, event: &EventId) -> Result<(), Self::Error> {
        self.0.borrow_mut().log.state_set(CURSOR, event.as_str())
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Good,
    /// It never arrives.
    Cut,
    /// It arrives, and the answer does not.
    ReplyLost,
    /// The server asks for patience.
    Busy,
}

/// A server that keeps the contract, and what it was sent.
#[derive(Default)]
struct Fleet {
    /// Of each seq the first event that came, as the database would keep it.
    kept: BTreeMap<u64, Value>,
    dropped: BTreeSet<u64>,
    /// Seqs in the order in which they came, repeated ones too.
    arrived: Vec<u64>,
    objects: BTreeMap<String, Vec<u8>>,
    /// Sentences that it refuses.
    refuses: Option<&'static str>,
    /// What it answers instead of the truth.
    claims: Option<u64>,
    /// Whether it has room for evidence no more.
    full: bool,
    /// What becomes of the next requests; then the line is good.
    line: Vec<Line>,
    requests: usize,
}

impl Fleet {
    fn committed(&self) -> u64 {
        (1..).take_while(|s| self.kept.contains_key(s) || self.dropped.contains(s)).count() as u64
    }

    fn take(&mut self, batch: &[u8]) -> Result<u64, Failure> {
        let server = "the fleet".to_owned();
        let events: Vec<Value> = serde_json::from_slice(batch).unwrap();
        assert!(!events.is_empty() && events.len() <= 1000 && batch.len() <= 4 << 20);
        if events.iter().any(|e| self.refuses.is_some_and(|s| e["data"]["sentence"] == s)) {
            return Err(Failure::Refused { server, status: 400, why: "data.sentence".to_owned() });
        }
        let mut last = 0;
        for event in events {
            assert!(serde_json::to_vec(&event).unwrap().len() <= EVENT_BYTES_MAX);
            let seq: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
            assert!(seq > last, "ascending");
            last = seq;
            assert_eq!(event["id"], format!("{}-{seq}", event["epoch"].as_str().unwrap()));
            self.arrived.push(seq);
            if event["data"]["label"] == EVENTS_DROPPED {
                let ranges: Vec<(u64, u64)> =
                    serde_json::from_value(event["data"]["fields"]["seqs"].clone()).unwrap();
                self.dropped.extend(ranges.iter().flat_map(|(first, last)| *first..=*last));
            }
            self.kept.entry(seq).or_insert(event);
        }
        Ok(self.claims.unwrap_or_else(|| self.committed()))
    }
}

struct Wire(Rc<RefCell<Fleet>>);

impl Wire {
    /// Carries a request as the line allows.
    fn carry<T>(
        &self,
        request: impl FnOnce(&mut Fleet) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut fleet = self.0.borrow_mut();
        fleet.requests += 1;
        let line = if fleet.line.is_empty() { Line::Good } else { fleet.line.remove(0) };
        let server = || "the fleet".to_owned();
        let cut = || Failure::Unreachable { server: server(), why: "cut".to_owned() };
        match line {
            Line::Good => request(&mut fleet),
            Line::Cut => Err(cut()),
            Line::ReplyLost => request(&mut fleet).and_then(|_| Err(cut())),
            Line::Busy => {
                let retry_after = Some(Duration::from_secs(7));
                Err(Failure::Busy { server: server(), status: 503, retry_after })
            }
        }
    }
}

impl Server for Wire {
    fn name(&self) -> &str {
        "the fleet"
    }

    fn deliver(&mut self, _: &str, batch: &[u8]) -> Result<u64, Failure> {
        self.carry(|fleet| fleet.take(batch))
    }

    fn evidence(&mut self, hash: &str) -> Result<Had, Failure> {
        self.carry(|fleet| {
            let had = fleet.objects.get(hash);
            let whole = had.is_some_and(|b| blake3::hash(b).to_hex().as_str() == hash);
            Ok(if whole { Had::Whole } else { Had::Bytes(had.map_or(0, Vec::len) as u64) })
        })
    }

    fn append(&mut self, part: &Part<'_>) -> Result<Had, Failure> {
        self.carry(|fleet| {
            if fleet.full {
                let (server, retry_after) = ("the fleet".to_owned(), Some(HOUR));
                return Err(Failure::Busy { server, status: 429, retry_after });
            }
            let object = fleet.objects.entry(part.hash.to_owned()).or_default();
            if object.len() as u64 == part.offset {
                object.extend_from_slice(part.bytes);
            }
            let whole = object.len() as u64 == part.total;
            Ok(if whole { Had::Whole } else { Had::Bytes(object.len() as u64) })
        })
    }
}

fn connect(
    device: &Rc<RefCell<Device>>,
    fleet: &Rc<RefCell<Fleet>>,
    options: Options,
) -> Uplink<Wire, OfDevice> {
    let (epoch, _, acknowledged) = device.borrow().reader().names().unwrap();
    let sender = Sender { device: "0123456789abcdef".to_owned(), epoch };
    let (wire, outbox) = (Wire(fleet.clone()), OfDevice(device.clone()));
    Uplink::new(sender, wire, outbox, options, acknowledged, Duration::ZERO)
}

const HOUR: Duration = Duration::from_secs(3600);

/// A wait that only an uplink with nothing left to do asks for.
const AT_REST: Duration = Duration::from_millis(2001);

fn small() -> Options {
    Options { batch: 4, part_bytes: 1000, poll: AT_REST, ..Options::default() }
}

/// Steps until there is nothing left to do; the waits that were asked for.
fn run(uplink: &mut Uplink<Wire, OfDevice>) -> Vec<Duration> {
    let (mut now, mut waits) = (Duration::ZERO, vec![]);
    for _ in 0..10_000 {
        let wait = uplink.step(now, 0.5).unwrap();
        now += wait;
        if wait == AT_REST {
            return waits;
        }
        waits.push(wait);
    }
    panic!("it never comes to rest");
}

fn waiting(device: &Rc<RefCell<Device>>) -> Vec<u64> {
    device.borrow().log.outbox(0, 1000).unwrap().iter().map(|o| o.seq).collect()
}

#[test]
fn alerts_come_first_and_everything_once() {
    let (device, fleet) = (Device::new(), Rc::default());
    for i in 0..10 {
        let level = if i % 4 == 3 { Level::Alert } else { Level::Info };
        device.borrow_mut().record(level, "x");
    }
    run(&mut connect(&device, &fleet, small()));
    assert_eq!(fleet.borrow().arrived, [4, 8, 1, 2, 3, 5, 6, 7, 9, 10]);
    assert!(waiting(&device).is_empty());
    assert_eq!(device.borrow().log.acknowledged().unwrap(), 10);
    let event = &fleet.borrow().kept[&4];
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["source"], "urn:lookback:device:0123456789abcdef");
    assert_eq!(
        (&event["type"], &event["severity"]),
        (&json!("dev.lookback.incident"), &json!("alert"))
    );
    assert_eq!(event["sequence"], "00000000000000000004");
    assert_eq!(event["data"]["trajectory"], json!([{"step": 0}]));
}

#[test]
fn what_the_log_dropped_is_named_to_the_server_which_is_left_without_a_gap() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    for _ in 0..30 {
        device.borrow_mut().record(Level::Info, "x");
    }
    let bound = Bound { rows: Some(10), bytes: None };
    device.borrow_mut().log.prune(bound, at(1)).unwrap().unwrap();
    run(&mut connect(&device, &fleet, small()));
    let fleet = fleet.borrow();
    assert_eq!(fleet.committed(), 31);
    assert_eq!(fleet.dropped.len() + fleet.kept.len(), 31, "dropped or there, never both");
}

#[test]
fn a_server_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    device.borrow_mut().record(Level::Info, "x");
    fleet.borrow_mut().line = vec![Line::Busy, Line::Cut, Line::Cut];
    let waits = run(&mut connect(&device, &fleet, small()));
    // Half of 2, 4 and 8 s; the first on top of the seven that were asked for.
    let expected = [8.0, 2.0, 4.0, 0.0].map(Duration::from_secs_f64);
    assert_eq!(waits, expected);
}

#[test]
fn a_line_that_stays_down_is_told_once_and_again_when_it_is_up() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    device.borrow_mut().record(Level::Info, "x");
    fleet.borrow_mut().line = vec![Line::Cut; 9];
    run(&mut connect(&device, &fleet, small()));
    let notices = &device.borrow().notices;
    assert!(
        matches!(&notices[..], [Notice::Down(Failure::Unreachable { .. }), Notice::Up]),
        "{notices:?}"
    );
}

#[test]
fn what_the_server_refuses_holds_nothing_up_for_ever_and_is_named() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    for i in 0..9 {
        device.borrow_mut().record(Level::Info, if i == 4 { "poison" } else { "x" });
    }
    fleet.borrow_mut().refuses = Some("poison");
    run(&mut connect(&device, &fleet, small()));
    let fleet = fleet.borrow();
    assert_eq!(fleet.kept.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    assert_eq!(
        (fleet.dropped.iter().copied().collect::<Vec<_>>(), fleet.committed()),
        (vec![5], 10)
    );
    assert!(fleet.kept[&10]["data"]["sentence"].as_str().unwrap().contains("refuses it"));
}

#[test]
fn a_server_that_claims_what_it_was_never_sent_makes_nothing_disappear() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    for _ in 0..6 {
        device.borrow_mut().record(Level::Info, "x");
    }
    fleet.borrow_mut().claims = Some(1 << 40);
    let mut uplink = connect(&device, &fleet, small());
    for _ in 0..20 {
        assert!(!uplink.step(Duration::ZERO, 1.0).unwrap().is_zero(), "it is not asked on and on");
    }
    assert_eq!(waiting(&device).len(), 6);
    let lying = |n: &&Notice| matches!(n, Notice::Lying { newest: 6, .. });
    assert_eq!(device.borrow().notices.iter().filter(lying).count(), 1, "told once");
    fleet.borrow_mut().claims = None;
    run(&mut uplink);
    assert_eq!((waiting(&device).len(), fleet.borrow().committed()), (0, 6));
}

#[test]
fn a_server_that_lost_what_it_had_hears_what_is_not_coming_again() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    for _ in 0..8 {
        device.borrow_mut().record(Level::Info, "x");
    }
    run(&mut connect(&device, &fleet, small()));
    fleet.borrow_mut().kept.retain(|seq, _| *seq <= 3);
    device.borrow_mut().record(Level::Info, "x");
    run(&mut connect(&device, &fleet, small()));
    let fleet = fleet.borrow();
    assert_eq!(
        (fleet.dropped.iter().copied().collect::<Vec<_>>(), fleet.committed()),
        ((4..=8).collect(), 10)
    );
    assert!(waiting(&device).is_empty());
}

#[test]
fn evidence_follows_its_event_and_is_taken_up_where_it_was_cut() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    let pictures: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 2500]).collect();
    {
        let mut device = device.borrow_mut();
        device.pictures.clone_from(&pictures);
        let incident = incident(Level::Notice, "x", &pictures);
        let id = device.log.record(&incident, at(0)).unwrap();
        device.log.update(&id, &incident, Phase::End).unwrap();
    }
    fleet.borrow_mut().line =
        vec![Line::Good, Line::Good, Line::Good, Line::ReplyLost, Line::Good, Line::Cut];
    let mut uplink = connect(&device, &fleet, small());
    run(&mut uplink);
    let fleet = fleet.borrow();
    let arrived: BTreeSet<&Vec<u8>> = fleet.objects.values().collect();
    assert_eq!(arrived, pictures.iter().collect());
    let sent = uplink.status().evidence_bytes;
    assert!((7500..=7500 + 2 * 1000).contains(&sent), "{sent}: a cut costs one piece");
    assert!(fleet.requests < 25, "{}", fleet.requests);
}

#[test]
fn evidence_that_the_server_has_no_room_for_holds_up_no_event() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    device.borrow_mut().pictures = vec![vec![1; 2500]];
    {
        let mut device = device.borrow_mut();
        let incident = incident(Level::Notice, "x", &device.pictures);
        let id = device.log.record(&incident, at(0)).unwrap();
        device.log.update(&id, &incident, Phase::End).unwrap();
    }
    fleet.borrow_mut().full = true;
    let mut uplink = connect(&device, &fleet, small());
    let mut now = Duration::ZERO;
    for hour in 0..8u64 {
        device.borrow_mut().record(Level::Info, "y");
        for _ in 0..8 {
            assert!(uplink.step(now, 0.5).unwrap() <= AT_REST, "it comes back for events");
        }
        assert_eq!(fleet.borrow().committed(), 3 + hour);
        // The server asked for an hour, and chance adds its part.
        now += 2 * HOUR;
    }
    assert!(fleet.borrow().requests <= 8 + 1 + 8 + 1, "an offer each time, and no more");
    let notices = device.borrow().notices.clone();
    assert!(matches!(&notices[..], [Notice::EvidenceWaits(_)]), "told once: {notices:?}");
    fleet.borrow_mut().full = false;
    for _ in 0..8 {
        uplink.step(now, 0.5).unwrap();
    }
    assert_eq!(fleet.borrow().objects.len(), 1);
}

#[test]
fn an_event_too_large_for_a_batch_goes_by_its_hash() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    let mut large = incident(Level::Notice, "x", &[]);
    large.trajectory = json!(vec!["a thought"; 20_000]);
    let mut larger = large.clone();
    larger.sentence = "y".repeat(100_000);
    {
        let mut device = device.borrow_mut();
        for incident in [large, larger] {
            let id = device.log.record(&incident, at(0)).unwrap();
            device.log.update(&id, &incident, Phase::End).unwrap();
        }
    }
    run(&mut connect(&device, &fleet, small()));
    let fleet = fleet.borrow();
    for (seq, sentence) in [(2, 1), (4, 2000)] {
        let event = &fleet.kept[&seq];
        assert_eq!(event["data"]["trajectory"], Value::Null);
        assert_eq!(event["data"]["sentence"].as_str().unwrap().len(), sentence);
        let whole = &fleet.objects[event["dataref"].as_str().unwrap()];
        let whole: Value = serde_json::from_slice(whole).unwrap();
        assert_eq!(whole["trajectory"].as_array().unwrap().len(), 20_000);
    }
}

#[test]
fn a_line_with_a_budget_is_not_overdrawn_but_for_alerts() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    for _ in 0..40 {
        device.borrow_mut().record(Level::Info, "x");
    }
    // Ten minutes of it, which are saved up, carry some four events.
    let mut uplink = connect(&device, &fleet, Options { bytes_per_hour: Some(24_000), ..small() });
    let mut now = Duration::ZERO;
    while now.is_zero() {
        now = uplink.step(now, 0.5).unwrap();
    }
    let before = fleet.borrow().arrived.len();
    assert!((1..40).contains(&before), "{before}");
    device.borrow_mut().record(Level::Alert, "now");
    uplink.step(Duration::ZERO, 0.5).unwrap();
    assert_eq!(fleet.borrow().arrived.last(), Some(&41));
    run(&mut uplink);
    assert_eq!(fleet.borrow().committed(), 41);
}

/// At the end of a watch whoever has nothing to do goes: it must not say so while something waits.
#[test]
fn what_waits_behind_a_batch_of_alerts_that_overtook_is_sent_before_it_rests() {
    let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
    let batch = small().batch;
    for level in [vec![Level::Info; batch], vec![Level::Alert; batch], vec![Level::Info]].concat() {
        device.borrow_mut().record(level, "x");
    }
    run(&mut connect(&device, &fleet, small()));
    assert_eq!(fleet.borrow().committed(), 2 * batch as u64 + 1);
    assert_eq!(waiting(&device), Vec::<u64>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Over any line, with restarts at any moment, the server ends up with every change exactly once,
    /// or named as dropped (I5).
    #[test]
    fn no_seq_is_lost_or_doubled_over_any_line(
        levels in prop::collection::vec(0u8..3, 1..25),
        line in prop::collection::vec(0u8..4, 0..40),
        restarts in prop::collection::vec(1usize..6, 0..8),
        pruned_after in prop::option::of(0usize..6),
    ) {
        let (device, fleet) = (Device::new(), Rc::<RefCell<Fleet>>::default());
        let level = |n: u8| [Level::Info, Level::Notice, Level::Alert][usize::from(n)];
        for n in &levels {
            device.borrow_mut().record(level(*n), "x");
        }
        fleet.borrow_mut().line = line
            .iter()
            .map(|n| [Line::Good, Line::Cut, Line::ReplyLost, Line::Busy][usize::from(*n)])
            .collect();
        for (life, steps) in restarts.into_iter().enumerate() {
            let mut uplink = connect(&device, &fleet, small());
            for _ in 0..steps {
                uplink.step(Duration::ZERO, 0.5).unwrap();
            }
            if pruned_after == Some(life) {
                let bound = Bound { rows: Some(5), bytes: None };
                device.borrow_mut().log.prune(bound, at(1)).unwrap();
            }
        }
        run(&mut connect(&device, &fleet, small()));
        let (fleet, newest) = (fleet.borrow(), device.borrow().reader().names().unwrap().1);
        prop_assert_eq!(fleet.committed(), newest);
        prop_assert_eq!(waiting(&device), Vec::<u64>::new());
    }
}
