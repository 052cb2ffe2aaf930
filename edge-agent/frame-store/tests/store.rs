//! The frame store on the real file system. Its behaviour under faults is proven in `faultfs`.

use frame_store::{
    FrameHash, FrameId, FrameStore, PinId, RealFs, Recovery, StoreError, StoreId, StoreOptions,
    Thinning, read_pinned_in,
};
use hal_camera::{
    CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime, decode_luma, is_jpeg,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CAMERA: CameraId = CameraId(0);
const EVERYTHING: Span = Span { start: MediaTime(i64::MIN), end: MediaTime(i64::MAX) };

fn open(dir: &Path) -> (FrameStore, Recovery) {
    open_with(dir, small()).unwrap()
}

fn open_with(dir: &Path, options: StoreOptions) -> Result<(FrameStore, Recovery), StoreError> {
    FrameStore::open(dir, options, Arc::new(RealFs))
}

fn small() -> StoreOptions {
    StoreOptions { bytes_max: 256 << 10, segment_bytes: 16 << 10, ..StoreOptions::default() }
}

/// Frame number `i` of a camera that delivers four JPEGs a second.
fn frame(i: i64) -> Frame {
    let mut bytes = vec![0xff, 0xd8, 0xff];
    bytes.extend((0..500).map(|k| (k * 13 + i * 7) as u8));
    bytes.extend([0xff, 0xd9]);
    Frame {
        media_time: MediaTime(i * 250_000),
        wall_time: WallTime { unix_us: 1_800_000_000_000_000 + i, quality: ClockQuality::Ntp },
        width: 64,
        height: 48,
        encoding: Encoding::Jpeg,
        bytes,
    }
}

fn append(store: &FrameStore, frames: std::ops::Range<i64>) -> Vec<FrameId> {
    frames.map(|i| store.append(CAMERA, &frame(i)).unwrap()).collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_cameras_jpeg_comes_back_unchanged_and_a_raw_frame_as_the_jpeg_of_its_luma() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovery) = open(dir.path());
    assert!(recovery.created && recovery.is_clean());
    let id = store.append(CAMERA, &frame(3)).unwrap();
    let stored = store.read(id).unwrap();
    assert_eq!((stored.id, stored.camera, stored.epoch), (id, CAMERA, store.epoch()));
    assert_eq!(stored.frame, frame(3));
    assert_eq!(stored.hash, FrameHash::of(&frame(3).bytes));

    let grey = Frame { encoding: Encoding::Grey, bytes: vec![90; 64 * 48], ..frame(4) };
    let stored = store.read(store.append(CAMERA, &grey).unwrap()).unwrap().frame;
    assert!(stored.encoding == Encoding::Jpeg && is_jpeg(&stored.bytes));
    assert!(decode_luma(&stored).unwrap().pixels.iter().all(|p| p.abs_diff(90) < 3));
    assert_eq!(stored.wall_time, grey.wall_time);
}

#[test]
fn a_store_opened_again_has_every_frame_and_begins_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let ids = {
        let (store, _) = open(dir.path());
        append(&store, 0..100)
    };
    let (store, recovery) = open(dir.path());
    assert!(recovery.is_clean() && !recovery.created, "{recovery:?}");
    assert_eq!((recovery.frames, recovery.epoch), (100, 2));
    for (i, &id) in ids.iter().enumerate() {
        assert_eq!(store.read(id).unwrap().frame, frame(i as i64));
    }
    assert_eq!(store.span(CAMERA), None);
    assert_eq!(store.find(CAMERA, EVERYTHING, 4), []);
    let new = append(&store, 0..4);
    assert!(new[0] > ids[99]);
    assert_eq!(store.span(CAMERA), Some(Span::new(MediaTime(0), MediaTime(750_001))));
    let found = store.find(CAMERA, Span::new(MediaTime(0), MediaTime(1_000_000)), 2);
    assert_eq!(found.iter().map(|f| f.id).collect::<Vec<_>>(), [new[1], new[3]]);
    let asked = [MediaTime(300_000), MediaTime(200_000), MediaTime(9_000_000)];
    let nearest = store.nearest(CAMERA, &asked, EVERYTHING);
    assert_eq!(nearest.iter().map(|f| f.id).collect::<Vec<_>>(), [new[1], new[3]]);
    assert_eq!(store.find(CameraId(1), EVERYTHING, 4), []);
}

#[test]
fn at_the_bound_old_footage_first_becomes_sparser_and_then_goes() {
    let dir = tempfile::tempdir().unwrap();
    let thinning = Thinning { full_s: 30.0, hour_step_s: 2.0, hours_s: 120.0, day_step_s: 20.0 };
    let options = || StoreOptions { bytes_max: 160 << 10, thinning, ..small() };
    let (store, _) = open_with(dir.path(), options()).unwrap();
    let on_disk = || -> u64 {
        files(dir.path(), "segment").iter().map(|p| p.metadata().unwrap().len()).sum()
    };
    let mut sparse_before_drop = false;
    for i in 0..8_000 {
        store.append(CAMERA, &frame(i)).unwrap();
        if i % 97 == 0 {
            let stats = store.stats();
            assert_eq!(stats.bytes, on_disk());
            assert!(stats.bytes <= 160 << 10, "{stats:?}");
            sparse_before_drop |= stats.thinned > 0 && stats.dropped == 0;
        }
    }
    assert!(sparse_before_drop && store.stats().dropped > 0, "{:?}", store.stats());
    let span = store.span(CAMERA).unwrap();
    // 160 KiB are 65 s at full rate; now the store looks back many times farther.
    assert!(span.len_s() > 600.0, "{}", span.len_s());
    let newest = span.end.plus_s(-30.0);
    assert_eq!(store.find(CAMERA, Span::new(newest, span.end), 999).len(), 120);
    let times: Vec<f64> = store
        .find(CAMERA, Span::new(span.start, span.end.plus_s(-300.0)), 9999)
        .iter()
        .map(|f| f.media_time.as_s())
        .collect();
    assert!(times.len() > 10 && times.windows(2).all(|t| t[1] - t[0] >= 2.0), "{times:?}");
    assert!(times[..10].windows(2).all(|t| t[1] - t[0] >= 20.0), "{times:?}");

    // What was thinned is thinned for good, and found as such.
    let held: Vec<_> = store.find(CAMERA, EVERYTHING, 99_999);
    drop(store);
    let (store, recovery) = open_with(dir.path(), options()).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(recovery.frames, held.len() as u64);
    for found in held {
        assert_eq!(store.read(found.id).unwrap().frame.media_time, found.media_time);
    }
}

#[test]
fn a_lowered_bound_is_kept_from_the_next_open_on_and_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()).0, 0..300);
    let lower = StoreOptions { bytes_max: 64 << 10, ..small() };
    let (store, recovery) = open_with(dir.path(), lower).unwrap();
    assert!(store.stats().bytes <= 64 << 10);
    assert!(recovery.notes[0].contains("to fit into bytes_max"), "{recovery:?}");
}

#[test]
fn evidence_outlives_the_ring_and_one_flipped_byte_anywhere_in_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let ids = append(&store, 0..8);
    let pin = store.pin(&[ids[5], ids[2], ids[5]]).unwrap();
    append(&store, 8..2000);
    assert!(matches!(store.read(ids[2]), Err(StoreError::Gone { .. })));
    let frames = store.read_pinned(pin).unwrap();
    assert_eq!(frames.iter().map(|f| f.id).collect::<Vec<_>>(), [ids[2], ids[5]]);
    assert_eq!(frames[1].frame, frame(5));
    assert_eq!(read_pinned_in(dir.path(), pin, &RealFs).unwrap(), frames);

    let path = &files(dir.path(), "evidence")[0];
    let length = path.metadata().unwrap().len() as usize;
    // 64 bytes of header, then two records of 80 + 505 bytes, padded.
    let (first, second, index) = (64, 64 + 592, 64 + 2 * 592);
    for byte in 0..length {
        flip(path, byte);
        let named = match store.read_pinned(pin) {
            Err(StoreError::Corrupt { path: named, frame, .. }) if &named == path => frame,
            other => panic!("byte {byte}: {other:?}"),
        };
        let expected = match byte {
            _ if (first..second).contains(&byte) => Some(ids[2]),
            _ if (second..index).contains(&byte) => Some(ids[5]),
            _ => None,
        };
        assert_eq!(named, expected, "byte {byte}");
        flip(path, byte);
    }
    assert_eq!(store.read_pinned(pin).unwrap(), frames);
    flip(path, length - 1);
    drop(store);
    let (store, recovery) = open(dir.path());
    assert_eq!((recovery.pins, recovery.pins_damaged), (1, 1));
    store.unpin(pin).unwrap();
    assert!(matches!(store.read_pinned(pin), Err(StoreError::UnknownPin { .. })));
    store.unpin(pin).expect("unpinning twice is no error");
}

#[test]
fn evidence_has_a_bound_of_its_own_and_orphans_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { evidence_bytes_max: 4000, ..small() };
    let (store, _) = open_with(dir.path(), options).unwrap();
    let ids = append(&store, 0..8);
    let pins: Vec<PinId> = (0..3).map(|i| store.pin(&ids[i..i + 1]).unwrap()).collect();
    let full = store.pin(&ids).unwrap_err();
    assert!(matches!(full, StoreError::EvidenceFull { bytes_max: 4000, .. }), "{full}");
    assert_eq!(store.pins(), pins);
    let held = store.stats().evidence_bytes;
    assert_eq!(store.orphan_pins(&HashSet::from([pins[1]])).unwrap(), [pins[0], pins[2]]);
    assert_eq!(store.pins(), [pins[1]]);
    assert_eq!(store.stats().evidence_bytes, held / 3);
    assert!(!files(dir.path(), "evidence").is_empty());
    store.pin(&ids[4..7]).expect("there is room again");
}

#[test]
fn a_damaged_frame_is_reported_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let ids = append(&store, 0..20);
    flip(&files(dir.path(), "segment")[0], 64 + 3 * 592 + 100);
    match store.read(ids[3]) {
        Err(StoreError::Corrupt { frame, .. }) => assert_eq!(frame, Some(ids[3])),
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.pin(&ids[..5]), Err(StoreError::Corrupt { .. })));
    assert!(store.pins().is_empty());
    assert_eq!(store.read(ids[4]).unwrap().frame, frame(4));
}

#[test]
fn without_its_footer_a_segment_tells_the_same_and_counts_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let ids = append(&open(dir.path()).0, 0..20);
    let path = &files(dir.path(), "segment")[0];
    let length = path.metadata().unwrap().len() as usize;
    flip(path, length - 40);
    let (store, recovery) = open(dir.path());
    assert_eq!((recovery.frames, recovery.frames_lost, recovery.bytes_lost), (20, 0, 0));
    assert_eq!(recovery.unclosed_segments, 1);
    assert!(ids.iter().all(|&id| store.read(id).is_ok()));
    store.sync().unwrap();
    drop(store);
    // Closed anew; now two frames are damaged as well, and the header.
    flip(path, length - 40);
    flip(path, 20);
    flip(path, 64 + 7 * 592 + 300);
    flip(path, 64 + 8 * 592 + 10);
    let (store, recovery) = open(dir.path());
    assert_eq!((recovery.frames, recovery.frames_lost, recovery.torn_segments), (18, 2, 1));
    assert_eq!(recovery.bytes_lost, 2 * 592);
    assert!(matches!(store.read(ids[7]), Err(StoreError::Gone { .. })));
    assert_eq!(store.read(ids[9]).unwrap().frame, frame(9));
    store.close().unwrap();
    drop(store);
    assert!(open(dir.path()).1.is_clean(), "a loss is said once");
}

#[test]
fn a_picture_that_contains_a_record_of_another_store_is_not_taken_for_one() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&open(there.path()).0, 0..3);
    let smuggled = std::fs::read(&files(there.path(), "segment")[0]).unwrap();
    {
        let (store, _) = open(here.path());
        append(&store, 0..2);
        store.append(CAMERA, &Frame { bytes: smuggled, ..frame(2) }).unwrap();
        append(&store, 3..5);
    }
    let path = &files(here.path(), "segment")[0];
    // Damage the head of the record that smuggles, and the footer.
    flip(path, 64 + 2 * 592 + 8);
    flip(path, path.metadata().unwrap().len() as usize - 40);
    let (_, recovery) = open(here.path());
    assert_eq!((recovery.frames, recovery.frames_lost), (4, 1), "{recovery:?}");
}

#[test]
fn a_picture_full_of_heads_of_long_records_does_not_stall_the_open_after_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions { bytes_max: 16 << 20, segment_bytes: 4 << 20, ..small() };
    let mut head = [0; 80];
    head[..4].copy_from_slice(b"LBfr");
    head[8..12].copy_from_slice(&(2u32 << 20).to_le_bytes());
    head[14] = 1;
    let hostile = Frame { bytes: head.repeat((3 << 20) / 80), ..frame(1) };
    {
        let (store, _) = open_with(dir.path(), options()).unwrap();
        append(&store, 0..1);
        store.append(CAMERA, &hostile).unwrap();
        append(&store, 2..4);
    }
    let path = &files(dir.path(), "segment")[0];
    flip(path, 64 + 592 + 8);
    flip(path, path.metadata().unwrap().len() as usize - 40);
    let begin = std::time::Instant::now();
    let (_, recovery) = open_with(dir.path(), options()).unwrap();
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    assert_eq!((recovery.frames, recovery.frames_lost), (3, 1), "{recovery:?}");
}

#[test]
fn files_of_another_store_or_of_a_later_version_are_set_aside() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&open(there.path()).0, 0..3);
    append(&open(here.path()).0, 0..3);
    std::fs::copy(&files(there.path(), "segment")[0], here.path().join("00000007.segment"))
        .unwrap();
    std::fs::write(here.path().join("notes.txt"), "not the store's").unwrap();
    let (store, recovery) = open(here.path());
    assert_eq!((recovery.frames, recovery.segments, recovery.frames_lost), (3, 2, 0));
    assert!(recovery.notes[0].contains("of store"), "{recovery:?}");
    append(&store, 0..2000);
    assert!(!here.path().join("00000007.segment").exists(), "it went when room was needed");
    assert!(here.path().join("notes.txt").exists());
}

#[test]
fn a_wrong_or_missing_mount_is_refused_before_anything_is_written() {
    let (here, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = {
        let (store, _) = open(here.path());
        append(&store, 0..3);
        store.id()
    };
    let expecting = |id| StoreOptions { expected: Some(id), ..small() };
    let wrong = open_with(here.path(), expecting(StoreId([1; 16]))).unwrap_err();
    assert!(
        matches!(wrong, StoreError::WrongStore { .. }) && wrong.to_string().contains("mounted")
    );
    let missing = open_with(empty.path(), expecting(id)).unwrap_err();
    assert!(missing.to_string().contains("holds none"), "{missing}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    assert!(open_with(here.path(), expecting(id)).is_ok());

    // A lost identity file is written anew from what the segments say.
    std::fs::remove_file(here.path().join("store.identity")).unwrap();
    let (store, recovery) = open_with(here.path(), expecting(id)).unwrap();
    assert_eq!((store.id(), recovery.frames, recovery.created), (id, 3, false));
    assert!(!recovery.is_clean());
}

#[test]
fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let second = open_with(dir.path(), small()).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_frame_that_cannot_be_stored_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    append(&store, 0..3);
    let refused = |frame: &Frame| store.append(CAMERA, frame).unwrap_err();
    assert!(matches!(refused(&frame(1)), StoreError::TimeWentBack { .. }));
    let large = Frame { bytes: vec![0; 16 << 10], ..frame(9) };
    assert!(matches!(refused(&large), StoreError::FrameTooLarge { bytes_max: 16_170, .. }));
    let short = Frame { encoding: Encoding::Yuyv, bytes: vec![0; 5], ..frame(9) };
    assert!(refused(&short).to_string().contains("bytes expected"));
    let flat = Frame { encoding: Encoding::Grey, height: 0, bytes: Vec::new(), ..frame(9) };
    assert!(matches!(refused(&flat), StoreError::BadFrame { .. }));
    let largest = Frame { bytes: vec![7; 16_170], ..frame(9) };
    assert_eq!(store.read(store.append(CAMERA, &largest).unwrap()).unwrap().frame, largest);
    store.append(CAMERA, &frame(9)).expect("two frames may have one time");
    assert_eq!(store.stats().frames, 5);
}

#[test]
fn options_that_cannot_work_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        StoreOptions { bytes_max: 3 << 20, segment_bytes: 1 << 20, ..small() },
        StoreOptions { segment_bytes: 100, ..small() },
        StoreOptions { jpeg_quality: 0, ..small() },
        StoreOptions { thinning: Thinning { hour_step_s: 0.0, ..Thinning::default() }, ..small() },
    ] {
        let refused = open_with(dir.path(), options).unwrap_err().to_string();
        assert!(refused.contains("must"), "{refused}");
    }
}

#[test]
fn others_find_read_and_pin_while_one_appends_and_segments_thin_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let thinning = Thinning { full_s: 10.0, hour_step_s: 1.0, hours_s: 30.0, day_step_s: 5.0 };
    let (store, _) = open_with(dir.path(), StoreOptions { thinning, ..small() }).unwrap();
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut read = 0;
                    while !done.load(Ordering::Relaxed) {
                        let found = store.find(CAMERA, EVERYTHING, 8);
                        assert!(found.is_sorted_by(|a, b| a.id < b.id));
                        for frame in &found {
                            match store.read(frame.id) {
                                Ok(stored) => {
                                    assert_eq!(stored.frame.media_time, frame.media_time);
                                    read += 1;
                                }
                                Err(StoreError::Gone { .. }) => {}
                                Err(other) => panic!("{other}"),
                            }
                        }
                        if reader == 0
                            && let Some(newest) = found.last()
                        {
                            let pin = store.pin(&[newest.id]).expect("the newest is not dropped");
                            assert_eq!(store.read_pinned(pin).unwrap().len(), 1);
                            store.unpin(pin).unwrap();
                            store.sync().unwrap();
                        }
                    }
                    read
                })
            })
            .collect();
        append(&store, 0..6_000);
        done.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<u64>>()
    });
    let stats = store.stats();
    assert!(stats.thinned > 0 && stats.dropped > 0, "{stats:?}");
    assert!(read.iter().all(|&read| read > 50), "{read:?}");
}
