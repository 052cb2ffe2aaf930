//! How policies are rolled out: what the cameras tell, and whether it goes on.

use super::{DatabaseArgument, DevicesArguments, opened};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fleet::moment;
use fleet::rollouts::{self, Rollout};
use fleet::users::COMMAND_LINE;
use std::io::{self, Write};

/// How many rollouts are listed.
const ROLLOUTS_LISTED: i64 = 50;

#[derive(Subcommand)]
pub enum RolloutCommand {
    /// List the newest rollouts: of each wave how many cameras have begun, kept the policy, or not, and why.
    List(DevicesArguments),
    /// Let no camera begin this rollout that has not; one on the way waits once it asks again.
    ///
    /// It needs no key: cameras ask this server before they begin. Cameras that report to no server are reached by
    /// `lookback-fleet repo waves --halt`.
    Halt(HaltArguments),
    /// Let a rollout go on that was halted.
    Resume(WhichRollout),
}

#[derive(Args)]
pub struct WhichRollout {
    /// The channel.
    channel: String,
    /// Its number, as `rollout list` tells it.
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    number: i64,
    #[command(flatten)]
    database: DatabaseArgument,
}

#[derive(Args)]
pub struct HaltArguments {
    #[command(flatten)]
    which: WhichRollout,
    /// Why, for the pages and the audit log.
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    why: String,
}

/// Runs the command.
pub async fn run(command: RolloutCommand) -> Result<()> {
    let mut out = io::stdout().lock();
    match command {
        RolloutCommand::List(arguments) => {
            let database = opened(&arguments.database).await?;
            for rollout in rollouts::list(&database, ROLLOUTS_LISTED).await? {
                match arguments.json {
                    true => writeln!(out, "{}", rollout.told())?,
                    false => write!(out, "{}", as_text(&rollout))?,
                }
            }
        }
        RolloutCommand::Halt(HaltArguments { which, why }) => {
            let database = opened(&which.database).await?;
            let rollout = (which.channel()?, which.number);
            rollouts::halt(&database, rollout, COMMAND_LINE, &why).await?;
            writeln!(out, "number {} of channel {} is halted", which.number, which.channel)?;
        }
        RolloutCommand::Resume(which) => {
            let database = opened(&which.database).await?;
            if !rollouts::resume(&database, (which.channel()?, which.number), COMMAND_LINE).await? {
                bail!(
                    "number {} of channel {} is not halted here: `lookback-fleet rollout list` tells what is",
                    which.number,
                    which.channel
                );
            }
            writeln!(out, "number {} of channel {} goes on", which.number, which.channel)?;
        }
    }
    Ok(())
}

impl WhichRollout {
    fn channel(&self) -> Result<&str> {
        if !release::is_label(&self.channel) {
            bail!(
                "'{}' is no channel: a word of lower-case letters, digits, - and _",
                self.channel
            );
        }
        Ok(&self.channel)
    }
}

fn as_text(rollout: &Rollout) -> String {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let halted = rollout.halt.as_ref().map_or(String::new(), |halt| {
        let (at, why) = (moment::shown(halt.at), plain(&halt.why));
        format!(", halted {at} by {}: {why}", plain(&halt.person))
    });
    let head =
        format!("{} {}  {}{halted}\n", rollout.channel, rollout.number, plain(&rollout.bundle));
    let waves = rollout.waves.iter().map(|wave| {
        format!(
            "  wave {}: {} begun, {} under way, {} waiting, {} kept it, {} did not\n",
            wave.wave,
            wave.begun(),
            wave.underway,
            wave.waiting,
            wave.committed,
            wave.rolled_back
        )
    });
    let reasons = rollout
        .reasons
        .iter()
        .map(|(why, devices)| format!("  {devices} did not keep it: {}\n", plain(why)));
    [head].into_iter().chain(waves).chain(reasons).collect()
}
