//! What every figure needs: PostgreSQL, the fleet server, and devices that it knows.

use crate::backends::{FleetServer, Postgres, loopback};
use crate::farewell::Farewell;
use crate::faults::Menu;
use crate::proxy::{self, Proxy};
use anyhow::{Context, Result};
use clap::Args;
use fleet::authority::Authority;
use fleet::database::Database;
use fleet::enrolment::make_token;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uplink::{Identity, Token};

/// What every figure may be told.
#[derive(Args, Clone, Debug)]
pub struct SiteArguments {
    /// The fleet server's program [default: lookback-fleet beside this one].
    #[arg(long, value_name = "FILE", env = "LOOKBACK_FLEET")]
    fleet: Option<PathBuf>,
    /// Where the cameras' disks are [default: /dev/shm if there is one: thousands of cameras have thousands
    /// of disks, this machine has one, and that is the database's].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object, and nothing for people.
    #[arg(long)]
    pub json: bool,
}

/// A running fleet without cameras.
pub struct Site {
    /// The fleet server.
    pub server: FleetServer,
    /// Its database.
    pub postgres: Postgres,
    /// The line between the two, if it has faults.
    pub line: Option<Proxy>,
    /// The cameras' disks.
    pub dir: TempDir,
    /// They are removed when a signal ends the program, too.
    _farewell: Farewell,
    /// Whether nothing is drawn.
    pub quiet: bool,
    /// For what waits.
    pub runtime: Runtime,
}

impl Site {
    /// PostgreSQL runs, and the fleet server on it; between the two, a line with such faults, calm as yet.
    ///
    /// # Errors
    /// If one of them does not start.
    pub fn start(arguments: &SiteArguments, faults: Option<(Menu, u64)>) -> Result<Self> {
        let beside =
            || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("lookback-fleet"));
        let binary = arguments.fleet.clone().map_or_else(beside, Ok)?;
        let dir = scratch(arguments)?;
        let disks = dir.path().to_owned();
        let farewell = Farewell::new(move || _ = std::fs::remove_dir_all(disks));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let postgres = Postgres::start()?;
        let line = match faults {
            None => None,
            Some((menu, seed)) => Some(runtime.block_on(proxy::start(
                loopback(0),
                loopback(postgres.port),
                menu,
                seed,
                Arc::new(|_, _| {}),
            ))?),
        };
        if let Some(line) = &line {
            line.calm.store(true, Relaxed);
        }
        let through = line.as_ref().map_or(postgres.port, |line| line.address.port());
        let mut server = FleetServer::new(&binary, Postgres::url(through), dir.path())?;
        server.start()?;
        let quiet = arguments.json;
        Ok(Self { server, postgres, line, dir, _farewell: farewell, quiet, runtime })
    }

    /// Where the database is, past every proxy.
    pub fn database(&self) -> String {
        Postgres::url(self.postgres.port)
    }

    /// A camera's own folder.
    pub fn camera_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("camera-{n}"))
    }

    /// Enrols `n` devices as cameras are enrolled, each with a token of its own. They then report to `port`.
    ///
    /// # Errors
    /// The first that any of them had.
    pub fn enrol(&self, n: usize, port: u16) -> Result<Vec<Identity>> {
        let database = Database::new(&self.database(), None, 2)?;
        let authority = Authority::open(&self.server.data)?;
        let tokens = self.runtime.block_on(async {
            let mut tokens = Vec::with_capacity(n);
            for _ in 0..n {
                let token = make_token(&database, None, 24, "lookback-peers").await?;
                tokens.push(Token::parse(&token.text(&authority))?);
            }
            anyhow::Ok(tokens)
        })?;
        database.close();
        let url = format!("https://{}", loopback(self.server.port));
        let bar = self.bar(n as u64, "enrolling");
        let waiting = Mutex::new(tokens.into_iter().enumerate());
        let enrolled = Mutex::new(Vec::with_capacity(n));
        let work = || -> Result<()> {
            loop {
                let next = waiting.lock().unwrap_or_else(|e| e.into_inner()).next();
                let Some((n, token)) = next else { return Ok(()) };
                let dir = self.camera_dir(n).join("identity");
                let mut identity =
                    uplink::enrol(&url, &token, &format!("camera {n}"), "peers", &dir)?;
                identity.server = format!("https://{}", loopback(port));
                enrolled.lock().unwrap_or_else(|e| e.into_inner()).push((n, identity));
                bar.inc(1);
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Ok(())))
        })?;
        bar.finish_and_clear();
        let mut enrolled = enrolled.into_inner().unwrap_or_else(|e| e.into_inner());
        enrolled.sort_by_key(|(n, _)| *n);
        Ok(enrolled.into_iter().map(|(_, identity)| identity).collect())
    }

    /// A bar for people, on stderr.
    pub fn bar(&self, all: u64, what: &'static str) -> ProgressBar {
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(all) };
        bar.set_length(all);
        let style = "{prefix:12} [{bar:40}] {pos}/{len}  {elapsed} so far, {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        bar
    }
}

fn scratch(arguments: &SiteArguments) -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = match &arguments.dir {
        Some(dir) => dir.clone(),
        None if memory.is_dir() => memory.to_owned(),
        None => std::env::temp_dir(),
    };
    let made = tempfile::Builder::new().prefix("lookback-peers-").tempdir_in(&parent);
    made.with_context(|| format!("cannot make a folder in '{}'", parent.display()))
}
