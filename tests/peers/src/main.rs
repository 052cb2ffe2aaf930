//! `lookback-peers`: a bad line, a whole fleet of cameras, and a judge of what arrived.
#![forbid(unsafe_code)]

mod backends;
mod camera;
mod chaos;
mod chart;
mod cost;
mod crowd;
mod dice;
mod farewell;
mod faults;
mod gauntlet;
mod incidents;
mod ingest;
mod oracle;
mod outage;
mod proxy;
mod shelf;
mod site;
mod truth;
mod update;
mod watch;

use clap::{Args, Parser, Subcommand, ValueEnum};
use faults::{Fault, Kind, Menu};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

/// Puts a bad line between cameras and their server, and a whole fleet before it, and judges what arrived.
///
/// All but `proxy` and `update` start a PostgreSQL and a fleet server of their own, on loopback, and clear them away at their end.
/// The exit code is 0 only if what was promised held.
#[derive(Parser)]
#[command(name = "lookback-peers", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Carry connections to a server, and do to each what its seed says: by hand, between any two.
    Proxy(ProxyArguments),
    /// A fleet of real event logs and uplinks under faults and kills, then the judge: is every change of every
    /// log in the database, once, as it was, and was nothing acknowledged before it was committed?
    Fleet(gauntlet::GauntletArguments),
    /// Cameras that each gathered an hour of events while nobody answered come back: how fast, how evenly?
    Outage(outage::OutageArguments),
    /// Events a second of the server, beside what PostgreSQL's own COPY and INSERT reach with the same rows.
    Ingest(ingest::IngestArguments),
    /// What the uplink costs its camera: CPU time and bytes for each event, and with nothing to send.
    Cost(cost::CostArguments),
    /// A new policy comes over a slow line that fails to a camera that watches, and to one that is killed again and
    /// again: time, bytes, CPU, and whether a frame was lost.
    Update(update::UpdateArguments),
}

/// What may happen to connections.
#[derive(Args, Clone, Debug)]
struct FaultArguments {
    /// Which faults may happen, parted by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::value_variants().to_vec(), hide_default_value = true)]
    faults: Vec<Kind>,
    /// The share of connections to which something happens, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    share: f64,
}

impl FaultArguments {
    fn menu(&self) -> Menu {
        Menu { kinds: self.faults.clone(), share: self.share }
    }
}

#[derive(Args)]
struct ProxyArguments {
    /// Where clients connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// The server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    to: SocketAddr,
    #[command(flatten)]
    faults: FaultArguments,
    /// The same seed does the same to the n-th connection.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let by_hand = matches!(command, Command::Proxy(_));
    if !by_hand && let Err(error) = farewell::listen() {
        let _ = writeln!(io::stderr(), "error: the system gives no signals: {error}");
        return ExitCode::FAILURE;
    }
    let run = match command {
        Command::Proxy(arguments) => proxy_by_hand(&arguments),
        Command::Fleet(arguments) => gauntlet::run(&arguments),
        Command::Outage(arguments) => outage::run(&arguments),
        Command::Ingest(arguments) => ingest::run(&arguments),
        Command::Cost(arguments) => cost::run(&arguments),
        Command::Update(arguments) => update::run(&arguments),
    };
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn proxy_by_hand(arguments: &ProxyArguments) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = Arc::new(|n: u64, fault: Fault| {
            let _ = writeln!(io::stdout(), "connection {n}: {fault:?}");
        });
        let ProxyArguments { listen, to, faults, seed } = arguments;
        let proxy = proxy::start(*listen, *to, faults.menu(), *seed, told).await?;
        writeln!(io::stdout(), "carrying {} to {to}, until Ctrl-C", proxy.address)?;
        tokio::signal::ctrl_c().await?;
        let tally = serde_json::to_string_pretty(&proxy.counts.tally())?;
        writeln!(io::stdout(), "{tally}")?;
        Ok(true)
    })
}
