//! PostgreSQL and the fleet server as children: begun, killed, begun again.

use crate::farewell::Farewell;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long something may take to start: PostgreSQL replays its log first.
const STARTED_WITHIN: Duration = Duration::from_secs(90);

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// An address on loopback.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A PostgreSQL of its own, with the settings that Debian gives it.
pub struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    /// Where it listens.
    pub port: u16,
    /// For a program that is ended by a signal.
    farewell: Option<Farewell>,
}

impl Postgres {
    /// Makes a cluster in a folder of its own, and starts it.
    pub fn start() -> Result<Self> {
        let bin = newest_bin()?;
        let dir = tempfile::Builder::new().prefix("lookback-peers-").tempdir()?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()))?;
        }
        let mut postgres = Self { bin, dir, port: free_port()?, farewell: None };
        let data = postgres.data();
        let (bin, dir) = (postgres.bin.clone(), postgres.dir.path().to_owned());
        postgres.farewell = Some(Farewell::new(move || {
            let _ = run(ctl(&bin, &dir).args(["-m", "immediate", "-w", "stop"]));
            let _ = fs::remove_dir_all(dir);
        }));
        run(postgres
            .tool("initdb")
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data))?;
        let mut settings = OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        writeln!(
            settings,
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'",
            postgres.port,
            postgres.dir.path().display()
        )?;
        postgres.on()?;
        let port = postgres.port.to_string();
        run(postgres.tool("createdb").args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &port,
            "fleet",
        ]))?;
        Ok(postgres)
    }

    /// Starts it again; it then replays its log.
    pub fn on(&self) -> Result<()> {
        let log = self.dir.path().join("log");
        run(self.ctl().arg("-l").arg(log).args(["-w", "-t", "90", "start"]))
    }

    /// Stops it as a kill of the whole machine would: no goodbye, no checkpoint.
    pub fn off(&self) -> Result<()> {
        run(self.ctl().args(["-m", "immediate", "-w", "stop"]))
    }

    /// Its URL, by way of `port`.
    pub fn url(port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/fleet")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn ctl(&self) -> Command {
        ctl(&self.bin, self.dir.path())
    }

    fn tool(&self, name: &str) -> Command {
        tool(&self.bin, name)
    }
}

fn ctl(bin: &Path, dir: &Path) -> Command {
    let mut command = tool(bin, "pg_ctl");
    command.arg("-D").arg(dir.join("data"));
    command
}

/// One of PostgreSQL's programs in `bin`. It refuses to run as root.
fn tool(bin: &Path, name: &str) -> Command {
    let program = bin.join(name);
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command.current_dir("/");
    command
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.off();
    }
}

/// Where Debian keeps the newest.
fn newest_bin() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .map(|(_, bin)| bin)
        .context("PostgreSQL is not installed: apt-get install -y postgresql")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn run(command: &mut Command) -> Result<()> {
    // Not through a pipe: the server that pg_ctl leaves behind would hold it open.
    let said = tempfile::tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .status()
        .with_context(|| format!("{:?} cannot be run", command.get_program()))?;
    if !status.success() {
        use std::io::{Read, Seek};
        let (mut said, mut text) = (said, String::new());
        said.rewind()?;
        said.read_to_string(&mut text)?;
        bail!("{command:?} fails: {}", text.trim().replace('\n', " "));
    }
    Ok(())
}

/// A child that does not outlive this program.
struct Running {
    child: Arc<Mutex<Child>>,
    _farewell: Farewell,
}

impl Running {
    fn new(child: Child) -> Self {
        let child = Arc::new(Mutex::new(child));
        let same = child.clone();
        let farewell = Farewell::new(move || _ = lock(&same).kill());
        Self { child, _farewell: farewell }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        lock(&self.child)
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fleet server, as its operator runs it.
pub struct FleetServer {
    binary: PathBuf,
    database: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where it listens.
    pub port: u16,
    log: PathBuf,
    child: Option<Running>,
}

impl FleetServer {
    /// Prepares one on `database`, with its data and what it says in `dir`; it does not run yet.
    pub fn new(binary: &Path, database: String, dir: &Path) -> Result<Self> {
        ensure!(
            binary.exists(),
            "there is no '{}': build it with cargo build --release --workspace --bins, or give --fleet",
            binary.display()
        );
        let (data, log) = (dir.join("fleet-data"), dir.join("server.log"));
        Ok(Self { binary: binary.to_owned(), database, data, port: free_port()?, log, child: None })
    }

    /// Runs it, and waits until it takes connections. It is tried again where it ends at once, as it does
    /// while its database is away.
    pub fn start(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < STARTED_WITHIN {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let child = Command::new(&self.binary)
                .args(["serve", "--database", &self.database, "--listen"])
                .arg(loopback(self.port).to_string())
                .arg("--data")
                .arg(&self.data)
                .env("LOOKBACK_LOG", "error")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            let running = self.child.insert(Running::new(child));
            while running.child().try_wait()?.is_none() {
                if TcpStream::connect(loopback(self.port)).is_ok() {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(20));
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("the fleet server does not start: {}", self.last_words())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(running) = self.child.take() {
            let mut child = running.child();
            let _ = (child.kill(), child.wait());
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|running| running.child().id())
    }

    /// Whether it has panicked in any of its lives.
    pub fn panicked(&self) -> bool {
        fs::read_to_string(&self.log).is_ok_and(|log| log.contains("panicked"))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("it says nothing").to_owned()
    }
}

impl Drop for FleetServer {
    fn drop(&mut self) {
        self.kill();
    }
}
