//! Kills: the fleet server by kill -9, PostgreSQL by an immediate stop, at drawn moments; both come back.

use crate::backends::{FleetServer, Postgres};
use crate::dice::Dice;
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What was killed how often.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Kills {
    /// kill -9 of the fleet server.
    pub server: u64,
    /// Immediate stops of PostgreSQL.
    pub database: u64,
    /// Both at once.
    pub both: u64,
}

/// Kills about every `between` until `over`; everything runs then.
///
/// # Errors
/// If something does not come back.
pub fn reign(
    server: &mut FleetServer,
    postgres: &Postgres,
    between: Duration,
    mut dice: Dice,
    over: &AtomicBool,
) -> Result<Kills> {
    let mut kills = Kills::default();
    while pause(between.mul_f64(2.0 * dice.unit()), over) {
        match dice.between(0, 9) {
            0..5 => {
                server.kill();
                kills.server += 1;
                pause(Duration::from_millis(dice.between(0, 1500)), over);
                server.start()?;
            }
            5..8 => {
                postgres.off()?;
                kills.database += 1;
                pause(Duration::from_millis(dice.between(0, 1500)), over);
                postgres.on()?;
            }
            _ => {
                server.kill();
                postgres.off()?;
                kills.both += 1;
                postgres.on()?;
                server.start()?;
            }
        }
    }
    Ok(kills)
}

/// Whether it goes on after so long.
fn pause(wait: Duration, over: &AtomicBool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < wait && !over.load(Relaxed) {
        thread::sleep(Duration::from_millis(20).min(wait));
    }
    !over.load(Relaxed)
}
