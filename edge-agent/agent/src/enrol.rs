//! The command `enrol`: makes this device known to a fleet server.

use crate::{config::Config, line::identity_dir};
use anyhow::{Context, Result};
use serde_json::json;
use std::{fs, io::Write};
use uplink::Token;

/// Make this device known to a fleet server, by a token that its operator gave you.
///
/// The device makes a key, which never leaves it, and gets a certificate for it. From the next `run` on
/// events go to that server.
#[derive(clap::Args)]
pub struct EnrolArguments {
    /// The server, https://HOST or https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The token; it can be used once.
    #[arg(long)]
    token: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Enrols, and says as what.
///
/// # Errors
/// If the server refuses, is another, or cannot be reached; nothing is kept then.
pub fn run(config: &Config, arguments: &EnrolArguments, out: &mut dyn Write) -> Result<()> {
    let data_dir = &config.device.data_dir;
    let token = Token::parse(&arguments.token)?;
    fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot use the data directory '{}'", data_dir.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let dir = identity_dir(data_dir);
    let name = &config.device.name;
    let identity = uplink::enrol(&arguments.server, &token, name, version, &dir)?;
    let (device, server) = (&identity.device, &identity.server);
    match arguments.json {
        true => writeln!(out, "{}", json!({"device": device, "server": server, "name": name}))?,
        false => writeln!(out, "enrolled as {device} with {server}; `lookback run` reports there")?,
    }
    Ok(())
}
