//! Deaths in mid-write.

use crate::{at, incident, open, waiting};
use event_log::{EventLog, Level, Phase, Query};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::tempdir;

/// Names the log that the child process writes to, and tells it that it is the child.
const LOG_OF_CHILD: &str = "EVENT_LOG_TEST_CHILD";

#[test]
fn every_acknowledged_event_is_there_after_the_writer_was_killed() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_records_until_it_is_killed", "--nocapture"])
            .env(LOG_OF_CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ids =
            lines.by_ref().filter_map(|line| line.unwrap().strip_prefix("id ").map(str::to_owned));
        acknowledged.extend(ids.by_ref().take(5 + 7 * round));
        child.kill().unwrap();
        // What it had said before it died counts as well.
        acknowledged.extend(ids);
        child.wait().unwrap();

        let (log, report) = open(&path);
        assert!(report.is_whole(), "{report:?}");
        assert!(report.recovered_pages > 0, "a killed writer leaves its write-ahead log");
        for id in &acknowledged {
            let row = log.event(id).unwrap().unwrap_or_else(|| panic!("{id} is gone"));
            assert_eq!(row.evidence.len(), 1, "{id} has its evidence");
        }
        assert_eq!(waiting(&log), (1..=report.last_seq).collect::<Vec<_>>());
        assert!(log.check().unwrap().is_empty());
    }
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
}

/// Not a test of its own: [`every_acknowledged_event_is_there_after_the_writer_was_killed`] runs it
/// in another process. Without the variable there is nothing to do.
#[test]
fn child_that_records_until_it_is_killed() {
    let Some(path) = env::var_os(LOG_OF_CHILD) else { return };
    let (mut log, _) = EventLog::open(Path::new(&path), at(0)).unwrap();
    let mut out = std::io::stdout();
    for n in 0.. {
        let mut one = incident(Level::Info, f64::from(n));
        let id = log.record(&one, at(0)).unwrap();
        one.level = Level::Alert;
        log.update(&id, &one, Phase::End).unwrap();
        // The line is the acknowledgement; a broken pipe means that nobody listens any more.
        if writeln!(out, "\nid {id}").is_err() {
            return;
        }
    }
}

#[test]
fn a_log_whose_unsynced_tail_was_lost_opens_with_a_prefix_of_what_happened() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    for n in 0..12 {
        log.record(&incident(Level::Info, f64::from(n)), at(0)).unwrap();
    }
    let main = fs::read(&path).unwrap();
    let tail = fs::read(dir.path().join("events.db-wal")).unwrap();
    drop(log);

    let torn = dir.path().join("torn.db");
    let mut prefixes = Vec::new();
    // 3989 is prime to SQLite's page size: cuts fall into headers, into pages, and between them.
    for cut in (0..tail.len()).step_by(3989).chain([tail.len()]) {
        for spoil in [None, Some(cut / 2)] {
            fs::write(&torn, &main).unwrap();
            let mut tail = tail[..cut].to_vec();
            if let Some(byte) = spoil.and_then(|i| tail.get_mut(i)) {
                *byte ^= 0x40;
            }
            fs::write(dir.path().join("torn.db-wal"), tail).unwrap();
            let (mut log, report) = open(&torn);
            assert!(report.is_whole(), "cut at {cut}: {report:?}");
            let rows = log.events(&Query::default()).unwrap();
            assert!(rows.iter().zip(1..).all(|(row, n)| row.seq == n && row.evidence.len() == 1));
            assert_eq!(report.last_seq, rows.len() as u64);
            log.record(&incident(Level::Info, 0.0), at(0)).unwrap();
            if spoil.is_none() {
                prefixes.push(rows.len());
            }
        }
    }
    assert!(prefixes.is_sorted(), "a longer tail never holds less");
    assert_eq!((prefixes.first(), prefixes.last()), (Some(&0), Some(&12)));
}
