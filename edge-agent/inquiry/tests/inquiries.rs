//! Inquiries of the policy in the repository about simulated footage, whole and failing.

use bundle::Bundle;
use engine::{Engine, EngineOptions};
use frame_store::{FrameHash, FrameId, StoreError, StoredFrame};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, WIDTH};
use inquiry::{Footage, Inquirer, InquiryError, Replay, ReplayError, Report, Request, replay};
use policy::{Budgets, StoppedBy};
use std::{cell::RefCell, collections::BTreeSet, io, path::PathBuf};

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano");
const FRAME_US: i64 = 125_000;
/// Of the scene; something happens in the two minutes that are inquired about.
const SEED: u64 = 9001;
const FROM_S: f64 = 200.0;

/// Footage that is as good as a test says.
struct Faulty {
    scene: Scene,
    /// Frames that are gone when they are read, and are not found any more from then on.
    going: BTreeSet<u64>,
    gone: RefCell<BTreeSet<u64>>,
    /// Frames whose bytes on disk are not those that were written.
    corrupt: BTreeSet<u64>,
    /// From this read on the disk fails.
    fails_from: Option<usize>,
    reads: RefCell<usize>,
    seconds: f64,
}

fn footage() -> Faulty {
    let scene = Scene::new(SceneSpec { seed: SEED, incidents: Incidents::Often });
    Faulty {
        scene,
        going: BTreeSet::new(),
        gone: RefCell::default(),
        corrupt: BTreeSet::new(),
        fails_from: None,
        reads: RefCell::default(),
        seconds: 122.0,
    }
}

impl Footage for Faulty {
    fn held(&self) -> Option<Span> {
        let end = MediaTime::from_s(self.seconds);
        (self.seconds > 0.0).then(|| Span::new(MediaTime(0), end))
    }

    fn nearest(&self, moment: MediaTime, tolerance_s: f64) -> Option<(FrameId, MediaTime)> {
        let last = (self.seconds * 1e6) as i64 / FRAME_US;
        let gone = self.gone.borrow();
        let there = (0..=last).filter(|n| !gone.contains(&(*n as u64)));
        let number = there.min_by_key(|n| (n * FRAME_US - moment.0).abs())?;
        let at = MediaTime(number * FRAME_US);
        (at.since_s(moment).abs() <= tolerance_s).then_some((FrameId(number as u64), at))
    }

    fn read(&self, id: FrameId) -> Result<StoredFrame, StoreError> {
        *self.reads.borrow_mut() += 1;
        let path = PathBuf::from("segment");
        if self.fails_from.is_some_and(|from| *self.reads.borrow() > from) {
            let source = io::Error::other("input/output error");
            return Err(StoreError::Io { what: "read", path, source });
        }
        if self.going.contains(&id.0) {
            self.gone.borrow_mut().insert(id.0);
            return Err(StoreError::Gone { id });
        }
        if self.corrupt.contains(&id.0) {
            let reason = "its checksum does not fit".to_owned();
            return Err(StoreError::Corrupt { path, frame: Some(id), reason });
        }
        let media_time = MediaTime(id.0 as i64 * FRAME_US);
        let mut bytes = vec![0; WIDTH * HEIGHT];
        self.scene.render(FROM_S + media_time.as_s(), &mut bytes);
        let hash = FrameHash::of(&bytes);
        let wall_time = WallTime { unix_us: media_time.0, quality: ClockQuality::Unsynced };
        let (width, height) = (WIDTH as u16, HEIGHT as u16);
        let frame = Frame { media_time, wall_time, width, height, encoding: Encoding::Grey, bytes };
        Ok(StoredFrame { id, camera: CameraId(0), epoch: 0, frame, hash })
    }
}

fn inquirer() -> Inquirer {
    let bundle = Bundle::open(NANO).unwrap();
    let options = EngineOptions { threads: 1, ..EngineOptions::default() };
    let engine = Engine::load(&bundle, options).unwrap();
    Inquirer::new(&bundle, engine).unwrap()
}

fn about(from_s: f64, to_s: f64) -> Request {
    Request {
        window: Span::new(MediaTime::from_s(from_s), MediaTime::from_s(to_s)),
        woken_at: None,
        normal: String::new(),
        budgets: None,
        glance_frames: None,
    }
}

fn inquire(footage: &Faulty) -> Report {
    inquirer().inquire(footage, &about(0.0, 122.0)).unwrap()
}

/// Numbers of the frames that its steps cite.
fn cited(report: &Report) -> BTreeSet<u64> {
    let frames = report.outcome.trajectory.iter().flat_map(|step| &step.frames);
    frames.map(|seen| seen.id.parse::<FrameId>().unwrap().0).collect()
}

fn replayed(report: &Report, footage: &Faulty) -> Result<Replay, ReplayError> {
    let evidence = report.evidence.iter().map(|id| footage.read(*id).unwrap()).collect();
    let mut inquirer = inquirer();
    let bundle = inquirer.bundle_id().to_owned();
    replay(&mut inquirer, &report.outcome.trajectory, &bundle, evidence)
}

#[test]
fn an_inquiry_ends_with_a_verdict_and_everything_it_cites_is_evidence() {
    let report = inquire(&footage());
    assert_eq!(report.outcome.stopped_by, StoppedBy::Final);
    assert!(report.outcome.verdict.is_some());
    let evidence: BTreeSet<u64> = report.evidence.iter().map(|id| id.0).collect();
    assert_eq!(cited(&report), evidence);
    assert!(report.turns.len() > 1, "it looks back: {:?}", report.outcome.trajectory);
    let frames: usize = report.outcome.trajectory.iter().map(|step| step.frames.len()).sum();
    assert_eq!(frames as u32, report.outcome.frames_used);
}

#[test]
fn the_same_footage_gives_the_same_trajectory() {
    assert_eq!(inquire(&footage()).outcome, inquire(&footage()).outcome);
}

/// The window's first frames have gone by the time that they are read, as at the end of the ring.
#[test]
fn frames_that_go_while_they_are_fetched_are_replaced_by_what_is_there() {
    let whole = inquire(&footage());
    let glance: BTreeSet<u64> = whole.outcome.trajectory[0]
        .frames
        .iter()
        .map(|seen| seen.id.parse::<FrameId>().unwrap().0)
        .collect();
    let footage = Faulty { going: glance.clone(), ..footage() };
    let report = inquire(&footage);
    assert_eq!(report.outcome.stopped_by, StoppedBy::Final);
    assert!(cited(&report).is_disjoint(&glance), "what is gone is no evidence");
    let frames = |report: &Report| report.outcome.trajectory[0].frames.len();
    assert_eq!(frames(&report), frames(&whole), "a neighbour stands for each");
    assert!(replayed(&report, &Faulty { going: BTreeSet::new(), ..footage }).unwrap().same);
}

#[test]
fn footage_that_goes_faster_than_it_is_fetched_is_missing_and_not_the_end() {
    let going = (0..400).collect();
    let report = inquire(&Faulty { going, ..footage() });
    assert_eq!(report.outcome.stopped_by, StoppedBy::Final);
    assert!(cited(&report).iter().all(|n| *n >= 400), "{:?}", cited(&report));
}

#[test]
fn damaged_frames_are_missing_evidence_and_not_the_end() {
    let corrupt: BTreeSet<u64> = (0..976).filter(|n| n % 2 == 0).collect();
    let report = inquire(&Faulty { corrupt: corrupt.clone(), ..footage() });
    assert_eq!(report.outcome.stopped_by, StoppedBy::Final);
    assert!(cited(&report).is_disjoint(&corrupt));
}

#[test]
fn footage_that_is_damaged_throughout_still_gets_a_verdict_that_rests_on_nothing() {
    let report = inquire(&Faulty { corrupt: (0..2000).collect(), ..footage() });
    assert!(report.evidence.is_empty() && report.outcome.frames_used == 0);
    assert!(report.outcome.clips.is_empty(), "{:?}", report.outcome.clips);
}

#[test]
fn a_disk_that_fails_ends_it_and_says_why() {
    let report = inquire(&Faulty { fails_from: Some(20), ..footage() });
    let StoppedBy::Failure(why) = &report.outcome.stopped_by else {
        panic!("{:?}", report.outcome.stopped_by)
    };
    assert!(why.contains("could not read 'segment': input/output error"), "{why}");
    assert!(!report.evidence.is_empty(), "what was seen before is kept");
}

#[test]
fn budgets_end_it_whatever_it_would_still_like_to_do() {
    let footage = footage();
    let mut inquirer = inquirer();
    for (turns, frames) in [(1, 64), (2, 8), (6, 4), (6, 2)] {
        let budgets = Some(Budgets { turns, frames, ..Budgets::default() });
        let glance_frames = Some(2);
        let request = Request { budgets, glance_frames, ..about(0.0, 122.0) };
        let report = inquirer.inquire(&footage, &request).unwrap();
        assert!(report.outcome.frames_used <= frames, "{} of {frames}", report.outcome.frames_used);
        assert!(report.turns.len() as u32 <= turns, "{} of {turns}", report.turns.len());
    }
    let budgets = Some(Budgets { tokens: 30, ..Budgets::default() });
    let report = inquirer.inquire(&footage, &Request { budgets, ..about(0.0, 122.0) }).unwrap();
    assert!(report.outcome.tokens_used <= 30, "{}", report.outcome.tokens_used);
}

#[test]
fn where_there_is_no_footage_it_does_not_begin() {
    let mut inquirer = inquirer();
    let empty = Faulty { seconds: 0.0, ..footage() };
    for (footage, from_s, to_s) in [(&empty, 0.0, 122.0), (&footage(), 500.0, 600.0)] {
        let refused = inquirer.inquire(footage, &about(from_s, to_s));
        assert!(matches!(refused, Err(InquiryError::NoFootage { .. })), "{refused:?}");
    }
}

#[test]
fn a_replay_reaches_the_same_tokens_and_notices_what_was_changed() {
    let footage = footage();
    let report = inquire(&footage);
    let again = replayed(&report, &footage).unwrap();
    assert!(again.same && again.tokens > 0, "{again:?}");

    let steps = &report.outcome.trajectory;
    let evidence: Vec<StoredFrame> =
        report.evidence.iter().map(|id| footage.read(*id).unwrap()).collect();
    let mut inquirer = inquirer();
    let bundle = inquirer.bundle_id().to_owned();
    let lacking = evidence[1..].to_vec();
    let refused = replay(&mut inquirer, steps, &bundle, lacking);
    assert!(matches!(refused, Err(ReplayError::MissingFrame(_))), "{refused:?}");
    let mut changed = evidence.clone();
    changed[0].hash = FrameHash::of(b"another picture");
    let refused = replay(&mut inquirer, steps, &bundle, changed);
    assert!(matches!(refused, Err(ReplayError::Changed { .. })), "{refused:?}");
    let refused = replay(&mut inquirer, steps, "other 1.0", evidence);
    assert!(matches!(refused, Err(ReplayError::OtherBundle { .. })), "{refused:?}");
}
