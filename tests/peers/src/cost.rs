//! `cost`: what the uplink costs its camera.

use crate::backends::loopback;
use crate::camera::{Camera, Life};
use crate::dice::Dice;
use crate::faults::Menu;
use crate::proxy::{self, Counts};
use crate::site::{Site, SiteArguments};
use crate::watch::Watch;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use uplink::{Identity, Options};

#[derive(Args)]
pub struct CostArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// How many changes are sent in full batches.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    batched: u64,
    /// How many changes are sent one at a time, as a quiet camera does.
    #[arg(long, value_name = "N", default_value_t = 300)]
    single: u64,
    /// How often an empty outbox is looked into.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    idle: u64,
}

#[derive(Serialize)]
struct Report {
    /// In full batches.
    batched: Cost,
    /// One at a time over a connection that stays.
    single: Cost,
    /// The first one over a new connection.
    first: Cost,
    idle_cpu_us_per_look: f64,
    idle_cpu_s_per_hour: f64,
    idle_bytes_per_hour: f64,
}

/// For each event.
#[derive(Clone, Copy, Serialize)]
struct Cost {
    events: u64,
    cpu_us: f64,
    bytes_up: f64,
    bytes_down: f64,
}

/// Runs it.
///
/// # Errors
/// If it cannot be run.
pub fn run(arguments: &CostArguments) -> Result<bool> {
    let site = Site::start(&arguments.site, None)?;
    // A good line: it only counts the bytes.
    let menu = Menu { kinds: vec![], share: 0.0 };
    let proxy = site.runtime.block_on(proxy::start(
        loopback(0),
        loopback(site.server.port),
        menu,
        1,
        Arc::new(|_, _| {}),
    ))?;
    let identities = site.enrol(2, proxy.address.port())?;
    let mut meter = Meter { counts: proxy.counts.clone(), site: &site };
    let mut quiet = meter.camera(0, &identities[0])?;
    // One before: it opens the log and loads the program's pages.
    meter.sent(&mut quiet, 1, 1)?;
    let mut fresh = meter.camera(1, &identities[1])?;
    let first = meter.sent(&mut fresh, 1, 1)?;
    let bar = site.bar(arguments.single + arguments.batched + arguments.idle, "measuring");
    let single = meter.sent(&mut quiet, arguments.single, 1)?;
    bar.inc(arguments.single);
    let batched = meter.sent(&mut quiet, arguments.batched, arguments.batched)?;
    bar.inc(arguments.batched);
    let before = meter.read()?;
    for _ in 0..arguments.idle {
        let wait = quiet.exchange(Duration::ZERO, 1)?;
        ensure!(wait == Options::default().poll, "there was something to send");
    }
    let (cpu, up, down) = meter.since(before)?;
    bar.finish_and_clear();
    let looks_per_hour = 3600.0 / Options::default().poll.as_secs_f64();
    let per_look = cpu.as_secs_f64() / arguments.idle as f64;
    let report = Report {
        batched,
        single,
        first,
        idle_cpu_us_per_look: per_look * 1e6,
        idle_cpu_s_per_hour: per_look * looks_per_hour,
        idle_bytes_per_hour: (up + down) as f64 / arguments.idle as f64 * looks_per_hour,
    };
    report.print(arguments.site.json)?;
    Ok(true)
}

struct Meter<'a> {
    counts: Arc<Counts>,
    site: &'a Site,
}

impl Meter<'_> {
    fn camera(&self, n: usize, identity: &Identity) -> Result<Camera> {
        let life = Life {
            quota: 0,
            rows: 1 << 20,
            power_cut: 0.0,
            destroyed: 0.0,
            pictures: 0.0,
            // Pictures cost what pictures weigh; this is about events.
            options: Options { evidence: false, ..Options::default() },
            patience: Duration::from_secs(60),
        };
        let watch = Arc::new(Watch::new(true, None));
        let dir = self.site.camera_dir(n);
        Ok(Camera::new(&dir, identity.clone(), life, Dice::new(n as u64), watch))
    }

    /// Writes and sends `all`, `at_once` at a time; only the sending is measured, with the note in the log
    /// that it was acknowledged.
    fn sent(&mut self, camera: &mut Camera, all: u64, at_once: u64) -> Result<Cost> {
        let (mut cpu, mut up, mut down) = (Duration::ZERO, 0, 0);
        for _ in 0..all / at_once.max(1) {
            camera.write(at_once)?;
            let before = self.read()?;
            while camera.exchange(Duration::ZERO, 1)?.is_zero() {}
            let spent = self.since(before)?;
            (cpu, up, down) = (cpu + spent.0, up + spent.1, down + spent.2);
        }
        let each = |n: f64| n / all.max(1) as f64;
        Ok(Cost {
            events: all,
            cpu_us: each(cpu.as_secs_f64() * 1e6),
            bytes_up: each(up as f64),
            bytes_down: each(down as f64),
        })
    }

    fn read(&self) -> Result<(Duration, u64, u64)> {
        Ok((own_cpu()?, self.counts.up.load(Relaxed), self.counts.down.load(Relaxed)))
    }

    fn since(&self, before: (Duration, u64, u64)) -> Result<(Duration, u64, u64)> {
        let (cpu, up, down) = self.read()?;
        Ok((cpu - before.0, up - before.1, down - before.2))
    }
}

/// The CPU time of this thread, as of its last wait or the clock's last tick (some ms): many are summed up.
fn own_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = stat.split_whitespace().next().and_then(|ns| ns.parse().ok());
    Ok(Duration::from_nanos(ns.context("this kernel does not count a thread's time")?))
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(out, "for each event                  CPU      bytes up    bytes down")?;
        for (what, cost) in [
            ("in full batches", self.batched),
            ("one at a time", self.single),
            ("over a new connection", self.first),
        ] {
            let Cost { cpu_us, bytes_up, bytes_down, .. } = cost;
            writeln!(out, "{what:24} {cpu_us:>8.0} µs {bytes_up:>12.0} {bytes_down:>12.0}")?;
        }
        writeln!(
            out,
            "with nothing to send: {:.2} s of CPU and {:.0} bytes an hour ({:.0} µs a look)",
            self.idle_cpu_s_per_hour, self.idle_bytes_per_hour, self.idle_cpu_us_per_look
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = own_cpu().unwrap();
        let mut dice = Dice::new(1);
        let sum = (0..200_000_000).fold(0u64, |sum, _| sum.wrapping_add(dice.next()));
        assert!(sum != 1 && own_cpu().unwrap() > before);
    }
}
