//! How much evidence a device may send on a day, so that one that went mad cannot fill the disk of all.

use super::EvidenceError;
use crate::database::{Database, DatabaseError};
use crate::ids::DeviceId;

/// Charges `device` with `bytes` of evidence that it is about to send today (UTC). A part that breaks off
/// was charged whole: a few times a piece is not what a bound is for.
///
/// # Errors
/// [`EvidenceError::Enough`] if it would then have sent more than `per_day`, which 0 does not bound;
/// [`EvidenceError::Database`].
pub async fn charge(
    database: &Database,
    device: &DeviceId,
    bytes: u64,
    per_day: u64,
) -> Result<(), EvidenceError> {
    if per_day == 0 {
        return Ok(());
    }
    let (bytes, most) = (bytes.min(i64::MAX as u64).cast_signed(), per_day.cast_signed());
    let client = database.client().await?;
    let charged = client
        .execute(
            "INSERT INTO evidence_day AS known (device, day, bytes)
             SELECT $1, (now() AT TIME ZONE 'UTC')::date, $2 WHERE $2 <= $3::bigint
             ON CONFLICT (device, day) DO UPDATE SET bytes = known.bytes + excluded.bytes
             WHERE known.bytes + excluded.bytes <= $3::bigint",
            &[&device.as_str(), &bytes, &most],
        )
        .await
        .map_err(DatabaseError::from)?;
    if charged == 0 { Err(EvidenceError::Enough { per_day }) } else { Ok(()) }
}

/// Forgets what devices sent days ago.
///
/// # Errors
/// [`DatabaseError`]
pub async fn forget_charges(database: &Database) -> Result<(), DatabaseError> {
    let client = database.client().await?;
    client.execute("DELETE FROM evidence_day WHERE day < current_date - 7", &[]).await?;
    Ok(())
}
