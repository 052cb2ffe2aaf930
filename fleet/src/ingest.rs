//! From a batch to committed rows: one transaction.

use crate::cloudevents::{Batch, Change, Kind};
use crate::database::{Database, DatabaseError, lacks_partition};
use crate::ids::{DeviceId, Epoch};
use crate::ledger::{Ledger, TooManyStretches};
use crate::rollouts;
use deadpool_postgres::{Client, Transaction};
use std::time::SystemTime;
use tokio_postgres::types::Json;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The highest seq S such that every seq 1..=S is committed or dropped.
    pub committed: u64,
    /// How many changes were new and are now stored.
    pub stored: usize,
    /// How many had been received before.
    pub repeated: usize,
}

/// Why a batch was not taken. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The batch leaves too many holes.
    #[error(transparent)]
    TooManyStretches(#[from] TooManyStretches),
}

impl From<tokio_postgres::Error> for IngestError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Stores what of `batch` is new, and returns once it is committed.
///
/// # Errors
/// [`IngestError`]. Where the link broke during the commit it may have been stored all the same: sent
/// again, it is then found to be there.
pub async fn store(
    database: &Database,
    device: &DeviceId,
    batch: &Batch,
) -> Result<Receipt, IngestError> {
    let mut client = database.client().await?;
    match attempt(&mut client, device, batch).await {
        Err(Attempt::NoPartition) => {
            database.make_partitions().await?;
            attempt(&mut client, device, batch).await.map_err(|error| match error {
                Attempt::NoPartition => {
                    DatabaseError::Refused("the partition of this month cannot be made".into())
                        .into()
                }
                Attempt::Failed(error) => error,
            })
        }
        other => other.map_err(|error| match error {
            Attempt::Failed(error) => error,
            Attempt::NoPartition => unreachable!("matched above"),
        }),
    }
}

/// The mark of an epoch; 0 if nothing of it has come.
///
/// # Errors
/// [`DatabaseError`]
pub async fn committed(
    database: &Database,
    device: &DeviceId,
    epoch: &Epoch,
) -> Result<u64, DatabaseError> {
    let client = database.client().await?;
    let row = client
        .query_opt(
            "SELECT committed FROM ledger WHERE device = $1 AND epoch = $2",
            &[&device.as_str(), &epoch.as_str()],
        )
        .await?;
    Ok(row.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
}

enum Attempt {
    NoPartition,
    Failed(IngestError),
}

impl<E: Into<IngestError>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn attempt(
    client: &mut Client,
    device: &DeviceId,
    batch: &Batch,
) -> Result<Receipt, Attempt> {
    let tx = client.transaction().await?;
    let mut ledger = lock(&tx, device, &batch.epoch).await?;
    let before = ledger.clone();
    let mut new = Vec::with_capacity(batch.changes.len());
    for change in &batch.changes {
        // In this order: a repeated drop event drops nothing.
        if ledger.receive(change.seq) {
            change.dropped.iter().for_each(|&(first, last)| ledger.drop_span(first, last));
            new.push(change);
        }
    }
    ledger.check().map_err(IngestError::from)?;
    if let Err(error) = insert(&tx, device, &batch.epoch, &new).await {
        return Err(match lacks_partition(&error) {
            true => Attempt::NoPartition,
            false => error.into(),
        });
    }
    rollouts::note(&tx, device, &batch.epoch, &new).await?;
    write(&tx, device, &batch.epoch, &ledger, ledger.ahead() != before.ahead(), &new).await?;
    tx.commit().await?;
    Ok(Receipt {
        committed: ledger.committed(),
        stored: new.len(),
        repeated: batch.changes.len() - new.len(),
    })
}

/// The ledger of an epoch, locked until the transaction ends; made if it is not there.
async fn lock(
    tx: &Transaction<'_>,
    device: &DeviceId,
    epoch: &Epoch,
) -> Result<Ledger, tokio_postgres::Error> {
    let select = tx
        .prepare_cached(
            "SELECT committed, ahead_first, ahead_last, dropped FROM ledger
             WHERE device = $1 AND epoch = $2 FOR UPDATE",
        )
        .await?;
    let key: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&device.as_str(), &epoch.as_str()];
    let row = match tx.query_opt(&select, &key).await? {
        Some(row) => row,
        None => {
            tx.execute(
                "INSERT INTO ledger (device, epoch) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &key,
            )
            .await?;
            tx.query_one(&select, &key).await?
        }
    };
    Ok(stored_ledger(&row))
}

/// The ledger in the columns `committed, ahead_first, ahead_last, dropped`, the first of a row.
pub(crate) fn stored_ledger(row: &tokio_postgres::Row) -> Ledger {
    let seqs = |column| row.get::<_, Vec<i64>>(column).into_iter().map(i64::cast_unsigned);
    let ahead = seqs(1).zip(seqs(2)).collect();
    Ledger::stored(
        row.get::<_, i64>(0).cast_unsigned(),
        ahead,
        row.get::<_, i64>(3).cast_unsigned(),
    )
}

async fn insert(
    tx: &Transaction<'_>,
    device: &DeviceId,
    epoch: &Epoch,
    new: &[&Change],
) -> Result<(), tokio_postgres::Error> {
    if new.is_empty() {
        return Ok(());
    }
    let insert = tx
        .prepare_cached(
            "INSERT INTO event (received, device, epoch, seq, event, kind, phase, level, camera, label,
                                score, sentence, began, ended, clock, recorded, data, dataref)
             SELECT now(), $1, $2, * FROM UNNEST(
                 $3::bigint[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[],
                 $9::text[], $10::real[], $11::text[], $12::timestamptz[], $13::timestamptz[],
                 $14::text[], $15::timestamptz[], $16::jsonb[], $17::text[])",
        )
        .await?;
    tx.execute(
        &insert,
        &[
            &device.as_str(),
            &epoch.as_str(),
            &column(new, |c| c.seq.cast_signed()),
            &column(new, |c| c.event.as_str()),
            &column(new, |c| c.kind.word()),
            &column(new, |c| c.phase.word()),
            &column(new, |c| c.level as i16),
            &column(new, |c| c.camera.as_deref()),
            &column(new, |c| c.label.as_str()),
            &column(new, |c| c.score),
            &column(new, |c| c.sentence.as_str()),
            &column(new, |c| SystemTime::from(c.start)),
            &column(new, |c| SystemTime::from(c.end)),
            &column(new, |c| c.clock.word()),
            &column(new, |c| SystemTime::from(c.recorded)),
            &column(new, |c| Json(&c.data)),
            &column(new, |c| c.dataref.as_ref().map(|hash| hash.as_str())),
        ],
    )
    .await?;
    Ok(())
}

fn column<'a, T>(changes: &[&'a Change], of: impl Fn(&'a Change) -> T) -> Vec<T> {
    changes.iter().map(|change| of(change)).collect()
}

async fn write(
    tx: &Transaction<'_>,
    device: &DeviceId,
    epoch: &Epoch,
    ledger: &Ledger,
    ahead_changed: bool,
    new: &[&Change],
) -> Result<(), tokio_postgres::Error> {
    let common = "UPDATE ledger SET committed = $3, dropped = $4, events = events + $5, \
                  health = coalesce($6, health), seen = now()";
    let (committed, dropped) = (ledger.committed().cast_signed(), ledger.dropped().cast_signed());
    let (device, epoch, stored) = (device.as_str(), epoch.as_str(), new.len() as i64);
    let health = new.iter().rfind(|c| c.kind == Kind::Health).map(|c| c.sentence.as_str());
    if !ahead_changed {
        // The common case; the arrays, which may be large, stay where they are.
        let update = format!("{common} WHERE device = $1 AND epoch = $2");
        let update = tx.prepare_cached(&update).await?;
        tx.execute(&update, &[&device, &epoch, &committed, &dropped, &stored, &health]).await?;
        return Ok(());
    }
    let update =
        format!("{common}, ahead_first = $7, ahead_last = $8 WHERE device = $1 AND epoch = $2");
    let update = tx.prepare_cached(&update).await?;
    let (first, last): (Vec<i64>, Vec<i64>) =
        ledger.ahead().iter().map(|&(a, b)| (a.cast_signed(), b.cast_signed())).unzip();
    tx.execute(&update, &[&device, &epoch, &committed, &dropped, &stored, &health, &first, &last])
        .await?;
    Ok(())
}
