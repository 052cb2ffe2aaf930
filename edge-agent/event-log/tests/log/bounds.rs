//! Full disks, and pruning before they are.

use crate::{at, incident, open, waiting};
use event_log::{
    Bound, EVENTS_DROPPED, EventLog, Level, LogError, LogReader, Phase, Pruned, Query,
};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const FIVE_ROWS: Bound = Bound { rows: Some(5), bytes: None };

fn log_of(levels: &[Level]) -> (TempDir, EventLog) {
    let dir = tempdir().unwrap();
    let (mut log, _) = open(&dir.path().join("events.db"));
    for (&level, start_s) in levels.iter().zip(0..) {
        log.record(&incident(level, f64::from(start_s)), at(0)).unwrap();
    }
    (dir, log)
}

fn seqs(log: &EventLog) -> Vec<u64> {
    let all = Query { limit: usize::MAX, ..Query::default() };
    log.events(&all).unwrap().iter().map(|row| row.seq).collect()
}

#[test]
fn a_log_within_its_bound_is_left_alone() {
    let (_dir, mut log) = log_of(&[Level::Info; 5]);
    assert_eq!(log.prune(FIVE_ROWS, at(1)).unwrap(), None);
    assert_eq!(log.prune(Bound::default(), at(1)).unwrap(), None);
    assert_eq!(seqs(&log), [1, 2, 3, 4, 5]);
}

#[test]
fn what_the_server_has_goes_first_the_oldest_first_and_the_drop_is_an_event() {
    let (_dir, mut log) = log_of(&[Level::Alert; 9]);
    log.acknowledge(6).unwrap();
    let (id, pruned) = log.prune(FIVE_ROWS, at(1)).unwrap().unwrap();
    assert_eq!(pruned, Pruned { sent: 5, ..Pruned::default() });
    assert_eq!(seqs(&log), [6, 7, 8, 9, 10]);
    let row = log.event(id.as_str()).unwrap().unwrap();
    assert_eq!((row.label.as_str(), row.level, row.seq), (EVENTS_DROPPED, Level::Notice, 10));
    assert_eq!(waiting(&log), [7, 8, 9, 10], "nothing that the server lacks was dropped");
    assert_eq!(log.pins().unwrap().into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
}

#[test]
fn an_old_event_that_changed_since_is_one_that_the_server_lacks() {
    let (_dir, mut log) = log_of(&[Level::Info; 9]);
    log.acknowledge(9).unwrap();
    let all = log.events(&Query::default()).unwrap();
    log.update(&all[0].id, &incident(Level::Info, 0.0), Phase::End).unwrap();
    let (_, pruned) = log.prune(FIVE_ROWS, at(1)).unwrap().unwrap();
    assert_eq!(pruned, Pruned { sent: 5, ..Pruned::default() });
    assert_eq!(seqs(&log), [10, 7, 8, 9, 11]);
}

#[test]
fn of_what_the_server_lacks_the_lowest_level_goes_first_and_every_seq_is_named() {
    use Level::{Alert, Info, Notice};
    let (_dir, mut log) = log_of(&[Alert, Info, Notice, Info, Alert, Info, Notice, Info, Notice]);
    let (_, pruned) = log.prune(FIVE_ROWS, at(1)).unwrap().unwrap();
    let expected = Pruned {
        unsent_info: 4,
        unsent_notice: 1,
        seqs: vec![(2, 4), (6, 6), (8, 8)],
        ..Pruned::default()
    };
    assert_eq!(pruned, expected);
    assert_eq!(seqs(&log), [1, 5, 7, 9, 10]);
}

#[test]
fn while_the_server_is_away_one_drop_event_tells_of_all_drops() {
    let (_dir, mut log) = log_of(&[]);
    let mut dropped = 0;
    for round in 0..20 {
        for n in 0..4 {
            let level = if n == 0 { Level::Alert } else { Level::Info };
            log.record(&incident(level, f64::from(n)), at(round)).unwrap();
        }
        if let Some((_, pruned)) = log.prune(FIVE_ROWS, at(round)).unwrap() {
            dropped = pruned.unsent_info + pruned.unsent_notice + pruned.unsent_alert;
            // I5: every seq ever given out waits to be sent, or is named by the one drop event.
            let mut told: Vec<u64> = pruned.seqs.iter().flat_map(|&(a, b)| a..=b).collect();
            told.extend(waiting(&log));
            told.sort_unstable();
            let last = waiting(&log).last().copied().unwrap();
            assert_eq!(told, (1..=last).collect::<Vec<_>>());
        }
        let rows = log.events(&Query::default()).unwrap();
        assert!(rows.len() <= 5 + 4);
        assert!(rows.iter().filter(|row| row.label == EVENTS_DROPPED).count() <= 1);
    }
    assert!(dropped > 70, "{dropped}");
    // Once the server has the report, the next drop is told by a new one.
    let last = *waiting(&log).last().unwrap();
    log.acknowledge(last).unwrap();
    for n in 0..9 {
        log.record(&incident(Level::Info, f64::from(n)), at(30)).unwrap();
    }
    let (_, pruned) = log.prune(FIVE_ROWS, at(30)).unwrap().unwrap();
    assert!(pruned.seqs.iter().all(|&(first, _)| first > last), "{pruned:?}");
}

#[test]
fn dropped_alerts_are_told_of_as_an_alert() {
    let (_dir, mut log) = log_of(&[Level::Alert; 9]);
    let (id, pruned) = log.prune(FIVE_ROWS, at(1)).unwrap().unwrap();
    assert_eq!((pruned.unsent_alert, pruned.seqs), (5, vec![(1, 5)]));
    assert_eq!(log.event(id.as_str()).unwrap().unwrap().level, Level::Alert);
}

#[test]
fn a_bound_in_bytes_holds_however_long_the_log_runs() {
    let (dir, mut log) = log_of(&[]);
    let bytes = 300_000;
    let mut one = incident(Level::Info, 0.0);
    one.trajectory = Value::String("t".repeat(9_000));
    let mut drops = 0;
    for n in 0..200 {
        log.record(&one, at(n)).unwrap();
        drops += usize::from(
            log.prune(Bound { rows: None, bytes: Some(bytes) }, at(n)).unwrap().is_some(),
        );
    }
    let kept = seqs(&log).len();
    assert!((15..33).contains(&kept), "{kept} of about 30 that fit");
    assert!((20..100).contains(&drops), "{drops}: one drop event for several dropped");
    drop(log);
    let file = std::fs::metadata(dir.path().join("events.db")).unwrap().len();
    assert!(file < bytes + 40_000, "{file}");
}

#[test]
fn a_bound_that_nothing_can_meet_leaves_the_last_drop_event_and_ends() {
    let (_dir, mut log) = log_of(&[Level::Alert; 3]);
    let nothing = Bound { rows: Some(0), bytes: Some(0) };
    assert!(log.prune(nothing, at(1)).unwrap().is_some());
    assert_eq!(seqs(&log), [4]);
    log.acknowledge(4).unwrap();
    let (_, pruned) = log.prune(nothing, at(1)).unwrap().unwrap();
    assert_eq!(pruned.sent, 1);
    assert_eq!(log.prune(nothing, at(1)).unwrap(), None);
    assert_eq!(seqs(&log), [5]);
}

#[test]
fn a_full_disk_refuses_the_event_keeps_the_others_and_goes_on_after_pruning() {
    let (dir, mut log) = log_of(&[]);
    let limit = log.limit_file(400_000).unwrap();
    assert!(limit <= 400_000, "{limit}");
    let mut one = incident(Level::Info, 0.0);
    one.trajectory = Value::String("t".repeat(9_000));
    let mut recorded = 0;
    let full = loop {
        match log.record(&one, at(0)) {
            Ok(_) => recorded += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::Full { .. }), "{full}");
    assert!(recorded > 20, "{recorded}");
    let first = log.events(&Query { limit: 1, ..Query::default() }).unwrap()[0].id.clone();
    assert!(matches!(log.state_set("k", &"v".repeat(90_000)), Err(LogError::Full { .. })));
    one.trajectory = Value::String("t".repeat(90_000));
    let grown = log.update(&first, &one, Phase::End).unwrap_err();
    assert!(matches!(grown, LogError::Full { .. }), "{grown}");

    assert_eq!(waiting(&log), (1..=recorded).collect::<Vec<_>>());
    assert!(log.check().unwrap().is_empty());
    log.prune(Bound { rows: None, bytes: Some(limit * 9 / 10) }, at(1)).unwrap().unwrap();
    log.record(&incident(Level::Alert, 0.0), at(1)).unwrap();
    assert_eq!(*waiting(&log).last().unwrap(), recorded + 2, "no seq was used up by a failure");
    drop(log);
    assert!(open(&dir.path().join("events.db")).1.is_whole());
}

#[test]
fn what_is_given_up_waits_no_more_and_an_event_names_it_for_the_server() {
    let (dir, mut log) = log_of(&[Level::Info, Level::Alert, Level::Notice]);
    let id = log.give_up(2, 3, "the server refuses them", at(1)).unwrap();
    assert_eq!(waiting(&log), [1, 4]);
    assert_eq!(seqs(&log), [1, 2, 3, 4], "the events stay");
    let row = log.event(id.as_str()).unwrap().unwrap();
    assert_eq!(
        (row.label.as_str(), row.sentence.as_str()),
        (EVENTS_DROPPED, "the server refuses them")
    );
    assert_eq!(row.level, Level::Alert, "an alert is among them");
    let fields: Pruned = serde_json::from_value(row.fields).unwrap();
    let expected =
        Pruned { unsent_alert: 1, unsent_notice: 1, seqs: vec![(2, 3)], ..Pruned::default() };
    assert_eq!(fields, expected);

    let reader = LogReader::open(&dir.path().join("events.db")).unwrap();
    let of = |level_min| -> Vec<u64> {
        reader.outbox(0, 9, level_min).unwrap().iter().map(|change| change.seq).collect()
    };
    assert_eq!((of(Level::Info), of(Level::Alert)), (vec![1, 4], vec![4]));
    let (name, newest, acknowledged) = reader.names().unwrap();
    assert_eq!((name, newest, acknowledged), (log.log_id().unwrap(), 4, 0));
}
