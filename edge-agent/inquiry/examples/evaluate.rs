//! How good a policy's verdicts are on simulated windows that it has never seen.
//!
//! `cargo run --release -p inquiry --example evaluate -- --split test --videos 400 --json`
//!
//! Each video is one window of 122 s of a scene. `active` is the verdict of the whole inquiry,
//! `glance` that of the same policy after its opening look, before any operator.

use anyhow::{Context, Result};
use bundle::Bundle;
use clap::{Parser, ValueEnum};
use engine::{Engine, EngineOptions};
use frame_store::{FrameHash, FrameId, StoreError, StoredFrame};
use hal_camera::{CameraId, ClockQuality, Encoding, Frame, MediaTime, Span, WallTime};
use hal_sim::{HEIGHT, Incidents, Scene, SceneSpec, WIDTH};
use inquiry::{Footage, Inquirer, Request};
use oracle::{WINDOW_S, harmful_intervals, window_of};
use serde::Serialize;
use std::{
    io::{self, Write},
    path::PathBuf,
};

/// How good a policy's verdicts are on simulated windows that it has never seen.
#[derive(Parser)]
struct Arguments {
    /// Directory of the bundle.
    #[arg(long, default_value = "models/nano")]
    bundle: PathBuf,
    /// Which seeds. Test and fresh draw held-out scene families too.
    #[arg(long, value_enum, default_value = "val")]
    split: Split,
    /// First seed, counted from the beginning of the split.
    #[arg(long, default_value_t = 0)]
    seed_base: u64,
    /// How many windows.
    #[arg(long, default_value_t = 200)]
    videos: u64,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// One JSON object per video instead of the summary.
    #[arg(long)]
    each: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Split {
    Train,
    Val,
    Test,
    Fresh,
}

impl Split {
    fn first_seed(self) -> u64 {
        match self {
            Split::Train => 0,
            Split::Val => 5_000_000,
            Split::Test => 6_000_000,
            Split::Fresh => 7_000_000,
        }
    }
}

/// What one window came to.
#[derive(Serialize)]
struct Video {
    seed: u64,
    anomalous: bool,
    /// The stories in it: label, and whether harmful.
    kinds: Vec<(String, bool)>,
    /// P(anomalous) at the end, and after the glance.
    active: f64,
    glance: f64,
    frames: u32,
    looks: u32,
    ms: f64,
    /// Whether the first clip's label is that of a harmful story; `None` without a clip.
    hit: Option<bool>,
}

#[derive(Serialize)]
struct Summary {
    bundle: String,
    videos: usize,
    anomalous: usize,
    active_auc: Interval,
    glance_auc: Interval,
    active_minus_glance: Interval,
    label_right_when_anomalous: f64,
    mean_frames: f64,
    mean_looks: f64,
    median_ms: f64,
    thresholds: Vec<Rates>,
    kinds: Vec<(String, f64, usize)>,
}

/// A value with its bootstrap 95 % interval.
#[derive(Clone, Copy, Serialize)]
struct Interval {
    value: f64,
    lo: f64,
    hi: f64,
}

/// What a threshold would do.
#[derive(Serialize)]
struct Rates {
    at: f64,
    found: f64,
    false_alarms: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bundle = Bundle::open(&arguments.bundle)
        .with_context(|| format!("cannot use '{}'", arguments.bundle.display()))?;
    let engine = Engine::load(&bundle, EngineOptions { threads: 1 })?;
    let mut inquirer = Inquirer::new(&bundle, engine)?;
    let first = arguments.split.first_seed() + arguments.seed_base;
    let bar = indicatif::ProgressBar::new(arguments.videos);
    let mut results = vec![];
    for seed in first..first + arguments.videos {
        results.push(one(&mut inquirer, seed)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    if arguments.each {
        for video in &results {
            writeln!(out, "{}", serde_json::to_string(video)?)?;
        }
        return Ok(());
    }
    let summary = summarise(bundle.id(), &results);
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    }
    Ok(())
}

fn one(inquirer: &mut Inquirer, seed: u64) -> Result<Video> {
    let scene = Scene::new(SceneSpec { seed, incidents: Incidents::Often });
    let from_s = window_of(seed);
    let stories = scene.stories(from_s, from_s + WINDOW_S);
    let truth = harmful_intervals(&stories, from_s, WINDOW_S);
    let footage = Rendered { scene, from_s, seed };
    let window = Span::new(MediaTime(0), MediaTime::from_s(WINDOW_S));
    let woken_at = (seed.is_multiple_of(2)).then_some(MediaTime::from_s(WINDOW_S - 2.0));
    let request = Request { window, woken_at, normal: String::new(), budgets: None };
    let report = inquirer.inquire(&footage, &request)?;
    let outcome = &report.outcome;
    let labels: Vec<&str> = stories.iter().filter(|s| s.harmful).map(|s| s.kind.label()).collect();
    Ok(Video {
        seed,
        anomalous: !truth.is_empty(),
        kinds: stories.iter().map(|s| (s.kind.label().to_owned(), s.harmful)).collect(),
        active: f64::from(outcome.p),
        glance: f64::from(outcome.trajectory.first().map_or(0.5, |s| s.p)),
        frames: outcome.frames_used,
        looks: outcome.trajectory.len().saturating_sub(2) as u32,
        ms: report.timing.total_ms,
        hit: outcome.clips.first().map(|c| labels.contains(&c.label.as_str())),
    })
}

fn summarise(bundle: String, results: &[Video]) -> Summary {
    let (active, glance): (Vec<f64>, Vec<f64>) =
        results.iter().map(|r| (r.active, r.glance)).unzip();
    let truth: Vec<bool> = results.iter().map(|r| r.anomalous).collect();
    let pick = |of: &[f64], rows: &[usize]| {
        let scores: Vec<f64> = rows.iter().map(|&i| of[i]).collect();
        let labels: Vec<bool> = rows.iter().map(|&i| truth[i]).collect();
        auc(&scores, &labels)
    };
    let mut ms: Vec<f64> = results.iter().map(|r| r.ms).collect();
    ms.sort_by(f64::total_cmp);
    let n = results.len() as f64;
    let hits: Vec<bool> = results.iter().filter(|r| r.anomalous).filter_map(|r| r.hit).collect();
    Summary {
        bundle,
        videos: results.len(),
        anomalous: truth.iter().filter(|&&t| t).count(),
        active_auc: bootstrap(results.len(), |rows| pick(&active, rows)),
        glance_auc: bootstrap(results.len(), |rows| pick(&glance, rows)),
        active_minus_glance: bootstrap(results.len(), |r| pick(&active, r) - pick(&glance, r)),
        label_right_when_anomalous: hits.iter().filter(|&&h| h).count() as f64
            / hits.len().max(1) as f64,
        mean_frames: results.iter().map(|r| f64::from(r.frames)).sum::<f64>() / n,
        mean_looks: results.iter().map(|r| f64::from(r.looks)).sum::<f64>() / n,
        median_ms: ms[ms.len() / 2],
        thresholds: (1..20).map(|i| rates(results, f64::from(i) / 20.0)).collect(),
        kinds: per_kind(results),
    }
}

fn rates(results: &[Video], at: f64) -> Rates {
    let share = |anomalous: bool| {
        let of: Vec<&Video> = results.iter().filter(|r| r.anomalous == anomalous).collect();
        of.iter().filter(|r| r.active >= at).count() as f64 / of.len().max(1) as f64
    };
    Rates { at, found: share(true), false_alarms: share(false) }
}

/// AUC of windows with a harmful story of a kind against those without any.
fn per_kind(results: &[Video]) -> Vec<(String, f64, usize)> {
    hal_sim::IncidentKind::ALL
        .iter()
        .map(|kind| {
            let label = kind.label();
            let has = |r: &Video| r.kinds.iter().any(|(k, harmful)| k == label && *harmful);
            let of: Vec<&Video> = results.iter().filter(|r| !r.anomalous || has(r)).collect();
            let scores: Vec<f64> = of.iter().map(|r| r.active).collect();
            let truth: Vec<bool> = of.iter().map(|r| r.anomalous).collect();
            let n = truth.iter().filter(|&&t| t).count();
            (label.to_owned(), auc(&scores, &truth), n)
        })
        .collect()
}

/// Area under the ROC curve, ties counted half (Mann and Whitney).
fn auc(scores: &[f64], truth: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (mut sum, mut at) = (0.0, 0);
    while at < order.len() {
        let same = order[at..].iter().take_while(|&&i| scores[i] == scores[order[at]]).count();
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        sum += rank * order[at..at + same].iter().filter(|&&i| truth[i]).count() as f64;
        at += same;
    }
    let positives = truth.iter().filter(|&&t| t).count() as f64;
    let negatives = truth.len() as f64 - positives;
    (sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

/// A statistic over rows with its percentile interval from 1,000 resamples.
fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> f64) -> Interval {
    let mut state = 0x243F_6A88_85A3_08D3u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) as usize) % n
    };
    let all: Vec<usize> = (0..n).collect();
    let mut samples: Vec<f64> = (0..1000)
        .map(|_| statistic(&(0..n).map(|_| draw()).collect::<Vec<_>>()))
        .filter(|v| v.is_finite())
        .collect();
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| samples[((samples.len() - 1) as f64 * q) as usize];
    Interval { value: statistic(&all), lo: at(0.025), hi: at(0.975) }
}

/// A window of a scene as footage: frames exist at 8 per second and are drawn when asked for.
struct Rendered {
    scene: Scene,
    from_s: f64,
    seed: u64,
}

const FRAME_US: i64 = 125_000;

impl Footage for Rendered {
    fn held(&self) -> Option<Span> {
        Some(Span::new(MediaTime(0), MediaTime::from_s(WINDOW_S)))
    }

    fn nearest(&self, moment: MediaTime, _: f64) -> Option<(FrameId, MediaTime)> {
        let last = (WINDOW_S * 1e6) as i64 / FRAME_US;
        let number = ((moment.0 + FRAME_US / 2).div_euclid(FRAME_US)).clamp(0, last);
        // Unique over scenes, so that no scene finds another's frames in the cache.
        let id = FrameId((self.seed << 16) | number as u64);
        Some((id, MediaTime(number * FRAME_US)))
    }

    fn read(&self, id: FrameId) -> std::result::Result<StoredFrame, StoreError> {
        let media_time = MediaTime((id.0 & 0xffff) as i64 * FRAME_US);
        let mut bytes = vec![0; WIDTH * HEIGHT];
        self.scene.render(self.from_s + media_time.as_s(), &mut bytes);
        let hash = FrameHash::of(&bytes);
        let wall_time = WallTime { unix_us: media_time.0, quality: ClockQuality::Unsynced };
        let (width, height) = (WIDTH as u16, HEIGHT as u16);
        let frame = Frame { media_time, wall_time, width, height, encoding: Encoding::Grey, bytes };
        Ok(StoredFrame { id, camera: CameraId(0), epoch: 0, frame, hash })
    }
}
