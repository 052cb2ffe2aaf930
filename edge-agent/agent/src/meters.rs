//! What the agent counts, for Prometheus. What each number means stands in fleet/METRICS.md, and a test
//! holds the two together. Numbers are of this process since it began.

use crate::{conclude::Listener, docket::Cause};
use event_log::{EventKind, EventRow, Level, Phase};
use frame_store::StoreStats;
use hal_board::{Asks, ThrottleLevel};
use hal_camera::{CameraId, Span};
use inquiry::Report;
use std::{
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use uplink::MirrorStatus;

/// Upper bounds of the histogram of inquiries, in seconds: a small policy takes one or two, one of
/// billions of weights takes minutes on a CPU.
const BUCKETS_S: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const LEVELS: [Level; 3] = [Level::Info, Level::Notice, Level::Alert];

/// The counters of a watch.
#[derive(Default)]
pub struct Meters {
    cameras: Vec<OfCamera>,
    decided_by: OnceLock<(String, String)>,
    wakes: AtomicU64,
    patrols: AtomicU64,
    given_up: AtomicU64,
    inquiries: Mutex<Inquiries>,
    incidents: [AtomicU64; LEVELS.len()],
    health_events: AtomicU64,
    store: Mutex<Option<StoreStats>>,
    uplink: Mutex<Option<uplink::Status>>,
    mqtt: Mutex<Option<MirrorStatus>>,
    heat: Mutex<Option<ThrottleLevel>>,
    throttle: Mutex<Option<Asks>>,
}

#[derive(Default)]
struct OfCamera {
    name: String,
    captured: AtomicU64,
    dropped: AtomicU64,
    lost: AtomicU64,
}

type Counter = fn(&OfCamera) -> &AtomicU64;

#[derive(Clone, Copy, Default)]
struct Inquiries {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    seconds: f64,
}

impl Meters {
    /// Of a watch of cameras with these names, by number.
    pub fn new<'a>(cameras: impl IntoIterator<Item = &'a str>) -> Self {
        let of = |name: &str| OfCamera { name: name.to_owned(), ..OfCamera::default() };
        Self { cameras: cameras.into_iter().map(of).collect(), ..Self::default() }
    }

    /// What decides: the ids of the policy and of its engine.
    pub fn decided_by(&self, policy: &str, engine: &str) {
        let _ = self.decided_by.set((policy.to_owned(), engine.to_owned()));
    }

    /// A camera gave a frame.
    pub fn captured(&self, camera: CameraId) {
        self.of(camera, |c| &c.captured, 1);
    }

    /// A frame came faster than it could be stored.
    pub fn dropped(&self, camera: CameraId) {
        self.of(camera, |c| &c.dropped, 1);
    }

    /// A camera had made so many frames that could not be taken from it.
    pub fn lost(&self, camera: CameraId, frames: u64) {
        self.of(camera, |c| &c.lost, frames);
    }

    fn of(&self, camera: CameraId, counter: Counter, n: u64) {
        if let Some(camera) = self.cameras.get(usize::from(camera.0)) {
            counter(camera).fetch_add(n, Relaxed);
        }
    }

    /// An inquiry was asked for.
    pub fn wake(&self, cause: Cause) {
        let counter = match cause {
            Cause::Wake => &self.wakes,
            Cause::Patrol => &self.patrols,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// So many inquiries were due and not made.
    pub fn given_up(&self, inquiries: u64) {
        self.given_up.fetch_add(inquiries, Relaxed);
    }

    /// An inquiry took so long.
    pub fn inquired(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut inquiries = lock(&self.inquiries);
        inquiries.count += 1;
        inquiries.seconds += seconds;
        if let Some(bucket) = BUCKETS_S.iter().position(|bound| seconds <= *bound) {
            inquiries.buckets[bucket] += 1;
        }
    }

    /// What the frame store holds.
    pub fn store(&self, stats: &StoreStats) {
        *lock(&self.store) = Some(stats.clone());
    }

    /// What the line to the fleet server has done.
    pub fn uplink(&self, status: &uplink::Status) {
        *lock(&self.uplink) = Some(status.clone());
    }

    /// What the mirror has done.
    pub fn mqtt(&self, status: MirrorStatus) {
        *lock(&self.mqtt) = Some(status);
    }

    /// How hot the board is.
    pub fn heat(&self, level: ThrottleLevel) {
        *lock(&self.heat) = Some(level);
    }

    /// What the heat asks of the path.
    pub fn throttle(&self, asks: Asks) {
        *lock(&self.throttle) = Some(asks);
    }

    /// All of it, in Prometheus' text format. What is not known has no sample.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        page.family("build_info", "gauge", "1, with what runs in the labels.");
        if let Some((policy, engine)) = self.decided_by.get() {
            let version = env!("CARGO_PKG_VERSION");
            page.sample(&[("version", version), ("policy", policy), ("engine", engine)], 1.0);
        }
        self.frames(&mut page);
        self.inquiries(&mut page);
        self.events(&mut page);
        self.outward(&mut page);
        self.throttled(&mut page);
        page.text
    }

    fn frames(&self, page: &mut Page) {
        let counters: [(&str, &str, Counter); 3] = [
            ("frames_captured_total", "Frames that cameras gave.", |c| &c.captured),
            ("frames_dropped_total", "Frames that came faster than they could be stored.", |c| {
                &c.dropped
            }),
            (
                "frames_lost_total",
                "Frames that a camera had made and that could not be taken from it.",
                |c| &c.lost,
            ),
        ];
        for (name, help, counter) in counters {
            page.family(name, "counter", help);
            for camera in &self.cameras {
                page.sample(&[("camera", &camera.name)], counter(camera).load(Relaxed) as f64);
            }
        }
        let store = lock(&self.store).clone();
        page.family("store_bytes", "gauge", "Bytes of footage on disk.");
        store.iter().for_each(|s| page.sample(&[], s.bytes as f64));
        page.family("store_frames", "gauge", "Frames of footage on disk.");
        store.iter().for_each(|s| page.sample(&[], s.frames as f64));
        page.family("evidence_bytes", "gauge", "Bytes of evidence on disk.");
        store.iter().for_each(|s| page.sample(&[], s.evidence_bytes as f64));
    }

    fn inquiries(&self, page: &mut Page) {
        page.family("wakes_total", "counter", "Times that an inquiry was asked for.");
        for (cause, counter) in [("sentinel", &self.wakes), ("patrol", &self.patrols)] {
            page.sample(&[("cause", cause)], counter.load(Relaxed) as f64);
        }
        let given_up = "Inquiries that were due and not made, since the policy was too slow.";
        page.counter("inquiries_given_up_total", given_up, &self.given_up);
        page.family("inquiry_seconds", "histogram", "Time that inquiries took.");
        let Inquiries { buckets, count, seconds } = *lock(&self.inquiries);
        let mut below = 0;
        for (bound, n) in BUCKETS_S.iter().zip(buckets) {
            below += n;
            page.part("_bucket", &[("le", &bound.to_string())], below as f64);
        }
        page.part("_bucket", &[("le", "+Inf")], count as f64);
        page.part("_sum", &[], seconds);
        page.part("_count", &[], count as f64);
    }

    fn events(&self, page: &mut Page) {
        page.family("incidents_total", "counter", "Incidents recorded, by their first level.");
        for (level, counter) in LEVELS.iter().zip(&self.incidents) {
            page.sample(&[("level", level.name())], counter.load(Relaxed) as f64);
        }
        let health = "Sentences about the device itself that were recorded.";
        page.counter("health_events_total", health, &self.health_events);
    }

    fn outward(&self, page: &mut Page) {
        let uplink = lock(&self.uplink).clone();
        page.family("outbox_changes", "gauge", "Changes of events that the fleet server lacks.");
        uplink
            .iter()
            .for_each(|u| page.sample(&[], u.newest.saturating_sub(u.acknowledged) as f64));
        page.family("uplink_up", "gauge", "Whether the last exchange with the server went well.");
        uplink.iter().filter_map(|u| u.up).for_each(|up| page.sample(&[], f64::from(u8::from(up))));
        page.family("uplink_bytes_total", "counter", "Bytes sent to the fleet server.");
        if let Some(u) = &uplink {
            page.sample(&[("kind", "events")], u.event_bytes as f64);
            page.sample(&[("kind", "evidence")], u.evidence_bytes as f64);
        }
        page.family("uplink_failures_total", "counter", "Exchanges with the server that failed.");
        uplink.iter().for_each(|u| page.sample(&[], u.failures as f64));

        let mqtt = lock(&self.mqtt).clone();
        page.family("mqtt_connected", "gauge", "Whether there is a connection to the broker.");
        mqtt.iter().for_each(|m| page.sample(&[], f64::from(u8::from(m.connected))));
        page.family("mqtt_messages_total", "counter", "Messages that the broker acknowledged.");
        mqtt.iter().for_each(|m| page.sample(&[], m.messages as f64));
        page.family("mqtt_failures_total", "counter", "Times that the broker failed us.");
        mqtt.iter().for_each(|m| page.sample(&[], m.failures as f64));
    }

    fn throttled(&self, page: &mut Page) {
        page.family("throttle_level", "gauge", "Heat: 0 normal, 1 warm, 2 hot, 3 critical.");
        let heat = *lock(&self.heat);
        heat.iter().for_each(|level| page.sample(&[], f64::from(*level as u8)));
        page.family("throttle_ratio", "gauge", "Share that the heat leaves.");
        if let Some(asks) = *lock(&self.throttle) {
            let share = |permille: u16| f64::from(permille) / 1000.0;
            page.sample(&[("of", "frames")], share(asks.frames_permille));
            page.sample(&[("of", "inquiries")], share(asks.inquiries_permille));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page of numbers as it is written.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP lookback_{name} {help}\n# TYPE lookback_{name} {kind}");
    }

    fn counter(&mut self, name: &'static str, help: &str, counter: &AtomicU64) {
        self.family(name, "counter", help);
        self.sample(&[], counter.load(Relaxed) as f64);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part("", labels, value);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "lookback_{}{suffix}{labels} {value}", self.name);
    }
}

/// A name that a person gave, as the format wants it between quotation marks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A listener that counts events, once they are committed.
pub struct Counted {
    /// Who else listens.
    pub inner: Box<dyn Listener>,
    /// Where they are counted.
    pub meters: Arc<Meters>,
}

impl Listener for Counted {
    fn looked(&mut self, camera: &str, window: Span, report: &Report) {
        self.inner.looked(camera, window, report);
    }

    fn event(&mut self, row: &EventRow, phase: Phase) {
        if row.kind == EventKind::Incident
            && phase == Phase::New
            && let Some(at) = LEVELS.iter().position(|level| *level == row.level)
        {
            self.meters.incidents[at].fetch_add(1, Relaxed);
        }
        self.inner.event(row, phase);
    }

    fn trouble(&mut self, sentence: &str) {
        self.meters.health_events.fetch_add(1, Relaxed);
        self.inner.trouble(sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// With a sample of everything that can have one.
    fn busy() -> Meters {
        let meters = Meters::new(["gate", "a \"b\"\\\n"]);
        meters.decided_by("nano", "tract");
        meters.captured(CameraId(0));
        meters.captured(CameraId(0));
        meters.dropped(CameraId(1));
        meters.captured(CameraId(7));
        meters.wake(Cause::Patrol);
        for ms in [50, 600, 3000, 500_000] {
            meters.inquired(Duration::from_millis(ms));
        }
        let temp = tempfile::tempdir().unwrap();
        let options = frame_store::StoreOptions::default();
        let fs = Arc::new(frame_store::RealFs);
        let (store, _) = frame_store::FrameStore::open(temp.path(), options, fs).unwrap();
        meters.store(&store.stats());
        let status =
            uplink::Status { up: Some(true), newest: 9, acknowledged: 7, ..Default::default() };
        meters.uplink(&status);
        meters.mqtt(MirrorStatus { connected: true, messages: 5, failures: 1 });
        meters.heat(ThrottleLevel::Hot);
        meters.throttle(Asks::ALL);
        meters
    }

    /// Of each family its kind and its labels.
    fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                family = name.to_owned();
                found.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&family), "{line} is not of {family}");
                let labels = line.split_once('{').map_or("", |(_, rest)| rest);
                let names = labels.split(',').filter_map(|label| label.split_once("=\""));
                let names = names.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
                found.get_mut(&family).unwrap().1.extend(names);
            }
        }
        found
    }

    #[test]
    fn every_number_is_in_the_list_and_everything_in_the_list_is_told() {
        let listed = include_str!("../../../fleet/METRICS.md");
        let listed: BTreeMap<String, (String, BTreeSet<String>)> = listed
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let ["", name, kind, labels, _, "camera", ""] = cells[..] else { return None };
                let labels = labels.split([' ', ',']).filter(|label| !label.is_empty());
                let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
                Some((name.trim_matches('`').to_owned(), (kind.to_owned(), labels)))
            })
            .collect();
        assert!(!listed.is_empty());
        assert_eq!(exported(&busy().text()), listed);
    }

    #[test]
    fn what_is_not_known_is_named_without_a_number() {
        let text = Meters::new(["gate"]).text();
        let samples = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(samples("lookback_frames_captured_total"), 1);
        for unknown in
            ["build_info", "store_bytes", "uplink_up", "mqtt_connected", "throttle_level"]
        {
            assert_eq!(samples(&format!("lookback_{unknown}")), 0, "{unknown}");
        }
    }

    #[test]
    fn numbers_are_told_as_they_were_counted() {
        let text = busy().text();
        for line in [
            "lookback_build_info{version=\"0.1.0\",policy=\"nano\",engine=\"tract\"} 1",
            "lookback_frames_captured_total{camera=\"gate\"} 2",
            "lookback_frames_dropped_total{camera=\"a \\\"b\\\"\\\\\\n\"} 1",
            "lookback_wakes_total{cause=\"patrol\"} 1",
            "lookback_inquiry_seconds_bucket{le=\"1\"} 2",
            "lookback_inquiry_seconds_bucket{le=\"120\"} 3",
            "lookback_inquiry_seconds_bucket{le=\"+Inf\"} 4",
            "lookback_inquiry_seconds_sum 503.65",
            "lookback_outbox_changes 2",
            "lookback_uplink_up 1",
            "lookback_mqtt_messages_total 5",
            "lookback_throttle_level 2",
            "lookback_throttle_ratio{of=\"frames\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
