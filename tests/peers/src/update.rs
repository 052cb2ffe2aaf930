//! `update`: what it takes to bring a camera a new policy, over a slow line that fails, while it watches.

use crate::shelf::{LineTerms, Shelf};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use event_log::{LogReader, Query};
use fleet::repository::{self, Lifetimes, Repository, RootKeys, Terms};
use hal_linux::{Clock, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};
use release::{CHUNK_BYTES_MAX, Index};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// A camera's part is no longer.
const PART_BYTES: u64 = 100_000_000;
/// How often a camera is looked at.
const GLANCE: Duration = Duration::from_millis(250);
/// A simulated camera's frames in a second.
const FRAMES_PER_S: f64 = 8.0;
/// Clock ticks in a second, as the kernel counts a thread's time for every program.
const TICKS_PER_S: f64 = 100.0;

#[derive(Args)]
pub struct UpdateArguments {
    /// The camera's program [default: lookback beside this one].
    #[arg(long, value_name = "FILE", env = "LOOKBACK")]
    lookback: Option<PathBuf>,
    /// Size of the new policy: nano, with parts of noise that nobody reads.
    #[arg(long, value_name = "N", default_value_t = 1200)]
    megabytes: u64,
    /// Speed of the line while the camera watches.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    megabits_per_s: f64,
    /// The share of requests that fail, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    failing: f64,
    /// How long an answer takes to begin.
    #[arg(long, value_name = "MS", default_value_t = 40)]
    latency_ms: u64,
    /// How often a second camera is killed while it fetches.
    #[arg(long, value_name = "N", default_value_t = 8)]
    kills: u32,
    /// Speed of the second camera's line.
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    megabits_per_s_with_kills: f64,
    /// How long the policy is tried beside the one that watches.
    #[arg(long, value_name = "MINUTES", default_value_t = 0.5)]
    trial_minutes: f64,
    /// Where policy, repository and cameras lie, four times the policy's size [default: the system's folder for
    /// such].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object, and nothing for people.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Bytes that had to come.
    bytes: u64,
    watched: Watched,
    killed: Killed,
    /// Whether each promise held.
    holds: BTreeMap<&'static str, bool>,
}

/// A camera that fetched while it watched.
#[derive(Serialize)]
struct Watched {
    megabits_per_s: f64,
    latency_ms: u64,
    requests: u64,
    requests_refused: u64,
    requests_broken: u64,
    bytes_sent: u64,
    fetch_s: f64,
    line_s: f64,
    /// Of the line's own time.
    times: f64,
    /// Of one core, while it fetched: of what fetches.
    cpu_share: f64,
    until_committed_s: f64,
    frames: u64,
    frames_due: u64,
    frames_dropped: u64,
    frames_lost: u64,
}

/// A camera that was killed again and again.
#[derive(Serialize)]
struct Killed {
    megabits_per_s: f64,
    kills: u32,
    requests_broken: u64,
    bytes_sent: u64,
    bytes_allowed: u64,
}

/// Runs it.
///
/// # Errors
/// If it cannot be run.
pub fn run(arguments: &UpdateArguments) -> Result<bool> {
    let site = Site::prepare(arguments)?;
    let watched = site.watch(arguments)?;
    let killed = site.kill_again_and_again(arguments)?;
    site.bar.finish_and_clear();
    let holds = BTreeMap::from([
        ("within_1.1_of_the_lines_time", watched.times <= 1.1),
        ("cpu_within_10_percent_of_a_core", watched.cpu_share <= 0.1),
        (
            "no_frame_lost",
            watched.frames_dropped + watched.frames_lost == 0
                && watched.frames >= watched.frames_due,
        ),
        ("a_chunk_for_each_interruption", killed.bytes_sent <= killed.bytes_allowed),
    ]);
    let report = Report { bytes: site.bytes, watched, killed, holds };
    report.print(arguments.json)?;
    Ok(report.holds.values().all(|holds| *holds))
}

/// A repository with a large policy.
struct Site {
    dir: TempDir,
    lookback: PathBuf,
    bar: ProgressBar,
    /// Bytes that a camera has to fetch.
    bytes: u64,
}

impl Site {
    fn prepare(arguments: &UpdateArguments) -> Result<Self> {
        let beside = || Some(std::env::current_exe().ok()?.with_file_name("lookback"));
        let lookback = arguments.lookback.clone().or_else(beside).unwrap_or_default();
        ensure!(
            lookback.is_file(),
            "there is no camera's program '{}': build it, or give --lookback",
            lookback.display()
        );
        let lookback = fs::canonicalize(lookback)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("lookback-peers-");
        let dir = match &arguments.dir {
            Some(dir) => builder.tempdir_in(dir),
            None => builder.tempdir(),
        }
        .context("no folder can be made")?;
        let bar = match arguments.json {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(0).with_style(
                ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            ),
        };
        let mut site = Self { dir, lookback, bar, bytes: 0 };
        site.make_policy(arguments.megabytes * 1_000_000)?;
        site.publish()?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program's own policy under a higher version, and noise.
    fn make_policy(&self, bytes: u64) -> Result<()> {
        self.bar.set_message("making a policy");
        self.bar.set_length(bytes);
        let seed = self.path("seed");
        let status = Command::new(&self.lookback)
            .arg("--data-dir")
            .arg(&seed)
            .args(["update", "status", "--json"])
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "the camera's program does not lay out its own policy");
        let own = fs::read_dir(seed.join("bundles"))?.next().context("it has no policy")??.path();
        let policy = self.path("policy");
        fs::create_dir(&policy)?;
        for entry in fs::read_dir(own)? {
            let entry = entry?;
            fs::copy(entry.path(), policy.join(entry.file_name()))?;
        }
        let manifest = policy.join(bundle::MANIFEST);
        let mut text = fs::read_to_string(&manifest)?.replacen(
            "version = \"0.1.0\"",
            "version = \"9.0.0\"",
            1,
        );
        let (mut left, mut number) = (bytes, 0);
        while left > 0 {
            let now = left.min(PART_BYTES);
            let file = format!("noise-{number}.bin");
            noise(number, now, &policy.join(&file))?;
            text +=
                &format!("\n[parts.noise-{number}]\nfile = \"{file}\"\nbytes = 0\nblake3 = \"\"\n");
            (left, number) = (left - now, number + 1);
            self.bar.inc(now);
        }
        fs::write(manifest, text)?;
        bundle::seal(&policy)?;
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        self.bar.set_message("packing it");
        let (dir, keys) = (self.path("repository"), self.path("keys"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (now, lifetimes) = (now(), Lifetimes::default());
        runtime.block_on(async {
            let roots = RootKeys { keys: 1, threshold: 1 };
            Repository::init(&dir, &keys, roots, lifetimes, now).await?;
            let repository = Repository::open(&dir)?;
            let policy = self.path("policy");
            repository::add(&repository, &policy, "stable", &Terms::default(), now, |_| {}).await?;
            repository::sign(&repository, &keys, lifetimes, now).await?;
            repository::publish(&repository, &keys, lifetimes, now).await
        })?;
        self.bytes = self.missing(&dir.join(release::TARGETS))?;
        fs::remove_dir_all(self.path("policy"))?;
        Ok(())
    }

    /// Bytes of the chunks that a camera does not carry: of the noise and the manifest.
    fn missing(&self, targets: &Path) -> Result<u64> {
        let carried = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let own = !name.starts_with("noise-") && name != bundle::MANIFEST;
            own.then(|| fs::read(entry.path()).map(|bytes| blake3::hash(&bytes)))
        };
        let policy = fs::read_dir(self.path("policy"))?;
        let carried =
            policy.filter_map(|entry| carried(entry.ok()?)).collect::<io::Result<Vec<_>>>()?;
        let mut bytes = 0;
        for entry in fs::read_dir(targets)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((_, name)) = name.split_once('.').filter(|(_, n)| n.starts_with("part-"))
            else {
                continue;
            };
            let index = Index::parse(name, &fs::read(&path)?)?;
            if !carried.contains(&index.blake3) {
                bytes += index.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum::<u64>();
            }
        }
        Ok(bytes)
    }

    fn shelf(&self, arguments: &UpdateArguments, megabits_per_s: f64) -> Result<Shelf> {
        let terms = LineTerms {
            bits_per_s: megabits_per_s * 1e6,
            latency: Duration::from_millis(arguments.latency_ms),
            failing: arguments.failing,
            seed: 1,
        };
        Shelf::open(&self.path("repository"), terms)
    }

    fn configure(&self, name: &str, shelf: &Shelf, more: &str) -> Result<PathBuf> {
        let root = self.path("repository/metadata/1.root.json");
        let file = self.path(&format!("{name}.toml"));
        let (address, root) = (&shelf.address, root.display());
        fs::write(
            &file,
            format!("[update]\nrepository = \"{address}\"\nroot = \"{root}\"\n{more}"),
        )?;
        Ok(file)
    }

    /// A camera that watches, asks by itself, fetches, tries and commits.
    fn watch(&self, arguments: &UpdateArguments) -> Result<Watched> {
        let shelf = self.shelf(arguments, arguments.megabits_per_s)?;
        let metrics = format!("127.0.0.1:{}", crate::backends::free_port()?);
        let minutes = arguments.trial_minutes;
        let more = format!(
            "poll_hours = 0.001\ntrial_minutes = {minutes}\n[sentinel]\npatrol_s = 5\n[metrics]\nlisten = \"{metrics}\"\n"
        );
        let config = self.configure("watches", &shelf, &more)?;
        let data = self.path("watches");
        let mut camera = Camera::begin(
            Command::new(&self.lookback)
                .arg("--config")
                .arg(config)
                .arg("--data-dir")
                .arg(&data)
                .arg("run"),
        )?;
        self.bar.set_message("fetching while it watches");
        self.bar.set_length(self.bytes);
        let (mut first, mut last) = (None, None);
        let (mut cpu, mut fetched_cpu) = (None, 0.0);
        let told = loop {
            thread::sleep(GLANCE);
            camera.still_runs()?;
            self.bar.set_position(shelf.served.pack_bytes.load(Relaxed));
            if let Some(numbers) = Numbers::read(&metrics, Instant::now()) {
                first.get_or_insert(numbers);
                last = Some(numbers);
            }
            let told = Told::read(&data).unwrap_or_default();
            if let Some(why) = told.0.get("RolledBack") {
                bail!("the policy was not taken (at {why} µs): see `lookback events`");
            }
            if told.0.contains_key("Fetching") && !told.0.contains_key("Verified") {
                let spent = camera.cpu_s("update").unwrap_or_default();
                fetched_cpu = spent - *cpu.get_or_insert(spent);
            }
            if told.0.contains_key("Committed") {
                break told;
            }
        };
        camera.end();
        let seconds = |from: &str, to: &str| {
            let at = |stage: &str| told.0.get(stage).copied().unwrap_or_default();
            (at(to) - at(from)) as f64 / 1e6
        };
        let (first, last) = first.zip(last).context("its numbers cannot be read")?;
        let served = &shelf.served;
        let bytes_sent = served.pack_bytes.load(Relaxed);
        let fetch_s = seconds("Fetching", "Verified");
        let line_s = self.bytes as f64 * 8.0 / (arguments.megabits_per_s * 1e6);
        let frames = last.captured - first.captured;
        let due = (last.at - first.at).as_secs_f64() * FRAMES_PER_S;
        Ok(Watched {
            megabits_per_s: arguments.megabits_per_s,
            latency_ms: arguments.latency_ms,
            requests: served.requests.load(Relaxed),
            requests_refused: served.refused.load(Relaxed),
            requests_broken: served.broken.load(Relaxed),
            bytes_sent,
            fetch_s,
            line_s,
            times: fetch_s / line_s,
            cpu_share: fetched_cpu / fetch_s,
            until_committed_s: seconds("Fetching", "Committed"),
            frames,
            // The first and the last may be about to come.
            frames_due: (due as u64).saturating_sub(2),
            frames_dropped: last.dropped,
            frames_lost: last.lost,
        })
    }

    /// A camera that is killed at equal distances of what it fetches.
    fn kill_again_and_again(&self, arguments: &UpdateArguments) -> Result<Killed> {
        let megabits_per_s = arguments.megabits_per_s_with_kills;
        let shelf = self.shelf(arguments, megabits_per_s)?;
        let config = self.configure("killed", &shelf, "")?;
        let data = self.path("killed");
        let mut apply = Command::new(&self.lookback);
        apply.arg("--config").arg(config).arg("--data-dir").arg(&data).args(["update", "apply"]);
        self.bar.set_message("fetching between kills");
        let sent = || shelf.served.pack_bytes.load(Relaxed);
        let mut kills = 0;
        while kills < arguments.kills {
            let mark = self.bytes * u64::from(kills + 1) / u64::from(arguments.kills + 1);
            let mut camera = Camera::begin(&mut apply)?;
            while sent() < mark {
                thread::sleep(Duration::from_millis(7));
                self.bar.set_position(sent());
                // A line that failed too often in a row ends it, too; then it goes on.
                if camera.still_runs().is_err() {
                    camera = Camera::begin(&mut apply)?;
                }
            }
            camera.end();
            kills += 1;
        }
        let done = (0..20).any(|_| apply.stdout(Stdio::null()).status().is_ok_and(|s| s.success()));
        let stands = Told::read(&data).unwrap_or_default();
        ensure!(
            done && stands.0.contains_key("Committed"),
            "it does not come to an end: {stands:?}"
        );
        let requests_broken = shelf.served.broken.load(Relaxed);
        let interruptions = u64::from(kills) + requests_broken;
        Ok(Killed {
            megabits_per_s,
            kills,
            requests_broken,
            bytes_sent: sent(),
            bytes_allowed: self.bytes + interruptions * u64::from(CHUNK_BYTES_MAX),
        })
    }
}

/// A camera's process.
struct Camera(Child);

impl Camera {
    fn begin(command: &mut Command) -> Result<Self> {
        let null = || Stdio::null();
        Ok(Self(command.stdin(null()).stdout(null()).stderr(null()).spawn()?))
    }

    fn still_runs(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the camera has ended by itself ({status})"),
        }
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// The CPU time of its thread of this name.
    fn cpu_s(&self, thread: &str) -> Option<f64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).ok()?;
        let its = tasks.filter_map(|task| Some(task.ok()?.path())).find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == thread)
        })?;
        let stat = fs::read_to_string(its.join("stat")).ok()?;
        let after_name: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks: f64 =
            after_name.get(11)?.parse::<f64>().ok()? + after_name.get(12)?.parse::<f64>().ok()?;
        Some(ticks / TICKS_PER_S)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.end();
    }
}

/// When each stage of the update was told first, in µs since 1970.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, i64>);

impl Told {
    fn read(data: &Path) -> Option<Self> {
        let path = data.join("events.sqlite");
        let log = path.exists().then(|| LogReader::open(&path).ok()).flatten()?;
        let mut told = BTreeMap::new();
        for row in log.events(&Query { limit: 100_000, ..Query::default() }).ok()? {
            let text = serde_json::to_value(&row).ok()?;
            if let Some(stage) = text["fields"]["stage"].as_str() {
                let first = told.entry(stage.to_owned()).or_insert(row.committed);
                *first = row.committed.min(*first);
            }
        }
        Some(Self(told))
    }
}

/// What a watching camera counts.
#[derive(Clone, Copy)]
struct Numbers {
    at: Instant,
    captured: u64,
    dropped: u64,
    lost: u64,
}

impl Numbers {
    fn read(address: &str, at: Instant) -> Option<Self> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let number = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("lookback_{name}{{")))?;
            line.rsplit_once(' ')?.1.parse().ok()
        };
        Some(Self {
            at,
            captured: number("frames_captured_total")?,
            dropped: number("frames_dropped_total")?,
            lost: number("frames_lost_total")?,
        })
    }
}

fn now() -> SystemTime {
    SystemClock.now().wall.into()
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: u64, path: &Path) -> Result<()> {
    let mut source = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut file = BufWriter::new(File::create(path)?);
    io::copy(&mut (&mut source as &mut dyn Read).take(bytes), &mut file)?;
    Ok(file.flush()?)
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            return Ok(writeln!(out, "{}", serde_json::to_string(self)?)?);
        }
        let (w, k) = (&self.watched, &self.killed);
        writeln!(
            out,
            "{:.0} MB over {} Mbit/s: {:.0} s, {:.3} of the line's time",
            self.bytes as f64 / 1e6,
            w.megabits_per_s,
            w.fetch_s,
            w.times
        )?;
        writeln!(
            out,
            "  {} requests, of which {} were refused and {} broke",
            w.requests, w.requests_refused, w.requests_broken
        )?;
        writeln!(out, "  CPU of what fetches: {:.1} % of a core", w.cpu_share * 100.0)?;
        writeln!(
            out,
            "  {} frames meanwhile, {} dropped, {} lost; committed after {:.0} s",
            w.frames, w.frames_dropped, w.frames_lost, w.until_committed_s
        )?;
        writeln!(
            out,
            "after {} kills and {} broken requests {} bytes had come, at most {} may",
            k.kills, k.requests_broken, k.bytes_sent, k.bytes_allowed
        )?;
        for (promise, holds) in &self.holds {
            writeln!(out, "{promise}: {}", if *holds { "holds" } else { "does not hold" })?;
        }
        Ok(())
    }
}
