//! `ingest`: the server beside what PostgreSQL itself can do with the same rows.

use crate::camera::{Camera, Life};
use crate::dice::Dice;
use crate::site::{Site, SiteArguments};
use crate::watch::{Watch, connect};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use event_log::{EventRow, Outgoing};
use fleet::cloudevents::{Change, parse_batch};
use fleet::ids::DeviceId;
use futures_util::SinkExt;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::types::{Json, ToSql};
use uplink::{Https, Identity, Options, Sender, Server, batch, carried};

#[derive(Args)]
pub struct IngestArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// How many rows a round has.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rows: usize,
    /// How many rounds; each has every way once, in turn, and the medians count.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How many events a batch has: as many as a camera sends.
    #[arg(long, value_name = "N", default_value_t = 200)]
    batch: usize,
    /// How many connections are busy at the same time, to the server or to PostgreSQL.
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
    /// The share of the fastest of PostgreSQL's own that the server must reach.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    floor: f64,
}

/// The ways in which the same rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Over HTTPS, batch by batch, each committed before it is answered.
    Server,
    /// COPY, committed batch by batch.
    CopyBatches,
    /// COPY, one transaction for each connection: what cannot be had where every batch is to be on disk before
    /// the next.
    CopyAtOnce,
    /// INSERT … VALUES of a whole batch, committed batch by batch.
    InsertBatches,
}

const WAYS: [Way; 4] = [Way::Server, Way::CopyBatches, Way::InsertBatches, Way::CopyAtOnce];
/// The columns, as the server fills them.
const COLUMNS: &str = "received, device, epoch, seq, event, kind, phase, level, camera, label, score, sentence, \
                       began, ended, clock, recorded, data, dataref";
/// The parameters of a row in an INSERT, but for the time of reception.
const PARAMETERS: usize = 17;

#[derive(Serialize)]
struct Report {
    rows: usize,
    batch: usize,
    connections: usize,
    bytes_per_event: f64,
    rounds: Vec<Round>,
    server_per_s: f64,
    copy_batches_per_s: f64,
    insert_batches_per_s: f64,
    copy_at_once_per_s: f64,
    server_to_copy_batches: f64,
    server_to_insert_batches: f64,
    server_to_copy_at_once: f64,
    /// CPU of the server's process for an event, µs; PostgreSQL's own and the clients' are not in it.
    server_cpu_us_per_event: f64,
    reaches_floor: bool,
}

#[derive(Serialize)]
struct Round {
    way: Way,
    events_per_s: f64,
}

/// What one connection brings in a round.
struct Load {
    identity: Identity,
    /// For each batch: its epoch, its body, and what is in it.
    batches: Vec<(String, Vec<u8>, Vec<Change>)>,
}

/// Runs it; whether the server reaches its share.
///
/// # Errors
/// If it cannot be run.
pub fn run(arguments: &IngestArguments) -> Result<bool> {
    let site = Site::start(&arguments.site, None)?;
    let identities = site.enrol(arguments.connections, site.server.port)?;
    let rows = sample(&site, &identities[0])?;
    let bar = site.bar((arguments.rounds * WAYS.len()) as u64, "measuring");
    let (mut rounds, mut cpu_us, mut bytes) = (vec![], vec![], 0.0);
    for round in 0..=arguments.rounds {
        for way in WAYS {
            let loads = loads(arguments, &identities, &rows, round, way)?;
            let before = cpu(site.server.pid())?;
            let seconds = match way {
                Way::Server => by_server(loads.iter().collect())?,
                _ => by_postgres(&site, way, &loads)?,
            };
            let stored: usize =
                loads.iter().flat_map(|load| &load.batches).map(|b| b.2.len()).sum();
            // The first round warms caches, pools and the table.
            if round == 0 {
                continue;
            }
            if way == Way::Server {
                cpu_us.push((cpu(site.server.pid())? - before).as_secs_f64() * 1e6 / stored as f64);
                let sent: usize =
                    loads.iter().flat_map(|load| &load.batches).map(|b| b.1.len()).sum();
                bytes = sent as f64 / stored as f64;
            }
            rounds.push(Round { way, events_per_s: stored as f64 / seconds });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let stored: i64 = site.runtime.block_on(async {
        let client = connect(&site.database()).await?;
        anyhow::Ok(client.query_one("SELECT count(*) FROM event", &[]).await?.get(0))
    })?;
    let expected = arguments.rows.div_ceil(arguments.batch * arguments.connections)
        * arguments.batch
        * arguments.connections
        * WAYS.len()
        * (arguments.rounds + 1);
    ensure!(stored as usize == expected, "{stored} rows are there, and {expected} were brought");
    let report = Report::new(arguments, rounds, median(&mut cpu_us), bytes);
    report.print(arguments.site.json, arguments.floor)?;
    Ok(report.reaches_floor)
}

/// Events as a camera has them.
fn sample(site: &Site, identity: &Identity) -> Result<Vec<EventRow>> {
    let life = Life {
        quota: 0,
        rows: 1 << 20,
        power_cut: 0.0,
        destroyed: 0.0,
        pictures: 0.3,
        options: Options::default(),
        patience: Duration::from_secs(60),
    };
    let watch = Arc::new(Watch::new(true, None));
    let dir = site.dir.path().join("sample");
    std::fs::create_dir_all(&dir)?;
    let mut camera = Camera::new(&dir, identity.clone(), life, Dice::new(1), watch);
    camera.write(4000)?;
    camera.rows(2000)
}

/// The batches of a round: the same events for every way, under an epoch of their own.
fn loads(
    arguments: &IngestArguments,
    identities: &[Identity],
    rows: &[EventRow],
    round: usize,
    way: Way,
) -> Result<Vec<Load>> {
    let each = arguments.rows.div_ceil(arguments.batch * arguments.connections);
    let load = |identity: &Identity| {
        let device = DeviceId::parse(&identity.device).context("a device's id")?;
        let epoch = format!("{:08x}{:08x}", round, way as u32);
        let sender = Sender { device: identity.device.clone(), epoch: epoch.clone() };
        let mut seq = 0;
        let mut batches = Vec::with_capacity(each);
        for _ in 0..each {
            let mut events = Vec::with_capacity(arguments.batch);
            for _ in 0..arguments.batch {
                let row = &rows[seq as usize % rows.len()];
                seq += 1;
                let change =
                    Outgoing { seq, event: row.id.clone(), phase: row.phase, level: row.level };
                events.push(carried(&sender, &change, row));
            }
            let (body, n) = batch(&events, usize::MAX);
            ensure!(n == arguments.batch, "a batch of another size");
            let changes = parse_batch(&body, &device)?.changes;
            batches.push((epoch.clone(), body, changes));
        }
        Ok(Load { identity: identity.clone(), batches })
    };
    identities.iter().map(load).collect()
}

fn by_server(loads: Vec<&Load>) -> Result<f64> {
    // Connected before the clock runs: a camera's connection is there.
    let mut servers = vec![];
    for load in &loads {
        let mut server = Https::new(&load.identity, Duration::from_secs(60))?;
        server.evidence(&"0".repeat(64))?;
        servers.push(server);
    }
    let begun = Instant::now();
    thread::scope(|scope| {
        let send = |load: &Load, mut server: Https| -> Result<()> {
            for (epoch, body, _) in &load.batches {
                // Too many at a time: the server may say so, and is asked again as a camera would.
                while let Err(failure) = server.deliver(epoch, body) {
                    ensure!(failure.retry_after().is_some(), "{failure}");
                    thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(())
        };
        let threads: Vec<_> = loads
            .iter()
            .zip(servers)
            .map(|(load, server)| scope.spawn(move || send(load, server)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Ok(())))
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

fn by_postgres(site: &Site, way: Way, loads: &[Load]) -> Result<f64> {
    // The texts are made before the clock runs: it is PostgreSQL that is measured.
    let texts: Vec<Vec<Bytes>> = loads.iter().map(|load| copy_texts(load, way)).collect();
    site.runtime.block_on(async {
        let mut clients = vec![];
        for _ in loads {
            let client = connect(&site.database()).await?;
            client.batch_execute("SET synchronous_commit = on; SET timezone = 'UTC'").await?;
            clients.push(client);
        }
        let begun = Instant::now();
        let work =
            clients.iter().zip(loads).zip(&texts).map(|((client, load), texts)| async move {
                match way {
                    Way::InsertBatches => insert(client, load).await,
                    _ => copy(client, texts).await,
                }
            });
        futures_util::future::try_join_all(work).await?;
        anyhow::Ok(begun.elapsed().as_secs_f64())
    })
}

async fn copy(client: &Client, texts: &[Bytes]) -> Result<()> {
    for text in texts {
        let sink = client.copy_in(&format!("COPY event ({COLUMNS}) FROM STDIN")).await?;
        tokio::pin!(sink);
        sink.send(text.clone()).await?;
        sink.finish().await?;
    }
    Ok(())
}

async fn insert(client: &Client, load: &Load) -> Result<()> {
    let size = load.batches.first().map_or(0, |batch| batch.2.len());
    let values: Vec<String> = (0..size)
        .map(|n| {
            let of_row: Vec<String> =
                (1..=PARAMETERS).map(|p| format!("${}", n * PARAMETERS + p)).collect();
            format!("(now(), {})", of_row.join(", "))
        })
        .collect();
    let statement = format!("INSERT INTO event ({COLUMNS}) VALUES {}", values.join(", "));
    let statement = client.prepare(&statement).await?;
    let device = &load.identity.device;
    for (epoch, _, changes) in &load.batches {
        let owned: Vec<Vec<Box<dyn ToSql + Sync + Send>>> =
            changes.iter().map(|change| parameters(device, epoch, change)).collect();
        let flat: Vec<&(dyn ToSql + Sync)> =
            owned.iter().flatten().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        client.execute(&statement, &flat).await?;
    }
    Ok(())
}

fn parameters(device: &str, epoch: &str, c: &Change) -> Vec<Box<dyn ToSql + Sync + Send>> {
    use std::time::SystemTime;
    vec![
        Box::new(device.to_owned()),
        Box::new(epoch.to_owned()),
        Box::new(c.seq.cast_signed()),
        Box::new(c.event.as_str().to_owned()),
        Box::new(c.kind.word()),
        Box::new(c.phase.word()),
        Box::new(c.level as i16),
        Box::new(c.camera.clone()),
        Box::new(c.label.clone()),
        Box::new(c.score),
        Box::new(c.sentence.clone()),
        Box::new(SystemTime::from(c.start)),
        Box::new(SystemTime::from(c.end)),
        Box::new(c.clock.word()),
        Box::new(SystemTime::from(c.recorded)),
        Box::new(Json(c.data.clone())),
        Box::new(c.dataref.as_ref().map(|hash| hash.as_str().to_owned())),
    ]
}

/// What COPY reads: one text for each transaction.
fn copy_texts(load: &Load, way: Way) -> Vec<Bytes> {
    let text = |batches: &[(String, Vec<u8>, Vec<Change>)]| {
        let mut text = String::new();
        for (epoch, _, changes) in batches {
            changes
                .iter()
                .for_each(|change| copy_line(&mut text, &load.identity.device, epoch, change));
        }
        Bytes::from(text)
    };
    match way {
        Way::CopyAtOnce => vec![text(&load.batches)],
        _ => load.batches.chunks(1).map(text).collect(),
    }
}

fn copy_line(out: &mut String, device: &str, epoch: &str, c: &Change) {
    let optional = |text: Option<&str>| text.map_or_else(|| "\\N".to_owned(), escaped);
    let time = |moment: fleet::moment::Moment| event_log::rfc3339(moment.unix_us());
    let _ = writeln!(
        out,
        "now\t{device}\t{epoch}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        c.seq,
        c.event,
        c.kind.word(),
        c.phase.word(),
        c.level as i16,
        optional(c.camera.as_deref()),
        escaped(&c.label),
        c.score.map_or_else(|| "\\N".to_owned(), |score| score.to_string()),
        escaped(&c.sentence),
        time(c.start),
        time(c.end),
        c.clock.word(),
        time(c.recorded),
        escaped(&c.data.to_string()),
        optional(c.dataref.as_ref().map(|hash| hash.as_str())),
    );
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// The CPU time that a process has used.
fn cpu(pid: Option<u32>) -> Result<Duration> {
    let pid = pid.context("the server does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold spaces: state is the first, user and system time the 12th and 13th.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // The kernel's unit is 1/100 s wherever Linux runs.
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

pub(crate) fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    match (of.len(), of.len() / 2) {
        (0, _) => 0.0,
        (n, half) if n % 2 == 1 => of[half],
        (_, half) => (of[half - 1] + of[half]) / 2.0,
    }
}

impl Report {
    fn new(
        arguments: &IngestArguments,
        rounds: Vec<Round>,
        server_cpu_us_per_event: f64,
        bytes_per_event: f64,
    ) -> Self {
        let of = |way| {
            let mut each: Vec<f64> =
                rounds.iter().filter(|r| r.way == way).map(|r| r.events_per_s).collect();
            median(&mut each)
        };
        let [server, copy, insert, at_once] = WAYS.map(of);
        Self {
            rows: arguments.rows,
            batch: arguments.batch,
            connections: arguments.connections,
            bytes_per_event,
            server_per_s: server,
            copy_batches_per_s: copy,
            insert_batches_per_s: insert,
            copy_at_once_per_s: at_once,
            server_to_copy_batches: server / copy,
            server_to_insert_batches: server / insert,
            server_to_copy_at_once: server / at_once,
            server_cpu_us_per_event,
            reaches_floor: server >= arguments.floor * copy.max(insert),
            rounds,
        }
    }

    fn print(&self, json: bool, floor: f64) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(
            out,
            "{} rows a round in batches of {} over {} connections, {:.0} bytes an event; medians of {} rounds:\n\
             the server               {:>8.0} events/s   ({:.0} µs of CPU in its process for each)\n\
             COPY, batch by batch     {:>8.0} rows/s     the server reaches {:.2} of it\n\
             INSERT, batch by batch   {:>8.0} rows/s     {:.2}\n\
             COPY, all at once        {:>8.0} rows/s     {:.2}   (nothing is on disk before all is)\n\
             {} of the faster that commits each batch: {}",
            self.rows,
            self.batch,
            self.connections,
            self.bytes_per_event,
            self.rounds.len() / WAYS.len(),
            self.server_per_s,
            self.server_cpu_us_per_event,
            self.copy_batches_per_s,
            self.server_to_copy_batches,
            self.insert_batches_per_s,
            self.server_to_insert_batches,
            self.copy_at_once_per_s,
            self.server_to_copy_at_once,
            floor,
            if self.reaches_floor { "reached" } else { "MISSED" },
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn copy_reads_text_as_it_was() {
        assert_eq!(escaped("a\tb\\c\nd\"ü"), "a\\tb\\\\c\\nd\"ü");
    }

    #[test]
    fn the_cpu_time_of_this_process_is_there() {
        assert!(cpu(Some(std::process::id())).is_ok());
    }
}
