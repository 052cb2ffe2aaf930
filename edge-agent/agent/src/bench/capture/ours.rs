//! Our side: the whole path of a frame without inquiries, in a process of its own.

use super::{super::watching, process, reader::StreamCamera, server::Server};
use crate::{config::Config, parts, run::stop_on_signals, watch::Pace};
use anyhow::{Context, Result, bail};
use frame_store::StoreStats;
use serde::{Deserialize, Serialize};
use std::{
    env,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Watch the stream of a bench and tell what was stored.
#[derive(clap::Args)]
pub struct WatchArguments {
    /// Where the stream is served.
    pub address: SocketAddr,
    /// Size of its frames.
    #[arg(long, value_parser = super::size)]
    pub size: (u16, u16),
    /// Every how many frames the sentinel looks at one.
    #[arg(long)]
    pub every_nth: u32,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// Frames that are in the store, or were and had to make room for others.
    pub stored: u64,
    /// Frames that came faster than they could be stored.
    pub dropped: u64,
    /// Bytes of footage in the store at the end.
    pub store_bytes: u64,
    /// How often the disk refused.
    pub disk_refused: u64,
}

/// Watches until the stream ends; prints [`Told`].
///
/// # Errors
/// If a room cannot be opened, or the stream is not there.
pub fn watch(mut config: Config, arguments: &WatchArguments) -> Result<()> {
    config.sentinel.every_nth = arguments.every_nth;
    let bundle = parts::bundle(&config)?;
    let mut inquirer = parts::inquirer(&bundle, &config)?;
    let stop = stop_on_signals()?;
    let camera = StreamCamera::open(arguments.address, arguments.size)?;
    let watched = watching::watched(&config, &bundle, &mut inquirer, camera, Pace::Live, &stop)?;
    let StoreStats { bytes, disk_full, abandoned, .. } = watched.store;
    let told = Told {
        stored: watched.taken.frames,
        dropped: watched.dropped,
        store_bytes: bytes,
        disk_refused: disk_full + abandoned,
    };
    super::print(&serde_json::to_string(&told)?)
}

/// The process that watches.
pub(super) struct Ours {
    child: Child,
}

impl Ours {
    /// Starts it on the stream of `server`, with its footage in `dir`.
    ///
    /// # Errors
    /// If this program cannot be started once more.
    pub fn start(
        server: &Server,
        size: (u16, u16),
        every_nth: u32,
        dir: &std::path::Path,
        config: Option<&PathBuf>,
    ) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["bench", "watch-stream", &server.address()?.to_string()]);
        command.args(["--size", &format!("{}x{}", size.0, size.1)]);
        command.args(["--every-nth", &every_nth.to_string()]);
        command.arg("--data-dir").arg(dir);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(Self { child: child.context("this program cannot start itself")? })
    }

    /// # Errors
    /// If it has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("our side of the bench ended early: {status}"),
        }
    }

    /// What it has used.
    pub fn used(&self) -> Result<process::Used> {
        process::used(self.child.id())
    }

    /// Waits for its end, which the end of the stream brings, and hears what it has to tell.
    ///
    /// # Errors
    /// If it failed.
    pub fn told(mut self) -> Result<Told> {
        let mut said = String::new();
        if let Some(out) = &mut self.child.stdout {
            std::io::Read::read_to_string(out, &mut said)?;
        }
        let status = self.child.wait()?;
        serde_json::from_str(&said)
            .with_context(|| format!("our side of the bench failed: {status}"))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Nothing to do if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
