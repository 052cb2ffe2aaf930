//! The mirror between a real event log and a broker that comes and goes, as seen by whoever subscribes.

use event_log::{EventId, EventLog, EventRow, Incident, Level, LogError, LogReader, Phase};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};
use tempfile::{TempDir, tempdir};
use uplink::{
    Broker, BrokerError, Greeting, Journal, Message, Mirror, REPEATED_MAX, Remark, Told, Topics,
};

const CAMERAS: [&str; 2] = ["gate", "back yard"];
const MIRRORED: &str = "mqtt mirror";

fn at(seconds: i64) -> WallTime {
    WallTime { unix_us: (1_793_707_200 + seconds) * 1_000_000, quality: ClockQuality::Ntp }
}

fn incident(camera: usize) -> Incident {
    Incident {
        camera: CameraId(camera as u16),
        camera_name: CAMERAS[camera].to_owned(),
        start: at(0),
        end: at(1),
        start_media: MediaTime(0),
        end_media: MediaTime(1),
        level: Level::Notice,
        label: "fall".to_owned(),
        score: 0.5,
        sentence: "Someone fell.".to_owned(),
        clips: json!([]),
        trajectory: json!([]),
        frames_used: 2,
        bundle: "nano".to_owned(),
        engine: "tract".to_owned(),
        stopped_by: "final".to_owned(),
        evidence: vec![],
        pin: None,
    }
}

/// A device with its log.
struct Device {
    dir: TempDir,
    log: EventLog,
    /// Of each incident its camera and its phase.
    incidents: Vec<(EventId, usize, Phase)>,
    /// What is remembered is lost: the power fails before it is on disk.
    forgets: bool,
    remarks: Vec<Remark>,
}

impl Device {
    fn new() -> Rc<RefCell<Self>> {
        let dir = tempdir().unwrap();
        let (log, _) = EventLog::open(&dir.path().join("events.sqlite"), at(0)).unwrap();
        let (incidents, remarks) = (vec![], vec![]);
        Rc::new(RefCell::new(Self { dir, log, incidents, forgets: false, remarks }))
    }

    fn record(&mut self, camera: usize) -> EventId {
        let id = self.log.record(&incident(camera), at(2)).unwrap();
        self.incidents.push((id.clone(), camera, Phase::New));
        id
    }

    /// Brings the incident of this number, if it is not over, to `phase`.
    fn change(&mut self, number: usize, phase: Phase) {
        let count = self.incidents.len().max(1);
        let Some((id, camera, now)) = self.incidents.get_mut(number % count) else { return };
        if now.may_become(phase) {
            self.log.update(id, &incident(*camera), phase).unwrap();
            *now = phase;
        }
    }
}

struct OfDevice(Rc<RefCell<Device>>, LogReader);

impl Journal for OfDevice {
    type Error = LogError;

    fn newest(&mut self) -> Result<u64, LogError> {
        Ok(self.1.names()?.1)
    }

    fn floor(&mut self, newest: u64) -> Result<u64, LogError> {
        self.1.floor(newest)
    }

    fn changed_after(&mut self, after: u64, floor: u64) -> Result<Option<EventRow>, LogError> {
        self.1.changed_after(after, floor)
    }

    fn over_between(&mut self, after: u64, until: u64) -> Result<u64, LogError> {
        self.1.over_between(after, until)
    }

    fn event(&mut self, id: &EventId) -> Result<Option<EventRow>, LogError> {
        self.1.event(id.as_str())
    }

    fn remember(&mut self, told: &Told) -> Result<(), LogError> {
        let mut device = self.0.borrow_mut();
        if device.forgets {
            return Ok(());
        }
        device.log.state_set(MIRRORED, &serde_json::to_string(told).unwrap())
    }

    fn notice(&mut self, remark: Remark) -> Result<(), LogError> {
        self.0.borrow_mut().remarks.push(remark);
        Ok(())
    }
}

/// What a broker got, and how it fails.
#[derive(Default)]
struct Line {
    got: Vec<Message>,
    away: bool,
    /// It takes messages and its acknowledgements are lost.
    mute: bool,
    /// It breaks every connection soon.
    throws_out: bool,
    connected: bool,
}

struct OnLine(Rc<RefCell<Line>>);

impl OnLine {
    fn gone(&self) -> BrokerError {
        self.0.borrow_mut().connected = false;
        BrokerError::Broke { broker: "mqtt://x".to_owned(), why: "by script".to_owned() }
    }
}

impl Broker for OnLine {
    fn is_connected(&self) -> bool {
        self.0.borrow().connected
    }

    fn connect(&mut self) -> Result<(), BrokerError> {
        if self.0.borrow().away {
            return Err(self.gone());
        }
        self.0.borrow_mut().connected = true;
        Ok(())
    }

    fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        if self.0.borrow().away {
            return Err(self.gone());
        }
        self.0.borrow_mut().got.extend(messages.iter().cloned());
        if self.0.borrow().mute { Err(self.gone()) } else { Ok(()) }
    }

    fn rest(&mut self, _: Duration) -> Result<(), BrokerError> {
        if self.0.borrow().throws_out { Err(self.gone()) } else { Ok(()) }
    }

    fn close(&mut self) {
        self.0.borrow_mut().connected = false;
    }
}

type OfTest = Mirror<OnLine, OfDevice>;

/// A mirror as it begins: with what was remembered last.
fn begun(device: &Rc<RefCell<Device>>, line: &Rc<RefCell<Line>>) -> OfTest {
    begun_with(device, line, &CAMERAS)
}

/// The same of a device with these cameras.
fn begun_with(device: &Rc<RefCell<Device>>, line: &Rc<RefCell<Line>>, cameras: &[&str]) -> OfTest {
    line.borrow_mut().connected = false;
    device.borrow_mut().forgets = false;
    let reader = LogReader::open(&device.borrow().dir.path().join("events.sqlite")).unwrap();
    let told = reader.state_get(MIRRORED).unwrap();
    let told = told.map_or_else(Told::default, |told| serde_json::from_str(&told).unwrap());
    let greeting = Greeting {
        device: "cam".to_owned(),
        cameras: cameras.iter().map(|&camera| camera.to_owned()).collect(),
        discovery: Some("homeassistant".to_owned()),
    };
    let journal = OfDevice(device.clone(), reader);
    Mirror::new(OnLine(line.clone()), journal, Topics::new("lookback", "cam"), greeting, told)
}

/// Steps until nothing is left to tell, or the broker is away.
fn settle(mirror: &mut OfTest) {
    while mirror.step(0.5).unwrap().is_zero() {}
}

/// What was told of each incident, in order.
fn told(line: &Line) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in line.got.iter().filter(|message| message.topic.contains("/event/")) {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        told.entry(text("id")).or_default().push(text("type"));
    }
    told
}

/// The retained message of a topic.
fn retained(line: &Line, topic: &str) -> Option<String> {
    let kept = line.got.iter().rev().find(|m| m.retain && m.topic == topic);
    kept.map(|message| String::from_utf8(message.payload.clone()).unwrap())
}

#[derive(Clone, Debug)]
enum Happens {
    Record(usize),
    Update(usize),
    End(usize),
    Health,
    Step,
    Away(bool),
    Mute(bool),
    Forgets,
    PowerCut,
}

fn anything() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..CAMERAS.len()).prop_map(Happens::Record),
        2 => (0..9usize).prop_map(Happens::Update),
        3 => (0..9usize).prop_map(Happens::End),
        1 => Just(Happens::Health),
        6 => Just(Happens::Step),
        1 => any::<bool>().prop_map(Happens::Away),
        1 => any::<bool>().prop_map(Happens::Mute),
        1 => Just(Happens::Forgets),
        1 => Just(Happens::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_incident_is_told_new_then_on_then_ended_whatever_the_broker_does(
        story in prop::collection::vec(anything(), 1..60),
    ) {
        let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
        let mut mirror = begun(&device, &line);
        let mut faults = false;
        for happens in story {
            match happens {
                Happens::Record(camera) => drop(device.borrow_mut().record(camera)),
                Happens::Update(number) => device.borrow_mut().change(number, Phase::Update),
                Happens::End(number) => device.borrow_mut().change(number, Phase::End),
                Happens::Health => {
                    let log = &mut device.borrow_mut().log;
                    log.health("clock", "It was set.", json!({}), at(3)).unwrap();
                }
                Happens::Step => drop(mirror.step(0.5).unwrap()),
                Happens::Away(away) => line.borrow_mut().away = away,
                Happens::Mute(mute) => {
                    line.borrow_mut().mute = mute;
                    faults |= mute;
                }
                Happens::Forgets => {
                    device.borrow_mut().forgets = true;
                    faults = true;
                }
                Happens::PowerCut => mirror = begun(&device, &line),
            }
        }
        line.borrow_mut().away = false;
        line.borrow_mut().mute = false;
        settle(&mut mirror);
        let (device, line) = (device.borrow(), line.borrow());
        let told = told(&line);
        for (id, _, phase) in &device.incidents {
            let types = told.get(id.as_str()).cloned().unwrap_or_default();
            prop_assert_eq!(types.first().map(String::as_str), Some("new"), "{}", id);
            let over = *phase == Phase::End;
            prop_assert_eq!(types.last().map(String::as_str) == Some("end"), over, "{:?}", types);
            if !faults {
                // Exactly once where nothing was lost on the way.
                let count = |word: &str| types.iter().filter(|t| *t == word).count();
                prop_assert_eq!((count("new"), count("end")), (1, usize::from(over)), "{:?}", types);
                let order = |word: &String| ["new", "update", "end"].iter().position(|w| w == word);
                prop_assert!(types.is_sorted_by_key(order), "{:?}", types);
            }
        }
        let topics = Topics::new("lookback", "cam");
        for (number, camera) in CAMERAS.iter().enumerate() {
            let open = |(_, of, phase): &(_, usize, Phase)| *of == number && *phase != Phase::End;
            let state = if device.incidents.iter().any(open) { "ON" } else { "OFF" };
            let kept = retained(&line, &topics.incident(camera));
            prop_assert_eq!(kept.as_deref(), Some(state));
        }
        let available = retained(&line, &topics.available());
        prop_assert_eq!(available.as_deref(), Some("online"));
        prop_assert!(!device.remarks.iter().any(|remark| matches!(remark, Remark::PassedOver(_))));
    }
}

#[test]
fn after_weeks_away_what_is_open_and_the_newest_are_told_and_how_many_are_not() {
    let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
    let mut mirror = begun(&device, &line);
    let announced = device.borrow_mut().record(0);
    settle(&mut mirror);
    line.borrow_mut().away = true;
    mirror.step(0.5).unwrap();
    device.borrow_mut().change(0, Phase::End);
    let open = device.borrow_mut().record(1);
    for number in 2..2 + 300 {
        device.borrow_mut().record(0);
        device.borrow_mut().change(number, Phase::End);
    }
    settle(&mut mirror);
    line.borrow_mut().away = false;
    line.borrow_mut().got.clear();
    settle(&mut mirror);
    let (device, line) = (device.borrow(), line.borrow());
    let told = told(&line);
    assert_eq!(told[announced.as_str()], ["end"], "whoever waits for its end hears it");
    assert_eq!(told[open.as_str()], ["new"], "it goes on");
    assert_eq!(told.len() as u64, REPEATED_MAX + 2);
    let newest = device.incidents.iter().rev().take(REPEATED_MAX as usize);
    assert!(newest.map(|(id, ..)| &told[id.as_str()]).all(|types| types == &["new", "end"]));
    let passed: Vec<u64> = device
        .remarks
        .iter()
        .filter_map(|remark| match remark {
            Remark::PassedOver(events) => Some(*events),
            _ => None,
        })
        .collect();
    assert_eq!(passed, [300 - REPEATED_MAX]);
    let topics = Topics::new("lookback", "cam");
    assert_eq!(retained(&line, &topics.incident("gate")).as_deref(), Some("OFF"));
    assert_eq!(retained(&line, &topics.incident("back yard")).as_deref(), Some("ON"));
}

#[test]
fn an_incident_that_the_log_lost_is_ended_by_its_name() {
    let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
    let mut mirror = begun(&device, &line);
    let lost = device.borrow_mut().record(0);
    settle(&mut mirror);
    let bound = event_log::Bound { rows: Some(0), bytes: None };
    device.borrow_mut().log.prune(bound, at(9)).unwrap().expect("there is something to drop");
    settle(&mut mirror);
    assert_eq!(told(&line.borrow())[lost.as_str()], ["new", "end"]);
    let topics = Topics::new("lookback", "cam");
    assert_eq!(retained(&line.borrow(), &topics.incident("gate")).as_deref(), Some("OFF"));
}

#[test]
fn a_broker_that_is_away_is_told_of_once_and_so_is_its_return() {
    let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
    let mut mirror = begun(&device, &line);
    line.borrow_mut().away = true;
    for _ in 0..9 {
        mirror.step(1.0).unwrap();
    }
    line.borrow_mut().away = false;
    settle(&mut mirror);
    settle(&mut mirror);
    let device = device.borrow();
    assert!(matches!(device.remarks[..], [Remark::Down(_), Remark::Up]), "{:?}", device.remarks);
    assert_eq!(mirror.status().failures, 9);
}

#[test]
fn who_is_thrown_out_again_and_again_comes_back_slowly_and_is_told_why_once() {
    let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
    let mut mirror = begun(&device, &line);
    line.borrow_mut().throws_out = true;
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        longest = longest.max(mirror.step(0.5).unwrap());
        mirror.rest(Duration::from_millis(1));
    }
    let device = device.borrow();
    let [Remark::Down(BrokerError::TakenOver { client, .. })] = &device.remarks[..] else {
        panic!("{:?}", device.remarks)
    };
    assert_eq!(client, "lookback-cam");
    assert!(longest >= Duration::from_secs(30), "{longest:?}");
}

#[test]
fn a_camera_that_the_device_no_longer_has_is_taken_back_from_whoever_was_told() {
    let (device, line) = (Device::new(), Rc::new(RefCell::new(Line::default())));
    let mut mirror = begun(&device, &line);
    device.borrow_mut().record(1);
    device.borrow_mut().change(0, Phase::End);
    settle(&mut mirror);
    let topics = Topics::new("lookback", "cam");
    let [gate, yard] = CAMERAS;
    let component = |camera: &str| {
        let config = retained(&line.borrow(), &topics.discovery("homeassistant")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        config["components"][topics.entity(camera, "last")].clone()
    };
    let last = |camera: &str| retained(&line.borrow(), &topics.last(camera));
    assert!(component(yard)["state_topic"].is_string());
    assert!(last(yard).is_some_and(|last| last.contains("fall")));
    // However often it starts without the camera: whoever listens may have been away each time.
    for _ in 0..2 {
        line.borrow_mut().got.clear();
        settle(&mut begun_with(&device, &line, &[gate]));
        assert_eq!(component(yard), json!({"platform": "sensor"}));
        assert_eq!(last(yard).as_deref(), Some(""));
        let state = retained(&line.borrow(), &topics.incident(yard));
        assert_eq!(state.as_deref(), Some(""));
        assert!(component(gate)["state_topic"].is_string());
    }
    settle(&mut begun(&device, &line));
    assert!(component(yard)["state_topic"].is_string(), "it is back");
    let state = retained(&line.borrow(), &topics.incident(yard));
    assert_eq!(state.as_deref(), Some("OFF"));
}
