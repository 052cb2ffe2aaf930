//! The frame store under every fault at every operation: invariants I1, I2 and I7 of the design.
//!
//! One scenario calls every public operation (open, append, roll, thin, drop, sync, pin, unpin,
//! orphan_pins, find, read, close, and a second boot). It runs once for each operation N it makes
//! of the file system, each kind of fault, and once or from then on; and after each run the store
//! is opened on several of the disks that a crash at its end may leave.

use faultfs::{Fault, FaultFs, FaultKind, Repeat, Survival};
use frame_store::{
    FrameId, FrameStore, PinId, Recovery, StoreError, StoreOptions, StoredFrame, Thinning,
};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/data/frames";
const EVERYTHING: Span = Span { start: MediaTime(i64::MIN), end: MediaTime(i64::MAX) };
/// Small enough that the scenario rolls, thins twice and drops within a hundred frames.
fn options() -> StoreOptions {
    StoreOptions {
        bytes_max: 5 * 2048,
        segment_bytes: 2048,
        evidence_bytes_max: 3 * 1024,
        thinning: Thinning { full_s: 2.0, hour_step_s: 1.0, hours_s: 5.0, day_step_s: 4.0 },
        ..StoreOptions::default()
    }
}

/// What the caller was told, and so may rely on.
#[derive(Default)]
struct Ledger {
    appended: BTreeMap<FrameId, (CameraId, Frame)>,
    /// The last frame covered by a sync that returned `Ok`.
    synced: Option<FrameId>,
    /// The last frame of which a sync said that it may not be durable.
    unsure: Option<FrameId>,
    pinned: BTreeMap<PinId, Vec<FrameId>>,
    /// Asked to go, whether that succeeded or not.
    unpinned: BTreeSet<PinId>,
    recoveries: Vec<Recovery>,
    /// Frames that the store said it gave up, by any way.
    given_up: u64,
    /// Whether it gave up more than its bound asked for.
    disk_was_full: bool,
}

impl Ledger {
    fn open(&mut self, fs: &FaultFs) -> Option<FrameStore> {
        // A supervisor would try again.
        let opened = (0..2).find_map(|_| {
            let opened = FrameStore::open(Path::new(DIR), options(), Arc::new(fs.clone()));
            // A full disk costs the oldest segment even if the store could not be opened then.
            self.disk_was_full |= matches!(opened, Err(StoreError::NoSpace { .. }));
            opened.ok()
        });
        let (store, recovery) = opened?;
        self.recoveries.push(recovery);
        Some(store)
    }

    fn append(&mut self, store: &FrameStore, camera: u16, i: i64) {
        let frame = frame(camera, i);
        if let Ok(id) = store.append(CameraId(camera), &frame) {
            assert!(self.appended.last_key_value().is_none_or(|(&last, _)| last < id));
            self.appended.insert(id, (CameraId(camera), frame));
        }
    }

    fn sync(&mut self, store: &FrameStore) {
        let last = self.appended.last_key_value().map(|(&id, _)| id);
        match store.sync() {
            Ok(()) if last > self.unsure => self.synced = last,
            Ok(()) => {}
            Err(_) => self.unsure = last,
        }
    }

    fn pin(&mut self, store: &FrameStore, n: usize) {
        let found = store.find(CameraId(0), EVERYTHING, n);
        let ids: Vec<FrameId> = found.iter().map(|frame| frame.id).collect();
        match store.pin(&ids) {
            Ok(pin) => {
                assert_eq!(self.pinned.insert(pin, ids), None, "a pin id is never given twice");
            }
            // Seen only when a sticky fault keeps the earlier evidence from being removed.
            Err(StoreError::EvidenceFull { .. } | StoreError::NoSpace { .. }) => {}
            Err(StoreError::Io { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn unpin_oldest(&mut self, store: &FrameStore) {
        let oldest = self.pinned.keys().find(|pin| !self.unpinned.contains(pin)).copied();
        if let Some(pin) = oldest {
            self.unpinned.insert(pin);
            let _ = store.unpin(pin);
        }
    }

    fn end_boot(&mut self, store: &FrameStore) {
        let stats = store.stats();
        self.given_up += stats.thinned + stats.dropped + stats.damaged;
        self.disk_was_full |= stats.disk_full > 0;
    }
}

fn frame(camera: u16, i: i64) -> Frame {
    let mut bytes = vec![0xff, 0xd8, 0xff];
    bytes.extend((0..60 + i % 7 * 16).map(|k| (k * 7 + i * 31 + i64::from(camera)) as u8));
    bytes.extend([0xff, 0xd9]);
    Frame {
        media_time: MediaTime(i * 250_000),
        wall_time: WallTime { unix_us: 1_000_000 * i, quality: ClockQuality::Unsynced },
        width: 8,
        height: 8,
        encoding: Encoding::Jpeg,
        bytes,
    }
}

/// Two boots of a camera pair. Returns what was promised and the store, still open.
fn scenario(fs: &FaultFs) -> (Ledger, Option<FrameStore>) {
    let mut ledger = Ledger::default();
    let Some(store) = ledger.open(fs) else { return (ledger, None) };
    for i in 0..30 {
        ledger.append(&store, 0, i);
        ledger.append(&store, 1, i);
        match i {
            9 | 14 | 24 => ledger.pin(&store, 3),
            19 => ledger.unpin_oldest(&store),
            _ if i % 4 == 3 => ledger.sync(&store),
            _ => {}
        }
    }
    ledger.end_boot(&store);
    let _ = store.close();
    drop(store);

    let Some(store) = ledger.open(fs) else { return (ledger, None) };
    // The last pin's event was never committed.
    let orphan = ledger.pinned.keys().next_back().copied();
    let keep: HashSet<PinId> =
        ledger.pinned.keys().copied().filter(|p| Some(*p) != orphan).collect();
    ledger.unpinned.extend(orphan);
    let _ = store.orphan_pins(&keep);
    for i in 0..16 {
        ledger.append(&store, 0, i);
        ledger.append(&store, 1, i);
        if i % 6 == 5 {
            ledger.sync(&store);
        }
    }
    ledger.pin(&store, 2);
    for found in store.find(CameraId(1), EVERYTHING, 4) {
        let _ = store.read(found.id);
    }
    ledger.append(&store, 0, 16);
    ledger.end_boot(&store);
    (ledger, Some(store))
}

/// Opens the store on `disk`, which has no faults, and holds it to what was promised.
fn check(ledger: &Ledger, disk: FaultFs, case: &str) {
    let (store, recovery) =
        FrameStore::open(Path::new(DIR), options(), Arc::new(disk.clone())).expect(case);

    // I1: evidence that was acknowledged is there, byte for byte.
    for (pin, ids) in ledger.pinned.iter().filter(|(pin, _)| !ledger.unpinned.contains(pin)) {
        let frames = store.read_pinned(*pin).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(&frames.iter().map(|f| f.id).collect::<Vec<_>>(), ids, "{case}");
        frames.iter().for_each(|frame| is_as_appended(ledger, frame, case));
    }
    // What the index lists can be read, and is what was appended under that id.
    let mut held = BTreeSet::new();
    for &id in ledger.appended.keys() {
        match store.read(id) {
            Ok(frame) => {
                is_as_appended(ledger, &frame, case);
                held.insert(id);
            }
            Err(StoreError::Gone { .. }) => {}
            Err(other) => panic!("{case}: {other}"),
        }
    }
    // I2: what a sync covered is there, unless the store said that it gave it up.
    let lost: u64 = std::iter::once(&recovery)
        .chain(&ledger.recoveries)
        .map(|r| r.frames_lost + r.bytes_lost)
        .sum();
    if let Some(synced) = ledger.synced {
        assert!(
            held.contains(&synced) || ledger.disk_was_full || lost > 0,
            "{case}: synced {synced} is gone; {recovery:?}"
        );
    }
    // Of the newest frames, which neither age nor the bound reaches, those that a crash tore out
    // from between others are counted, and if any are missing it is said.
    if let Some((newest, (_, frame))) = ledger.appended.last_key_value() {
        let young = |id: &&FrameId| {
            let age_s = frame.media_time.since_s(ledger.appended[id].1.media_time);
            id.epoch() == newest.epoch() && age_s <= options().thinning.full_s
        };
        let missing = ledger.appended.keys().filter(young).filter(|id| !held.contains(id));
        let between = missing.clone().filter(|id| Some(*id) < held.last()).count() as u64;
        assert!(
            between <= lost || ledger.disk_was_full,
            "{case}: {between} frames are missing between others; {recovery:?}"
        );
        assert!(
            missing.count() == 0 || !recovery.is_clean() || lost > 0 || ledger.disk_was_full,
            "{case}: frames are missing and nobody says so"
        );
    }
    // I7.
    let ring = disk.bytes(is_of_ring);
    assert!(ring <= options().bytes_max, "{case}: {ring} bytes in the ring");
    let evidence = disk.bytes(|name| name.starts_with("evidence") || name.ends_with(".evidence"));
    assert!(evidence <= options().evidence_bytes_max, "{case}: {evidence} bytes of evidence");
    let counted = disk.bytes(|name| name.ends_with(".segment"));
    assert_eq!(store.stats().bytes, counted, "{case}: bytes are counted as they are");

    // And the store goes on.
    let mut after = Ledger::default();
    (0..3).for_each(|i| after.append(&store, 0, i));
    assert_eq!(after.appended.len(), 3, "{case}");
    assert_eq!(store.find(CameraId(0), EVERYTHING, 9).len(), 3, "{case}");
    assert!(after.appended.keys().all(|id| !ledger.appended.contains_key(id)), "{case}");
    store.close().expect(case);
    drop(store);
    let (_, recovery) = FrameStore::open(Path::new(DIR), options(), Arc::new(disk)).expect(case);
    assert!(recovery.is_clean(), "{case}: a loss is said once; {recovery:?}");
}

fn is_of_ring(name: &str) -> bool {
    name.ends_with(".segment") || name == "sparser.tmp"
}

fn is_as_appended(ledger: &Ledger, stored: &StoredFrame, case: &str) {
    let (camera, frame) = &ledger.appended[&stored.id];
    assert_eq!((stored.camera, &stored.frame), (*camera, frame), "{case}");
    assert_eq!(stored.hash, frame_store::FrameHash::of(&frame.bytes), "{case}");
}

/// Runs the scenario with the fault at every operation, until it is no longer met. Returns the
/// number of operations and of disks that were checked.
fn sweep(kind: FaultKind, repeat: Repeat) -> (u64, u64) {
    let mut disks = 0;
    for at in 0.. {
        let fs = FaultFs::new();
        fs.count_peak_of(is_of_ring);
        fs.set_fault(Fault { at, kind, repeat });
        let (ledger, store) = scenario(&fs);
        let peak = fs.peak_bytes();
        assert!(peak <= options().bytes_max, "{kind:?} {repeat:?} at {at}: {peak} bytes");
        if !fs.was_hit() {
            return (at, disks);
        }
        let survivals =
            [Survival::Nothing, Survival::Everything, Survival::Some(at), Survival::Some(!at)];
        for survival in survivals {
            let case = format!("{kind:?} {repeat:?} at operation {at}, then {survival:?}");
            check(&ledger, fs.after_crash(survival), &case);
            disks += 1;
        }
        drop(store);
        if !fs.is_crashed() {
            let case = format!("{kind:?} {repeat:?} at operation {at}, then closed in order");
            check(&ledger, fs.after_crash(Survival::Everything), &case);
            disks += 1;
        }
    }
    unreachable!("the scenario ends");
}

fn prove(kind: FaultKind, repeat: Repeat) {
    let (ops, disks) = sweep(kind, repeat);
    eprintln!("{kind:?} {repeat:?}: {ops} operations, {disks} disks");
    assert!(ops > 300, "the scenario makes only {ops} operations");
}

#[test]
fn a_crash_at_any_operation_loses_no_evidence_and_counts_what_it_lost() {
    prove(FaultKind::Crash, Repeat::Once);
}

#[test]
fn an_error_at_any_operation_loses_no_evidence() {
    prove(FaultKind::Error, Repeat::Once);
}

#[test]
fn a_disk_that_fails_for_good_at_any_operation_loses_no_evidence() {
    prove(FaultKind::Error, Repeat::Sticky);
}

#[test]
fn a_short_write_at_any_operation_loses_no_evidence() {
    prove(FaultKind::ShortWrite, Repeat::Once);
}

#[test]
fn a_disk_that_writes_halves_from_any_operation_on_loses_no_evidence() {
    prove(FaultKind::ShortWrite, Repeat::Sticky);
}

#[test]
fn a_full_disk_at_any_operation_loses_no_evidence() {
    prove(FaultKind::NoSpace, Repeat::Once);
}

#[test]
fn a_disk_that_stays_full_from_any_operation_on_loses_no_evidence() {
    prove(FaultKind::NoSpace, Repeat::Sticky);
}

#[test]
fn a_fault_at_any_operation_of_recovering_from_a_crash_loses_no_evidence() {
    for seed in 0..4 {
        let fs = FaultFs::new();
        let mut before = Ledger::default();
        let store = before.open(&fs).unwrap();
        for i in 0..21 {
            before.append(&store, 0, i);
            before.append(&store, 1, i);
            match i {
                9 => before.pin(&store, 4),
                12 => before.sync(&store),
                _ => {}
            }
        }
        for (kind, repeat) in [
            (FaultKind::Crash, Repeat::Once),
            (FaultKind::Error, Repeat::Once),
            (FaultKind::Error, Repeat::Sticky),
            (FaultKind::ShortWrite, Repeat::Once),
            (FaultKind::NoSpace, Repeat::Sticky),
        ] {
            for at in 0.. {
                let mut ledger = Ledger {
                    appended: before.appended.clone(),
                    pinned: before.pinned.clone(),
                    synced: before.synced,
                    ..Ledger::default()
                };
                let torn = fs.after_crash(Survival::Some(seed));
                torn.set_fault(Fault { at, kind, repeat });
                let store = ledger.open(&torn);
                if !torn.was_hit() {
                    break;
                }
                for survival in [Survival::Nothing, Survival::Everything, Survival::Some(at)] {
                    let case = format!("{seed} {kind:?} {repeat:?} at {at}, then {survival:?}");
                    check(&ledger, torn.after_crash(survival), &case);
                }
                drop(store);
            }
        }
    }
}

#[test]
fn the_scenario_without_faults_thins_and_drops_and_opens_clean() {
    let fs = FaultFs::new();
    let (ledger, store) = scenario(&fs);
    assert_eq!(ledger.appended.len(), 93);
    assert_eq!(ledger.pinned.len(), 4);
    assert!(ledger.recoveries.iter().all(Recovery::is_clean), "{:?}", ledger.recoveries);
    assert!(ledger.given_up > 0);
    drop(store);
    check(&ledger, fs.after_crash(Survival::Everything), "no fault");
}

#[test]
fn on_a_disk_smaller_than_the_bound_the_oldest_footage_gives_way() {
    let fs = FaultFs::new();
    fs.set_capacity(3 * 2048 + 1500);
    let mut ledger = Ledger::default();
    let store = ledger.open(&fs).unwrap();
    for i in 0..60 {
        ledger.append(&store, 0, i);
    }
    ledger.pin(&store, 4);
    assert_eq!(ledger.appended.len(), 60, "every frame found room");
    assert_eq!(ledger.pinned.len(), 1);
    let stats = store.stats();
    assert!(stats.disk_full > 0 && stats.dropped > 0, "{stats:?}");
    assert_eq!(stats.newest.map(|f| f.media_time), Some(frame(0, 59).media_time));
    ledger.end_boot(&store);
    drop(store);
    check(&ledger, fs.after_crash(Survival::Nothing), "small disk");
}

#[test]
fn a_disk_that_something_else_fills_does_not_cost_all_footage() {
    let fs = FaultFs::new();
    let mut ledger = Ledger::default();
    let store = ledger.open(&fs).unwrap();
    (0..14).for_each(|i| ledger.append(&store, 0, i));
    let before = store.stats().segments;
    fs.set_capacity(0);
    (14..60).for_each(|i| ledger.append(&store, 0, i));
    assert!(store.stats().segments + 2 >= before && store.stats().disk_full > 0);
    fs.set_capacity(u64::MAX);
    store.append(CameraId(0), &frame(0, 60)).expect("there is room again");
}

#[test]
fn the_ring_stays_within_its_bound_while_a_segment_is_rewritten() {
    let fs = FaultFs::new();
    fs.count_peak_of(is_of_ring);
    let mut ledger = Ledger::default();
    let store = ledger.open(&fs).unwrap();
    // A frame a second and now and then one more: thinning rewrites nearly whole segments.
    let quarters =
        (0..400).flat_map(|s| [4 * s].into_iter().chain((s % 6 == 0).then_some(4 * s + 1)));
    quarters.for_each(|i| ledger.append(&store, 0, i));
    assert!(store.stats().thinned > 20, "{:?}", store.stats());
    assert!(fs.peak_bytes() <= options().bytes_max, "{} bytes", fs.peak_bytes());
}
