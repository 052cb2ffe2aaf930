//! The commands `ucf-crime`, `xd-violence` and `ubnormal`: a folder of videos with their authors'
//! annotations.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use eval::{
    Estimate, Passive, Record, Strategy, Watched,
    annotations::{self, Annotation, EndFrame, xd_class},
    bootstrap, curve,
    metrics::{PrArea, alarms, average_precision, macro_roc_auc, roc_auc},
    table::Truth,
    watch,
};
use frame_store::{FrameStore, RealFs, StoreOptions};
use hal_camera::{Camera, CameraError, CameraId, Capture, MediaTime, Span};
use hal_linux::FileCamera;
use inquiry::{Footage, Inquirer, Request, Stored};
use policy::{Budgets, Outcome};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the three benchmarks have in common.
#[derive(clap::Args)]
pub struct BenchmarkArguments {
    /// Folder with the videos, at any depth, found by the names in the annotations.
    #[arg(long)]
    root: PathBuf,
    /// The annotations that came with the benchmark: a file, or for UBnormal the folder of its
    /// scenes.
    #[arg(long)]
    annotations: PathBuf,
    /// Methods, separated by commas, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "active,fixed")]
    pub methods: Vec<String>,
    /// Frames for each stretch of a video that is as long as the bundle was made for; `own` is the
    /// bundle's budget.
    #[arg(long, default_value = "own")]
    pub frames: String,
    /// Directory of the policy's bundle.
    #[arg(long, default_value = "models/nano")]
    pub bundle: PathBuf,
    /// Frames per second of the videos, which annotations count in.
    #[arg(long)]
    fps: Option<f64>,
    /// Whether the end frame of an interval is anomalous.
    #[arg(long, value_enum)]
    end_frame: Option<EndFrameName>,
    /// What was made of each video is kept here, a line each; videos that are in it are not watched
    /// again.
    #[arg(long, default_value = "results.jsonl")]
    results: PathBuf,
    /// From this score a moment is alarmed; the bundle's notice threshold if left out.
    #[arg(long)]
    pub threshold: Option<f64>,
    /// Leave videos out that are annotated but not there; otherwise they are an error.
    #[arg(long)]
    partial: bool,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum EndFrameName {
    Excluded,
    Included,
}

/// One of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Benchmark {
    /// UCF-Crime.
    UcfCrime,
    /// XD-Violence.
    XdViolence,
    /// UBnormal.
    UbNormal,
}

impl Benchmark {
    fn name(self) -> &'static str {
        match self {
            Self::UcfCrime => "ucf-crime",
            Self::XdViolence => "xd-violence",
            Self::UbNormal => "ubnormal",
        }
    }

    /// Frames per second, and whether the end frame counts, as most papers have it.
    fn conventions(self) -> (f64, EndFrame) {
        match self {
            Self::UcfCrime => (30.0, EndFrame::Excluded),
            Self::XdViolence => (24.0, EndFrame::Excluded),
            Self::UbNormal => (30.0, EndFrame::Included),
        }
    }
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    benchmark: &'static str,
    bundle: String,
    videos: usize,
    anomalous: usize,
    missing: Vec<String>,
    fps: f64,
    end_frame: EndFrame,
    rows: Vec<BenchmarkRow>,
}

#[derive(Serialize)]
struct BenchmarkRow {
    method: String,
    frames: u32,
    frame_auc: Option<f64>,
    frame_auc_macro: Option<f64>,
    ap_step: Option<f64>,
    ap_trapezoid: Option<f64>,
    video_auc: Option<Estimate>,
    false_alarms_per_hour: f64,
    time_to_detect_s: Option<f64>,
    detected: Option<f64>,
    frames_used: f64,
}

/// The policy, ready to watch in any way.
pub struct Policy<'a> {
    /// For the recipes.
    pub passive: &'a Passive,
    /// For its own inquiries.
    pub inquirer: &'a mut Inquirer,
    /// Longest stretch of one look, in seconds.
    pub stretch_s: f64,
    /// The threshold of an alarm.
    pub threshold: f64,
    /// Frames for each stretch.
    pub frames: u32,
}

/// Watches the benchmark's videos and prints its metrics.
///
/// # Errors
/// If annotations or videos cannot be read, or the policy fails.
pub fn run(
    benchmark: Benchmark,
    arguments: &BenchmarkArguments,
    strategies: &[Strategy],
    policy: &mut Policy<'_>,
) -> Result<()> {
    let (fps, end) = benchmark.conventions();
    let fps = arguments.fps.unwrap_or(fps);
    ensure!(fps > 0.0, "--fps {fps} is no frame rate");
    let end = match arguments.end_frame {
        Some(EndFrameName::Excluded) => EndFrame::Excluded,
        Some(EndFrameName::Included) => EndFrame::Included,
        None => end,
    };
    let files = videos_below(&arguments.root)?;
    let annotated = annotations(benchmark, &arguments.annotations, &files)?;
    let (there, missing): (Vec<_>, Vec<_>) =
        annotated.iter().partition(|a| files.contains_key(&a.name));
    let missing: Vec<String> = missing.into_iter().map(|a| a.name.clone()).collect();
    if let (Some(first), false) = (missing.first(), arguments.partial) {
        bail!(
            "{} annotated videos are not below '{}', '{first}' among them; add them, or leave them \
             out with --partial",
            missing.len(),
            arguments.root.display()
        );
    }
    ensure!(!there.is_empty(), "no annotated video is below '{}'", arguments.root.display());
    let bundle = policy.inquirer.bundle_id().to_owned();
    let mut known = Results::open(&arguments.results, &bundle, policy.frames)?;
    let bar = crate::progress(there.len() * strategies.len());
    for annotation in &there {
        let new: Vec<Strategy> =
            strategies.iter().copied().filter(|&s| !known.has(&annotation.name, s)).collect();
        bar.inc((strategies.len() - new.len()) as u64);
        if new.is_empty() {
            continue;
        }
        bar.set_message(annotation.name.clone());
        let file = &files[&annotation.name];
        let film = Film::read(file)?;
        for strategy in new {
            let watched = film.watch(strategy, policy)?;
            known.add(Record {
                video: truth(annotation, film.length_s(), fps, end),
                method: strategy.name().to_owned(),
                train_seed: 0,
                frames: policy.frames,
                bundle: bundle.clone(),
                watched,
            })?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let rows = strategies
        .iter()
        .map(|&s| row(s, &there, &known, fps, end, policy))
        .collect::<Result<_>>()?;
    let report = Report {
        benchmark: benchmark.name(),
        bundle,
        videos: there.len(),
        anomalous: there.iter().filter(|a| a.anomalous()).count(),
        missing,
        fps,
        end_frame: end,
        rows,
    };
    let out = &mut io::stdout().lock();
    match arguments.json {
        true => Ok(writeln!(out, "{}", serde_json::to_string(&report)?)?),
        false => readable(out, &report),
    }
}

/// The truth in seconds, for drawings.
fn truth(annotation: &Annotation, length_s: f64, fps: f64, end: EndFrame) -> Truth {
    let beyond = u64::from(end == EndFrame::Included);
    let seconds = |&(a, b): &(u64, u64)| (a as f64 / fps, (b + beyond) as f64 / fps);
    Truth {
        name: annotation.name.clone(),
        length_s,
        intervals: annotation.intervals.iter().map(seconds).collect(),
        labels: match annotation.anomalous() {
            true => vec![annotation.class.clone()],
            false => vec![],
        },
    }
}

/// Annotations; those of XD-Violence name the anomalous videos only, the others are found by their
/// file's name.
fn annotations(
    benchmark: Benchmark,
    path: &Path,
    files: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Annotation>> {
    Ok(match benchmark {
        Benchmark::UcfCrime => annotations::ucf_crime(path)?,
        Benchmark::UbNormal => annotations::ubnormal(path)?,
        Benchmark::XdViolence => {
            let mut found = annotations::xd_violence(path)?;
            let normal = files.keys().filter(|name| xd_class(name) == "Normal");
            found.extend(normal.map(|name| Annotation {
                name: name.clone(),
                class: "Normal".to_owned(),
                intervals: vec![],
            }));
            found
        }
    })
}

/// Video files below a folder, by name without extension.
fn videos_below(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    const VIDEOS: [&str; 5] = ["mp4", "avi", "mkv", "mov", "webm"];
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot look into '{}'", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_dir() {
                folders.push(path);
            } else if VIDEOS.contains(&extension.as_str()) {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}

/// A video's frames, on disk as the camera keeps them, for as long as this lives.
struct Film {
    store: FrameStore,
    held: Span,
    _scratch: tempfile::TempDir,
}

impl Film {
    fn read(file: &Path) -> Result<Self> {
        let path = file
            .to_str()
            .with_context(|| format!("the name of '{}' is not UTF-8; rename it", file.display()))?;
        let mut source = FileCamera::from_spec(path)?;
        let scratch = tempfile::tempdir().context("no place for a video's frames")?;
        let options = StoreOptions { bytes_max: 8 << 30, ..StoreOptions::default() };
        let (store, _) = FrameStore::open(scratch.path(), options, Arc::new(RealFs))?;
        loop {
            match source.capture() {
                Ok(Capture::Frame(frame)) => _ = store.append(CameraId(0), &frame)?,
                Ok(Capture::End) => break,
                // What can be read of a damaged video is watched: benchmarks have some.
                Err(error @ CameraError::Damaged { .. }) => eprintln!("lookback-eval: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        let held = store
            .span(CameraId(0))
            .with_context(|| format!("'{}' holds no frames", file.display()))?;
        Ok(Self { store, held, _scratch: scratch })
    }

    /// The last frame lasts as long as the others: an eighth of a second.
    fn length_s(&self) -> f64 {
        self.held.len_s() + 0.125
    }

    /// Stretch after stretch, each of equal length; the video is as anomalous as its worst stretch.
    fn watch(&self, strategy: Strategy, policy: &mut Policy<'_>) -> Result<Watched> {
        let length_s = self.length_s();
        let stretches = (length_s / policy.stretch_s).ceil().max(1.0);
        let each_s = length_s / stretches;
        let mut whole = Watched { p: 0.0, curve: vec![], frames: 0, label: None, utility: None };
        for number in 0..stretches as u32 {
            let part = Part { film: self, from_s: f64::from(number) * each_s, length_s: each_s };
            let watched = match strategy {
                Strategy::Active => {
                    let outcome = inquire(policy.inquirer, &part, each_s, policy.frames, false)?;
                    Watched::by_inquiry(&outcome, each_s)
                }
                recipe => watch(recipe, &mut policy.passive.on(&part), each_s, policy.frames)?,
            };
            whole.curve.extend(&watched.curve);
            whole.frames += watched.frames;
            if watched.p >= whole.p {
                whole.p = watched.p;
                whole.label = watched.label;
            }
        }
        whole.curve.resize(curve::steps(length_s), whole.curve.last().copied().unwrap_or(0.0));
        Ok(whole)
    }
}

/// A stretch of a film; its media time begins at 0.
struct Part<'a> {
    film: &'a Film,
    from_s: f64,
    length_s: f64,
}

impl Footage for Part<'_> {
    fn held(&self) -> Option<Span> {
        Some(Span::new(MediaTime(0), MediaTime::from_s(self.length_s)))
    }

    fn nearest(
        &self,
        moment: MediaTime,
        tolerance_s: f64,
    ) -> Option<(frame_store::FrameId, MediaTime)> {
        let film = Stored { store: &self.film.store, camera: CameraId(0) };
        let origin = self.film.held.start.plus_s(self.from_s);
        let (id, at) = film.nearest(origin.plus_s(moment.as_s()), tolerance_s)?;
        Some((id, MediaTime::from_s(at.since_s(origin))))
    }

    fn read(
        &self,
        id: frame_store::FrameId,
    ) -> Result<frame_store::StoredFrame, frame_store::StoreError> {
        let mut stored = self.film.store.read(id)?;
        let origin = self.film.held.start.plus_s(self.from_s);
        stored.frame.media_time = MediaTime::from_s(stored.frame.media_time.since_s(origin));
        Ok(stored)
    }
}

/// The policy's inquiry about `footage`, which begins at media time 0; a passive one spends all of
/// its frames on the glance.
///
/// # Errors
/// If there is no footage or the bundle fails.
pub fn inquire(
    inquirer: &mut Inquirer,
    footage: &dyn Footage,
    length_s: f64,
    frames: u32,
    passive: bool,
) -> Result<Outcome> {
    let setup = inquirer.setup();
    let request = Request {
        window: Span::new(MediaTime(0), MediaTime::from_s(length_s)),
        woken_at: None,
        normal: String::new(),
        budgets: Some(Budgets { frames, ..setup.budgets }),
        glance_frames: passive.then_some(frames),
    };
    Ok(inquirer.inquire(footage, &request)?.outcome)
}

/// The results file: what earlier runs and this one made of the videos.
struct Results {
    path: PathBuf,
    file: File,
    lines: BTreeMap<(String, String), Record>,
    bundle: String,
}

impl Results {
    fn open(path: &Path, bundle: &str, frames: u32) -> Result<Self> {
        let context = || format!("cannot use the results file '{}'", path.display());
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.with_context(context)?;
        let mut lines = BTreeMap::new();
        for line in BufReader::new(&file).lines() {
            // A line that a power cut broke off is a video to be watched again.
            let Ok(line) = serde_json::from_str::<Record>(&line.with_context(context)?) else {
                continue;
            };
            if line.bundle == bundle && line.frames == frames {
                lines.insert((line.video.name.clone(), line.method.clone()), line);
            }
        }
        Ok(Self { path: path.to_owned(), file, lines, bundle: bundle.to_owned() })
    }

    fn has(&self, video: &str, strategy: Strategy) -> bool {
        self.get(video, strategy).is_some()
    }

    fn get(&self, video: &str, strategy: Strategy) -> Option<&Record> {
        self.lines.get(&(video.to_owned(), strategy.name().to_owned()))
    }

    fn add(&mut self, line: Record) -> Result<()> {
        debug_assert_eq!(line.bundle, self.bundle);
        writeln!(self.file, "{}", serde_json::to_string(&line)?)
            .with_context(|| format!("cannot write '{}'", self.path.display()))?;
        self.lines.insert((line.video.name.clone(), line.method.clone()), line);
        Ok(())
    }
}

fn row(
    strategy: Strategy,
    there: &[&Annotation],
    known: &Results,
    fps: f64,
    end: EndFrame,
    policy: &Policy<'_>,
) -> Result<BenchmarkRow> {
    let lines: Vec<&Record> = there
        .iter()
        .map(|a| known.get(&a.name, strategy).with_context(|| format!("no result of '{}'", a.name)))
        .collect::<Result<_>>()?;
    let (mut scores, mut truth, mut each) = (vec![], vec![], vec![]);
    let (mut false_alarms, mut hours) = (0.0, 0.0);
    let mut delays = vec![];
    for (annotation, line) in there.iter().zip(&lines) {
        let frames = (line.video.length_s * fps).round() as usize;
        let last = line.watched.curve.len().saturating_sub(1);
        let step = |frame: usize| ((frame as f64 / fps / curve::STEP_S) as usize).min(last);
        let own: Vec<f64> = (0..frames).map(|f| line.watched.curve[step(f)]).collect();
        let own_truth = annotation.truth(frames, end);
        let alarmed = alarms(&own, &own_truth, policy.threshold, fps);
        false_alarms += alarmed.false_alarms as f64;
        hours += line.video.length_s / 3600.0;
        delays.extend(alarmed.delays_s);
        scores.extend_from_slice(&own);
        truth.extend_from_slice(&own_truth);
        each.push((own, own_truth));
    }
    let detected: Vec<f64> = delays.iter().flatten().copied().collect();
    let mean = |of: &[f64]| (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64);
    Ok(BenchmarkRow {
        method: strategy.name().to_owned(),
        frames: policy.frames,
        frame_auc: roc_auc(&scores, &truth),
        frame_auc_macro: macro_roc_auc(each.iter().map(|(s, t)| (s.as_slice(), t.as_slice()))),
        ap_step: average_precision(&scores, &truth, PrArea::Step),
        ap_trapezoid: average_precision(&scores, &truth, PrArea::Trapezoid),
        video_auc: bootstrap(lines.len(), |rows| {
            let p: Vec<f64> = rows.iter().map(|&i| lines[i].watched.p).collect();
            let anomalous: Vec<bool> = rows.iter().map(|&i| there[i].anomalous()).collect();
            roc_auc(&p, &anomalous)
        }),
        false_alarms_per_hour: false_alarms / hours,
        time_to_detect_s: mean(&detected),
        detected: (!delays.is_empty()).then(|| detected.len() as f64 / delays.len() as f64),
        frames_used: mean(&lines.iter().map(|l| f64::from(l.watched.frames)).collect::<Vec<_>>())
            .unwrap_or(0.0),
    })
}

fn readable(out: &mut impl Write, report: &Report) -> Result<()> {
    let Report { benchmark, bundle, videos, anomalous, missing, fps, .. } = report;
    writeln!(
        out,
        "{benchmark}, {bundle}: {videos} videos, {anomalous} anomalous, {} missing; {fps} frames/s",
        missing.len()
    )?;
    let short = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
    for r in &report.rows {
        writeln!(
            out,
            "{:10} frame AUC {} (macro {}), AP {} (trapezoid {}), video AUC {}, {:.1} false/h, {:.1} \
             frames a video",
            r.method,
            short(r.frame_auc),
            short(r.frame_auc_macro),
            short(r.ap_step),
            short(r.ap_trapezoid),
            short(r.video_auc.map(|e| e.value)),
            r.false_alarms_per_hour,
            r.frames_used
        )?;
    }
    Ok(())
}
