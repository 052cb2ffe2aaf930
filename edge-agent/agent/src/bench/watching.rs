//! What watching costs: the whole path of a frame, without inquiries.
//!
//! The camera is simulated. First it gives its frames as fast as they are taken, which tells the work
//! that a frame takes; rendering it is a cost that no real camera has, so that is measured by itself,
//! watch and rendering by turns. Then it gives them in real time, one by one: each wakes every thread
//! of the path and finds cold caches, which costs more than the work does.

use super::{
    UnderWay,
    cost::{cpu_ms, scratch},
    report::{Row, median_difference, percentile},
};
use crate::{
    conclude::{Concluder, Listener},
    config::Config,
    parts, run,
    watch::{self, Outward, Pace, Plan, Watched},
};
use anyhow::{Result, ensure};
use bundle::Bundle;
use event_log::{EventRow, Phase};
use frame_store::StoreStats;
use hal_camera::{Camera, CameraError, CameraId, Capture, Span};
use hal_sim::SimCamera;
use inquiry::Inquirer;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Pairs of a watch and a rendering of the same scene; each pair sees another scene.
const PAIRS: u64 = 5;
/// Length of the watch in real time, in minutes: 120 frames.
const LIVE_MINUTES: f64 = 0.25;
/// Steps of progress.
pub(super) const STEPS: u64 = 2 * PAIRS + 1;

/// Scenes from here on, which are among those to train on.
const FIRST_SEED: u64 = 9001;

/// The rate that the target speaks of.
const FRAMES_PER_S: f64 = 8.0;

/// The cost of a frame, and of a second of frames.
///
/// # Errors
/// If a store or log cannot be opened, or not every frame went all the way.
pub(super) fn measure(
    config: &Config,
    bundle: &Bundle,
    inquirer: &mut Inquirer,
    minutes: u32,
    under_way: &UnderWay,
) -> Result<Vec<Row>> {
    let mut watch = |camera: SimCamera| {
        let place = scratch()?;
        let mut config = config.clone();
        config.device.data_dir = place.path().to_owned();
        let pace = if camera.is_live() { Pace::Live } else { Pace::Replay };
        let watched = watched(&config, bundle, inquirer, camera, pace, &under_way.stop)?;
        anyhow::Ok(watched.taken)
    };
    under_way.now("watching without inquiries");
    let mut pairs = vec![];
    for seed in FIRST_SEED..FIRST_SEED + PAIRS {
        let camera = || SimCamera::from_spec(&format!("seed={seed},minutes={minutes},speed=max"));
        let whole = watch(camera()?)?;
        under_way.step()?;
        let part = rendered(camera()?)?;
        ensure!(whole.frames == part.frames, "{} of {} frames", whole.frames, part.frames);
        pairs.push((whole.ms_per_frame(), part.ms_per_frame()));
        under_way.step()?;
    }
    under_way.now("watching in real time");
    let live = watch(SimCamera::from_spec(&format!("seed={FIRST_SEED},minutes={LIVE_MINUTES}"))?)?;
    under_way.step()?;
    let (with_ms, alone_ms): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let without_ms = median_difference(&pairs);
    const PERCENT: f64 = 5.0;
    let percents = [
        ("steady_percent_of_core_at_8_fps", percent(without_ms)),
        ("steady_with_rendering_percent", percent(percentile(&with_ms, 0.5))),
        ("steady_live_percent_of_core", live.cpu_ms / live.wall_ms * 100.0),
    ];
    let mut rows = percents.map(|(what, value)| Row::under(what, value, "%", PERCENT)).to_vec();
    rows.push(Row::told("steady_ms_per_frame", without_ms, "ms"));
    rows.push(Row::told("rendering_ms_per_frame", percentile(&alone_ms, 0.5), "ms"));
    Ok(rows)
}

/// What so many frames took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub frames: u64,
    cpu_ms: f64,
    wall_ms: f64,
}

impl Taken {
    fn ms_per_frame(self) -> f64 {
        self.cpu_ms / self.frames as f64
    }
}

/// CPU time of a frame as a percentage of one core.
fn percent(ms_per_frame: f64) -> f64 {
    ms_per_frame * FRAMES_PER_S / 1e3 * 100.0
}

/// What came of watching a camera to its end.
pub(super) struct WatchedToEnd {
    /// Frames that were stored, and what they took.
    pub taken: Taken,
    /// Frames that came faster than they could be stored.
    pub dropped: u64,
    /// The store at the end.
    pub store: StoreStats,
}

/// Watches `camera` to its end without an inquiry, in the data directory of `config`.
///
/// # Errors
/// If a room cannot be opened, or the watch fails.
pub(super) fn watched<C: Camera + 'static>(
    config: &Config,
    bundle: &Bundle,
    inquirer: &mut Inquirer,
    camera: C,
    pace: Pace,
    stop: &Arc<AtomicBool>,
) -> Result<WatchedToEnd> {
    let (store, _) = parts::store(config)?;
    let (log, _) = parts::log(&config.device.data_dir)?;
    let terms = run::terms(config, bundle, inquirer);
    let mut concluder = Concluder::new(&store, log, terms, Box::new(Nobody));
    let plan = undisturbed(run::plan(config));
    let over = Arc::new(AtomicBool::new(false));
    let camera = Box::new(Ending { camera, over: over.clone(), stop: stop.clone() });
    let cameras = vec![Watched { id: CameraId(0), camera, pace, normal: String::new() }];

    let (begun, before_ms) = (Instant::now(), cpu_ms());
    let outward = Outward::default();
    let tally =
        watch::watch(cameras, &plan, &store, inquirer, &mut concluder, None, outward, &over)?;
    store.close()?;
    let (cpu_ms, wall_ms) = (cpu_ms() - before_ms, begun.elapsed().as_secs_f64() * 1e3);
    ensure!(tally.inquiries == 0, "{} inquiries were made while watching", tally.inquiries);
    let taken = Taken { frames: tally.frames, cpu_ms, wall_ms };
    Ok(WatchedToEnd { taken, dropped: tally.frames_dropped, store: store.stats() })
}

/// The same plan with a sentinel that does all of its work and never wakes.
fn undisturbed(mut plan: Plan) -> Plan {
    // Scores end at 1.
    plan.sentinel.wake_at = 2.0;
    plan.sentinel.patrol_s = None;
    plan
}

/// Takes every frame of `camera` and drops it.
fn rendered(mut camera: SimCamera) -> Result<Taken> {
    let (begun, before_ms, mut frames) = (Instant::now(), cpu_ms(), 0);
    while let Capture::Frame(frame) = camera.capture()? {
        std::hint::black_box(frame);
        frames += 1;
    }
    let (cpu_ms, wall_ms) = (cpu_ms() - before_ms, begun.elapsed().as_secs_f64() * 1e3);
    Ok(Taken { frames, cpu_ms, wall_ms })
}

/// A camera at whose end the watch is over: otherwise the path inquires about the end of every
/// recording. The watch is told before the last frames are taken; they are still stored and scored.
struct Ending<C> {
    camera: C,
    over: Arc<AtomicBool>,
    /// The process is to stop, and with it the camera.
    stop: Arc<AtomicBool>,
}

impl<C: Camera> Camera for Ending<C> {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        let captured = match self.stop.load(Ordering::Relaxed) {
            true => Ok(Capture::End),
            false => self.camera.capture(),
        };
        if matches!(captured, Ok(Capture::End)) {
            self.over.store(true, Ordering::Relaxed);
        }
        captured
    }

    fn describe(&self) -> String {
        self.camera.describe()
    }
}

/// Nobody listens; what goes wrong shows in the number of frames.
struct Nobody;

impl Listener for Nobody {
    fn looked(&mut self, _: &str, _: Span, _: &inquiry::Report) {}
    fn event(&mut self, _: &EventRow, _: Phase) {}
    fn trouble(&mut self, _: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_a_frame_is_eight_thousandths_of_a_core() {
        assert_eq!(percent(1.0), 0.8);
        assert!((percent(6.25) - 5.0).abs() < 1e-9, "the target");
    }

    #[test]
    fn a_sentinel_left_undisturbed_still_scores_as_often_and_never_wakes() {
        let asked = run::plan(&Config::default());
        let every_nth = asked.sentinel.every_nth;
        let plan = undisturbed(asked);
        assert_eq!((plan.sentinel.every_nth, plan.sentinel.patrol_s), (every_nth, None));
        assert!(plan.sentinel.wake_at > 1.0);
    }

    #[test]
    fn every_frame_of_a_rendered_scene_is_counted() {
        let taken = rendered(SimCamera::from_spec("minutes=0.05,speed=max").unwrap()).unwrap();
        assert_eq!(taken.frames, 24);
        assert!(taken.cpu_ms > 0.0 && taken.ms_per_frame() < taken.cpu_ms);
    }

    #[test]
    fn the_watch_is_over_when_the_scene_is_or_when_the_process_is_to_stop() {
        for (frames, stopped) in [(24, false), (0, true)] {
            let [over, stop] = [false, stopped].map(|flag| Arc::new(AtomicBool::new(flag)));
            let camera = SimCamera::from_spec("minutes=0.05,speed=max").unwrap();
            let mut ending = Ending { camera, over: over.clone(), stop };
            for _ in 0..frames {
                assert!(matches!(ending.capture(), Ok(Capture::Frame(_))));
                assert!(!over.load(Ordering::Relaxed));
            }
            assert!(matches!(ending.capture(), Ok(Capture::End)));
            assert!(over.load(Ordering::Relaxed));
        }
    }
}
