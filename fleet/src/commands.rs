//! The command line.

mod repo;
mod rollout;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use fleet::authority::Authority;
use fleet::database::Database;
use fleet::ids::DeviceId;
use fleet::serve::{Limits, listen};
use fleet::users::{COMMAND_LINE, Role};
use fleet::{devices, enrolment, moment, users};
use repo::RepoCommand;
use rollout::RolloutCommand;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// The server of a fleet of cameras: takes their events exactly once in effect, and shows them.
#[derive(Parser)]
#[command(name = "lookback-fleet", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve cameras and operators over HTTPS, until SIGTERM or Ctrl-C.
    Serve(ServeArguments),
    /// Make a one-time token with which one camera joins the fleet.
    Enrol(EnrolArguments),
    /// List the devices: when each was last seen, and what of its events is missing.
    Devices(DevicesArguments),
    /// Shut a device out, at once and on every replica.
    Revoke(RevokeArguments),
    /// People who may use the pages.
    #[command(subcommand)]
    User(UserCommand),
    /// How policies are rolled out, wave by wave: what the cameras tell, and whether it goes on.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// The repository that cameras update their policies from: plain files for any web server or a stick.
    ///
    /// A policy goes the way `add` (packs and prepares it, without keys), `sign` (where the offline key of the
    /// targets is), `publish` (where the two online keys are).
    #[command(subcommand)]
    Repo(RepoCommand),
}

#[derive(Args)]
struct DatabaseArgument {
    /// PostgreSQL, such as postgres://USER:PASSWORD@HOST:PORT/NAME.
    #[arg(
        long = "database",
        value_name = "URL",
        env = "LOOKBACK_FLEET_DATABASE",
        hide_env_values = true
    )]
    url: String,
    /// The authority that signed the database's certificate, in PEM; with it, nothing but TLS is spoken.
    #[arg(long = "database-ca", value_name = "FILE", env = "LOOKBACK_FLEET_DATABASE_CA")]
    ca: Option<PathBuf>,
}

impl DatabaseArgument {
    fn prepared(&self, connections: usize) -> Result<Database> {
        Ok(Database::new(&self.url, self.ca.as_deref(), connections)?)
    }
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    database: DatabaseArgument,
    /// Where the certificate authority and the evidence are kept; replicas share it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// An S3-compatible store for evidence instead of the folder, as s3://BUCKET/PREFIX. Its keys, region
    /// and endpoint come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    /// AWS_ENDPOINT, AWS_ALLOW_HTTP.
    #[arg(long, value_name = "URL", env = "LOOKBACK_FLEET_EVIDENCE")]
    evidence: Option<String>,
    /// Evidence that a device may send on a day, in MiB; 0 is no bound.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = Limits::default().evidence_per_day >> 20,
        value_parser = clap::value_parser!(u64).range(..=1 << 30)
    )]
    evidence_per_day: u64,
    /// Halt the rollout of a policy once this share of the cameras that tried it did not keep it, 0 to 1, and three
    /// cameras at least; 0 never halts.
    #[arg(long, value_name = "SHARE", default_value_t = Limits::default().halt_share, value_parser = share)]
    halt_share: f64,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// A host name or address under which cameras and people reach this server; may be repeated.
    #[arg(long = "name", value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
    names: Vec<String>,
    /// The most connections at the same time; more wait.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    connections: usize,
    /// The most requests in work at the same time; more are told to come later.
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests)]
    requests: usize,
    /// The most bodies coming in at the same time; more are told to come later.
    #[arg(long, value_name = "N", default_value_t = Limits::default().bodies)]
    bodies: usize,
    /// The most connections to the database.
    #[arg(long, value_name = "N", default_value_t = Limits::default().database)]
    database_connections: usize,
}

#[derive(Args)]
struct EnrolArguments {
    #[command(flatten)]
    database: DatabaseArgument,
    /// The data directory of the server, whose authority the token names.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What people will call the camera, instead of the name that it brings along.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long the token is good.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    hours: u32,
    /// Answer as a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct DevicesArguments {
    #[command(flatten)]
    database: DatabaseArgument,
    /// Answer as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RevokeArguments {
    /// The device's id.
    device: String,
    #[command(flatten)]
    database: DatabaseArgument,
}

#[derive(Subcommand)]
enum UserCommand {
    /// Make a person known, or give a known one a new password; it is read from standard input.
    Add(UserArguments),
}

#[derive(Args)]
struct UserArguments {
    /// The name to log in with.
    name: String,
    /// What the person may do.
    #[arg(long, value_enum)]
    role: Role,
    #[command(flatten)]
    database: DatabaseArgument,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve(arguments).await,
            Command::Enrol(arguments) => enrol(arguments).await,
            Command::Devices(arguments) => list(arguments).await,
            Command::Revoke(arguments) => revoke(arguments).await,
            Command::Rollout(command) => rollout::run(command).await,
            Command::User(UserCommand::Add(arguments)) => add_user(arguments).await,
            Command::Repo(command) => repo::run(command).await,
        }
    })
}

async fn serve(arguments: ServeArguments) -> Result<()> {
    let limits = Limits {
        connections: arguments.connections.max(1),
        requests: arguments.requests.max(1),
        bodies: arguments.bodies.max(1),
        database: arguments.database_connections.max(1),
        evidence_per_day: arguments.evidence_per_day << 20,
        halt_share: arguments.halt_share,
    };
    let database = arguments.database.prepared(limits.database)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let evidence = arguments.evidence.as_deref();
    let listening =
        listen(database, &arguments.data, evidence, arguments.listen, &arguments.names, limits)
            .await?;
    tracing::info!("serving on https://{}", listening.address()?);
    listening
        .serve(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

async fn enrol(arguments: EnrolArguments) -> Result<()> {
    let database = opened(&arguments.database).await?;
    let authority = Authority::open(&arguments.data)?;
    let name = arguments.name.as_deref();
    let token = enrolment::make_token(&database, name, arguments.hours, COMMAND_LINE).await?;
    let text = token.text(&authority);
    let mut out = io::stdout().lock();
    match arguments.json {
        true => writeln!(
            out,
            "{}",
            json!({"token": text, "name": arguments.name, "hours": arguments.hours})
        )?,
        false => writeln!(out, "{text}")?,
    }
    Ok(())
}

async fn list(arguments: DevicesArguments) -> Result<()> {
    let database = opened(&arguments.database).await?;
    let mut out = io::stdout().lock();
    let mut after = String::new();
    loop {
        let devices = devices::list(&database, &after, 500).await?;
        let Some(last) = devices.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for device in devices {
            match arguments.json {
                true => writeln!(out, "{}", as_json(&device))?,
                false => writeln!(out, "{}", as_line(&device))?,
            }
        }
    }
}

fn as_json(device: &devices::Device) -> serde_json::Value {
    json!({
        "device": device.id,
        "name": device.name,
        "agent": device.agent,
        "enrolled": moment::rfc3339(device.enrolled),
        "revoked": device.revoked.map(moment::rfc3339),
        "seen": device.seen.map(moment::rfc3339),
        "events": device.events,
        "dropped": device.dropped,
        "missing": device.missing,
        "health": device.health,
    })
}

fn as_line(device: &devices::Device) -> String {
    let seen = device.seen.map_or("never".into(), moment::shown);
    let revoked = if device.revoked.is_some() { ", revoked" } else { "" };
    // A name is whatever a camera called itself: nothing of it may steer the terminal.
    let name: String =
        device.name.iter().flat_map(|n| n.chars()).filter(|c| !c.is_control()).collect();
    format!(
        "{}  last seen {seen}, {} events, {} missing, {} dropped{revoked}  {name}",
        device.id, device.events, device.missing, device.dropped
    )
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    number.ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}

async fn revoke(arguments: RevokeArguments) -> Result<()> {
    let Some(id) = DeviceId::parse(&arguments.device) else {
        bail!("'{}' is no device id: it is 16 of 0-9 and a-z", arguments.device);
    };
    let database = opened(&arguments.database).await?;
    if !devices::revoke(&database, &id, COMMAND_LINE).await? {
        bail!("there is no device {id}: `lookback-fleet devices` lists them");
    }
    writeln!(io::stdout(), "device {id} is revoked")?;
    Ok(())
}

async fn add_user(arguments: UserArguments) -> Result<()> {
    let mut password = String::new();
    io::stdin()
        .take(4096)
        .read_to_string(&mut password)
        .context("no password can be read from standard input")?;
    let database = opened(&arguments.database).await?;
    let password = password.trim_end_matches(['\n', '\r']);
    users::add(&database, &arguments.name, arguments.role, password).await?;
    writeln!(io::stdout(), "{} may log in as {}", arguments.name, arguments.role.word())?;
    Ok(())
}

/// The database, with the schema that this program knows: any command may be the first.
async fn opened(argument: &DatabaseArgument) -> Result<Database> {
    let database = argument.prepared(2)?;
    database.migrate().await?;
    Ok(database)
}
