//! The path of a frame, top to bottom.
//!
//! ```text
//! capture ──▶ keep ──▶ gate ──▶ inquire ──▶ conclude
//! (camera)   (store)  (sentinel) (inquiry)  (event log)
//! ```
//! One thread per camera captures, one keeps, one gates, one inquires, and the caller's concludes.
//! Between them are bounded queues. A live camera waits for nobody: where a queue is full the oldest
//! frame goes, and is counted. A replayed source (a file, a simulation at full speed) waits instead,
//! so that its result does not depend on the machine.

use crate::{
    conclude::{Concluder, Conclusion, Trouble},
    docket::{Cause, Docket, Order},
    line::{Line, send},
    meters::Meters,
    mirror::{Mirroring, mirror},
    noted::Noted,
    poll::{Polling, poll},
    sight::Sight,
    signs::{Part, Signs},
    system::{Confirming, confirm},
    tend::tend,
    trial::Shadow,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use frame_store::FrameStore;
use hal_camera::{Camera, CameraError, CameraId, Capture, Frame, MediaTime};
use hal_linux::LinuxBoard;
use inquiry::{Inquirer, Request, Stored};
use sentinel::{Sentinel, SentinelOptions, WakeReason};
use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Whether a source waits for a slow consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Real time: frames that nobody takes are lost.
    Live,
    /// As fast as they are taken.
    Replay,
}

/// A camera to be watched.
pub struct Watched {
    /// Its number.
    pub id: CameraId,
    /// The source of its frames.
    pub camera: Box<dyn Camera>,
    /// Whether it waits.
    pub pace: Pace,
    /// What is normal there, in the installer's words.
    pub normal: String,
}

/// How to watch.
pub struct Plan {
    /// The gate's options.
    pub sentinel: SentinelOptions,
    /// Seconds before a wake that the glance covers.
    pub look_back_s: f64,
    /// Seconds after a wake that the glance covers.
    pub settle_s: f64,
    /// Where the threads show that they live.
    pub signs: Arc<Signs>,
    /// Where they count what they do.
    pub meters: Arc<Meters>,
    /// Where a new policy is tried.
    pub shadow: Arc<Shadow>,
}

/// Who is told of what was committed, beside those who listen here.
#[derive(Default)]
pub struct Outward {
    /// The fleet server.
    pub line: Option<Line>,
    /// An MQTT broker.
    pub mirroring: Option<Mirroring>,
    /// A repository of policies and systems.
    pub polling: Option<Polling>,
    /// A system that is to be confirmed.
    pub confirming: Option<Confirming>,
}

/// What was done while watching.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Tally {
    /// Frames stored.
    pub frames: u64,
    /// Frames that came faster than they could be stored.
    pub frames_dropped: u64,
    /// Frames that a camera had made and that could not be taken from it.
    pub frames_lost: u64,
    /// Inquiries carried out.
    pub inquiries: u64,
    /// Inquiries that were due and given up under load.
    pub inquiries_given_up: u64,
    /// Events recorded.
    pub events: u64,
}

/// Frames between capture and store, for a disk that pauses: four seconds at 8 fps, one at 30 fps.
/// A segment of 1080p30 is full after a second, and closing it waits for the disk.
const FRAMES_QUEUED: usize = 32;
/// Frames between store and gate.
const FRAMES_GATED: usize = 4;
/// Settled inquiries that may wait for the policy.
const INQUIRIES_QUEUED: usize = 4;
/// Conclusions between inquiry and log.
const CONCLUSIONS_QUEUED: usize = 8;

/// How often the keeper shows that it lives while no camera gives frames.
const LIFE_SIGN_EVERY: Duration = Duration::from_secs(1);

/// Footage younger than this may be lost in a power cut. Evidence is synced on its own, at once.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// Watches `cameras` until all have ended or `stop` is set. What is under way is finished. The board, if
/// there is one, is tended meanwhile, and what is committed goes outward.
#[expect(
    clippy::too_many_arguments,
    reason = "these are the rooms of the path, and each is used once"
)]
pub fn watch(
    cameras: Vec<Watched>,
    plan: &Plan,
    store: &FrameStore,
    inquirer: &mut Inquirer,
    concluder: &mut Concluder<'_>,
    board: Option<LinuxBoard>,
    outward: Outward,
    stop: &AtomicBool,
) -> anyhow::Result<Tally> {
    let live = cameras.iter().any(|c| c.pace == Pace::Live);
    let order = if live { Order::Salience } else { Order::Time };
    let (before, after) = (plan.look_back_s, plan.settle_s);
    let docket = Shared::new(Docket::new(before, after, INQUIRIES_QUEUED, order));
    let (dropped, lost) = (AtomicU64::new(0), AtomicU64::new(0));
    let normals: Vec<String> = cameras.iter().map(|c| c.normal.clone()).collect();
    let (signs, meters, over) = (&*plan.signs, &*plan.meters, &AtomicBool::new(false));
    let Outward { line, mirroring, polling, confirming } = outward;
    let mut tally = thread::scope(|scope| {
        let (captured, to_keep) = bounded::<Seen>(FRAMES_QUEUED);
        let (kept, to_gate) = bounded::<Seen>(FRAMES_GATED);
        let (concluded, to_conclude) = bounded::<Conclusion>(CONCLUSIONS_QUEUED);
        for camera in cameras {
            let (to, from) = (captured.clone(), to_keep.clone());
            let queue = Queue { to, from, dropped: &dropped, lost: &lost, meters };
            let report = concluded.clone();
            scope.spawn(move || capture(camera, &queue, &report, signs, stop));
        }
        drop(captured);
        if let Some(board) = board {
            let report = concluded.clone();
            scope.spawn(move || tend(board, signs, meters, &report, over));
        }
        if let Some(line) = line {
            let report = concluded.clone();
            scope.spawn(move || send(line, &report, meters, over));
        }
        if let Some(mirroring) = mirroring {
            let report = concluded.clone();
            scope.spawn(move || mirror(mirroring, &report, meters, over));
        }
        if let Some(polling) = polling {
            let report = concluded.clone();
            scope.spawn(move || poll(polling, &report, over, stop));
        }
        if let Some(confirming) = confirming {
            let report = concluded.clone();
            scope.spawn(move || confirm(confirming, &report, signs, over));
        }
        let keeper = {
            let report = concluded.clone();
            scope.spawn(move || keep(store, to_keep, kept, &report, plan))
        };
        let report = concluded.clone();
        let docket = &docket;
        scope.spawn(move || gate(plan, to_gate, docket, &report));
        let inquiries = scope.spawn(move || {
            let made = inquire(docket, inquirer, store, &normals, &concluded, plan, stop);
            // The last that is concluded of what was seen: what is open then has ended.
            let _ = concluded.send(Conclusion::Over);
            made
        });
        let concluded = to_conclude.into_iter().try_for_each(|conclusion| {
            let last = matches!(conclusion, Conclusion::Over);
            let done = concluder.conclude(conclusion);
            // Those who tell it outward go on until all of it is there to be told.
            over.fetch_or(last || done.is_err(), Ordering::Relaxed);
            done
        });
        concluded?;
        let frames = keeper.join().unwrap_or(0);
        let inquiries = inquiries.join().unwrap_or(0);
        anyhow::Ok(Tally { frames, inquiries, ..Tally::default() })
    })?;
    tally.frames_dropped = dropped.into_inner();
    tally.frames_lost = lost.into_inner();
    tally.inquiries_given_up = docket.given_up.into_inner();
    tally.events = concluder.finish(tally.frames_dropped)?;
    Ok(tally)
}

/// A frame on its way.
struct Seen {
    camera: CameraId,
    pace: Pace,
    /// `None`: the camera has ended.
    frame: Option<Frame>,
}

/// Camera → queue. Errors are reported, each once; the camera itself comes back (`hal_linux`).
fn capture(
    mut watched: Watched,
    queue: &Queue<'_>,
    report: &Sender<Conclusion>,
    signs: &Signs,
    stop: &AtomicBool,
) {
    let Watched { id, pace, .. } = watched;
    let part = Part::Capture(usize::from(id.0));
    let mut noted = Noted::new(id);
    let tell = |trouble| report.send(Conclusion::Trouble(trouble)).is_ok();
    while !stop.load(Ordering::Relaxed) {
        let captured = watched.camera.capture();
        signs.fared(part, captured.is_ok());
        let noticed = watched.camera.noticed();
        queue.lost.fetch_add(noticed.frames_lost, Ordering::Relaxed);
        queue.meters.lost(id, noticed.frames_lost);
        noted.add(noticed);
        // There may be a frame in hand: what cannot be told without waiting is told later.
        while !report.is_full()
            && let Some(trouble) = noted.next(taken_at(&captured))
        {
            tell(trouble);
        }
        match captured {
            Ok(Capture::Frame(frame)) => {
                queue.meters.captured(id);
                if !queue.put(Seen { camera: id, pace, frame: Some(frame) }) {
                    break;
                }
            }
            Ok(Capture::End) => break,
            Err(error) => {
                let last = error.is_final();
                let trouble = Trouble::Camera { camera: id, sentence: error.to_string() };
                if !tell(trouble) || last {
                    break;
                }
            }
        }
    }
    while let Some(trouble) = noted.last() {
        tell(trouble);
    }
    signs.rest(part);
    queue.put(Seen { camera: id, pace, frame: None });
}

fn taken_at(captured: &Result<Capture, CameraError>) -> Option<MediaTime> {
    match captured {
        Ok(Capture::Frame(frame)) => Some(frame.media_time),
        _ => None,
    }
}

/// Queue → frame store → gate. Returns the number of frames stored.
fn keep(
    store: &FrameStore,
    frames: Receiver<Seen>,
    gate: Sender<Seen>,
    report: &Sender<Conclusion>,
    plan: &Plan,
) -> u64 {
    let Plan { signs, meters, .. } = plan;
    let (mut stored, mut failing) = (0, false);
    let mut synced = Instant::now();
    meters.store(&store.stats());
    loop {
        signs.fared(Part::Keep, !failing);
        let seen = match frames.recv_timeout(LIFE_SIGN_EVERY) {
            Ok(seen) => seen,
            // No camera gives frames: that is not this thread's failing.
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if synced.elapsed() >= SYNC_EVERY {
            synced = Instant::now();
            if let Err(error) = store.sync() {
                let trouble = Trouble::Store { sentence: error.to_string() };
                let _ = report.send(Conclusion::Trouble(trouble));
            }
            meters.store(&store.stats());
        }
        if let Some(frame) = &seen.frame {
            match store.append(seen.camera, frame) {
                Ok(_) => {
                    stored += 1;
                    failing = false;
                    signs.stored();
                }
                // Said once per failure, not once per frame.
                Err(error) if !failing => {
                    failing = true;
                    let trouble = Trouble::Store { sentence: error.to_string() };
                    let _ = report.send(Conclusion::Trouble(trouble));
                }
                Err(_) => {}
            }
        }
        let sent = match seen.pace {
            Pace::Replay => gate.send(seen).is_ok(),
            // The gate may skip frames of a live camera; the store has them.
            Pace::Live if seen.frame.is_some() => {
                !matches!(gate.try_send(seen), Err(TrySendError::Disconnected(_)))
            }
            Pace::Live => gate.send(seen).is_ok(),
        };
        if !sent {
            break;
        }
    }
    signs.rest(Part::Keep);
    stored
}

/// What the gate keeps of a camera.
struct Gated {
    camera: CameraId,
    sentinel: Sentinel,
    sight: Sight,
    newest: Option<MediaTime>,
}

impl Gated {
    fn new(camera: CameraId, plan: &Plan) -> Self {
        let (sentinel, why) = Sentinel::best(plan.sentinel.clone());
        let gate = sentinel.describe();
        match why {
            None => tracing::info!(camera = camera.0, gate, "the sentinel watches"),
            Some(why) => tracing::warn!(camera = camera.0, gate, %why, "the sentinel watches"),
        }
        Self { camera, sentinel, sight: Sight::default(), newest: None }
    }
}

/// Gate → docket: the sentinel says when a look is worth its cost.
fn gate(plan: &Plan, frames: Receiver<Seen>, docket: &Shared, report: &Sender<Conclusion>) {
    let mut all: Vec<Gated> = vec![];
    let mut ration = Ration::default();
    for seen in frames {
        let at = all.iter().position(|gated| gated.camera == seen.camera).unwrap_or_else(|| {
            all.push(Gated::new(seen.camera, plan));
            all.len() - 1
        });
        let Gated { camera, sentinel, sight, newest } = &mut all[at];
        let Some(frame) = seen.frame else {
            // The end of a recording is looked at like a patrol: nothing comes after it.
            let mut open = docket.lock();
            if let Some(newest) = newest {
                open.wake(*camera, newest.plus_s(-plan.settle_s), 0.0, Cause::Patrol);
            }
            open.close(*camera);
            docket.changed.notify_all();
            continue;
        };
        *newest = Some(frame.media_time);
        let wanted = sentinel.wants_next() && ration.lets_through(plan.signs.frames_permille());
        let (luma, said) = match wanted {
            true => sight.look(&frame, sentinel.least_size()),
            false => (None, None),
        };
        if let Some(sentence) = said {
            let trouble = Trouble::Camera { camera: *camera, sentence };
            let _ = report.send(Conclusion::Trouble(trouble));
        }
        let wake = match luma {
            Some(luma) => {
                plan.signs.ambient(luma.mean());
                sentinel.watch(&luma, frame.media_time).wake
            }
            None => sentinel.pass(frame.media_time).wake,
        };
        let mut open = docket.lock();
        if let Some(wake) = wake {
            let cause = match wake.reason {
                WakeReason::Patrol => Cause::Patrol,
                WakeReason::Saliency => Cause::Wake,
            };
            plan.meters.wake(cause);
            open.wake(*camera, wake.at, wake.saliency, cause);
        }
        open.advance(*camera, frame.media_time);
        docket.changed.notify_all();
        while seen.pace == Pace::Replay && open.is_full() && !docket.over.load(Ordering::Relaxed) {
            open = docket.wait(open);
        }
    }
    docket.over.store(true, Ordering::Relaxed);
    docket.changed.notify_all();
}

/// Lets a share through, evenly: what is looked at under heat must not come in bursts.
#[derive(Default)]
struct Ration {
    permille: u32,
}

impl Ration {
    fn lets_through(&mut self, share_permille: u16) -> bool {
        self.permille += u32::from(share_permille);
        let through = self.permille >= 1000;
        self.permille %= 1000;
        through
    }
}

/// Docket → inquiry → conclusion. Returns the number of inquiries.
fn inquire(
    docket: &Shared,
    inquirer: &mut Inquirer,
    store: &FrameStore,
    normals: &[String],
    conclude: &Sender<Conclusion>,
    plan: &Plan,
    stop: &AtomicBool,
) -> u64 {
    let Plan { signs, meters, .. } = plan;
    let (mut done, mut told) = (0, HashSet::new());
    loop {
        // Any may have failed in any inquiry.
        for why in inquirer.engine().quarantined() {
            if told.insert(why.to_owned()) {
                let sentence = format!("{why}; the processor serves in its place");
                // Who concludes is gone only at the end.
                let _ = conclude.send(Conclusion::Trouble(Trouble::Accelerator { sentence }));
            }
        }
        let mut open = docket.lock();
        let due = loop {
            if stop.load(Ordering::Relaxed) {
                break None;
            }
            match open.next() {
                Some(due) => break Some(due),
                None if docket.over.load(Ordering::Relaxed) => break None,
                None => open = docket.wait(open),
            }
            signs.beat(Part::Inquire);
        };
        let given_up = open.take_given_up();
        docket.given_up.fetch_add(given_up, Ordering::Relaxed);
        meters.given_up(given_up);
        docket.changed.notify_all();
        drop(open);
        if given_up > 0 {
            let _ = conclude.send(Conclusion::Trouble(Trouble::Behind { given_up }));
        }
        let Some(due) = due else {
            // The gate must not wait for an inquirer that has gone.
            docket.over.store(true, Ordering::Relaxed);
            docket.changed.notify_all();
            return done;
        };
        let camera = due.camera;
        let request = Request {
            window: due.window,
            woken_at: due.woken_at,
            normal: normals.get(usize::from(camera.0)).cloned().unwrap_or_default(),
            budgets: None,
            glance_frames: None,
        };
        let footage = Stored { store, camera };
        signs.inquiring(true);
        let begun = Instant::now();
        let answer = inquirer.inquire(&footage, &request);
        let took = begun.elapsed();
        meters.inquired(took);
        signs.inquiring(false);
        let mut to_compare = None;
        let conclusion = match answer {
            Ok(report) => {
                done += 1;
                to_compare = plan.shadow.is_on().then(|| report.clone());
                Conclusion::Verdict { camera, window: due.window, report: Box::new(report) }
            }
            Err(error) => Conclusion::Trouble(Trouble::Inquiry { sentence: error.to_string() }),
        };
        if conclude.send(conclusion).is_err() {
            docket.over.store(true, Ordering::Relaxed);
            docket.changed.notify_all();
            return done;
        }
        // What watches goes first: a policy that is tried gets the time in which nothing waits, and if
        // there never is any, one turn.
        let idle = docket.lock().is_empty();
        let its_turn = idle || plan.shadow.has_waited();
        if let Some(report) = to_compare.filter(|_| its_turn && !stop.load(Ordering::Relaxed)) {
            signs.inquiring(true);
            plan.shadow.ask(&footage, &request, &report, took);
            signs.inquiring(false);
        }
        cool_down(took, signs, stop);
    }
}

/// Rests after an inquiry that took so long, as the heat asks. Wakes meanwhile wait in the docket.
fn cool_down(took: Duration, signs: &Signs, stop: &AtomicBool) {
    let mut rested = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let share = f64::from(signs.inquiries_permille()) / 1000.0;
        // Without a share there is nothing to earn: as long as it is so hot.
        if share > 0.0 && rested.as_secs_f64() >= took.as_secs_f64() * (1.0 / share - 1.0) {
            break;
        }
        thread::sleep(LOOK_UP);
        rested += LOOK_UP;
        signs.beat(Part::Inquire);
    }
}

/// The queue after a camera.
struct Queue<'a> {
    to: Sender<Seen>,
    from: Receiver<Seen>,
    dropped: &'a AtomicU64,
    /// Of the frames that never came to the queue.
    lost: &'a AtomicU64,
    meters: &'a Meters,
}

impl Queue<'_> {
    /// Puts a frame; `false` once nobody takes any.
    fn put(&self, seen: Seen) -> bool {
        if seen.pace == Pace::Replay || seen.frame.is_none() {
            return self.to.send(seen).is_ok();
        }
        let mut seen = seen;
        loop {
            match self.to.try_send(seen) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(again)) => {
                    // The oldest goes; an end-of-camera mark must not.
                    if let Ok(oldest) = self.from.try_recv() {
                        if oldest.frame.is_none() {
                            let _ = self.to.send(oldest);
                        } else {
                            self.dropped.fetch_add(1, Ordering::Relaxed);
                            self.meters.dropped(oldest.camera);
                        }
                    }
                    seen = again;
                }
            }
        }
    }
}

/// The docket between gate and inquirer.
struct Shared {
    docket: Mutex<Docket>,
    changed: Condvar,
    /// No more wakes will come, or nobody takes them.
    over: AtomicBool,
    given_up: AtomicU64,
}

/// A stop request sets a flag and wakes nobody: waits look up this often.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Shared {
    fn new(docket: Docket) -> Self {
        Self {
            docket: Mutex::new(docket),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            given_up: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Docket> {
        self.docket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Docket>) -> MutexGuard<'a, Docket> {
        match self.changed.wait_timeout(guard, LOOK_UP) {
            Ok((guard, _)) => guard,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ration_lets_its_share_through_evenly() {
        let mut ration = Ration::default();
        let through =
            |ration: &mut Ration, share| (0..8).map(|_| ration.lets_through(share)).collect();
        let all: Vec<bool> = through(&mut ration, 1000);
        assert_eq!(all, [true; 8]);
        let half: Vec<bool> = through(&mut ration, 500);
        assert_eq!(half, [false, true, false, true, false, true, false, true]);
        let none: Vec<bool> = through(&mut ration, 0);
        assert_eq!(none, [false; 8]);
    }
}
