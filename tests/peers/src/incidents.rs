//! Made-up incidents that look like those of a watch: their sizes, words, levels and lives.

use crate::dice::Dice;
use event_log::{EventId, EventLog, EvidenceItem, Incident, Level, LogError, Phase};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const LABELS: [&str; 6] =
    ["fall", "fire", "abandoned object", "intrusion", "fight", "traffic accident"];
const SENTENCES: [&str; 5] = [
    "Someone lies on the platform and does not get up.",
    "A bag stands alone by the gate for more than a minute.",
    "Two people push each other near the entrance; a third one films it.",
    "Rauch steigt aus dem Papierkorb neben Tür 3 („Süd“).",
    "A car stands across the \"keep clear\" box \u{1f697}.",
];
const CAMERAS: [&str; 4] = ["front door", "yard", "Gleis 2", "loading bay <3>"];
/// The share of events whose steps do not fit into a message, and go by their hash.
const LARGE: f64 = 0.002;
/// The share of texts with a character that PostgreSQL cannot hold.
const ODD: f64 = 0.002;
/// The share of changes that are of the device itself.
const HEALTH: f64 = 0.05;

/// What one camera sees.
pub struct Scene {
    /// The share of incidents that rest on pictures.
    pub pictures: f64,
    open: Vec<(EventId, Incident)>,
}

/// The wall clock, as the logs take it.
#[expect(clippy::disallowed_methods, reason = "the simulated cameras live by this machine's clock")]
pub fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime { unix_us: since.as_micros() as i64, quality: ClockQuality::Ntp }
}

impl Scene {
    /// A quiet one.
    pub fn new(pictures: f64) -> Self {
        Self { pictures, open: vec![] }
    }

    /// What goes on is over for whoever was watching: another life of the camera begins.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// One change of one event: half of an incident's life are updates, then it ends.
    pub fn change(&mut self, log: &mut EventLog, dice: &mut Dice) -> Result<(), LogError> {
        let now = now();
        if dice.happens(HEALTH) {
            let lost = dice.between(1, 50);
            let fields = json!({"camera": *dice.one(&CAMERAS), "lost": lost});
            return log
                .health("frames lost", &format!("{lost} frames were lost."), fields, now)
                .map(drop);
        }
        if self.open.is_empty() || (self.open.len() < 4 && dice.happens(0.3)) {
            let incident = incident(self.pictures, now, dice);
            let id = log.record(&incident, now)?;
            self.open.push((id, incident));
            return Ok(());
        }
        let at = (dice.next() % self.open.len() as u64) as usize;
        let (id, incident) = &mut self.open[at];
        incident.end_media = MediaTime(incident.end_media.0 + 1_500_000);
        incident.score = (incident.score * 0.9 + 0.05).clamp(0.0, 1.0);
        let phase = if dice.happens(0.4) { Phase::End } else { Phase::Update };
        let written = log.update(id, incident, phase);
        if phase == Phase::End || written.is_err() {
            self.open.swap_remove(at);
        }
        match written {
            // It was pruned meanwhile; the next one is another.
            Err(LogError::Unknown { .. }) => self.change(log, dice),
            other => other,
        }
    }
}

fn incident(pictures: f64, now: WallTime, dice: &mut Dice) -> Incident {
    let level = match dice.unit() {
        u if u < 0.1 => Level::Alert,
        u if u < 0.4 => Level::Notice,
        _ => Level::Info,
    };
    let begin = MediaTime(dice.between(0, 80_000_000_000) as i64);
    let evidence: Vec<EvidenceItem> = match dice.happens(pictures) {
        true => (0..dice.between(1, 3)).map(|n| evidence(begin, n, dice)).collect(),
        false => vec![],
    };
    let odd = if dice.happens(ODD) { "\0" } else { "" };
    Incident {
        camera: CameraId(0),
        camera_name: (*dice.one(&CAMERAS)).to_owned(),
        start: WallTime { unix_us: now.unix_us - 9_000_000, ..now },
        end: now,
        start_media: begin,
        end_media: MediaTime(begin.0 + 7_250_000),
        level,
        label: (*dice.one(&LABELS)).to_owned(),
        score: dice.between(1, 999) as f32 / 1000.0,
        sentence: format!("{}{odd}", dice.one(&SENTENCES)),
        clips: json!([{"start": begin.as_s(), "end": begin.as_s() + 7.25, "label": "fall", "score": 0.83, "evidence": [1, 2]}]),
        trajectory: trajectory(begin, dice),
        frames_used: dice.between(8, 48) as u32,
        bundle: "nano 1".to_owned(),
        engine: "tract 0.23 avx2".to_owned(),
        stopped_by: "final".to_owned(),
        pin: (!evidence.is_empty()).then_some(1),
        evidence,
    }
}

fn evidence(begin: MediaTime, n: u64, dice: &mut Dice) -> EvidenceItem {
    let frame_id = format!("{:x}-{n}", dice.next());
    let hash = blake3::hash(&picture(&frame_id)).to_hex().to_string();
    EvidenceItem { frame_id, media_time: MediaTime(begin.0 + n as i64 * 500_000), hash }
}

/// The picture of a frame: as large as a small JPEG, and as hard to compress.
pub fn picture(frame_id: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(frame_id.as_bytes());
    let mut bytes = vec![0; 4000 + frame_id.len() * 100];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn trajectory(begin: MediaTime, dice: &mut Dice) -> Value {
    let steps = if dice.happens(LARGE) { 400 } else { dice.between(2, 5) };
    (0..steps)
        .map(|step| {
            let frames: Vec<Value> = (0..2)
                .map(|n| json!({"id": format!("0-{}", step * 8 + n), "t_s": begin.as_s() + n as f64 * 0.5,
                                "hash": format!("{:016x}", dice.next())}))
                .collect();
            json!({"step": step, "op": if step == 0 { "glance" } else { "backtrack" },
                   "args": {"anchor": begin.as_s(), "span": 8.5, "frames": 8}, "frames": frames,
                   "thought": *dice.one(&SENTENCES), "p": dice.between(0, 1000) as f64 / 1000.0,
                   "tokens": [dice.between(0, 50_000), dice.between(0, 50_000)]})
        })
        .collect()
}
