//! The command `sim`: simulated videos watched by every method.

use crate::{benchmark::inquire, open};
use anyhow::{Context, Result, bail, ensure};
use bundle::Bundle;
use clap::ValueEnum;
use engine::{Engine, EngineOptions};
use eval::{
    Estimate, Passive, Record, SimVideo, Strategy, Watched,
    table::{Difference, Row, Run, Truth, differences, frames_to_match, gap_closed, row},
    watch,
};
use hal_sim::{Incidents, Split};
use indicatif::ProgressBar;
use inquiry::Inquirer;
use oracle::Pupil;
use policy::{Outcome, StepOperator, Utility, Weights};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io::{self, Write},
    path::PathBuf,
    thread,
};

#[derive(clap::Args)]
pub struct SimArguments {
    /// Which seeds. Test and fresh draw scene families that training never drew.
    #[arg(long, value_enum, default_value = "val")]
    split: SplitName,
    /// First seed, counted from the beginning of the split.
    #[arg(long, default_value_t = 0)]
    seed_base: u64,
    /// How many videos.
    #[arg(long, default_value_t = 200)]
    videos: u64,
    /// Length of each, in seconds. The camera's own window is 122. If left out, 240, or what the
    /// policy was made for if that is less.
    #[arg(long)]
    seconds: Option<f64>,
    /// How often something happens: nearly every minute (`often`), every other minute and then
    /// harmful three times in ten (`sometimes`), every seven minutes or so (`rare`), or only what
    /// looks like it (`none`).
    #[arg(long, value_enum, default_value = "sometimes")]
    incidents: IncidentsName,
    /// Methods, separated by commas, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    methods: Vec<String>,
    /// Budgets of frames, separated by commas; the glance takes at most half of one, or more of a small one that
    /// would else lie further apart than every 24 s. `own` is the bundle's
    #[arg(long, value_delimiter = ',', default_value = "own")]
    frames: Vec<String>,
    /// Directory of the policy's bundle.
    #[arg(long, default_value = "models/nano")]
    bundle: PathBuf,
    /// Directory of the policies that it is compared with: `sft-N` and `passive-N`, and `active-N`
    /// for further trainings of it, N being the training's seed.
    #[arg(long, default_value = "models/eval/policies")]
    policies: PathBuf,
    /// From this score a moment is alarmed; the bundle's notice threshold if left out.
    #[arg(long)]
    threshold: Option<f64>,
    /// Videos watched at a time; as many as there are cores if left out.
    #[arg(long)]
    threads: Option<usize>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// One JSON object per video and method instead of the table.
    #[arg(long)]
    each: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SplitName {
    Train,
    Val,
    Test,
    Fresh,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Val => Self::Val,
            SplitName::Test => Self::Test,
            SplitName::Fresh => Self::Fresh,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum IncidentsName {
    Often,
    Sometimes,
    Rare,
    None,
}

impl From<IncidentsName> for Incidents {
    fn from(name: IncidentsName) -> Self {
        match name {
            IncidentsName::Often => Self::Often,
            IncidentsName::Sometimes => Self::Sometimes,
            IncidentsName::Rare => Self::Rare,
            IncidentsName::None => Self::None,
        }
    }
}

/// Length of a video that nothing else is said of.
const USUAL_S: f64 = 240.0;

/// What is printed.
#[derive(Serialize)]
struct Table {
    bundle: String,
    videos: usize,
    anomalous: usize,
    seconds: f64,
    threshold: f64,
    rows: Vec<Row>,
    differences: Vec<Difference>,
    /// What a passive policy would need.
    budgets: Vec<Budget>,
}

/// What the inquiry gains at one budget, in terms of others.
#[derive(Serialize)]
struct Budget {
    frames: u32,
    /// The fewest frames with which the passive policy is as good, of those tried.
    passive_frames: Option<u32>,
    /// The most frames that were tried.
    tried: u32,
    /// Share of the oracle's advantage over the passive policy that the inquiry has.
    gap_closed: Option<Estimate>,
}

/// One method with one training and budget.
struct Plan {
    strategy: Strategy,
    train_seed: u32,
    frames: u32,
    bundle: PathBuf,
}

/// Watches simulated videos and prints the table.
///
/// # Errors
/// If there is nothing to measure, a bundle is refused, or a policy fails.
pub fn run(arguments: &SimArguments) -> Result<()> {
    ensure!(arguments.videos > 0, "--videos 0 leaves nothing to measure; ask for at least one");
    let strategies = crate::strategies(&arguments.methods)?;
    let bundle = open(&arguments.bundle)?;
    let manifest = &bundle.manifest;
    let budgets = crate::budgets(&arguments.frames, manifest.inquiry.max_frames as u32)?;
    let longest_s = manifest.inquiry.max_stretch_s;
    let length_s = arguments.seconds.unwrap_or(longest_s.min(USUAL_S));
    let incidents = Incidents::from(arguments.incidents);
    ensure!(length_s >= 1.0, "--seconds {length_s} is too short to show anything");
    ensure!(
        length_s <= longest_s,
        "--seconds {length_s} is longer than the {longest_s} s that the policy in '{}' was made for",
        arguments.bundle.display()
    );
    let plans = plans(strategies, arguments, &budgets)?;
    let threshold = arguments.threshold.unwrap_or(manifest.thresholds.notice);
    let first = Split::from(arguments.split).first_seed() + arguments.seed_base;
    let seeds = first..first + arguments.videos;
    let videos: Vec<SimVideo> =
        seeds.map(|seed| SimVideo::new(seed, length_s, incidents)).collect();
    let truths: Vec<Truth> = videos.iter().map(truth).collect();

    let threads = arguments
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get));
    let bar = crate::progress(plans.len() * videos.len());
    let watched = watch_all(&plans, &videos, threads.max(1), &bar)?;
    bar.finish_and_clear();
    let limits = manifest.setup().limits;
    let of_plan = |(plan, watched): (&Plan, Vec<Watched>)| Run {
        method: plan.strategy.name().to_owned(),
        frames: plan.frames,
        train_seed: plan.train_seed,
        aliased: videos.iter().map(|v| v.is_aliased(plan.frames, &limits)).collect(),
        watched,
    };
    let runs: Vec<Run> = plans.iter().zip(watched).map(of_plan).collect();
    let out = &mut io::stdout().lock();
    if arguments.each {
        return each(out, &runs, &truths, &bundle.id());
    }
    let anomalous = truths.iter().filter(|t| !t.intervals.is_empty()).count();
    let table = Table {
        bundle: bundle.id(),
        videos: videos.len(),
        anomalous,
        seconds: length_s,
        threshold,
        rows: runs.iter().map(|run| row(run, &truths, threshold)).collect(),
        differences: all_differences(&runs, &budgets, &truths),
        budgets: budgets.iter().map(|&frames| budget(frames, &runs, &truths)).collect(),
    };
    match arguments.json {
        true => Ok(writeln!(out, "{}", serde_json::to_string(&table)?)?),
        false => readable(out, &table),
    }
}

/// Every method at every budget, of every training that there is. The passive policy is tried with
/// more frames than were asked for too: with how many it is as good as the inquiry is the question.
fn plans(
    strategies: Vec<Strategy>,
    arguments: &SimArguments,
    budgets: &[u32],
) -> Result<Vec<Plan>> {
    let all = arguments.methods.iter().any(|m| m == "all");
    let mut plans = vec![];
    for strategy in strategies {
        let trained = trained(strategy, arguments);
        if trained.is_empty() {
            let found = format!(
                "there is no '{}-0' in '{}'",
                strategy.name(),
                arguments.policies.display()
            );
            ensure!(all, "{found}; name the directory of trained policies with --policies");
            eprintln!("lookback-eval: {found}: left out");
        }
        let mut frames: BTreeSet<u32> = budgets.iter().copied().collect();
        if strategy == Strategy::Passive {
            frames.extend(budgets.iter().flat_map(|b| [b * 3 / 2, b * 2, b * 3, b * 4]));
        }
        for (train_seed, bundle) in trained {
            let plan = |&frames| Plan { strategy, train_seed, frames, bundle: bundle.clone() };
            plans.extend(frames.iter().map(plan));
        }
    }
    Ok(plans)
}

/// The trainings of the policy that a method uses.
fn trained(strategy: Strategy, arguments: &SimArguments) -> Vec<(u32, PathBuf)> {
    const MOST: u32 = 16;
    let of = |name: &str, seeds: std::ops::Range<u32>| {
        let name = name.to_owned();
        seeds
            .map(move |seed| (seed, arguments.policies.join(format!("{name}-{seed}"))))
            .filter(|(_, path)| path.is_dir())
    };
    let own = || std::iter::once((0, arguments.bundle.clone()));
    match strategy {
        Strategy::Sft | Strategy::Passive => of(strategy.name(), 0..MOST).collect(),
        Strategy::Active | Strategy::Oracle => own().chain(of("active", 1..MOST)).collect(),
        // Recipes cost as much as inquiries, and one training is enough to rank them.
        _ => own().collect(),
    }
}

/// A policy, loaded for one way of watching. What it has seen of a video it does not look at twice,
/// whichever of its methods asks.
enum Watcher {
    Inquirer(Box<Inquirer>),
    Led(Box<Pupil>),
    Recipe(Box<Passive>),
}

/// What a [`Watcher`] is loaded for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Inquiry(PathBuf),
    Led(PathBuf),
    Recipe(PathBuf),
}

impl Plan {
    fn way(&self) -> Way {
        let bundle = self.bundle.clone();
        match self.strategy {
            Strategy::Oracle => Way::Led(bundle),
            s if s.is_inquiry() => Way::Inquiry(bundle),
            _ => Way::Recipe(bundle),
        }
    }
}

impl Watcher {
    fn load(way: &Way) -> Result<Self> {
        let engine = |bundle: &Bundle| {
            Engine::load(bundle, EngineOptions { threads: 1, ..EngineOptions::default() })
        };
        Ok(match way {
            Way::Led(path) => Self::Led(Box::new(Pupil::load(path)?)),
            Way::Inquiry(path) => {
                let bundle = open(path)?;
                Self::Inquirer(Box::new(Inquirer::new(&bundle, engine(&bundle)?)?))
            }
            Way::Recipe(path) => {
                let bundle = open(path)?;
                Self::Recipe(Box::new(Passive::new(&bundle, engine(&bundle)?)?))
            }
        })
    }

    fn watch(&mut self, plan: &Plan, video: &SimVideo) -> Result<Watched> {
        let (length_s, frames) = (video.length_s, plan.frames);
        let outcome = match self {
            Self::Inquirer(inquirer) => {
                let passive = plan.strategy == Strategy::Passive;
                inquire(inquirer, video, length_s, frames, passive)?
            }
            Self::Led(pupil) => pupil.led(&video.task(frames))?,
            Self::Recipe(policy) => {
                return Ok(watch(plan.strategy, &mut policy.on(video), length_s, frames)?);
            }
        };
        let utility = Some(utility(&outcome, video, frames));
        Ok(Watched { utility, ..Watched::by_inquiry(&outcome, length_s) })
    }
}

/// The utility by the whole truth, read by the policy itself: it was never trained on these videos.
fn utility(outcome: &Outcome, video: &SimVideo, frames: u32) -> f64 {
    let readings: Vec<f64> = outcome
        .trajectory
        .iter()
        .filter(|s| !matches!(s.op, StepOperator::Final | StepOperator::Invalid))
        .map(|s| f64::from(s.p))
        .collect();
    let intervals = video.intervals();
    let truth = policy::Truth { anomalous: !intervals.is_empty(), intervals: Some(intervals) };
    Utility::of(outcome, &readings, &truth, frames, &Weights::default()).total
}

/// Watches all videos by every plan, `threads` videos at a time; for each plan the answers in the
/// videos' order.
fn watch_all(
    plans: &[Plan],
    videos: &[SimVideo],
    threads: usize,
    bar: &ProgressBar,
) -> Result<Vec<Vec<Watched>>> {
    let threads = threads.min(videos.len());
    let every = |first: usize| {
        let mut watchers = BTreeMap::new();
        for way in plans.iter().map(Plan::way) {
            if let Entry::Vacant(place) = watchers.entry(way) {
                let watcher = Watcher::load(place.key())?;
                place.insert(watcher);
            }
        }
        let mut of_videos = vec![];
        for video in videos.iter().skip(first).step_by(threads) {
            let mut by_plan = vec![];
            for plan in plans {
                let context = || format!("seed {}, {}", video.seed, plan.strategy.name());
                if let Some(watcher) = watchers.get_mut(&plan.way()) {
                    by_plan.push(watcher.watch(plan, video).with_context(context)?);
                }
                bar.inc(1);
            }
            bar.set_message(format!("seed {}", video.seed));
            of_videos.push(by_plan);
        }
        anyhow::Ok(of_videos)
    };
    let parts: Result<Vec<_>> = thread::scope(|scope| {
        let every = &every;
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || every(first))).collect();
        let joined = |worker: thread::ScopedJoinHandle<'_, _>| match worker.join() {
            Ok(part) => part,
            Err(_) => bail!("a worker that watched videos panicked"),
        };
        workers.into_iter().map(joined).collect()
    });
    let mut parts: Vec<_> = parts?.into_iter().map(Vec::into_iter).collect();
    let mut of_plans: Vec<Vec<Watched>> = plans.iter().map(|_| vec![]).collect();
    for number in 0..videos.len() {
        let by_plan = parts[number % threads].next().into_iter().flatten();
        for (of_plan, watched) in of_plans.iter_mut().zip(by_plan) {
            of_plan.push(watched);
        }
    }
    Ok(of_plans)
}

fn truth(video: &SimVideo) -> Truth {
    let harmful = video.stories.iter().filter(|s| s.harmful);
    Truth {
        name: video.seed.to_string(),
        length_s: video.length_s,
        intervals: video.intervals(),
        labels: harmful.map(|s| s.kind.label().to_owned()).collect(),
    }
}

/// The runs of a method at a budget, one for each training.
fn runs_of<'a>(runs: &'a [Run], method: &str, frames: u32) -> Vec<&'a Run> {
    runs.iter().filter(|r| r.method == method && r.frames == frames).collect()
}

/// The policy's own inquiry against each other method, at the same budget.
fn all_differences(runs: &[Run], budgets: &[u32], truths: &[Truth]) -> Vec<Difference> {
    let active = Strategy::Active.name();
    let others = Strategy::ALL.map(Strategy::name).into_iter().filter(|name| *name != active);
    let against = |(frames, other): (u32, &str)| {
        differences(&runs_of(runs, active, frames), &runs_of(runs, other, frames), truths)
    };
    let pairs = others.flat_map(|other| budgets.iter().map(move |&frames| (frames, other)));
    pairs.flat_map(against).collect()
}

fn budget(frames: u32, runs: &[Run], truths: &[Truth]) -> Budget {
    let of = |strategy: Strategy| runs_of(runs, strategy.name(), frames);
    let (active, oracle) = (of(Strategy::Active), of(Strategy::Oracle));
    let passive: Vec<&Run> = runs.iter().filter(|r| r.method == Strategy::Passive.name()).collect();
    Budget {
        frames,
        passive_frames: frames_to_match(&active, &passive, truths),
        tried: passive.iter().map(|r| r.frames).max().unwrap_or(0),
        gap_closed: gap_closed(&active, &of(Strategy::Passive), &oracle, truths),
    }
}

/// One line per method and video.
fn each(out: &mut impl Write, runs: &[Run], truths: &[Truth], bundle: &str) -> Result<()> {
    for run in runs {
        for (truth, watched) in truths.iter().zip(&run.watched) {
            let record = Record {
                video: truth.clone(),
                method: run.method.clone(),
                train_seed: run.train_seed,
                frames: run.frames,
                bundle: bundle.to_owned(),
                watched: watched.clone(),
            };
            writeln!(out, "{}", serde_json::to_string(&record)?)?;
        }
    }
    Ok(())
}

fn readable(out: &mut impl Write, table: &Table) -> Result<()> {
    let Table { bundle, videos, anomalous, seconds, threshold, .. } = table;
    writeln!(
        out,
        "{bundle}: {videos} videos of {seconds} s, {anomalous} anomalous; alarmed from {threshold}"
    )?;
    writeln!(
        out,
        "{:10} {:>4} {:>6} {:>20} {:>20} {:>20} {:>6} {:>7} {:>6} {:>9}",
        "method",
        "seed",
        "frames",
        "video AUC",
        "aliased AUC",
        "frame AUC",
        "IoU",
        "utility",
        "used",
        "false/h"
    )?;
    let with_interval = |e: &Option<Estimate>| match e {
        Some(e) => format!("{:.3} [{:.3}, {:.3}]", e.value, e.lo, e.hi),
        None => "-".to_owned(),
    };
    let short = |e: &Option<Estimate>| e.map_or("-".to_owned(), |e| format!("{:.2}", e.value));
    for row in &table.rows {
        writeln!(
            out,
            "{:10} {:>4} {:>6} {:>20} {:>20} {:>20} {:>6} {:>7} {:>6} {:>9}",
            row.method,
            row.train_seed,
            row.frames,
            with_interval(&row.video_auc),
            with_interval(&row.alias_auc),
            with_interval(&row.frame_auc),
            short(&row.iou),
            short(&row.utility),
            short(&row.frames_used),
            short(&row.false_alarms_per_hour)
        )?;
    }
    for d in &table.differences {
        let e = d.estimate;
        writeln!(
            out,
            "{} - {}, {} frames: {} {:+.3} [{:+.3}, {:+.3}]",
            d.a, d.b, d.frames, d.metric, e.value, e.lo, e.hi
        )?;
    }
    for Budget { frames, passive_frames, tried, gap_closed } in &table.budgets {
        if *tried > 0 {
            let needed = passive_frames.map_or(format!("more than {tried}"), |n| n.to_string());
            writeln!(out, "with {frames} frames: passive watching needs {needed} to match")?;
        }
        if let Some(e) = gap_closed {
            writeln!(
                out,
                "with {frames} frames: {:.0} % of the gap to the oracle closed [{:.0}, {:.0}]",
                100.0 * e.value,
                100.0 * e.lo,
                100.0 * e.hi
            )?;
        }
    }
    Ok(())
}
