//! The command `bench capture`: what it costs to keep and gate what a camera delivers, beside `motion`.
//!
//! One stream of MJPG frames is made, and served on loopback at the pace of a camera, to us and to the
//! peer by turns. Each side is a process of its own; what counts is its CPU time as the kernel tells
//! it, over the same wall time, from when it is under way.

mod motion;
mod ours;
mod process;
mod reader;
mod server;
mod stream;

pub use ours::{WatchArguments, watch};

use super::report::percentile;
use crate::run::stop_on_signals;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use motion::Motion;
use ours::{Ours, Told};
use process::Used;
use serde::Serialize;
use server::{Feeding, Server};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use stream::{Described, Stream};
use tempfile::TempDir;

/// Measure what capturing costs: CPU time of keeping and gating a camera's frames, beside `motion`.
///
/// A stream of MJPG frames as a camera compresses them is made once and served as MJPEG over HTTP on
/// loopback, in real time. Ours reads, stores and gates it in a process of its own: the whole path
/// without inquiries, the sentinel five times a second. motion, if it is installed, detects motion
/// in the same stream, in the configuration that costs it least: it stores nothing.
///
/// A frame is lost that came due and is not in the store at the end. Where the machine does not let
/// the server run, the stream is put off, and the report says by how much. In the table and in JSON, CPU
/// time is a percentage of one core over the same wall time; with a peer the sides take turns, and
/// each figure is the median of the rounds.
#[derive(clap::Args)]
pub struct CaptureArguments {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Seconds for which each side is measured, all rounds together.
    #[arg(long, value_name = "N", default_value_t = 600,
          value_parser = clap::value_parser!(u32).range(2..=86_400))]
    seconds: u32,
    /// Size of the frames in pixels.
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1920x1080", value_parser = size)]
    size: (u16, u16),
    /// Frames a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=120))]
    fps: u8,
    /// With whom to compare.
    #[arg(long, value_enum, default_value_t = Peer::Motion)]
    peer: Peer,
    /// First install the peer, with apt-get; needs root.
    #[arg(long)]
    install_peer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// Debian's motion, if it is installed.
    Motion,
    /// Nobody.
    None,
}

/// What the issue of costs asks for.
const PERCENT_OF_CORE: f64 = 12.0;
/// How often a second the sentinel looks.
const SENTINEL_FPS: f64 = 5.0;
/// Seconds before what is used counts: connecting, first allocations, the first segment.
const WARM_UP: Duration = Duration::from_secs(2);
/// With a peer, each side is measured in so many rounds, if they are not shorter than this.
const ROUNDS: u32 = 5;
const ROUND_S: u32 = 10;

/// Measures, and says what came of it; a target that is missed is said, not an error.
///
/// `data_dir`: where the footage goes, in a directory of its own that is removed; otherwise the
/// directory for temporary files. `config`: the configuration file, if one was given.
///
/// # Errors
/// If the stream cannot be made or served, or our side fails. A peer that is not there is said.
pub fn run(
    arguments: &CaptureArguments,
    data_dir: Option<&Path>,
    config: Option<&PathBuf>,
) -> Result<()> {
    if cfg!(debug_assertions) {
        tracing::warn!("this program was built for debugging: its figures say nothing");
    }
    if arguments.install_peer {
        motion::install()?;
    }
    let version = match arguments.peer {
        Peer::Motion => motion::version(),
        Peer::None => None,
    };
    let rounds = match version {
        Some(_) => (arguments.seconds / ROUND_S).clamp(1, ROUNDS),
        None => 1,
    };
    let bench = Bench::begin(arguments, data_dir, config, rounds, version.is_some())?;
    let (mut ours, mut peers) = (vec![], vec![]);
    for _ in 0..rounds {
        ours.push(bench.ours()?);
        if version.is_some() {
            peers.push(bench.motion()?);
        }
    }
    bench.bar.finish_and_clear();
    let report = Report::of(arguments, bench.described, &ours, &peers, version);
    match arguments.json {
        true => print(&serde_json::to_string(&report)?),
        false => print(&report.readable(arguments.peer)),
    }
}

/// Everything that both sides need.
struct Bench<'a> {
    arguments: &'a CaptureArguments,
    config: Option<&'a PathBuf>,
    place: TempDir,
    server: Server,
    described: Described,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    round: Duration,
}

/// One side in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    percent_of_core: f64,
    /// Of the measured part alone.
    bytes_written: u64,
    given: server::Given,
}

impl<'a> Bench<'a> {
    fn begin(
        arguments: &'a CaptureArguments,
        data_dir: Option<&Path>,
        config: Option<&'a PathBuf>,
        rounds: u32,
        with_peer: bool,
    ) -> Result<Self> {
        let place = match data_dir {
            Some(dir) => fs::create_dir_all(dir).and_then(|()| TempDir::new_in(dir)),
            None => TempDir::new(),
        };
        let place = place.context("no place to measure in; --data-dir says where it may be")?;
        let fps = f64::from(arguments.fps);
        let round = Duration::from_secs_f64(f64::from(arguments.seconds) / f64::from(rounds));
        let bar = ProgressBar::new(Stream::frames_at(fps));
        if arguments.json {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}  {eta} left") {
            bar.set_style(style);
        }
        let stop = stop_on_signals()?;
        bar.set_message("making the stream");
        let stream = Stream::make(arguments.size, fps, |made| {
            bar.set_position(made);
            go_on(&stop)
        })?;
        let described = stream.describe(arguments.size, fps);
        let sides = if with_peer { 2 } else { 1 };
        bar.reset();
        bar.set_length(u64::from(rounds * sides) * (WARM_UP + round).as_millis() as u64);
        let server = Server::new(Arc::new(stream), fps)?;
        Ok(Self { arguments, config, place, server, described, bar, stop, round })
    }

    fn ours(&self) -> Result<(Round, Told)> {
        self.bar.set_message("ours");
        let CaptureArguments { size, fps, .. } = *self.arguments;
        let every_nth = (f64::from(fps) / SENTINEL_FPS).round().max(1.0) as u32;
        let mut ours = Ours::start(&self.server, size, every_nth, self.place.path(), self.config)?;
        let feeding = self.server.feed_next(|| go_on(&self.stop).and_then(|()| ours.alive()))?;
        let (used, feeding) = self.measure(feeding, || ours.alive().and_then(|()| ours.used()))?;
        let given = feeding.end()?;
        Ok((self.round_of(used, given), ours.told()?))
    }

    fn motion(&self) -> Result<Round> {
        self.bar.set_message("motion");
        let CaptureArguments { size, .. } = *self.arguments;
        let mut motion = Motion::start(&self.server, size, self.described.fps, self.place.path())?;
        let feeding = self.server.feed_next(|| go_on(&self.stop).and_then(|()| motion.alive()))?;
        let (used, feeding) =
            self.measure(feeding, || motion.alive().and_then(|()| motion.used()))?;
        Ok(self.round_of(used, feeding.end()?))
    }

    /// What a side uses while it is fed for a round, and for how long exactly.
    fn measure(
        &self,
        feeding: Feeding,
        mut used: impl FnMut() -> Result<Used>,
    ) -> Result<((Used, Duration), Feeding)> {
        let mut wait = |length: Duration| {
            let begun = Instant::now();
            let mut seen = Duration::ZERO;
            while seen < length {
                thread::sleep(Duration::from_millis(100).min(length - seen));
                let now = begun.elapsed().min(length);
                self.bar.inc((now - seen).as_millis() as u64);
                seen = now;
                go_on(&self.stop)?;
                used()?;
            }
            used().map(|used| (used, Instant::now()))
        };
        let (before, begun) = wait(WARM_UP)?;
        let (after, ended) = wait(self.round)?;
        if feeding.offered() == 0 {
            bail!("the stream stood still");
        }
        let used = Used {
            cpu_s: after.cpu_s - before.cpu_s,
            bytes_written: after.bytes_written - before.bytes_written,
        };
        Ok(((used, ended - begun), feeding))
    }

    fn round_of(&self, (used, over): (Used, Duration), given: server::Given) -> Round {
        Round {
            percent_of_core: used.cpu_s / over.as_secs_f64() * 100.0,
            bytes_written: used.bytes_written,
            given,
        }
    }
}

/// # Errors
/// If the process was told to stop: the way out on which the scratch directory is removed.
fn go_on(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => bail!("stopped before everything was measured"),
        false => Ok(()),
    }
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Report {
    stream: Described,
    delivery: &'static str,
    /// Measured of each side.
    seconds: u32,
    rounds: usize,
    /// Never: what an inquiry costs is measured by `bench` itself.
    inquiries: bool,
    /// The machine's load average over a minute, at the end: what else it did falsifies CPU time
    /// least, but does.
    load: Option<f64>,
    ours: Ourselves,
    motion: Option<Peers>,
    /// Ours to motion's CPU time; under 1 is better than the peer.
    ratio: Option<f64>,
    targets: Targets,
}

#[derive(Debug, Serialize)]
struct Ourselves {
    cpu_percent_of_a_core: f64,
    cpu_percent_rounds: Vec<f64>,
    sentinel_fps: f64,
    frames_offered: u64,
    frames_delivered: u64,
    frames_stored: u64,
    frames_lost: u64,
    bytes_written: u64,
    /// How often the disk refused a write or was full.
    disk_refused: u64,
    /// Seconds by which the bench itself put the stream off, since the machine did not let it run.
    stream_stalled_s: f64,
}

#[derive(Debug, Serialize)]
struct Peers {
    version: String,
    configuration: &'static str,
    cpu_percent_of_a_core: f64,
    cpu_percent_rounds: Vec<f64>,
    frames_offered: u64,
    /// That it took from the network; of those it detects in the newest, at its own rate.
    frames_delivered: u64,
    frames_lost: u64,
    bytes_written: u64,
}

#[derive(Debug, Serialize)]
struct Targets {
    cpu_percent_of_a_core: f64,
    cpu_met: bool,
    frames_lost_met: bool,
    /// Without a peer nobody knows.
    less_cpu_than_motion: Option<bool>,
}

impl Report {
    fn of(
        arguments: &CaptureArguments,
        stream: Described,
        ours: &[(Round, Told)],
        peers: &[Round],
        version: Option<String>,
    ) -> Self {
        let rounds: Vec<Round> = ours.iter().map(|(round, _)| *round).collect();
        let stored = ours.iter().map(|(_, told)| told.stored).sum();
        let offered = sum(&rounds, |r| r.given.offered);
        let ourselves = Ourselves {
            cpu_percent_of_a_core: median(&rounds),
            cpu_percent_rounds: percents(&rounds),
            sentinel_fps: SENTINEL_FPS,
            frames_offered: offered,
            frames_delivered: sum(&rounds, |r| r.given.delivered),
            frames_stored: stored,
            frames_lost: offered.saturating_sub(stored),
            bytes_written: sum(&rounds, |r| r.bytes_written),
            disk_refused: ours.iter().map(|(_, told)| told.disk_refused).sum(),
            stream_stalled_s: sum(&rounds, |r| r.given.stalled_us) as f64 / 1e6,
        };
        let motion = version.filter(|_| !peers.is_empty()).map(|version| Peers {
            version,
            configuration: motion::CONFIGURATION,
            cpu_percent_of_a_core: median(peers),
            cpu_percent_rounds: percents(peers),
            frames_offered: sum(peers, |r| r.given.offered),
            frames_delivered: sum(peers, |r| r.given.delivered),
            frames_lost: sum(peers, |r| r.given.offered - r.given.delivered),
            bytes_written: sum(peers, |r| r.bytes_written),
        });
        let ratio =
            motion.as_ref().map(|m| ourselves.cpu_percent_of_a_core / m.cpu_percent_of_a_core);
        Self {
            stream,
            delivery: "MJPEG over HTTP on loopback, the same server and bytes for both sides",
            seconds: arguments.seconds,
            rounds: rounds.len(),
            inquiries: false,
            load: process::load(),
            targets: Targets {
                cpu_percent_of_a_core: PERCENT_OF_CORE,
                cpu_met: ourselves.cpu_percent_of_a_core <= PERCENT_OF_CORE,
                frames_lost_met: ourselves.frames_lost == 0,
                less_cpu_than_motion: ratio.map(|ratio| ratio < 1.0),
            },
            ours: ourselves,
            motion,
            ratio,
        }
    }

    fn readable(&self, peer: Peer) -> String {
        let Described { width, height, fps, bytes_mean, bytes_least, bytes_most, .. } = self.stream;
        let kb = |bytes: u64| bytes / 1000;
        let mut text = format!(
            "{width}x{height} MJPG at {fps} fps, {} kB a frame ({} to {}); {}\n\
             {} s of each side in {} rounds, without inquiries, the sentinel {} times a second; \
             load {:.1}\n\n\
             {:8} {:>11} {:>9} {:>9} {:>6} {:>11}\n",
            kb(bytes_mean),
            kb(bytes_least),
            kb(bytes_most),
            self.delivery,
            self.seconds,
            self.rounds,
            self.ours.sentinel_fps,
            self.load.unwrap_or(f64::NAN),
            "",
            "% of a core",
            "delivered",
            "stored",
            "lost",
            "MB written"
        );
        let mb = |bytes: u64| bytes / 1_000_000;
        let Ourselves { frames_delivered, frames_stored, frames_lost, .. } = self.ours;
        text += &format!(
            "{:8} {:>11.2} {frames_delivered:>9} {frames_stored:>9} {frames_lost:>6} {:>11}\n",
            "ours",
            self.ours.cpu_percent_of_a_core,
            mb(self.ours.bytes_written)
        );
        if let (Some(motion), Some(ratio)) = (&self.motion, self.ratio) {
            text += &format!(
                "{:8} {:>11.2} {:>9} {:>9} {:>6} {:>11}\n\n\
                 ratio {ratio:.2} to motion {} ({})\n",
                "motion",
                motion.cpu_percent_of_a_core,
                motion.frames_delivered,
                0,
                motion.frames_lost,
                mb(motion.bytes_written),
                motion.version,
                motion.configuration
            );
        } else if peer == Peer::Motion {
            text += &format!("\n{}\n", motion::REMEDY);
        }
        let met = |met: bool| if met { "met" } else { "MISSED" };
        text + &format!(
            "targets: at most {PERCENT_OF_CORE} % of a core {}, no frame lost {}",
            met(self.targets.cpu_met),
            met(self.targets.frames_lost_met)
        )
    }
}

fn sum(rounds: &[Round], of: fn(&Round) -> u64) -> u64 {
    rounds.iter().map(of).sum()
}

fn percents(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.percent_of_core).collect()
}

fn median(rounds: &[Round]) -> f64 {
    percentile(&percents(rounds), 0.5)
}

/// `WIDTHxHEIGHT`.
fn size(text: &str) -> Result<(u16, u16), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (64..=8192).contains(side));
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "WIDTHxHEIGHT, each from 64 to 8192, such as 1920x1080".to_owned())
}

fn print(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
