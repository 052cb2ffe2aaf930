//! How the rollout of a policy goes, wave by wave, by what its cameras tell, and whether it goes on.
//!
//! A halt is no key: a camera that learns of it begins nothing, and nothing else can be made of it. So this server may
//! halt by itself ([`stop_rule`]), while what cameras run is signed elsewhere.

use crate::cloudevents::{Change, PolicyStep, Stage};
use crate::database::{Database, DatabaseError};
use crate::ids::{DeviceId, Epoch};
use crate::moment::rfc3339;
use crate::users::audit;
use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Fewer devices than these that failed are no reason to halt a rollout, whatever their share.
pub const FAILED_MIN: i64 = 3;
/// Of a rollout so many reasons are told.
const REASONS: i64 = 5;
/// As who the stop rule is known in the audit log.
const STOP_RULE: &str = "the stop rule";

/// One number of a channel: a policy on its way to the devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The channel.
    pub channel: String,
    /// Its number.
    pub number: i64,
    /// The policy, `name@version+hash`.
    pub bundle: String,
    /// Its waves, those from which a device has told something.
    pub waves: Vec<Wave>,
    /// Why devices did not keep it, the most frequent first, and how many.
    pub reasons: Vec<(String, i64)>,
    /// That it was halted, if it is.
    pub halt: Option<Halt>,
    /// When a device last told something.
    pub changed: SystemTime,
}

/// The devices of a wave, by where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wave {
    /// Counted from 1; 0 if they did not say.
    pub wave: i32,
    /// On the way: from fetching to trial.
    pub underway: i64,
    /// They have begun, and wait since it was halted.
    pub waiting: i64,
    /// They run it.
    pub committed: i64,
    /// They tried it, and went on with the old one.
    pub rolled_back: i64,
}

impl Wave {
    /// All that have begun.
    pub fn begun(&self) -> i64 {
        self.underway + self.waiting + self.committed + self.rolled_back
    }
}

/// That a rollout was halted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Who did it.
    pub person: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: SystemTime,
}

impl Rollout {
    /// For programs.
    pub fn told(&self) -> Value {
        let wave = |wave: &Wave| {
            json!({
                "wave": wave.wave, "begun": wave.begun(), "underway": wave.underway, "waiting": wave.waiting,
                "committed": wave.committed, "rolled_back": wave.rolled_back,
            })
        };
        let reason = |(why, devices): &(String, i64)| json!({"why": why, "devices": devices});
        let halt =
            |halt: &Halt| json!({"by": halt.person, "why": halt.why, "at": rfc3339(halt.at)});
        json!({
            "channel": self.channel,
            "number": self.number,
            "bundle": self.bundle,
            "halted": self.halt.as_ref().map(halt),
            "waves": self.waves.iter().map(wave).collect::<Vec<_>>(),
            "reasons": self.reasons.iter().map(reason).collect::<Vec<_>>(),
            "changed": rfc3339(self.changed),
        })
    }
}

/// Writes down what `new` changes say of rollouts, in the transaction that stores them.
pub(crate) async fn note(
    tx: &Transaction<'_>,
    device: &DeviceId,
    epoch: &Epoch,
    new: &[&Change],
) -> Result<(), tokio_postgres::Error> {
    let steps = new.iter().filter_map(|change| Some((change.policy.as_ref()?, change.seq)));
    // The last of each: changes ascend.
    let last: BTreeMap<(&str, i64), (&PolicyStep, u64)> =
        steps.map(|(step, seq)| ((step.channel.as_str(), step.number), (step, seq))).collect();
    for (step, seq) in last.into_values() {
        let upsert = tx
            .prepare_cached(
                "INSERT INTO rollout (channel, number, device, bundle, wave, stage, why, epoch, seq)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (channel, number, device) DO UPDATE
                 SET bundle = excluded.bundle, wave = excluded.wave, stage = excluded.stage, why = excluded.why,
                     epoch = excluded.epoch, seq = excluded.seq, changed = now()
                 WHERE rollout.epoch <> excluded.epoch OR rollout.seq < excluded.seq",
            )
            .await?;
        tx.execute(
            &upsert,
            &[
                &step.channel,
                &step.number,
                &device.as_str(),
                &step.bundle,
                &step.wave,
                &step.stage.word(),
                &step.why,
                &epoch.as_str(),
                &seq.cast_signed(),
            ],
        )
        .await?;
    }
    Ok(())
}

/// Halts those rollouts of which `changes` say that they failed somewhere, if at least [`FAILED_MIN`] devices and this
/// share of those that have decided did not keep them; 0 never halts. Returns how many it halted. A rollout that a person
/// has let go on is not halted again.
///
/// # Errors
/// [`DatabaseError`]
pub async fn stop_rule(
    database: &Database,
    changes: &[Change],
    share: f64,
) -> Result<usize, DatabaseError> {
    let failed = changes.iter().filter_map(|change| change.policy.as_ref());
    let mut failed: Vec<(&str, i64)> = failed
        .filter(|step| step.stage == Stage::RolledBack)
        .map(|step| (step.channel.as_str(), step.number))
        .collect();
    failed.sort_unstable();
    failed.dedup();
    if share <= 0.0 || failed.is_empty() {
        return Ok(0);
    }
    let mut client = database.client().await?;
    let mut halted = 0;
    for (channel, number) in failed {
        let tx = client.transaction().await?;
        // The devices that were shut out are not believed.
        let rows = tx
            .execute(
                "INSERT INTO halt (channel, number, person, why)
                 SELECT channel, number, $3,
                        count(*) FILTER (WHERE stage = 'RolledBack') || ' of ' || count(*)
                        || ' devices that tried it did not keep it'
                 FROM rollout JOIN device ON device.id = rollout.device AND device.revoked IS NULL
                 WHERE channel = $1 AND number = $2 AND stage IN ('Committed', 'RolledBack')
                 GROUP BY channel, number
                 HAVING count(*) FILTER (WHERE stage = 'RolledBack') >= $4
                    AND count(*) FILTER (WHERE stage = 'RolledBack') >= $5::float8 * count(*)
                 ON CONFLICT DO NOTHING",
                &[&channel, &number, &STOP_RULE, &FAILED_MIN, &share],
            )
            .await?;
        if rows > 0 {
            audit(&tx, STOP_RULE, "halted", &subject(channel, number)).await?;
            tracing::warn!(
                channel,
                number,
                "the rollout is halted: too many devices did not keep it"
            );
            halted += 1;
        }
        tx.commit().await?;
    }
    Ok(halted)
}

/// The numbers of `channel` that no device should begin, the newest first.
///
/// # Errors
/// [`DatabaseError`]
pub async fn halted(database: &Database, channel: &str) -> Result<Vec<i64>, DatabaseError> {
    let client = database.client().await?;
    let rows = client
        .query(
            "SELECT number FROM halt WHERE channel = $1 AND resumed IS NULL ORDER BY number DESC LIMIT 1000",
            &[&channel],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Halts a rollout, for `why`. One that is halted already stays as it is.
///
/// # Errors
/// [`DatabaseError`]
pub async fn halt(
    database: &Database,
    (channel, number): (&str, i64),
    person: &str,
    why: &str,
) -> Result<(), DatabaseError> {
    let statement = "INSERT INTO halt (channel, number, person, why) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (channel, number) DO UPDATE
                     SET person = excluded.person, why = excluded.why, halted = now(), resumed = NULL
                     WHERE halt.resumed IS NOT NULL";
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    if tx.execute(statement, &[&channel, &number, &person, &why]).await? > 0 {
        audit(&tx, person, "halted", &subject(channel, number)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Lets a rollout go on; `false` if it was not halted here.
///
/// # Errors
/// [`DatabaseError`]
pub async fn resume(
    database: &Database,
    (channel, number): (&str, i64),
    person: &str,
) -> Result<bool, DatabaseError> {
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    let statement =
        "UPDATE halt SET resumed = now() WHERE channel = $1 AND number = $2 AND resumed IS NULL";
    let was = tx.execute(statement, &[&channel, &number]).await? > 0;
    if was {
        audit(&tx, person, "resumed", &subject(channel, number)).await?;
    }
    tx.commit().await?;
    Ok(was)
}

/// The rollouts of which something was told, the newest first, at most `limit`.
///
/// # Errors
/// [`DatabaseError`]
pub async fn list(database: &Database, limit: i64) -> Result<Vec<Rollout>, DatabaseError> {
    let client = database.client().await?;
    let rows = client
        .query(
            "SELECT channel, number, (array_agg(bundle ORDER BY changed DESC))[1], max(changed)
             FROM rollout JOIN device ON device.id = rollout.device AND device.revoked IS NULL
             GROUP BY channel, number ORDER BY max(changed) DESC LIMIT $1",
            &[&limit],
        )
        .await?;
    let waves = client
        .prepare(
            "SELECT wave, count(*) FILTER (WHERE stage IN ('Fetching', 'Verified', 'Staged', 'Trial')),
                    count(*) FILTER (WHERE stage = 'Idle'), count(*) FILTER (WHERE stage = 'Committed'),
                    count(*) FILTER (WHERE stage = 'RolledBack')
             FROM rollout JOIN device ON device.id = rollout.device AND device.revoked IS NULL
             WHERE channel = $1 AND number = $2 GROUP BY wave ORDER BY wave",
        )
        .await?;
    let reasons = client
        .prepare(
            "SELECT coalesce(why, ''), count(*)
             FROM rollout JOIN device ON device.id = rollout.device AND device.revoked IS NULL
             WHERE channel = $1 AND number = $2 AND stage = 'RolledBack'
             GROUP BY why ORDER BY count(*) DESC, why LIMIT $3",
        )
        .await?;
    let halt = client
        .prepare(
            "SELECT person, why, halted FROM halt
             WHERE channel = $1 AND number = $2 AND resumed IS NULL",
        )
        .await?;
    let mut rollouts = Vec::with_capacity(rows.len());
    for row in rows {
        let (channel, number): (String, i64) = (row.get(0), row.get(1));
        let waves = client.query(&waves, &[&channel, &number]).await?;
        let reasons = client.query(&reasons, &[&channel, &number, &REASONS]).await?;
        let halt = client.query_opt(&halt, &[&channel, &number]).await?;
        let wave = |row: &tokio_postgres::Row| Wave {
            wave: row.get(0),
            underway: row.get(1),
            waiting: row.get(2),
            committed: row.get(3),
            rolled_back: row.get(4),
        };
        rollouts.push(Rollout {
            bundle: row.get(2),
            changed: row.get(3),
            waves: waves.iter().map(wave).collect(),
            reasons: reasons.iter().map(|row| (row.get(0), row.get(1))).collect(),
            halt: halt.map(|row| Halt { person: row.get(0), why: row.get(1), at: row.get(2) }),
            channel,
            number,
        });
    }
    Ok(rollouts)
}

/// A rollout, in the audit log.
fn subject(channel: &str, number: i64) -> String {
    format!("number {number} of channel {channel}")
}
