//! `outage`: the server was away for an hour, and everybody comes back.

use crate::camera::{Camera, Life, Turn};
use crate::dice::Dice;
use crate::oracle::{self, Verdict};
use crate::site::{Site, SiteArguments};
use crate::watch::{Auditor, Counted, Watch};
use crate::{chart, crowd};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use uplink::Options;

#[derive(Args)]
pub struct OutageArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// How many cameras.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    cameras: usize,
    /// How long nobody answered, minutes. It is lived through on a clock of its own, faster than the wall's.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    minutes: u64,
    /// How many changes each camera writes meanwhile.
    #[arg(long, value_name = "N", default_value_t = 30)]
    events: u64,
    /// The share of incidents that rest on pictures, which are uploaded.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pictures: f64,
    /// How many cameras talk at the same time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    workers: usize,
    /// Something happens before all cameras at once: they begin to wait in the same moment.
    #[arg(long)]
    together: bool,
    /// Waits without chance in them, to compare: with --together a herd comes back.
    #[arg(long)]
    no_jitter: bool,
    /// The peaks, of requests and of cameras that come back in one second, may be so many times the mean over the
    /// time in which the waits end.
    #[arg(long, value_name = "TIMES", default_value_t = 6.0)]
    herd: f64,
    /// The requests of each second, drawn.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The seed of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draining may take so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 480)]
    drain: u64,
}

#[derive(Serialize)]
struct Report {
    cameras: usize,
    changes: u64,
    drained: bool,
    seconds_to_drain: f64,
    seconds_until_half_had_come: usize,
    requests: u64,
    peak_requests_per_s: u32,
    mean_requests_per_s: f64,
    peak_to_mean: f64,
    /// Whatever the server and this machine can do: how many cameras' first waits ended in one second.
    peak_returns_per_s: u32,
    mean_returns_per_s: f64,
    returns_peak_to_mean: f64,
    no_herd: bool,
    requests_by_second: Vec<u32>,
    counted: Counted,
    verdict: Verdict,
}

/// Runs it; whether everything arrived and there was no herd.
///
/// # Errors
/// If it cannot be run.
pub fn run(arguments: &OutageArguments) -> Result<bool> {
    let mut site = Site::start(&arguments.site, None)?;
    let identities = site.enrol(arguments.cameras, site.server.port)?;
    site.server.kill();
    // Nothing of the hour is counted: the watch over the cameras begins with the server's return.
    let asleep = Arc::new(Watch::new(!arguments.no_jitter, None));
    let options = Options::default();
    let life = Life {
        quota: arguments.events,
        rows: 10_000,
        power_cut: 0.0,
        destroyed: 0.0,
        pictures: arguments.pictures,
        options: options.clone(),
        patience: Duration::from_secs(60),
    };
    let cameras: Vec<Mutex<Camera>> = identities
        .into_iter()
        .enumerate()
        .map(|(n, identity)| {
            let dice = Dice::of(arguments.seed, n as u64);
            let dir = site.camera_dir(n);
            Mutex::new(Camera::new(&dir, identity, life.clone(), dice, asleep.clone()))
        })
        .collect();
    let outage = Duration::from_secs(arguments.minutes * 60);
    let bar = site.bar(arguments.cameras as u64, "an hour");
    let due = Mutex::new(vec![Duration::ZERO; cameras.len()]);
    let numbered = Mutex::new(0..cameras.len());
    let work = || -> Result<()> {
        loop {
            let next = numbered.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some(n) = next else { return Ok(()) };
            let mut camera = cameras[n].lock().unwrap_or_else(|e| e.into_inner());
            let after = camera.live_through(outage, arguments.together)?;
            due.lock().unwrap_or_else(|e| e.into_inner())[n] = after;
            bar.inc(1);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Ok(())))
    })?;
    bar.finish_and_clear();
    let due = due.into_inner().unwrap_or_else(|e| e.into_inner());
    site.server.start()?;
    let auditor = Auditor::new(site.runtime.handle().clone(), site.database());
    let watch = Arc::new(Watch::new(!arguments.no_jitter, Some(auditor)));
    for camera in &cameras {
        camera.lock().unwrap_or_else(|e| e.into_inner()).watched_by(&watch);
    }
    let begun = Instant::now();
    let end = begun + Duration::from_secs(arguments.drain);
    let bar = site.bar(arguments.cameras as u64, "coming back");
    // The uplinks' clocks go on from where the hour left them.
    let turn = |camera: &mut Camera, at: Duration| {
        let turn = camera.send(outage + at)?;
        if turn == Turn::Done {
            bar.inc(1);
        }
        Ok(turn)
    };
    let left = crowd::run(&cameras, arguments.workers, &due, end, turn)?;
    let seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let own = |camera: Mutex<Camera>| camera.into_inner().unwrap_or_else(|e| e.into_inner());
    let truths = cameras.into_iter().flat_map(|camera| own(camera).into_truths()).collect();
    let verdict = site.runtime.block_on(oracle::read(&site.database(), truths, || {}))?;
    let cap = options.backoff_cap;
    let report = Report::new(arguments, cap, &due, left == 0, seconds, &watch, verdict);
    if let Some(svg) = &arguments.svg {
        let title = format!("{} cameras after an hour without their server", arguments.cameras);
        let drawn = chart::bars(&title, "requests in each second", &report.requests_by_second);
        std::fs::write(svg, drawn).with_context(|| format!("write '{}'", svg.display()))?;
    }
    report.print(arguments.site.json)?;
    Ok(report.drained && report.no_herd && report.verdict.holds)
}

/// How many of these moments lie in the same second, at most.
fn fullest_second(moments: &[Duration]) -> u32 {
    let mut by_second = BTreeMap::new();
    for moment in moments {
        *by_second.entry(moment.as_secs()).or_insert(0) += 1;
    }
    by_second.into_values().max().unwrap_or(0)
}

impl Report {
    fn new(
        arguments: &OutageArguments,
        cap: Duration,
        due: &[Duration],
        drained: bool,
        seconds: f64,
        watch: &Watch,
        verdict: Verdict,
    ) -> Self {
        let by_second = watch.by_second();
        let requests: u64 = by_second.iter().map(|n| u64::from(*n)).sum();
        let peak = by_second.iter().copied().max().unwrap_or(0);
        // The waits end evenly within the longest one: that is how the load would lie at its flattest.
        let mean = requests as f64 / cap.as_secs_f64();
        let peak_to_mean = f64::from(peak) / mean.max(f64::MIN_POSITIVE);
        let peak_returns = fullest_second(due);
        let mean_returns = due.len() as f64 / cap.as_secs_f64();
        let returns_peak_to_mean = f64::from(peak_returns) / mean_returns.max(f64::MIN_POSITIVE);
        let mut before = 0;
        let half = by_second.iter().position(|n| {
            before += u64::from(*n);
            before * 2 >= requests
        });
        Self {
            cameras: arguments.cameras,
            changes: verdict.changes,
            drained,
            seconds_to_drain: seconds,
            seconds_until_half_had_come: half.unwrap_or(0),
            requests,
            peak_requests_per_s: peak,
            mean_requests_per_s: mean,
            peak_to_mean,
            peak_returns_per_s: peak_returns,
            mean_returns_per_s: mean_returns,
            returns_peak_to_mean,
            no_herd: peak_to_mean.max(returns_peak_to_mean) <= arguments.herd,
            requests_by_second: by_second,
            counted: watch.counted(),
            verdict,
        }
    }

    fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(
            out,
            "{} cameras brought {} changes: {} after {:.0} s, half of the requests within {} s.\n\
             Requests a second: {:.1} on average over the longest wait, {} at most ({:.1} times).\n\
             Cameras that come back: {:.1} a second on average, {} at most ({:.1} times). {}\n\
             Told to come later: {}; without an answer: {}.",
            self.cameras,
            self.changes,
            if self.drained { "all was there" } else { "NOT all was there" },
            self.seconds_to_drain,
            self.seconds_until_half_had_come,
            self.mean_requests_per_s,
            self.peak_requests_per_s,
            self.peak_to_mean,
            self.mean_returns_per_s,
            self.peak_returns_per_s,
            self.returns_peak_to_mean,
            if self.no_herd { "No herd." } else { "A HERD." },
            self.counted.busy,
            self.counted.unreachable,
        )?;
        for (n, ten) in self.requests_by_second.chunks(10).enumerate() {
            let highest = ten.iter().max().copied().unwrap_or(0);
            let mean = ten.iter().sum::<u32>() as f64 / ten.len() as f64;
            let scale = 60.0 / f64::from(self.peak_requests_per_s.max(1));
            let bar = "#".repeat((mean * scale).round() as usize);
            writeln!(out, "{:>4} s {mean:>7.1} {highest:>5} {bar}", n * 10)?;
        }
        writeln!(
            out,
            "{}",
            if self.verdict.holds { "The contract holds." } else { "The contract is BROKEN." }
        )?;
        self.verdict.examples.iter().try_for_each(|example| Ok(writeln!(out, "  {example}")?))
    }
}
