//! The devices of the fleet: who a certificate is, how each fares, and revocation.

use crate::database::{Database, DatabaseError};
use crate::ids::{CertificatePrint, DeviceId};
use crate::ingest::stored_ledger;
use crate::users::audit;
use std::time::SystemTime;
use tokio_postgres::Row;

/// Who a client certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A device of the fleet.
    Device(DeviceId),
    /// A device that was shut out.
    Revoked(DeviceId),
    /// The authority signed it, but this database knows nothing of it.
    Unknown,
}

/// A device as it stands.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// The version of its software at its enrolment.
    pub agent: String,
    /// When it joined.
    pub enrolled: SystemTime,
    /// When it was shut out.
    pub revoked: Option<SystemTime>,
    /// When it last sent events.
    pub seen: Option<SystemTime>,
    /// How many changes of events it has sent.
    pub events: i64,
    /// How many it said it would never send.
    pub dropped: i64,
    /// How many are missing below the newest of each epoch.
    pub missing: i64,
    /// The sentence of its newest event of health.
    pub health: Option<String>,
}

/// What is received of one epoch of a device.
#[derive(Clone, Debug)]
pub struct EpochState {
    /// The epoch.
    pub epoch: String,
    /// Every seq up to this one is there or dropped.
    pub committed: u64,
    /// How many will never come.
    pub dropped: u64,
    /// The missing stretches, ascending.
    pub gaps: Vec<(u64, u64)>,
    /// When something of it last came.
    pub seen: SystemTime,
}

/// Looks up whose certificate it is. Asked at every request: a revocation counts at once everywhere.
///
/// # Errors
/// [`DatabaseError`]
pub async fn bearer(
    database: &Database,
    print: &CertificatePrint,
) -> Result<Bearer, DatabaseError> {
    let client = database.client().await?;
    let select = client
        .prepare_cached("SELECT id, revoked IS NOT NULL FROM device WHERE certificate = $1")
        .await?;
    let Some(row) = client.query_opt(&select, &[&&print[..]]).await? else {
        return Ok(Bearer::Unknown);
    };
    Ok(match (DeviceId::parse(row.get(0)), row.get(1)) {
        (Some(id), false) => Bearer::Device(id),
        (Some(id), true) => Bearer::Revoked(id),
        (None, _) => Bearer::Unknown,
    })
}

const SELECT: &str = "
    SELECT device.id, device.name, device.agent, device.enrolled, device.revoked,
           max(ledger.seen), coalesce(sum(ledger.events), 0)::bigint,
           coalesce(sum(ledger.dropped), 0)::bigint,
           coalesce(sum(missing(ledger)), 0)::bigint,
           (array_agg(ledger.health ORDER BY ledger.seen DESC)
            FILTER (WHERE ledger.health IS NOT NULL))[1]
    FROM device LEFT JOIN ledger ON ledger.device = device.id";

/// The devices that come after `after` in the order of ids, at most `limit`.
///
/// # Errors
/// [`DatabaseError`]
pub async fn list(
    database: &Database,
    after: &str,
    limit: i64,
) -> Result<Vec<Device>, DatabaseError> {
    let client = database.client().await?;
    let select =
        format!("{SELECT} WHERE device.id > $1 GROUP BY device.id ORDER BY device.id LIMIT $2");
    let rows = client.query(&select, &[&after, &limit]).await?;
    Ok(rows.iter().map(device).collect())
}

/// One device and its epochs, the newest first; `None` if there is no such device.
///
/// # Errors
/// [`DatabaseError`]
pub async fn one(
    database: &Database,
    id: &DeviceId,
) -> Result<Option<(Device, Vec<EpochState>)>, DatabaseError> {
    let client = database.client().await?;
    let select = format!("{SELECT} WHERE device.id = $1 GROUP BY device.id");
    let Some(row) = client.query_opt(&select, &[&id.as_str()]).await? else {
        return Ok(None);
    };
    let epochs = client
        .query(
            "SELECT committed, ahead_first, ahead_last, dropped, epoch, seen FROM ledger
             WHERE device = $1 ORDER BY seen DESC LIMIT 100",
            &[&id.as_str()],
        )
        .await?;
    let epochs = epochs.iter().map(|row| {
        let ledger = stored_ledger(row);
        EpochState {
            epoch: row.get(4),
            committed: ledger.committed(),
            dropped: ledger.dropped(),
            gaps: ledger.gaps(),
            seen: row.get(5),
        }
    });
    Ok(Some((device(&row), epochs.collect())))
}

/// Shuts a device out, for `person`, with a line in the audit log; whether there is such a device.
/// One that was revoked before stays as it was.
///
/// # Errors
/// [`DatabaseError`]
pub async fn revoke(
    database: &Database,
    id: &DeviceId,
    person: &str,
) -> Result<bool, DatabaseError> {
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    let known = tx
        .execute(
            "UPDATE device SET revoked = coalesce(revoked, now()) WHERE id = $1",
            &[&id.as_str()],
        )
        .await?;
    if known > 0 {
        audit(&tx, person, "revoked", id.as_str()).await?;
    }
    tx.commit().await?;
    Ok(known > 0)
}

fn device(row: &Row) -> Device {
    Device {
        id: row.get(0),
        name: row.get(1),
        agent: row.get(2),
        enrolled: row.get(3),
        revoked: row.get(4),
        seen: row.get(5),
        events: row.get(6),
        dropped: row.get(7),
        missing: row.get(8),
        health: row.get(9),
    }
}
