//! The log as its users see it: what it keeps, what it survives, what it refuses.

mod bounds;
mod crash;
mod damage;
mod life;

use event_log::{EventLog, EvidenceItem, Incident, Level, OpenReport};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use serde_json::json;
use std::path::Path;

/// 2026-11-03 12:00:00 UTC and `seconds`.
fn at(seconds: i64) -> WallTime {
    let unix_us = (1_793_707_200 + seconds) * 1_000_000;
    WallTime { unix_us, quality: ClockQuality::Ntp }
}

fn open(path: &Path) -> (EventLog, OpenReport) {
    EventLog::open(path, at(0)).expect("the log always opens")
}

/// An incident of `level` that begins `start_s` seconds into the recording.
fn incident(level: Level, start_s: f64) -> Incident {
    let start_media = MediaTime::from_s(start_s);
    Incident {
        camera: CameraId(1),
        camera_name: "yard".to_owned(),
        start: at(start_s as i64),
        end: at(start_s as i64 + 20),
        start_media,
        end_media: start_media.plus_s(20.0),
        level,
        label: "fall".to_owned(),
        score: 0.8,
        sentence: "A person fell and stays on the ground.".to_owned(),
        clips: json!([{"start": start_s, "end": start_s + 20.0, "label": "fall", "score": 0.8}]),
        trajectory: json!([{"step": 0, "op": "backtrack", "thought": "How did it begin?", "p": 0.4}]),
        frames_used: 14,
        bundle: "nano 1".to_owned(),
        engine: "tract cpu".to_owned(),
        stopped_by: "final".to_owned(),
        evidence: vec![EvidenceItem {
            frame_id: format!("f{:016x}", start_s as u64),
            media_time: start_media,
            hash: "ab".repeat(32),
        }],
        pin: Some(start_s as u64),
    }
}

/// The seqs in the outbox.
fn waiting(log: &EventLog) -> Vec<u64> {
    log.outbox(0, usize::MAX).unwrap().iter().map(|entry| entry.seq).collect()
}
