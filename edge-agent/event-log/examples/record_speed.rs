//! How long recording and opening take: `cargo run --release -p event-log --example record_speed
//! DIRECTORY [EVENTS]`. Each event carries a trajectory of 20 kB, as an inquiry of eight turns does.
#![allow(clippy::print_stdout)]

use event_log::{EventLog, EvidenceItem, Incident, Level, Phase, Query};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: record_speed DIRECTORY [EVENTS]")?;
    let events: u32 = args.next().map_or(Ok(2000), |n| n.parse())?;
    let path = Path::new(&dir).join("speed.db");
    let now = WallTime { unix_us: 1_793_707_200_000_000, quality: ClockQuality::Ntp };
    let incident = incident(now);

    let (mut log, _) = EventLog::open(&path, now)?;
    let mut times = Vec::new();
    for _ in 0..events {
        let begin = Instant::now();
        let id = log.record(&incident, now)?;
        times.push(begin.elapsed());
        log.update(&id, &incident, Phase::End)?;
    }
    let list = timed(|| log.events(&Query::default()).map(|rows| rows.len()))?;
    drop(log);
    let open = timed(|| EventLog::open(&path, now).map(|(log, _)| drop(log)))?;

    times.sort();
    let mib = std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20);
    let percentile = |p: usize| times[(times.len() * p / 100).min(times.len() - 1)];
    println!("record: p50 {:?}, p99 {:?} over {events} events", percentile(50), percentile(99));
    println!("read the newest hundred: {list:?}");
    println!("open and check {mib:.0} MiB: {open:?} ({:?} a MiB)", open.div_f64(mib.max(1.0)));
    Ok(())
}

fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn incident(now: WallTime) -> Incident {
    let step = json!({
        "op": "expand",
        "thought": "w".repeat(2000),
        "frames": vec![json!({"id": "f0", "t_s": 1.5}); 8],
    });
    let item = |n: i64| EvidenceItem {
        frame_id: format!("f{n:016x}"),
        media_time: MediaTime(n * 500_000),
        hash: "ab".repeat(32),
    };
    Incident {
        camera: CameraId(0),
        camera_name: "yard".to_owned(),
        start: now,
        end: now,
        start_media: MediaTime(0),
        end_media: MediaTime(20_000_000),
        level: Level::Notice,
        label: "fall".to_owned(),
        score: 0.8,
        sentence: "A person fell and stays on the ground.".to_owned(),
        clips: json!([]),
        trajectory: json!(vec![step; 8]),
        frames_used: 64,
        bundle: "nano 1".to_owned(),
        engine: "tract cpu".to_owned(),
        stopped_by: "final".to_owned(),
        evidence: (0..64).map(item).collect(),
        pin: Some(1),
    }
}
