//! `lookback-oracle`: streams training data rendered from the simulator to standard output.
//!
//! Nothing is stored: a seed is a video, and rendering is faster than training. Each record is a
//! little-endian `u32` length, that many bytes of JSON, then the raw luma that the JSON announces.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use hal_sim::{Class, HEIGHT, Scene, Story, WIDTH};
use oracle::{Dice, Episode, Lesson, Pupil, Strays, Task, Vigil};
use policy::Weights;
use serde::Serialize;
use std::{
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
};

/// Streams training data rendered from the simulator to standard output.
///
/// Splits by seed: train below 5,000,000, val below 6,000,000, test below 7,000,000, fresh above.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Frame pairs with what is visible where, for the vision tower.
    ///
    /// Per record: `{"pairs":n}`, then n times two frames of 128×192 luma, then n times
    /// classes×8×12 bytes: 1 where the class is in that cell of 16×16 pixels; then n times a byte
    /// for each kind of incident: 0 not shown, 1 its state, 2 its harmful transition, 3 the harmless.
    Pairs {
        /// First seed.
        #[arg(long)]
        from: u64,
        /// Number of seeds; each gives one record.
        #[arg(long)]
        count: u64,
        /// Pairs of a record: half of them in a transition, where there is one.
        #[arg(long, default_value_t = 8)]
        pairs: usize,
    },
    /// Taught inquiries, for the decoder.
    ///
    /// Per record: the episode (segments, labels), then the luma of its pairs.
    Traces {
        /// First seed.
        #[arg(long)]
        from: u64,
        /// Number of seeds; each gives one record.
        #[arg(long)]
        count: u64,
        /// The policy's `bundle.toml`, for prompts and budgets.
        #[arg(long)]
        manifest: PathBuf,
        /// The policy's chat template.
        #[arg(long)]
        template: PathBuf,
        /// The camera's window only, and not all that a policy meets.
        #[arg(long)]
        whole: bool,
        /// Long stretches on few frames only: where it matters most where one looks.
        #[arg(long, conflicts_with = "whole")]
        few: bool,
        /// Lessons in passive watching: the whole budget goes into the glance.
        #[arg(long, conflicts_with_all = ["slips", "policy"])]
        passive: bool,
        /// Share of turns that are mistakes, to be recovered from and not to be learnt.
        #[arg(long, default_value_t = 0.0)]
        slips: f64,
        /// The bundle of the policy in training: it speaks some of the turns itself.
        #[arg(long, conflicts_with = "slips")]
        policy: Option<PathBuf>,
        /// Share of turns that it speaks itself.
        #[arg(long, default_value_t = 0.6, requires = "policy")]
        own: f64,
        /// Leave out the luma.
        #[arg(long)]
        no_frames: bool,
    },
    /// Inquiries of a policy by itself, several about each window, ranked by what they were worth.
    ///
    /// Per record: the window, its pairs and the transcripts, then the luma of the pairs.
    Rollouts {
        /// First seed. Use seeds that the policy was not trained on: their utility rests on its own
        /// readings.
        #[arg(long)]
        from: u64,
        /// Number of seeds; each gives one record.
        #[arg(long)]
        count: u64,
        /// The bundle of the policy.
        #[arg(long)]
        policy: PathBuf,
        /// Inquiries about each window: one as the policy would, the others with a turn by chance.
        #[arg(long, default_value_t = 6)]
        each: u64,
        /// Above 0; 1 leaves the policy's probabilities as they are.
        #[arg(long, default_value_t = 1.0)]
        temperature: f32,
        /// Long stretches on few frames only: where it matters most where one looks.
        #[arg(long)]
        few: bool,
        /// Leave out the luma.
        #[arg(long)]
        no_frames: bool,
    },
    /// Windows of consecutive frames around what happens, for the sentinel's network.
    ///
    /// Per record: the window (its frames, its size, its stories), then the luma of the frames before
    /// it, one a second, and of the window.
    Vigils {
        /// First seed.
        #[arg(long)]
        from: u64,
        /// Number of seeds; each gives one record.
        #[arg(long)]
        count: u64,
        /// Width of the frames, in pixels.
        #[arg(long, default_value_t = 96)]
        width: usize,
        /// Height of the frames, in pixels.
        #[arg(long, default_value_t = 64)]
        height: usize,
    },
    /// The names of the classes of `pairs`, in order, as a JSON array.
    Classes,
}

fn main() -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let done = match Arguments::parse().command {
        Command::Pairs { from, count, pairs } => stream_pairs(&mut out, from, count, pairs),
        Command::Traces {
            from,
            count,
            manifest,
            template,
            whole,
            few,
            passive,
            slips,
            policy,
            own,
            no_frames,
        } => {
            let pupil = policy.as_deref().map(Pupil::load).transpose()?;
            let strays = pupil.as_ref().map_or(Strays::Drawn(slips), |p| Strays::Own(own, p));
            let sort = match (whole, few) {
                (true, _) => Sort::Whole,
                (_, true) => Sort::Few,
                _ => Sort::Any,
            };
            let lessons = Lessons::new(&manifest, &template, (sort, passive), strays)?;
            stream_traces(&mut out, &lessons, from..from + count, !no_frames)
        }
        Command::Rollouts { from, count, policy, each, temperature, few, no_frames } => {
            ensure!(temperature > 0.0, "--temperature {temperature} leaves nothing to chance");
            let pupil = Pupil::load(&policy)?;
            let sort = if few { Sort::Few } else { Sort::Any };
            let by = Sampled { each, temperature, sort };
            stream_rollouts(&mut out, &pupil, &by, from..from + count, !no_frames)
        }
        Command::Vigils { from, count, width, height } => {
            let sides = 1..=WIDTH.max(HEIGHT);
            ensure!(
                sides.contains(&width) && sides.contains(&height),
                "--width {width} --height {height}: each is from 1 to {}",
                WIDTH.max(HEIGHT)
            );
            stream_vigils(&mut out, from..from + count, (width, height))
        }
        Command::Classes => {
            let names: Vec<String> = Class::ALL.iter().map(|c| format!("{c:?}")).collect();
            Ok(writeln!(out, "{}", serde_json::to_string(&names)?)?)
        }
    };
    match done {
        // The trainer closes the pipe when it has had enough.
        Err(e) if is_broken_pipe(&e) => Ok(()),
        other => other.and_then(|()| Ok(out.flush()?)),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn stream_vigils(out: &mut impl Write, seeds: Range<u64>, size: (usize, usize)) -> Result<()> {
    for seed in seeds {
        let (scene, vigil) = Vigil::of(seed, size);
        write_record(out, &vigil, &[&vigil.luma(&scene)])?;
    }
    Ok(())
}

/// Cells of the label grid, per axis.
const CELLS: (usize, usize) = (12, 8);
/// Seconds between the two frames of a pair; the same as the bundle's `geometry.pair_lag_s`.
const PAIR_LAG_S: f64 = 0.5;

#[derive(Serialize)]
struct PairsHeader {
    pairs: usize,
}

fn stream_pairs(out: &mut impl Write, from: u64, count: u64, pairs: usize) -> Result<()> {
    let (mut frames, mut labels, mut shown) = (vec![], vec![], vec![]);
    let mut frame = vec![0; WIDTH * HEIGHT];
    for seed in from..from + count {
        let task = Task::window_of(seed);
        let (scene, start) = (task.scene(), task.from_s);
        let stories = scene.stories(start, start + oracle::WINDOW_S);
        frames.clear();
        labels.clear();
        shown.clear();
        for (t, lag) in pair_times(&stories, seed, start, pairs) {
            let pair = [t - lag / 2.0, t + lag / 2.0];
            for moment in pair {
                scene.render(moment, &mut frame);
                frames.extend_from_slice(&frame);
            }
            labels.extend(cells(&scene, t));
            shown.extend(oracle::sees(&stories, 0.0, &pair));
        }
        write_record(out, &PairsHeader { pairs }, &[&frames, &labels, &shown])?;
    }
    Ok(())
}

/// Times and lags for perception: half of the times within a transition, where what matters happens
/// and random times seldom fall, a quarter in the state after it, the rest anywhere in the window. A
/// third are single frames, which have no lag.
fn pair_times(stories: &[Story], seed: u64, start: f64, pairs: usize) -> Vec<(f64, f64)> {
    let mut dice = Dice(seed);
    let mut time = |i: usize| {
        if i.is_multiple_of(4) || stories.is_empty() {
            return start + oracle::WINDOW_S * dice.unit();
        }
        let story = &stories[dice.below(stories.len())];
        let (a, b) = if i % 4 == 3 { story.state_s } else { story.transition_s };
        a + (b - a) * dice.unit()
    };
    let times: Vec<f64> = (0..pairs).map(&mut time).collect();
    times.into_iter().map(|t| (t, if dice.below(3) == 0 { 0.0 } else { PAIR_LAG_S })).collect()
}

fn cells(scene: &Scene, t: f64) -> Vec<u8> {
    let mut grid = vec![0; Class::ALL.len() * CELLS.0 * CELLS.1];
    for seen in scene.truth_at(t) {
        let column = (seen.x as f64 / WIDTH as f64 * CELLS.0 as f64).floor();
        let row = (seen.y as f64 / HEIGHT as f64 * CELLS.1 as f64).floor();
        let inside = column >= 0.0 && row >= 0.0;
        let (column, row) = (column as usize, row as usize);
        if inside && column < CELLS.0 && row < CELLS.1 {
            grid[(seen.class.index() * CELLS.1 + row) * CELLS.0 + column] = 1;
        }
    }
    grid
}

/// Which tasks a seed may stand for.
#[derive(Clone, Copy)]
enum Sort {
    /// The camera's window.
    Whole,
    /// Long stretches on few frames.
    Few,
    /// All that a policy meets.
    Any,
}

impl Sort {
    fn task(self, seed: u64) -> Task {
        match self {
            Self::Whole => Task::window_of(seed),
            Self::Few => Task::long_on_few(seed),
            Self::Any => Task::drawn(seed),
        }
    }
}

/// What all lessons share.
struct Lessons<'a> {
    setup: policy::Setup,
    template: policy::ChatTemplate,
    sort: Sort,
    passive: bool,
    strays: Strays<'a>,
}

impl<'a> Lessons<'a> {
    fn new(
        manifest: &Path,
        template: &Path,
        (sort, passive): (Sort, bool),
        strays: Strays<'a>,
    ) -> Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let manifest: bundle::Manifest =
            toml::from_str(&read(manifest)?).context("the manifest cannot be used")?;
        ensure!(
            (manifest.geometry.width, manifest.geometry.height) == (WIDTH, HEIGHT),
            "traces are rendered at {WIDTH}x{HEIGHT}, the manifest asks for another size"
        );
        let template = policy::ChatTemplate::new(&read(template)?)?;
        Ok(Self { setup: manifest.setup(), template, sort, passive, strays })
    }

    fn task(&self, seed: u64) -> Task {
        match (self.sort, self.passive) {
            (Sort::Any, true) => Task::drawn(seed).on_any_budget(),
            (sort, _) => sort.task(seed),
        }
    }

    fn lesson(&self, scene: &Scene, task: &Task) -> Result<Episode> {
        let (template, setup, passive) = (&self.template, &self.setup, self.passive);
        let lesson = Lesson { scene, task, template, setup, passive };
        lesson.teach(self.strays).with_context(|| format!("seed {}", task.scene.seed))
    }
}

fn stream_traces(
    out: &mut impl Write,
    lessons: &Lessons<'_>,
    seeds: Range<u64>,
    with_frames: bool,
) -> Result<()> {
    for seed in seeds {
        let task = lessons.task(seed);
        let scene = task.scene();
        let lesson = lessons.lesson(&scene, &task)?;
        let frames = match with_frames {
            true => luma(&scene, lesson.from_s, &lesson.pairs),
            false => vec![],
        };
        write_record(out, &lesson, &[&frames])?;
    }
    Ok(())
}

/// How rollouts are drawn.
struct Sampled {
    each: u64,
    temperature: f32,
    sort: Sort,
}

fn stream_rollouts(
    out: &mut impl Write,
    pupil: &Pupil,
    by: &Sampled,
    seeds: Range<u64>,
    with_frames: bool,
) -> Result<()> {
    for seed in seeds {
        let task = by.sort.task(seed);
        let rollouts = pupil.roll_out(&task, by.each, by.temperature, &Weights::default())?;
        let frames = match with_frames {
            true => luma(&task.scene(), rollouts.from_s, &rollouts.pairs),
            false => vec![],
        };
        write_record(out, &rollouts, &[&frames])?;
    }
    Ok(())
}

/// The luma of pairs, whose times are in seconds from `from_s`.
fn luma(scene: &Scene, from_s: f64, pairs: &[[f64; 2]]) -> Vec<u8> {
    let mut frames = vec![0; pairs.len() * 2 * WIDTH * HEIGHT];
    for (t, frame) in pairs.iter().flatten().zip(frames.chunks_mut(WIDTH * HEIGHT)) {
        scene.render(from_s + t, frame);
    }
    frames
}

fn write_record<T: Serialize>(out: &mut impl Write, header: &T, bodies: &[&[u8]]) -> Result<()> {
    let json = serde_json::to_vec(header)?;
    out.write_all(&u32::try_from(json.len())?.to_le_bytes())?;
    out.write_all(&json)?;
    for body in bodies {
        out.write_all(body)?;
    }
    Ok(())
}
