//! Recording, changing and reading events.

use crate::{at, incident, open, waiting};
use event_log::{EventKind, EventLog, Kinds, Level, LogError, LogReader, Phase, Query};
use hal_camera::{ClockQuality, WallTime};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tempfile::tempdir;

#[test]
fn a_recorded_incident_is_read_back_as_it_was() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    let given = incident(Level::Alert, 61.5);
    let id = log.record(&given, at(90)).unwrap();
    let row = serde_json::to_value(log.event(id.as_str()).unwrap().unwrap()).unwrap();
    let expected = json!({
        "id": id.as_str(),
        "seq": 1,
        "kind": "incident",
        "phase": "new",
        "camera": "yard",
        "camera_id": 1,
        "start_s": 61.5,
        "end_s": 81.5,
        "start": "2026-11-03T12:01:01.000Z",
        "end": "2026-11-03T12:01:21.000Z",
        "clock": "ntp",
        "committed": "2026-11-03T12:01:30.000Z",
        "level": "alert",
        "label": "fall",
        "score": 0.8,
        "sentence": "A person fell and stays on the ground.",
        "clips": given.clips,
        "trajectory": given.trajectory,
        "frames_used": 14,
        "evidence": [{"id": "f000000000000003d", "t_s": 61.5, "hash": "ab".repeat(32)}],
        "bundle": "nano 1",
        "engine": "tract cpu",
        "stopped_by": "final",
        "pin": 61,
    });
    assert_eq!(row, expected);
}

#[test]
fn an_incident_goes_from_new_through_updates_to_its_end_and_each_step_takes_the_next_seq() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    let id = log.record(&incident(Level::Notice, 10.0), at(12)).unwrap();
    let mut later = incident(Level::Alert, 10.0);
    later.evidence.clear();
    later.pin = Some(u64::MAX);
    let again = log.update(&id, &later, Phase::New).unwrap_err();
    assert!(matches!(again, LogError::Phase { to: Phase::New, .. }), "{again}");
    log.update(&id, &later, Phase::Update).unwrap();
    log.update(&id, &later, Phase::Update).unwrap();
    log.update(&id, &later, Phase::End).unwrap();

    for phase in [Phase::New, Phase::Update, Phase::End] {
        let refused = log.update(&id, &later, phase).unwrap_err();
        assert!(matches!(refused, LogError::Phase { from: Phase::End, .. }), "{refused}");
    }
    let row = log.event(id.as_str()).unwrap().unwrap();
    assert_eq!((row.seq, row.phase, row.level), (4, Phase::End, Level::Alert));
    assert!(row.evidence.is_empty());
    assert_eq!(log.pins().unwrap().into_iter().collect::<Vec<_>>(), [u64::MAX]);
    let sent: Vec<_> =
        log.outbox(0, 9).unwrap().into_iter().map(|o| (o.seq, o.phase, o.level)).collect();
    assert_eq!(
        sent,
        [
            (1, Phase::New, Level::Notice),
            (2, Phase::Update, Level::Alert),
            (3, Phase::Update, Level::Alert),
            (4, Phase::End, Level::Alert),
        ]
    );
}

#[test]
fn incidents_that_nobody_ended_are_ended_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    let fall = incident(Level::Alert, 10.0);
    let over = log.record(&incident(Level::Notice, 1.0), at(1)).unwrap();
    log.update(&over, &incident(Level::Notice, 1.0), Phase::End).unwrap();
    let left = log.record(&fall, at(12)).unwrap();
    drop(log);

    let (mut log, _) = open(&path);
    assert_eq!(log.end_open().unwrap(), 1);
    let row = log.event(left.as_str()).unwrap().unwrap();
    assert_eq!(row.phase, Phase::End);
    assert_eq!(waiting(&log), [1, 2, 3, 4], "its end is news for the server");
    assert_eq!(log.end_open().unwrap(), 0);
    assert!(log.check().unwrap().is_empty());
}

#[test]
fn what_cannot_be_an_event_is_refused_and_uses_up_no_seq() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    let good = incident(Level::Info, 5.0);
    let id = log.record(&good, at(0)).unwrap();
    let mut unpinned = good.clone();
    unpinned.pin = None;
    let mut backwards = good.clone();
    backwards.end_media = backwards.start_media.plus_s(-1.0);
    let scored = |score| {
        let mut bad = good.clone();
        bad.score = score;
        bad
    };
    for bad in [unpinned, backwards, scored(f32::NAN), scored(1.1), scored(-0.1)] {
        assert!(matches!(log.record(&bad, at(0)), Err(LogError::Incident { .. })));
        assert!(matches!(log.update(&id, &bad, Phase::End), Err(LogError::Incident { .. })));
    }
    let unknown = "0123456789abcdef".parse().unwrap();
    assert!(matches!(log.update(&unknown, &good, Phase::End), Err(LogError::Unknown { .. })));
    let health = log.health("camera lost", "The camera is gone.", Value::Null, at(1)).unwrap();
    assert!(matches!(log.update(&health, &good, Phase::End), Err(LogError::Unknown { .. })));
    log.update(&id, &good, Phase::End).unwrap();
    assert_eq!(waiting(&log), [1, 2, 3]);
}

#[test]
fn a_health_event_says_what_happened_and_has_no_camera() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    let text = "The camera 'yard' delivers no frames.";
    let id = log.health("camera lost", text, json!({"camera": "yard"}), at(7)).unwrap();
    let row = serde_json::to_value(log.event(id.as_str()).unwrap()).unwrap();
    assert_eq!(row["kind"], "health");
    assert_eq!(row["label"], "camera lost");
    assert_eq!(row["sentence"], text);
    assert_eq!(row["fields"], json!({"camera": "yard"}));
    assert_eq!(row["start"], "2026-11-03T12:00:07.000Z");
    assert_eq!(
        (&row["camera"], &row["start_s"], &row["score"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn events_are_found_by_camera_level_time_and_kind_the_newest_last() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    for (start_s, level, camera) in
        [(0.0, Level::Info, "yard"), (100.0, Level::Alert, "gate"), (200.0, Level::Notice, "yard")]
    {
        let mut one = incident(level, start_s);
        one.camera_name = camera.to_owned();
        log.record(&one, at(0)).unwrap();
    }
    log.health("store recovered", "12 frames were lost.", Value::Null, at(300)).unwrap();
    let seqs =
        |query: Query| log.events(&query).unwrap().iter().map(|row| row.seq).collect::<Vec<_>>();
    let all = Query::default();
    assert_eq!(seqs(all.clone()), [1, 2, 3, 4]);
    assert_eq!(seqs(Query { limit: 2, ..all.clone() }), [3, 4]);
    assert_eq!(seqs(Query { camera: Some("yard".into()), ..all.clone() }), [1, 3]);
    assert_eq!(seqs(Query { level_min: Some(Level::Notice), ..all.clone() }), [2, 3, 4]);
    assert_eq!(seqs(Query { kinds: Kinds::Incidents, ..all.clone() }), [1, 2, 3]);
    assert_eq!(seqs(Query { kinds: Kinds::Health, ..all.clone() }), [4]);
    // Each incident lasts 20 s: one that reaches into the asked span belongs to it.
    assert_eq!(seqs(Query { since_us: Some(at(110).unix_us), ..all.clone() }), [2, 3, 4]);
    assert_eq!(seqs(Query { until_us: Some(at(200).unix_us), ..all }), [1, 2]);
}

#[test]
fn an_event_is_found_by_the_beginning_of_its_id_unless_several_begin_so() {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    let first = log.record(&incident(Level::Info, 0.0), at(0)).unwrap();
    let second = log.record(&incident(Level::Info, 1.0), at(3600)).unwrap();
    let same = first.as_str().bytes().zip(second.as_str().bytes()).take_while(|(a, b)| a == b);
    let (shared, own) = second.as_str().split_at(same.count());
    let alone = format!("{shared}{}", &own[..1]).to_uppercase();
    assert_eq!(log.event(&alone).unwrap().unwrap().id, second);
    let ambiguous = log.event(shared).unwrap_err().to_string();
    assert!(ambiguous.contains(&format!("{first}, {second}")), "{ambiguous}");
    assert_eq!(log.event("zzzzzzzz").unwrap(), None);
    for no_id in ["", "50%", "x' OR 1=1", "0123456789abcdef0"] {
        assert!(matches!(log.event(no_id), Err(LogError::Id(_))), "{no_id}");
    }
}

#[test]
fn ids_sort_in_the_order_of_recording_though_the_clock_jumps_back_and_the_device_reboots() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let mut ids = Vec::new();
    for unix_us in [1_793_707_200_000_000, 0, -5, i64::MAX, 7, i64::MIN] {
        let (mut log, _) = open(&path);
        for _ in 0..3 {
            let now = WallTime { unix_us, quality: ClockQuality::Unsynced };
            ids.push(log.health("tick", "A tick.", Value::Null, now).unwrap());
        }
    }
    // i64::MAX ends the time that ids can hold: from there on they only differ.
    assert!(ids[..10].is_sorted(), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 18);
}

#[test]
fn seqs_have_no_gaps_over_reopening_and_acknowledging() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    for round in 0..4 {
        let (mut log, report) = open(&path);
        assert_eq!((report.last_seq, report.begun), (round * 5, round == 0));
        for _ in 0..5 {
            log.record(&incident(Level::Info, 0.0), at(0)).unwrap();
        }
        let acknowledged = round * 5 + 3;
        log.acknowledge(acknowledged).unwrap();
        log.acknowledge(1).unwrap();
        assert_eq!(log.acknowledged().unwrap(), acknowledged);
        assert_eq!(waiting(&log), (acknowledged + 1..=round * 5 + 5).collect::<Vec<_>>());
        let ahead = log.acknowledge(round * 5 + 6).unwrap_err();
        assert!(matches!(ahead, LogError::AcknowledgedAhead { .. }), "{ahead}");
    }
}

#[test]
fn state_is_kept_over_reopening_and_the_log_keeps_its_name() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    let name = log.log_id().unwrap();
    assert_eq!(log.state_get("slot").unwrap(), None);
    log.state_set("slot", "a").unwrap();
    log.state_set("slot", "b").unwrap();
    drop(log);
    let (log, _) = open(&path);
    assert_eq!(log.state_get("slot").unwrap().as_deref(), Some("b"));
    assert_eq!((log.log_id().unwrap(), name.len()), (name, 16));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_needs_a_log() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    assert!(matches!(LogReader::open(&path), Err(LogError::Missing { .. })));
    let (log, _) = open(&path);
    let second = EventLog::open(&path, at(0)).unwrap_err();
    assert!(matches!(second, LogError::InUse { .. }), "{second}");
    drop(log);
    assert!(open(&path).1.is_whole());
    let nowhere = EventLog::open(&dir.path().join("no/such/events.db"), at(0)).unwrap_err();
    assert!(matches!(nowhere, LogError::Io { .. }), "{nowhere}");
    let directory = EventLog::open(dir.path(), at(0)).unwrap_err();
    assert!(matches!(directory, LogError::Io { .. }), "{directory}");
}

#[test]
fn a_reader_sees_whole_events_in_order_while_the_writer_goes_on() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let reader = LogReader::open(&path).unwrap();
            let mut seen = 0;
            loop {
                let last = done.load(Relaxed);
                let rows = reader.events(&Query { limit: 1000, ..Query::default() }).unwrap();
                assert!(rows.len() >= seen, "what was seen stays");
                seen = rows.len();
                for (row, n) in rows.iter().zip(1..) {
                    assert_eq!(
                        (row.label.as_str(), row.kind),
                        (&*n.to_string(), EventKind::Incident)
                    );
                    let frames = row.frames_used.unwrap() as usize;
                    assert_eq!(
                        row.evidence.len(),
                        frames,
                        "an event is seen with its own evidence"
                    );
                }
                if last {
                    return seen;
                }
            }
        });
        for n in 1..=200 {
            let mut one = incident(Level::Info, f64::from(n));
            (one.label, one.frames_used) = (n.to_string(), 1);
            let id = log.record(&one, at(0)).unwrap();
            one.evidence = vec![one.evidence[0].clone(); 9];
            one.frames_used = 9;
            log.update(&id, &one, Phase::End).unwrap();
        }
        done.store(true, Relaxed);
        assert_eq!(reading.join().unwrap(), 200);
    });
    assert!(LogReader::open(&path).unwrap().check().unwrap().is_empty());
}

#[test]
fn a_reader_finds_what_changed_and_below_a_floor_only_what_goes_on() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.sqlite");
    let (mut log, _) = open(&path);
    let [ended, goes_on] =
        [1.0, 2.0].map(|s| log.record(&incident(Level::Notice, s), at(0)).unwrap());
    log.update(&ended, &incident(Level::Notice, 1.0), Phase::End).unwrap();
    log.health("clock", "The clock was set.", json!({}), at(3)).unwrap();
    let newest = log.record(&incident(Level::Alert, 4.0), at(4)).unwrap();
    let reader = LogReader::open(&path).unwrap();
    let after = |seq, floor| reader.changed_after(seq, floor).unwrap().map(|row| (row.seq, row.id));
    // Seqs: 1 was superseded by 3, the end of the first incident.
    assert_eq!(after(0, 0), Some((2, goes_on.clone())));
    assert_eq!(after(2, 0), Some((3, ended)));
    assert_eq!(after(3, 0).map(|(seq, _)| seq), Some(4));
    assert_eq!(after(0, 5), Some((2, goes_on)));
    assert_eq!(after(2, 4), Some((5, newest.clone())));
    assert_eq!(after(2, 5), Some((5, newest)), "it goes on too");
    assert_eq!(after(5, 0), None);
    let over = |after, until| reader.over_between(after, until).unwrap();
    assert_eq!((over(0, 5), over(3, 5), over(2, 3), over(4, 5)), (2, 1, 1, 0));
    let floor = |newest| reader.floor(newest).unwrap();
    assert_eq!((floor(0), floor(1), floor(3), floor(4), floor(u64::MAX)), (5, 4, 2, 0, 0));
}
