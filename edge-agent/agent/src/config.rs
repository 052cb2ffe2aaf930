//! The configuration: one TOML file, every key with a default.
//!
//! The sections below are the whole truth about it: what a key means, what it may be and what it is
//! when it is not given stands in one place, and [`Config::print_default`] prints just that.

mod error;
mod section;
mod setting;
#[cfg(test)]
mod tests;

pub use error::ConfigError;

use ::engine::Provider;
use ::uplink::{BrokerAddress, prefix_problem};
use hal_board::CAMERAS_MAX;
use section::{Declared, File, Root, Table, comment, section};
use setting::{Setting, Text};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How much the agent may say, the least first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the sentinel may score by.
const GATES: [&str; 2] = ["network", "background"];

/// From which level on there is an alarm.
const ALARM_LEVELS: [&str; 3] = ["alert", "notice", "never"];

/// What the agent is told. [`Config::default`] watches one simulated camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This device.
    pub device: Device,
    /// Its cameras, at least one and at most [`CAMERAS_MAX`](hal_board::CAMERAS_MAX).
    pub cameras: Vec<Camera>,
    /// The frame store.
    pub store: Store,
    /// The always-on gate.
    pub sentinel: Sentinel,
    /// The inquiries.
    pub inquiry: Inquiry,
    /// What becomes an event.
    pub events: Events,
    /// The line to a fleet server.
    pub uplink: Uplink,
    /// The MQTT broker that hears of events too.
    pub mqtt: Mqtt,
    /// New policies.
    pub update: Update,
    /// New systems.
    pub os: Os,
    /// Numbers for Prometheus.
    pub metrics: Metrics,
    /// The board's lights, lines and watchdog.
    pub board: Board,
    /// What the agent says about itself.
    pub log: Log,
}

section! {
    /// This device.
    [device] Device {
        /// What people call it; it stands in every event that leaves the device.
        name: String = "lookback".into(), Text::Filled;
        /// Where footage, evidence and the event log live. Relative to the directory in which the
        /// agent is started.
        data_dir: PathBuf = "./lookback-data".into(), Text::Filled;
    }
}

section! {
    /// A camera. Repeat the section for each, up to four times; without any, one simulated camera is
    /// watched.
    [[camera]] Camera {
        /// What people call it; no two cameras may share a name. Not given, it is "camera-" and its
        /// number.
        name: String = "camera-1".into(), Text::Filled;
        /// Which camera: "v4l2:/dev/video0" for a device, "file:PATH" for a video, "sim:seed=263"
        /// for a simulated scene. The one key that a section of its own must give. Options follow a
        /// device after commas: size=1280x720, fps=8, format=MJPG, exposure=100 (units of 100 µs, or
        /// auto), gain=10 (or auto), power_line=50 (or 60, auto, off); what is not given of the last
        /// three stays as the camera has it.
        source: String = "sim:seed=263".into(), Text::Filled;
        /// What is normal here, in plain words, such as "people lie on the grass". The policy reads
        /// it.
        normal: String = String::new(), Text::Any;
    }
}

section! {
    /// The frame store: how much footage is kept, and how dense.
    [store] Store {
        /// Disk space for footage, in MiB; at least four segments.
        bytes_max_mb: u64 = 512, 4..=16_777_216;
        /// Size of one file of footage, in MiB: the unit of forgetting.
        segment_mb: u64 = 8, 1..=1024;
        /// Disk space for the evidence of events, in MiB, beside bytes_max_mb.
        evidence_mb: u64 = 256, 1..=16_777_216;
        /// JPEG quality of frames that a camera delivers raw.
        jpeg_quality: u8 = 85, 1..=100;
        /// Up to this age, in minutes, every frame is kept.
        full_rate_minutes: f64 = 10.0, 0.0..=100_000.0;
        /// Up to this age, in hours, one frame per hour_step_s is kept, and one per day_step_s
        /// beyond it.
        hours: f64 = 2.0, 0.0..=10_000.0;
        /// Seconds between frames older than full_rate_minutes, when the disk space is used up.
        hour_step_s: f64 = 1.0, 0.05..=3600.0;
        /// Seconds between frames older than hours, when the disk space is used up.
        day_step_s: f64 = 10.0, 0.05..=86_400.0;
    }
}

section! {
    /// The sentinel: the always-on gate that decides when an inquiry is worth its cost.
    [sentinel] Sentinel {
        /// What scores the frames: "network" looks for the beginning of an incident, "background" for
        /// lasting change in the place. Background subtraction also decides where the network must
        /// not be trusted; `lookback doctor` says so.
        gate: String = tuned().gate.name().into(), Text::OneOf(&GATES);
        /// It looks at every n-th frame.
        every_nth: u32 = tuned().every_nth, 1..=1000;
        /// Saliency from which it wakes the policy.
        wake_at: f64 = as_written(tuned().wake_at), 0.0..=1.0;
        /// Saliency below which it rests again; at most wake_at.
        rest_at: f64 = as_written(tuned().rest_at), 0.0..=1.0;
        /// Seconds after a wake in which it does not wake again.
        refractory_s: f64 = tuned().refractory_s, 0.0..=3600.0;
        /// Seconds without an inquiry after which one is opened all the same; 0: never.
        patrol_s: Option<f64> = tuned().patrol_s, 0.0..=86_400.0;
    }
}

section! {
    /// The inquiries: how far the policy looks, and what it may use.
    [inquiry] Inquiry {
        /// Directory of the policy's bundle; "": the one that is built in.
        bundle: PathBuf = PathBuf::new(), Text::Any;
        /// The window of an inquiry begins this many seconds before the wake.
        look_back_s: f64 = 120.0, 1.0..=3600.0;
        /// It ends this many seconds after the wake.
        settle_s: f64 = 2.0, 0.0..=60.0;
        /// Most turns of the policy, the one with its verdict included; 0: as the bundle says.
        turns: Option<u32> = None, 0..=64;
        /// Most frames that it may see; 0: as the bundle says.
        frames: Option<u32> = None, 0..=4096;
        /// Most time that it may take, in milliseconds; 0: as the bundle says.
        wall_ms: Option<u64> = None, 0..=3_600_000;
        /// Processor threads for inference; 0: one for a small policy, one for each core for one of
        /// billions of weights.
        threads: Option<u32> = None, 0..=256;
        /// Most memory that the policy may take, in MB; 0: what is free when it starts.
        memory_mb: Option<u64> = None, 0..=4_194_304;
        /// Library of ONNX Runtime that is to see in the processor's place, if it can; "": none.
        onnx_runtime: PathBuf = PathBuf::new(), Text::Any;
        /// What ONNX Runtime computes with. "tensorrt" takes minutes to compile a policy the first time.
        provider: String = Provider::default().to_string(), Text::OneOf(&Provider::WORDS);
        /// What the policy speaks with: "cpu"; or "cuda", an NVIDIA GPU, if this program was built for
        /// one and the GPU says what the processor says.
        decoder: String = "cpu".into(), Text::OneOf(&["cpu", "cuda"]);
    }
}

section! {
    /// What becomes an event, and how long events stay.
    [events] Events {
        /// Score from which a person should know; 0: as the bundle says.
        notice_at: Option<f64> = None, 0.0..=1.0;
        /// Score from which a person should look now; 0: as the bundle says.
        alert_at: Option<f64> = None, 0.0..=1.0;
        /// Whether an inquiry that found nothing becomes an event too, of level "info".
        report_normal: bool = false, ();
        /// An incident that begins within so many seconds after the end of one of the same camera
        /// and label goes on with that one's event.
        merge_gap_s: f64 = 10.0, 0.0..=3600.0;
        /// Most events in the log; beyond it the least important of the oldest go.
        rows_max: u64 = 100_000, 100..=100_000_000;
    }
}

section! {
    /// The line to a fleet server, for a device that was enrolled with one (`lookback enrol`).
    [uplink] Uplink {
        /// Megabytes that may go over the line in an hour; alerts go all the same. 0: no bound.
        megabytes_per_hour: Option<f64> = None, 0.0..=1_000_000.0;
        /// Whether the pictures that an event rests on are sent after it, when nothing else waits.
        evidence: bool = true, ();
    }
}

section! {
    /// An MQTT broker that hears of events too, for home automation and video systems, with or without a
    /// fleet server. Whoever may read there reads what the cameras saw.
    [mqtt] Mqtt {
        /// Where it is: "mqtt://HOST", or "mqtts://HOST" with TLS, perhaps with :PORT; "": there is none.
        broker: String = String::new(), Text::Any;
        /// The user name there; "": none.
        username: String = String::new(), Text::Any;
        /// File whose first line is the password; "": none. It is read at the start and told to nobody
        /// else.
        password_file: PathBuf = PathBuf::new(), Text::Any;
        /// File with the authorities that may have signed the certificate of an mqtts broker, in PEM.
        ca: PathBuf = "/etc/ssl/certs/ca-certificates.crt".into(), Text::Filled;
        /// File with this device's own certificate, for a broker that asks for one, in PEM; "": none.
        certificate: PathBuf = PathBuf::new(), Text::Any;
        /// File with the key of that certificate, in PEM.
        key: PathBuf = PathBuf::new(), Text::Any;
        /// The first levels of every topic; the name of the device comes next, so no two devices may
        /// share theirs.
        prefix: String = "lookback".into(), Text::Filled;
        /// Where Home Assistant looks for devices; "": it is not told.
        discovery: String = "homeassistant".into(), Text::Any;
    }
}

section! {
    /// New policies, from a repository that its owner signs (`lookback-fleet repo`).
    [update] Update {
        /// Where it is: "https://HOST/PATH", or a folder such as that of a stick; "": there is none.
        repository: String = String::new(), Text::Any;
        /// Which of its channels this device follows.
        channel: String = "stable".into(), Text::Filled;
        /// File with the root.json that the owner of the repository gave out; it decides whose signatures
        /// count, and is read until the device has seen the repository once.
        root: PathBuf = PathBuf::new(), Text::Any;
        /// File with the authorities that may have signed the certificate of an https repository, in PEM.
        ca: PathBuf = "/etc/ssl/certs/ca-certificates.crt".into(), Text::Filled;
        /// Hours between two looks for a new policy, in the mean; 0: only `lookback update` looks.
        /// What comes is tried beside the policy that watches.
        poll_hours: Option<f64> = Some(6.0), 0.0..=8760.0;
        /// Minutes for which a new policy is tried on live footage, after each inquiry of the one that
        /// watches, where there is memory for both; 0, or where there is not: it is loaded and held
        /// to its golden answers at the next start, and that is all.
        trial_minutes: Option<f64> = Some(30.0), 0.0..=100_000.0;
        /// Kilobytes that may be fetched in a second; 0: no bound.
        kilobytes_per_s: Option<f64> = None, 0.0..=10_000_000.0;
        /// Hours of the day, in UTC and by the clock of the device, in which it fetches by itself, such
        /// as "01:00-05:00"; "": at any. It asks what is new at any hour; `lookback update apply` and
        /// sticks do not wait.
        window: String = String::new(), Text::Any;
        /// Folder in which the system mounts sticks, such as "/media"; "": none is looked for. From a
        /// repository on one, up to three folders deep, it takes as from the other, for its signatures
        /// alone.
        stick: PathBuf = PathBuf::new(), Text::Any;
    }
}

section! {
    /// The operating system, where it is an image of Lookback, which RAUC keeps in two slots.
    [os] Os {
        /// Which channel of the repository in [update] offers new systems to this device, at the hours and
        /// speed that stand there; "": none. `lookback os install FILE` brings one by hand.
        channel: String = String::new(), Text::Any;
        /// RAUC's program.
        rauc: PathBuf = "rauc".into(), Text::Filled;
        /// Minutes that it may take to install a system.
        install_minutes: f64 = 30.0, 0.001..=1440.0;
        /// File that the agent makes when a new system is installed and should start, since it has no right
        /// to restart the machine itself: the image does, when the file appears; "": a person does.
        reboot_file: PathBuf = "/run/lookback/reboot".into(), Text::Any;
        /// Minutes for which a new system must watch in good health before it is confirmed: every camera, the
        /// store and the inquiries come round, and frames are stored. One that is not confirmed within
        /// a quarter of an hour makes room for the one before it.
        confirm_minutes: f64 = 5.0, 0.0..=1440.0;
        /// Where the system's own files lie, such as proc/cmdline and etc/os-release; another folder than
        /// "/" is for trying things.
        sysroot: PathBuf = "/".into(), Text::Filled;
    }
}

section! {
    /// Numbers for Prometheus.
    [metrics] Metrics {
        /// Address and port at which GET /metrics is answered, such as "127.0.0.1:9464"; "": nowhere. It asks
        /// for no password.
        listen: String = String::new(), Text::Any;
    }
}

section! {
    /// The board: its lights, lines and watchdog.
    [board] Board {
        /// Which board: "generic" has none of these; "orin-nano" and "vm" are built in as well; or the
        /// path of a description of your own.
        description: String = "generic".into(), Text::Filled;
        /// From which level on an event sets off the alarm relay.
        alarm_at: String = "alert".into(), Text::OneOf(&ALARM_LEVELS);
        /// Seconds for which an event sets it off.
        alarm_s: f64 = 30.0, 0.1..=3600.0;
    }
}

section! {
    /// What the agent says about itself, on standard error.
    [log] Log {
        /// How much.
        level: String = "info".into(), Text::OneOf(&LEVELS);
    }
}

/// The sentinel's own defaults: they were tuned with it and change with it.
fn tuned() -> ::sentinel::SentinelOptions {
    ::sentinel::SentinelOptions::default()
}

/// 0.2 as 0.2, where widening would make 0.20000000298 of it.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: Device::default(),
            cameras: vec![Camera::default()],
            store: Store::default(),
            sentinel: Sentinel::default(),
            inquiry: Inquiry::default(),
            events: Events::default(),
            uplink: Uplink::default(),
            mqtt: Mqtt::default(),
            update: Update::default(),
            os: Os::default(),
            metrics: Metrics::default(),
            board: Board::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// The configuration in the file at `path`; without one, the default.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong, with its line and what would be right.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            None => Ok(Self::default()),
            Some(path) => Self::parse(&File::read(path)?),
        }
    }

    /// The default configuration as a TOML file in which every key is explained.
    pub fn print_default() -> String {
        let mut text = String::from(
            "# The configuration of Lookback. Every key may be left out; what stands here is what\n\
             # it is then.\n",
        );
        let Self {
            device,
            cameras,
            store,
            sentinel,
            inquiry,
            events,
            uplink,
            mqtt,
            update,
            os,
            metrics,
            board,
            log,
        } = Self::default();
        device.print(&mut text);
        cameras.iter().for_each(|camera| camera.print(&mut text));
        store.print(&mut text);
        sentinel.print(&mut text);
        inquiry.print(&mut text);
        events.print(&mut text);
        uplink.print(&mut text);
        mqtt.print(&mut text);
        update.print(&mut text);
        os.print(&mut text);
        metrics.print(&mut text);
        board.print(&mut text);
        log.print(&mut text);
        text
    }

    fn parse(file: &File) -> Result<Self, ConfigError> {
        let root = file.sections(&[
            Device::SECTION,
            Camera::SECTION,
            Store::SECTION,
            Sentinel::SECTION,
            Inquiry::SECTION,
            Events::SECTION,
            Uplink::SECTION,
            Mqtt::SECTION,
            Update::SECTION,
            Os::SECTION,
            Metrics::SECTION,
            Board::SECTION,
            Log::SECTION,
        ])?;
        let config = Self {
            device: Device::read(&root)?,
            cameras: Camera::read_each(&root)?,
            store: Store::read(&root)?,
            sentinel: Sentinel::read(&root)?,
            inquiry: Inquiry::read(&root)?,
            events: Events::read(&root)?,
            uplink: Uplink::read(&root)?,
            mqtt: Mqtt::read(&root)?,
            update: Update::read(&root)?,
            os: Os::read(&root)?,
            metrics: Metrics::read(&root)?,
            board: Board::read(&root)?,
            log: Log::read(&root)?,
        };
        match config.contradiction() {
            Some((section, rule)) => Err(root.contradiction(section, rule)),
            None => Ok(config),
        }
    }

    /// What contradicts itself although each key for itself is fine: the section, and the rule.
    fn contradiction(&self) -> Option<(&'static str, String)> {
        let Self { store, sentinel, events, cameras, .. } = self;
        let twin = cameras
            .iter()
            .enumerate()
            .find(|(i, camera)| cameras[..*i].iter().any(|other| other.name == camera.name));
        if let Some((_, camera)) = twin {
            let rule = format!("two cameras are called '{}': give each a name", camera.name);
            return Some(("camera", rule));
        }
        if let Some(rule) = too_many_cameras(cameras.len()) {
            return Some(("camera", rule));
        }
        if let Some(rule) = self.mqtt.contradiction() {
            return Some(("mqtt", rule));
        }
        if let Err(rule) = self.update.fetching_window() {
            return Some(("update", rule));
        }
        if let Err(rule) = self.metrics.address() {
            return Some(("metrics", rule));
        }
        let above = |low: Option<f64>, high: Option<f64>| low.zip(high).is_some_and(|(l, h)| l > h);
        [
            (
                store.bytes_max_mb < 4 * store.segment_mb,
                "store",
                "bytes_max_mb must be at least four times segment_mb",
            ),
            (
                store.hours * 60.0 < store.full_rate_minutes,
                "store",
                "hours must not be less than full_rate_minutes",
            ),
            (
                store.day_step_s < store.hour_step_s,
                "store",
                "day_step_s must not be less than hour_step_s",
            ),
            (sentinel.rest_at > sentinel.wake_at, "sentinel", "rest_at must not exceed wake_at"),
            (
                above(events.notice_at, events.alert_at),
                "events",
                "notice_at must not exceed alert_at",
            ),
        ]
        .into_iter()
        .find(|(wrong, ..)| *wrong)
        .map(|(_, section, rule)| (section, rule.to_owned()))
    }
}

/// What is wrong with so many cameras, if anything is.
pub fn too_many_cameras(cameras: usize) -> Option<String> {
    (cameras > CAMERAS_MAX).then(|| {
        format!(
            "there are {cameras} cameras, and one device watches at most {CAMERAS_MAX}: give the \
             others to another device"
        )
    })
}

impl Camera {
    fn read_each(root: &Root<'_>) -> Result<Vec<Self>, ConfigError> {
        let mut cameras = Self::read_all(root)?;
        for (i, (camera, table)) in cameras.iter_mut().zip(root.tables("camera")).enumerate() {
            if !table.has("source") {
                return Err(table.absent("source", &Self::default().source));
            }
            if !table.has("name") {
                camera.name = format!("camera-{}", i + 1);
            }
        }
        Ok(cameras)
    }
}

impl Board {
    /// The level from which on there is an alarm, if there ever is.
    pub fn alarm_level(&self) -> Option<event_log::Level> {
        match self.alarm_at.as_str() {
            "never" => None,
            "notice" => Some(event_log::Level::Notice),
            _ => Some(event_log::Level::Alert),
        }
    }
}

impl Uplink {
    /// How the line is used.
    pub fn options(&self) -> ::uplink::Options {
        let bytes_per_hour = self.megabytes_per_hour.map(|mb| (mb * 1e6) as u64);
        let evidence = self.evidence;
        ::uplink::Options { bytes_per_hour, evidence, ..::uplink::Options::default() }
    }
}

impl Mqtt {
    /// Whether there is a broker.
    pub fn is_on(&self) -> bool {
        !self.broker.is_empty()
    }

    /// How the broker is reached.
    pub fn access(&self) -> ::uplink::Access {
        let Self { broker, username, password_file, ca, certificate, key, .. } = self.clone();
        ::uplink::Access { url: broker, username, password_file, ca, certificate, key }
    }

    /// Where Home Assistant is told, if it is.
    pub fn discovery(&self) -> Option<String> {
        (!self.discovery.is_empty()).then(|| self.discovery.clone())
    }

    fn contradiction(&self) -> Option<String> {
        let given = |path: &Path| !path.as_os_str().is_empty();
        if !self.is_on() {
            return None;
        }
        let address = match BrokerAddress::parse(&self.broker) {
            Ok(address) => address,
            Err(error) => return Some(format!("broker: {error}")),
        };
        for (key, prefix) in
            [("prefix", Some(self.prefix.clone())), ("discovery", self.discovery())]
        {
            if let Some(rule) = prefix.as_deref().and_then(prefix_problem) {
                return Some(format!("{key} {rule}"));
            }
        }
        [
            (
                given(&self.password_file) && self.username.is_empty(),
                "a password_file needs a username",
            ),
            (
                given(&self.certificate) != given(&self.key),
                "certificate and key belong together: give both or none",
            ),
            (
                given(&self.certificate) && !address.is_encrypted(),
                "a certificate needs a broker of the form mqtts://HOST",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, rule)| wrong.then(|| rule.to_owned()))
    }
}

impl Metrics {
    /// Where numbers are told, if anywhere.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let wrong = |_| {
            let rule = "must be an address and a port, such as \"127.0.0.1:9464\"";
            format!("listen is \"{}\", it {rule}", self.listen)
        };
        self.listen.parse().map(Some).map_err(wrong)
    }
}

impl Update {
    /// When it may be fetched; `None`: at any time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn fetching_window(&self) -> Result<Option<updater::Window>, String> {
        if self.window.is_empty() {
            return Ok(None);
        }
        updater::Window::parse(&self.window).map(Some).map_err(|error| format!("window: {error}"))
    }

    /// Repositories on sticks that are there now.
    pub fn sticks(&self) -> Vec<PathBuf> {
        match self.stick.as_os_str().is_empty() {
            true => vec![],
            false => updater::sticks(&self.stick),
        }
    }
}

impl Sentinel {
    /// What scores the frames.
    pub fn gate_kind(&self) -> ::sentinel::GateKind {
        match self.gate.as_str() {
            "background" => ::sentinel::GateKind::Background,
            _ => ::sentinel::GateKind::Network,
        }
    }

    /// What the sentinel of each camera is made with.
    pub fn options(&self) -> ::sentinel::SentinelOptions {
        ::sentinel::SentinelOptions {
            gate: self.gate_kind(),
            every_nth: self.every_nth,
            wake_at: self.wake_at as f32,
            rest_at: self.rest_at as f32,
            refractory_s: self.refractory_s,
            patrol_s: self.patrol_s,
        }
    }
}

impl Store {
    /// What the frame store is opened with.
    pub fn options(&self) -> frame_store::StoreOptions {
        frame_store::StoreOptions {
            bytes_max: self.bytes_max_mb << 20,
            segment_bytes: self.segment_mb << 20,
            evidence_bytes_max: self.evidence_mb << 20,
            thinning: frame_store::Thinning {
                full_s: self.full_rate_minutes * 60.0,
                hour_step_s: self.hour_step_s,
                hours_s: self.hours * 3600.0,
                day_step_s: self.day_step_s,
            },
            jpeg_quality: self.jpeg_quality,
            expected: None,
        }
    }
}
