//! `fleet`: a whole fleet runs the gauntlet, and is judged.

use crate::backends::loopback;
use crate::camera::{Camera, Life};
use crate::chaos::{Kills, reign};
use crate::dice::Dice;
use crate::faults::{Kind, Menu};
use crate::oracle::{self, Verdict};
use crate::proxy::{self, Tally};
use crate::site::{Site, SiteArguments};
use crate::truth::Truth;
use crate::watch::{Auditor, Counted, Watch};
use crate::{FaultArguments, crowd};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use uplink::Options;

#[derive(Args)]
pub struct GauntletArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// How many cameras.
    #[arg(long, value_name = "N", default_value_t = 200)]
    cameras: usize,
    /// How many changes of events they write in all.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    events: u64,
    /// How many cameras are at it at the same time.
    #[arg(long, value_name = "N", default_value_t = 48)]
    workers: usize,
    #[command(flatten)]
    faults: FaultArguments,
    /// Which faults may happen between the server and its database, parted by commas; none by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    database_faults: Vec<Kind>,
    /// About so many seconds lie between two kills; 0: nothing is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 6.0)]
    kill_every: f64,
    /// The share of incidents that rest on pictures, which are uploaded.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pictures: f64,
    /// The seed of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writing and sending may take so long before the line becomes good and the kills end.
    #[arg(long, value_name = "SECONDS", default_value_t = 480)]
    seconds: u64,
    /// After that, what is left may take so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    drain: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    cameras: usize,
    seconds: f64,
    events_per_s: f64,
    counted: Counted,
    line: Tally,
    database_line: Option<Tally>,
    kills: Kills,
    given_up_by_cameras: u64,
    logs_destroyed: u64,
    server_panicked: bool,
    verdict: Verdict,
}

/// Every request ends within this: a stalled line is given up sooner than a real camera would, so that more
/// happens in a minute.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs it; whether the contract held.
///
/// # Errors
/// If it cannot be run.
pub fn run(arguments: &GauntletArguments) -> Result<bool> {
    let database_menu =
        Menu { kinds: arguments.database_faults.clone(), share: arguments.faults.share };
    let on_the_database = (!arguments.database_faults.is_empty())
        .then_some((database_menu, arguments.seed.wrapping_add(1)));
    let mut site = Site::start(&arguments.site, on_the_database)?;
    let proxy = site.runtime.block_on(proxy::start(
        loopback(0),
        loopback(site.server.port),
        arguments.faults.menu(),
        arguments.seed,
        Arc::new(|_, _| {}),
    ))?;
    let identities = site.enrol(arguments.cameras, proxy.address.port())?;
    if let Some(line) = &site.line {
        line.calm.store(false, Relaxed);
    }
    let auditor = Auditor::new(site.runtime.handle().clone(), site.database());
    let watch = Arc::new(Watch::new(true, Some(auditor)));
    let quota = arguments.events.div_ceil(arguments.cameras.max(1) as u64);
    let cameras: Vec<Mutex<Camera>> = identities
        .into_iter()
        .enumerate()
        .map(|(n, identity)| {
            let dice = Dice::of(arguments.seed, n as u64);
            let life = life(quota, n, arguments.pictures);
            Mutex::new(Camera::new(&site.camera_dir(n), identity, life, dice, watch.clone()))
        })
        .collect();
    let (over, begun) = (AtomicBool::new(false), Instant::now());
    let calm_at = begun + Duration::from_secs(arguments.seconds);
    let end = calm_at + Duration::from_secs(arguments.drain);
    let bar = site.bar(arguments.events, "delivering");
    let all_written = || watch.counted().written >= quota * arguments.cameras as u64;
    let (server, postgres, dice) =
        (&mut site.server, &site.postgres, Dice::of(arguments.seed, u64::MAX));
    let (left, kills) = thread::scope(|scope| {
        let chaos = scope.spawn(|| match arguments.kill_every > 0.0 {
            true => {
                reign(server, postgres, Duration::from_secs_f64(arguments.kill_every), dice, &over)
            }
            false => Ok(Kills::default()),
        });
        let calming = scope.spawn(|| {
            while !over.load(Relaxed) {
                let counted = watch.counted();
                bar.set_position(counted.acknowledged);
                // What is written last shall meet faults, too; the last of it may arrive in peace.
                let late =
                    all_written() && counted.acknowledged + counted.written / 20 > counted.written;
                if late || Instant::now() > calm_at {
                    over.store(true, Relaxed);
                }
                thread::sleep(Duration::from_millis(100));
            }
            proxy.calm.store(true, Relaxed);
            site.line.iter().for_each(|line| line.calm.store(true, Relaxed));
        });
        let first = vec![Duration::ZERO; cameras.len()];
        // When the time is over nothing more is written; what is written must still arrive.
        let turn = |camera: &mut Camera, at: Duration| {
            if Instant::now() > calm_at {
                camera.write_no_more();
            }
            camera.turn(at)
        };
        let left = crowd::run(&cameras, arguments.workers, &first, end, turn);
        over.store(true, Relaxed);
        let _ = calming.join();
        let kills = chaos.join().unwrap_or_else(|_| Ok(Kills::default()));
        left.and_then(|left| Ok((left, kills?)))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let own = |camera: Mutex<Camera>| camera.into_inner().unwrap_or_else(|e| e.into_inner());
    let truths: Vec<Truth> =
        cameras.into_iter().flat_map(|camera| own(camera).into_truths()).collect();
    let (given_up, destroyed) = (
        truths.iter().map(|truth| truth.given_up).sum(),
        truths.iter().filter(|truth| truth.destroyed).count() as u64,
    );
    let changes: u64 = truths.iter().map(|truth| truth.changes.len() as u64).sum();
    let bar = site.bar(changes, "judging");
    let mut verdict =
        site.runtime.block_on(oracle::read(&site.database(), truths, || bar.inc(1)))?;
    bar.finish_and_clear();
    let (counted, line) = (watch.counted(), proxy.counts.tally());
    verdict.holds &= counted.acknowledged_before_commit == 0 && line.deceived == 0;
    verdict.holds &= !site.server.panicked() && (left == 0 || verdict.undelivered > 0);
    let report = Report {
        cameras: arguments.cameras,
        seconds,
        events_per_s: changes as f64 / seconds,
        counted,
        line,
        database_line: site.line.as_ref().map(|line| line.counts.tally()),
        kills,
        given_up_by_cameras: given_up,
        logs_destroyed: destroyed,
        server_panicked: site.server.panicked(),
        verdict,
    };
    report.print(arguments.site.json)?;
    Ok(report.verdict.holds)
}

/// One in ten has a disk so small that it drops what it could not send.
fn life(quota: u64, n: usize, pictures: f64) -> Life {
    Life {
        quota,
        rows: if n % 10 == 9 { 60 } else { 500 },
        power_cut: 0.004,
        destroyed: 0.05,
        pictures,
        options: Options {
            // Smaller than a real camera's, so that a connection lives through more of them.
            batch: if n.is_multiple_of(3) { 200 } else { 40 },
            poll: Duration::from_millis(50),
            // Shorter than a real camera's, so that more happens in a minute.
            backoff: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(3),
            ..Options::default()
        },
        patience: PATIENCE,
    }
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let v = &self.verdict;
        let Kills { server, database, both } = self.kills;
        writeln!(
            out,
            "{} cameras wrote {} changes in {:.0} s ({:.0} a second) over {} connections.\n\
             Faults: {:?}.\nKills: server {server}, database {database}, both {both}; logs destroyed {}.\n\
             Stored {}, dropped and said so {}; answers looked up at once {}.\n\
             lost {}, duplicated {}, altered {}, invented {}, acknowledged and not committed {} (at once: {}), \
             marks too high {},\nundelivered {}, skipped by a log {}, evidence lost {}, given up {}, \
             deceived by another certificate {}.",
            self.cameras,
            v.changes,
            self.seconds,
            self.events_per_s,
            self.line.connections,
            self.line.struck,
            self.logs_destroyed,
            v.stored,
            v.dropped,
            self.counted.audited,
            v.lost,
            v.duplicated,
            v.altered,
            v.invented,
            v.acknowledged_not_committed,
            self.counted.acknowledged_before_commit,
            v.marks_too_high,
            v.undelivered,
            v.skipped_by_a_log,
            v.evidence_lost,
            self.given_up_by_cameras,
            self.line.deceived,
        )?;
        v.examples.iter().try_for_each(|example| writeln!(out, "  {example}"))?;
        writeln!(
            out,
            "{}",
            if v.holds { "The contract holds." } else { "The contract is BROKEN." }
        )?;
        Ok(())
    }
}
