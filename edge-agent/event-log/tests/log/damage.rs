//! Files that are no log, or no longer one.

use crate::{at, incident, open};
use event_log::{EventLog, LOG_LOST, Level, LogError, LogReader, Query};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// A log of 40 incidents, closed cleanly.
fn log_on_disk() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    for n in 0..40 {
        log.record(&incident(Level::Info, f64::from(n)), at(0)).unwrap();
    }
    (dir, path)
}

/// Overwrites everything from `from` on with bytes that mean nothing.
fn garble(bytes: &mut [u8], from: usize) {
    let mut x = 1_u32;
    for byte in &mut bytes[from..] {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (x >> 24) as u8;
    }
}

/// Opens what `spoil` left: the log opens, the spoilt file is beside it byte for byte, and the first
/// event of the new log says so.
fn lost(spoil: impl Fn(&mut Vec<u8>)) -> String {
    let (dir, path) = log_on_disk();
    let mut bytes = fs::read(&path).unwrap();
    spoil(&mut bytes);
    fs::write(&path, &bytes).unwrap();

    let (mut log, report) = open(&path);
    let loss = report.loss.expect("damage is reported");
    assert_eq!(loss.set_aside, ["events.db.set-aside-1"]);
    assert_eq!(fs::read(dir.path().join("events.db.set-aside-1")).unwrap(), bytes);
    let rows = log.events(&Query::default()).unwrap();
    assert_eq!((rows.len(), rows[0].label.as_str(), rows[0].seq), (1, LOG_LOST, 1));
    assert!(rows[0].sentence.contains(&loss.reason), "{}", rows[0].sentence);
    assert_eq!(rows[0].fields["set_aside"][0], "events.db.set-aside-1");
    log.record(&incident(Level::Info, 0.0), at(1)).unwrap();
    drop(log);

    let (_, again) = open(&path);
    assert_eq!((again.loss, again.events), (None, 2));
    rows[0].sentence.clone()
}

#[test]
fn random_bytes_are_set_aside_and_a_new_log_begins() {
    let told = lost(|bytes| garble(bytes, 0));
    assert!(told.contains("the file is not a database"), "{told}");
}

#[test]
fn garbage_behind_a_good_header_is_set_aside_and_a_new_log_begins() {
    lost(|bytes| garble(bytes, 100));
    lost(|bytes| garble(bytes, 4096));
}

#[test]
fn a_garbled_page_anywhere_is_set_aside_and_a_new_log_begins() {
    let (_dir, path) = log_on_disk();
    let pages = fs::metadata(&path).unwrap().len() as usize / 4096;
    assert!(pages > 8, "{pages}");
    for page in 0..pages {
        lost(|bytes| {
            // The whole page: bytes within a text alone are nothing that SQLite could notice.
            let from = (page * 4096).max(100);
            garble(&mut bytes[..(page + 1) * 4096], from);
        });
    }
}

#[test]
fn a_truncated_log_is_set_aside_and_says_what_it_still_knows() {
    for keep in [1, 50, 99, 100, 512, 4095, 4096, 8192, 20_000, 30_000] {
        lost(|bytes| bytes.truncate(keep));
    }
    let told = lost(|bytes| bytes.truncate(bytes.len() - 4096));
    assert!(told.contains("up to seq 40 are lost"), "{told}");
}

#[test]
fn an_empty_file_and_a_text_file_are_set_aside() {
    let told = lost(Vec::clear);
    assert!(told.contains("the file is empty"), "{told}");
    let told = lost(|bytes| *bytes = "a note to myself\n".repeat(30).into_bytes());
    assert!(told.contains("the file is not a database"), "{told}");
}

#[test]
fn another_programs_database_is_set_aside_unopened() {
    let told = lost(|bytes| bytes[68..72].copy_from_slice(&0x1234_5678_u32.to_be_bytes()));
    assert!(told.contains("another program's database (application id 0x12345678)"), "{told}");
}

#[test]
fn a_log_of_a_newer_program_is_set_aside_with_what_it_holds_counted() {
    let told = lost(|bytes| bytes[60..64].copy_from_slice(&9_u32.to_be_bytes()));
    assert!(told.contains("its schema is 9, this program knows 1"), "{told}");
    assert!(told.contains("40 events up to seq 40 are lost"), "{told}");
}

#[test]
fn a_tail_without_its_log_is_set_aside_and_not_played_into_the_new_one() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut log, _) = open(&path);
    log.record(&incident(Level::Info, 0.0), at(0)).unwrap();
    let tail = fs::read(dir.path().join("events.db-wal")).unwrap();
    drop(log);
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("events.db-wal"), &tail).unwrap();

    let (log, report) = open(&path);
    assert_eq!(report.loss.unwrap().set_aside, ["events.db.set-aside-1-wal"]);
    assert_eq!(fs::read(dir.path().join("events.db.set-aside-1-wal")).unwrap(), tail);
    assert_eq!(log.events(&Query::default()).unwrap().len(), 1);
}

#[test]
fn a_loss_is_told_though_the_device_died_before_the_new_log_was_begun() {
    let (dir, path) = log_on_disk();
    fs::rename(&path, dir.path().join("events.db.set-aside-1")).unwrap();
    // As a death while building the new log leaves it.
    fs::write(dir.path().join("events.db.new"), b"half a log").unwrap();
    let (log, report) = open(&path);
    assert_eq!(report.loss.unwrap().set_aside, ["events.db.set-aside-1"]);
    assert_eq!(log.events(&Query::default()).unwrap()[0].label, LOG_LOST);
    assert!(!dir.path().join("events.db.new").exists());
}

#[test]
fn damage_after_damage_never_overwrites_what_was_set_aside() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    for n in 1..=3 {
        fs::write(&path, format!("spoilt {n}")).unwrap();
        let (_, report) = open(&path);
        assert_eq!(report.loss.unwrap().set_aside.len(), n);
        let kept = dir.path().join(format!("events.db.set-aside-{n}"));
        assert_eq!(fs::read_to_string(kept).unwrap(), format!("spoilt {n}"));
    }
}

#[test]
fn of_many_damaged_logs_the_last_three_are_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    let name = |n: u32| format!("events.db.set-aside-{n}");
    // Twelve, so that numbers of two digits are compared as numbers.
    for n in 1..=12_u32 {
        fs::write(&path, format!("spoilt {n}")).unwrap();
        fs::write(dir.path().join("events.db-wal"), "its tail").unwrap();
        let (log, report) = open(&path);
        let loss = report.loss.unwrap();
        assert_eq!(loss.set_aside.len(), 2 * n.min(3) as usize);
        if n > 3 {
            assert_eq!(loss.discarded, [name(n - 3), name(n - 3) + "-wal"]);
            let told = &log.events(&Query::default()).unwrap()[0].sentence;
            assert!(told.contains(&format!("deleted to make room: {}", name(n - 3))), "{told}");
        }
        assert!(dir.path().join(name(n)).exists());
        assert!(!dir.path().join(name(n.saturating_sub(3))).exists());
    }
}

#[test]
fn what_cannot_be_deleted_does_not_keep_the_log_from_opening() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    // A folder where a file was: it can no more be deleted as one than a file on a broken card.
    fs::create_dir(dir.path().join("events.db.set-aside-1")).unwrap();
    for n in 2..=5 {
        fs::write(&path, "spoilt").unwrap();
        let loss = open(&path).1.loss.unwrap();
        assert!(loss.set_aside.contains(&format!("events.db.set-aside-{n}")));
        let gone = if n == 5 { vec!["events.db.set-aside-2"] } else { vec![] };
        assert_eq!(loss.discarded, gone);
    }
}

#[test]
fn a_reader_refuses_what_is_no_log_and_leaves_it_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    fs::write(&path, "spoilt").unwrap();
    assert!(matches!(LogReader::open(&path), Err(LogError::Damaged { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "spoilt");
    let (_dir, path) = log_on_disk();
    let mut bytes = fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(LogReader::open(&path), Err(LogError::Schema { found: 9, .. })));
}

#[test]
fn a_log_that_may_not_be_written_is_an_error_and_not_a_loss() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("events.db");
    // A directory where the lock file belongs: what no right to write looks like, also to root.
    fs::create_dir(dir.path().join("events.db.lock")).unwrap();
    let refused = EventLog::open(&path, at(0)).unwrap_err();
    assert!(matches!(refused, LogError::Io { doing: "lock it", .. }), "{refused}");
    assert!(!Path::new(&path).exists());
}
