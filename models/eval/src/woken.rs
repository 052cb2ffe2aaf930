//! The command `sentinel`: what the always-on gate wakes for, and what that costs.
//!
//! Each video is watched twice, as the agent watches a camera: once where incidents happen often, for
//! the share that wakes the sentinel, and once where nothing harmful ever happens but all that looks
//! like it, for the wakes that are for nothing. Patrols are off: they find by the clock alone.

use crate::simulated::SplitName;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use eval::{Estimate, SimVideo, bootstrap};
use hal_camera::{Luma, MediaTime, decode_luma_scaled};
use hal_sim::{IncidentKind, Incidents, Split};
use indicatif::ProgressBar;
use inquiry::Footage;
use sentinel::{Gate, GateKind, Sentinel, SentinelOptions};
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

#[derive(clap::Args)]
pub struct SentinelArguments {
    /// Which seeds. Test and fresh draw scene families that training never drew.
    #[arg(long, value_enum, default_value = "val")]
    split: SplitName,
    /// First seed, counted from the beginning of the split.
    #[arg(long, default_value_t = 0)]
    seed_base: u64,
    /// How many videos; each is watched once with incidents and once without.
    #[arg(long, default_value_t = 100)]
    videos: u64,
    /// Length of each, in seconds; the first twenty, in which the place is learnt, do not count.
    #[arg(long, default_value_t = 240.0)]
    seconds: f64,
    /// What scores the frames.
    #[arg(long, value_enum, default_value = "both")]
    gate: Gates,
    /// Videos watched at a time; as many as there are cores if left out. Ask for 1 to measure the time
    /// of a frame.
    #[arg(long)]
    threads: Option<usize>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Gates {
    Network,
    Background,
    Both,
}

/// Scores a second: every second frame of 8 a second, the agent's default.
const SCORES_PER_S: f64 = 4.0;
/// Seconds in which the sentinel still learns the place: what begins in them is not counted.
const WARM_UP_S: f64 = 20.0;
/// A wake up to so long before a transition asks about it, too: the inquiry's window reaches two
/// seconds beyond the wake.
const BEFORE_S: f64 = 2.0;
/// A wake up to so long after the transition is for it; later ones are not.
const AFTER_S: f64 = 20.0;

/// Scores from which on the sentinel might wake.
const WAKE_AT: [f32; 7] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

/// What is printed.
#[derive(Serialize)]
struct Report {
    split: String,
    first_seed: u64,
    videos: u64,
    seconds: f64,
    gates: Vec<Figures>,
}

/// How one gate did.
#[derive(Serialize)]
struct Figures {
    gate: &'static str,
    /// What it says of itself.
    description: String,
    /// Incidents counted.
    incidents: usize,
    /// Share of the incidents that woke the sentinel; none without incidents.
    woken: Option<Estimate>,
    /// Of each kind.
    kinds: BTreeMap<&'static str, OfKind>,
    /// Wakes an hour where nothing harmful happens.
    wakes_per_hour: Option<Estimate>,
    /// Seconds from the beginning of a transition to the wake; negative where the approach told.
    delay_s: Option<Delay>,
    /// Median time of scoring a frame, in milliseconds of one core.
    ms_per_frame: f64,
    /// What other settings of `wake_at` would have given.
    thresholds: Vec<Threshold>,
}

/// How a gate would have done if it woke from another score on.
#[derive(Serialize)]
struct Threshold {
    wake_at: f32,
    /// Share of the incidents that woke the sentinel; none without incidents.
    woken: Option<f64>,
    /// Wakes an hour where nothing harmful happens.
    wakes_per_hour: f64,
}

#[derive(Default, Serialize)]
struct OfKind {
    incidents: usize,
    woken: usize,
}

#[derive(Serialize)]
struct Delay {
    median: f64,
    p90: f64,
}

/// What came of one video with one gate.
#[derive(Default)]
struct Outcome {
    /// Each incident's kind, and the delay of its wake if there was one.
    incidents: Vec<(IncidentKind, Option<f64>)>,
    /// Wakes where nothing harmful happens.
    wakes: usize,
    /// Milliseconds of each frame.
    scoring_ms: Vec<f64>,
    /// For each of [`WAKE_AT`] how many incidents would have woken it, and the wakes for nothing.
    instead: [(usize, usize); WAKE_AT.len()],
}

/// Watches simulated videos and prints how the gates did.
///
/// # Errors
/// If there is nothing to measure, or the network must not be trusted.
pub fn run(arguments: &SentinelArguments) -> Result<()> {
    ensure!(arguments.videos > 0, "--videos 0 leaves nothing to measure; ask for at least one");
    let seconds = arguments.seconds;
    ensure!(
        (60.0..=3600.0).contains(&seconds),
        "--seconds {seconds}: from 60, or no incident fits, to 3600"
    );
    let gates: Vec<GateKind> = match arguments.gate {
        Gates::Network => vec![GateKind::Network],
        Gates::Background => vec![GateKind::Background],
        Gates::Both => vec![GateKind::Network, GateKind::Background],
    };
    let descriptions: Vec<String> =
        gates.iter().map(|&gate| Ok(open(gate)?.describe())).collect::<Result<_>>()?;
    let first = Split::from(arguments.split).first_seed() + arguments.seed_base;
    let threads = arguments
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get));
    let bar = crate::progress(arguments.videos as usize);
    bar.set_message("watching");
    let outcomes = watch_all(&gates, first, arguments, threads.max(1), &bar)?;
    bar.finish_and_clear();
    let hours = (seconds - WARM_UP_S) / 3600.0;
    let figures = gates.iter().zip(descriptions).enumerate().map(|(i, (gate, description))| {
        let of_gate: Vec<&Outcome> = outcomes.iter().map(|video| &video[i]).collect();
        figures(gate.name(), description, &of_gate, hours)
    });
    let report = Report {
        split: format!("{:?}", Split::from(arguments.split)).to_lowercase(),
        first_seed: first,
        videos: arguments.videos,
        seconds,
        gates: figures.collect(),
    };
    let out = &mut io::stdout().lock();
    match arguments.json {
        true => Ok(writeln!(out, "{}", serde_json::to_string(&report)?)?),
        false => readable(out, &report),
    }
}

/// The agent's sentinel with this gate, without patrols, every frame scored.
fn open(gate: GateKind) -> Result<Sentinel> {
    let options =
        SentinelOptions { gate, every_nth: 1, patrol_s: None, ..SentinelOptions::default() };
    match Sentinel::best(options) {
        (sentinel, None) => Ok(sentinel),
        // What would be measured instead is not what was asked for.
        (_, Some(why)) => anyhow::bail!("{why}"),
    }
}

/// The outcome of each video with each gate, in the order of the seeds.
fn watch_all(
    gates: &[GateKind],
    first: u64,
    arguments: &SentinelArguments,
    threads: usize,
    bar: &ProgressBar,
) -> Result<Vec<Vec<Outcome>>> {
    let count = arguments.videos as usize;
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<Outcome>)>> {
        let mut done = vec![];
        loop {
            let video = next.fetch_add(1, Ordering::Relaxed);
            if video >= count {
                return Ok(done);
            }
            done.push((video, watch(gates, first + video as u64, arguments.seconds)?));
            bar.inc(1);
        }
    };
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(work)).collect();
        let mut all = vec![];
        for worker in workers {
            all.extend(worker.join().ok().context("a thread that watched videos ended early")??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    all.sort_by_key(|(video, _)| *video);
    Ok(all.into_iter().map(|(_, outcomes)| outcomes).collect())
}

/// The outcome of the video of `seed` with each gate.
fn watch(gates: &[GateKind], seed: u64, seconds: f64) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = gates.iter().map(|_| Outcome::default()).collect();
    let eventful = SimVideo::new(seed, seconds, Incidents::Often);
    let harmful: Vec<_> = eventful.stories.iter().filter(|story| story.harmful).collect();
    let seen = watched(gates, &eventful, &mut outcomes)?;
    for (outcome, seen) in outcomes.iter_mut().zip(&seen) {
        for story in &harmful {
            let (begins, ends) = story.transition_s;
            let transition = (begins - eventful.from_s(), ends - eventful.from_s());
            if let Some(delay) = answered(transition, seconds, &seen.wakes) {
                outcome.incidents.push((story.kind, delay));
            }
            for ((woken, _), wake_at) in outcome.instead.iter_mut().zip(WAKE_AT) {
                let found = answered(transition, seconds, &seen.wakes_from(wake_at));
                *woken += usize::from(found.flatten().is_some());
            }
        }
    }
    let normal = SimVideo::new(seed, seconds, Incidents::None);
    for (outcome, seen) in outcomes.iter_mut().zip(watched(gates, &normal, &mut [])?) {
        let counted = |wakes: &[f64]| wakes.iter().filter(|&&at| at >= WARM_UP_S).count();
        outcome.wakes = counted(&seen.wakes);
        for ((_, wakes), wake_at) in outcome.instead.iter_mut().zip(WAKE_AT) {
            *wakes = counted(&seen.wakes_from(wake_at));
        }
    }
    Ok(outcomes)
}

/// What one gate made of one video.
#[derive(Default)]
struct Seen {
    /// Of each frame its time in seconds and its score.
    scores: Vec<(f64, f32)>,
    /// The seconds at which the sentinel woke.
    wakes: Vec<f64>,
}

impl Seen {
    /// The seconds at which it would have woken with another threshold.
    fn wakes_from(&self, wake_at: f32) -> Vec<f64> {
        let usual = SentinelOptions::default();
        let options = SentinelOptions {
            wake_at,
            rest_at: usual.rest_at.min(wake_at / 2.0),
            every_nth: 1,
            patrol_s: None,
            ..usual
        };
        let again = Again(self.scores.iter().map(|(_, score)| *score).collect());
        let mut sentinel = Sentinel::with_gate(options, Box::new(again));
        let dark = Luma { width: 1, height: 1, pixels: vec![0] };
        let wake = |(at, _): &(f64, f32)| sentinel.watch(&dark, MediaTime::from_s(*at)).wake;
        self.scores.iter().filter_map(wake).map(|wake| wake.at.as_s()).collect()
    }
}

/// Scores frames as they were scored before.
struct Again(VecDeque<f32>);

impl Gate for Again {
    fn score(&mut self, _: &Luma, _: MediaTime) -> f32 {
        self.0.pop_front().unwrap_or(0.0)
    }

    fn describe(&self) -> String {
        "what was scored before".to_owned()
    }
}

/// The delay of the first wake for a transition if there was one; `None` if the transition does not
/// lie well within the video.
fn answered((begins, ends): (f64, f64), seconds: f64, wakes: &[f64]) -> Option<Option<f64>> {
    if begins < WARM_UP_S || ends + AFTER_S > seconds {
        return None;
    }
    let for_it = begins - BEFORE_S..=ends + AFTER_S;
    Some(wakes.iter().find(|at| for_it.contains(at)).map(|at| at - begins))
}

/// What each gate makes of a video. Times of scoring are added to `outcomes`.
fn watched(gates: &[GateKind], video: &SimVideo, outcomes: &mut [Outcome]) -> Result<Vec<Seen>> {
    let mut sentinels: Vec<Sentinel> = gates.iter().map(|&g| open(g)).collect::<Result<_>>()?;
    let mut seen: Vec<Seen> = gates.iter().map(|_| Seen::default()).collect();
    for number in 0..(video.length_s * SCORES_PER_S) as u32 {
        let at = MediaTime::from_s(f64::from(number) / SCORES_PER_S);
        let (id, at) = video.nearest(at, 0.0).context("a video without frames")?;
        let frame = video.read(id)?.frame;
        for (i, sentinel) in sentinels.iter_mut().enumerate() {
            let luma = decode_luma_scaled(&frame, sentinel.least_size())?;
            let begun = Instant::now();
            let watched = sentinel.watch(&luma, at);
            if let Some(outcome) = outcomes.get_mut(i) {
                outcome.scoring_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            seen[i].scores.push((at.as_s(), watched.saliency));
            seen[i].wakes.extend(watched.wake.map(|wake| wake.at.as_s()));
        }
    }
    Ok(seen)
}

fn figures(gate: &'static str, description: String, outcomes: &[&Outcome], hours: f64) -> Figures {
    let incidents = || outcomes.iter().flat_map(|outcome| &outcome.incidents);
    let mut kinds: BTreeMap<&'static str, OfKind> = BTreeMap::new();
    for (kind, delay) in incidents() {
        let of_kind = kinds.entry(kind.label()).or_default();
        of_kind.incidents += 1;
        of_kind.woken += usize::from(delay.is_some());
    }
    let woken = |videos: &[usize]| {
        let those = || videos.iter().flat_map(|&video| &outcomes[video].incidents);
        let of = those().count();
        (of > 0).then(|| those().filter(|(_, delay)| delay.is_some()).count() as f64 / of as f64)
    };
    let wakes = |videos: &[usize]| {
        let sum: usize = videos.iter().map(|&video| outcomes[video].wakes).sum();
        (!videos.is_empty()).then(|| sum as f64 / (videos.len() as f64 * hours))
    };
    let mut delays: Vec<f64> = incidents().filter_map(|(_, delay)| *delay).collect();
    let mut scoring: Vec<f64> =
        outcomes.iter().flat_map(|outcome| outcome.scoring_ms.iter().copied()).collect();
    let all = incidents().count();
    let thresholds = WAKE_AT.iter().enumerate().map(|(i, &wake_at)| {
        let sum = |of: fn(&(usize, usize)) -> usize| -> f64 {
            outcomes.iter().map(|outcome| of(&outcome.instead[i])).sum::<usize>() as f64
        };
        Threshold {
            wake_at,
            woken: (all > 0).then(|| sum(|(woken, _)| *woken) / all as f64),
            wakes_per_hour: sum(|(_, wakes)| *wakes) / (outcomes.len() as f64 * hours),
        }
    });
    Figures {
        gate,
        description,
        thresholds: thresholds.collect(),
        incidents: all,
        woken: bootstrap(outcomes.len(), woken),
        kinds,
        wakes_per_hour: bootstrap(outcomes.len(), wakes),
        delay_s: quantile(&mut delays, 0.5)
            .zip(quantile(&mut delays, 0.9))
            .map(|(median, p90)| Delay { median, p90 }),
        ms_per_frame: quantile(&mut scoring, 0.5).unwrap_or(0.0),
    }
}

/// The value below which `share` of the values lie; `None` of none.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

fn readable(out: &mut impl Write, report: &Report) -> Result<()> {
    let Report { split, first_seed, videos, seconds, gates } = report;
    writeln!(
        out,
        "{videos} videos of {seconds} s from seed {first_seed} ({split}), once with incidents, once \
         without"
    )?;
    for of_gate in gates {
        writeln!(out, "\n{}: {}", of_gate.gate, of_gate.description)?;
        let estimate = |found: &Option<Estimate>| match found {
            Some(Estimate { value, lo, hi }) => format!("{value:.3} [{lo:.3}, {hi:.3}]"),
            None => "-".to_owned(),
        };
        writeln!(out, "  woken           {} of {}", estimate(&of_gate.woken), of_gate.incidents)?;
        writeln!(out, "  wakes per hour  {}", estimate(&of_gate.wakes_per_hour))?;
        if let Some(Delay { median, p90 }) = &of_gate.delay_s {
            writeln!(out, "  delay           {median:.2} s, nine in ten within {p90:.2} s")?;
        }
        writeln!(out, "  a frame         {:.3} ms", of_gate.ms_per_frame)?;
        for Threshold { wake_at, woken, wakes_per_hour } in &of_gate.thresholds {
            let woken = woken.map_or("-".to_owned(), |share| format!("{share:.3}"));
            writeln!(out, "  wake_at = {wake_at:.1}   {woken} at {wakes_per_hour:.1} an hour")?;
        }
        for (kind, OfKind { incidents, woken }) in &of_gate.kinds {
            writeln!(out, "    {kind:<14} {woken} of {incidents}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_counts_for_a_transition_from_just_before_it_to_a_while_after_it() {
        let wakes = |at: f64| answered((100.0, 102.0), 240.0, &[at]);
        assert_eq!(wakes(97.9), Some(None));
        assert_eq!(wakes(98.5), Some(Some(-1.5)));
        assert_eq!(wakes(122.0), Some(Some(22.0)));
        assert_eq!(wakes(122.1), Some(None));
        assert_eq!(answered((19.9, 21.0), 240.0, &[20.0]), None, "the place is still learnt");
        assert_eq!(answered((218.0, 220.1), 240.0, &[219.0]), None, "cut by the end");
        assert_eq!(
            answered((100.0, 102.0), 240.0, &[90.0, 101.0, 103.0]),
            Some(Some(1.0)),
            "the first"
        );
    }

    #[test]
    fn figures_are_over_all_videos_and_intervals_over_resampled_ones() {
        let outcome = |delay, wakes| Outcome {
            incidents: vec![(IncidentKind::Fall, delay)],
            wakes,
            scoring_ms: vec![1.0, 3.0, 2.0],
            instead: [(usize::from(delay.is_some()), wakes + 1); WAKE_AT.len()],
        };
        let videos = [outcome(Some(1.0), 3), outcome(None, 0), outcome(Some(2.0), 0)];
        let all = figures("network", String::new(), &videos.iter().collect::<Vec<_>>(), 0.5);
        assert_eq!(all.incidents, 3);
        let woken = all.woken.unwrap();
        assert_eq!(woken.value, 2.0 / 3.0);
        assert!(woken.lo < 0.5 && woken.hi == 1.0, "{woken:?}");
        assert_eq!(all.wakes_per_hour.unwrap().value, 2.0);
        assert_eq!((all.kinds["fall"].incidents, all.kinds["fall"].woken), (3, 2));
        assert_eq!(all.delay_s.unwrap().p90, 2.0);
        assert_eq!(all.ms_per_frame, 2.0);
        let instead: Vec<_> = all.thresholds.iter().map(|t| (t.woken, t.wakes_per_hour)).collect();
        assert_eq!(instead, [(Some(2.0 / 3.0), 4.0); WAKE_AT.len()]);
        let none = figures("network", String::new(), &[&Outcome::default()], 0.5);
        assert!(none.woken.is_none() && none.delay_s.is_none());
    }

    #[test]
    fn the_agents_own_threshold_among_others_gives_the_agents_wakes() {
        let video = SimVideo::new(5_000_003, 120.0, Incidents::Often);
        let seen = watched(&[GateKind::Background], &video, &mut []).unwrap().remove(0);
        assert!(!seen.wakes.is_empty());
        assert_eq!(seen.wakes, seen.wakes_from(SentinelOptions::default().wake_at));
        let of = |wake_at| seen.wakes_from(wake_at).len();
        assert!(of(0.2) >= of(0.5) && of(0.5) > of(1.1), "nothing scores above 1");
    }

    #[test]
    fn a_video_watched_again_gives_the_same_wakes() {
        let gates = [GateKind::Network, GateKind::Background];
        let wakes = || -> Vec<usize> {
            watch(&gates, 5_000_000, 60.0).unwrap().iter().map(|outcome| outcome.wakes).collect()
        };
        assert_eq!(wakes(), wakes());
    }
}
