//! Keeping the log within its bound, and saying what that cost.
//!
//! Events that the server has go first, oldest first: nothing is lost with them. Then what was never
//! sent, lowest level first and oldest first within a level. What was dropped is recorded as an
//! event of kind [`EVENTS_DROPPED`], which names every seq that will now never be sent. A newer such
//! event takes an older, unsent one into itself, so that at most one waits however long the server
//! is away, and no drop goes untold because its own report was dropped.

use crate::log::{Ticket, insert_health};
use crate::query::level;
use crate::{EventId, EventLog, Level, LogError};
use hal_camera::WallTime;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The kind of the health event that says what pruning dropped.
pub const EVENTS_DROPPED: &str = "events dropped";

/// How large the log may be; each part may be left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// At most so many events.
    pub rows: Option<u64>,
    /// At most so many bytes in use in the database file. The file itself does not shrink: room that
    /// pruning freed is used again before it grows.
    pub bytes: Option<u64>,
}

/// What pruning dropped. It is also what the drop event's `fields` hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Events that the server has.
    pub sent: u64,
    /// Events of level `info` that it has not.
    pub unsent_info: u64,
    /// Events of level `notice` that it has not.
    pub unsent_notice: u64,
    /// Events of level `alert` that it has not.
    pub unsent_alert: u64,
    /// The seqs that will never be sent, as ascending ranges, both ends included.
    pub seqs: Vec<(u64, u64)>,
}

/// One event that may go.
struct Victim {
    number: i64,
    level: Level,
    /// Some change of it was not acknowledged.
    unsent: bool,
}

impl EventLog {
    /// Drops events until the log is a tenth below `bound`, if it is above it, and records what it
    /// dropped as an event at `at`. Returns what was dropped and the event that says so, or `None`
    /// if the log is within its bound.
    ///
    /// Call it now and then: between calls the log may grow past the bound.
    ///
    /// # Errors
    /// [`LogError::Full`] if not even the freeing fits on the disk; other failures of SQLite.
    pub fn prune(
        &mut self,
        bound: Bound,
        at: WallTime,
    ) -> Result<Option<(EventId, Pruned)>, LogError> {
        self.write("prune", |tx| {
            let size = Size::of(tx)?;
            let reports = unsent_reports(tx)?;
            // Replacing a report of earlier drops by another would gain nothing.
            if !size.exceeds(bound) || size.rows == reports.len() as u64 {
                return Ok(None);
            }
            let mut pruned = Pruned::default();
            for (number, earlier) in reports {
                pruned.take_in(earlier);
                delete(tx, number, &mut pruned)?;
            }
            let target = bound.with_room();
            loop {
                let size = Size::of(tx)?;
                if size.rows == 0 || !size.exceeds(target) {
                    break;
                }
                for victim in next_victims(tx, size.rows_at_once(target))? {
                    drop_event(tx, &victim, &mut pruned)?;
                }
            }
            pruned.merge_ranges();
            let ticket = Ticket::draw(tx, at)?;
            let text = pruned.sentence();
            let level = pruned.level();
            insert_health(tx, &ticket, level, EVENTS_DROPPED, &text, &json!(pruned), at)?;
            Ok(Some((ticket.id, pruned)))
        })
    }
}

impl EventLog {
    /// Takes the changes of seq `first` to `last` out of the outbox, since the server will never have
    /// them, and records that as an event of kind [`EVENTS_DROPPED`] at `at`. The events stay.
    ///
    /// # Errors
    /// [`LogError::Full`]; other failures of SQLite.
    pub fn give_up(
        &mut self,
        first: u64,
        last: u64,
        why: &str,
        at: WallTime,
    ) -> Result<EventId, LogError> {
        self.write("give changes up", |tx| {
            let mut pruned = Pruned { seqs: vec![(first, last)], ..Pruned::default() };
            let between = [first, last].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
            let mut levels = tx.prepare("SELECT level FROM outbox WHERE seq BETWEEN ? AND ?")?;
            for level in levels.query_map(between, |row| level(row, 0))? {
                match level? {
                    Level::Info => pruned.unsent_info += 1,
                    Level::Notice => pruned.unsent_notice += 1,
                    Level::Alert => pruned.unsent_alert += 1,
                }
            }
            drop(levels);
            tx.execute("DELETE FROM outbox WHERE seq BETWEEN ? AND ?", between)?;
            let ticket = Ticket::draw(tx, at)?;
            insert_health(tx, &ticket, pruned.level(), EVENTS_DROPPED, why, &json!(pruned), at)?;
            Ok(ticket.id)
        })
    }
}

impl Bound {
    /// A tenth below, and room for the report: so that pruning is needed seldom, and each time is
    /// worth an event.
    fn with_room(self) -> Self {
        let below = |n: u64| n - n / 10;
        Self { rows: self.rows.map(|n| below(n).saturating_sub(1)), bytes: self.bytes.map(below) }
    }
}

/// How large the log is, within a transaction.
struct Size {
    rows: u64,
    bytes: u64,
}

impl Size {
    fn of(tx: &Transaction<'_>) -> rusqlite::Result<Self> {
        let number = |sql| tx.query_row(sql, [], |row| row.get::<_, u64>(0));
        let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
        Ok(Self {
            rows: number("SELECT count(*) FROM event")?,
            bytes: pages * number("PRAGMA page_size")?,
        })
    }

    fn exceeds(&self, bound: Bound) -> bool {
        bound.rows.is_some_and(|rows| self.rows > rows)
            || bound.bytes.is_some_and(|bytes| self.bytes > bytes)
    }

    /// How many events to drop before looking again: just those too many, or, where bytes decide, a
    /// hundredth of all (what an event takes is only known once it is gone).
    fn rows_at_once(&self, target: Bound) -> u64 {
        let too_many = target.rows.map_or(0, |rows| self.rows.saturating_sub(rows));
        too_many.max(self.rows / 100).max(1)
    }
}

fn next_victims(tx: &Transaction<'_>, limit: u64) -> rusqlite::Result<Vec<Victim>> {
    tx.prepare_cached(
        "SELECT number, level, unsent
         FROM (SELECT number, level,
                      EXISTS (SELECT 1 FROM outbox WHERE outbox.event = event.number) AS unsent
               FROM event)
         ORDER BY unsent, CASE WHEN unsent THEN level ELSE 0 END, number
         LIMIT ?",
    )?
    .query_map([limit], |row| {
        Ok(Victim { number: row.get(0)?, level: level(row, 1)?, unsent: row.get(2)? })
    })?
    .collect()
}

fn drop_event(tx: &Transaction<'_>, victim: &Victim, pruned: &mut Pruned) -> rusqlite::Result<()> {
    match (victim.unsent, victim.level) {
        (false, _) => pruned.sent += 1,
        (true, Level::Info) => pruned.unsent_info += 1,
        (true, Level::Notice) => pruned.unsent_notice += 1,
        (true, Level::Alert) => pruned.unsent_alert += 1,
    }
    delete(tx, victim.number, pruned)
}

/// Deletes an event and notes the seqs that are never sent now.
fn delete(tx: &Transaction<'_>, number: i64, pruned: &mut Pruned) -> rusqlite::Result<()> {
    let mut unsent = tx.prepare_cached("SELECT seq FROM outbox WHERE event = ?")?;
    for seq in unsent.query_map([number], |row| row.get(0))? {
        let seq = seq?;
        pruned.seqs.push((seq, seq));
    }
    tx.prepare_cached("DELETE FROM event WHERE number = ?")?.execute(params![number]).map(drop)
}

/// The reports of earlier drops that the server has not, and the rows they are in.
fn unsent_reports(tx: &Transaction<'_>) -> rusqlite::Result<Vec<(i64, Pruned)>> {
    tx.prepare_cached(
        "SELECT number, fields FROM event
         WHERE kind = 'health' AND label = ?
           AND EXISTS (SELECT 1 FROM outbox WHERE outbox.event = event.number)",
    )?
    .query_map([EVENTS_DROPPED], |row| {
        let fields: Option<String> = row.get(1)?;
        let pruned = fields.and_then(|text| serde_json::from_str(&text).ok());
        Ok((row.get(0)?, pruned.unwrap_or_default()))
    })?
    .collect()
}

impl Pruned {
    /// Tells of `earlier` drops as well.
    fn take_in(&mut self, earlier: Pruned) {
        self.sent += earlier.sent;
        self.unsent_info += earlier.unsent_info;
        self.unsent_notice += earlier.unsent_notice;
        self.unsent_alert += earlier.unsent_alert;
        self.seqs.extend(earlier.seqs);
    }

    /// Joins ranges that touch, so that there are never more than events that were kept, and one.
    fn merge_ranges(&mut self) {
        self.seqs.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(first, last) in &self.seqs {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        self.seqs = merged;
    }

    fn level(&self) -> Level {
        if self.unsent_alert > 0 { Level::Alert } else { Level::Notice }
    }

    fn sentence(&self) -> String {
        let Self { sent, unsent_info, unsent_notice, unsent_alert, .. } = self;
        let unsent = unsent_info + unsent_notice + unsent_alert;
        format!(
            "The event log reached its bound: {sent} events that the server has and {unsent} that \
             it has not were dropped ({unsent_info} info, {unsent_notice} notice, {unsent_alert} \
             alert)."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_dropped_seqs_are_joined_where_they_touch() {
        let seqs = vec![(7, 9), (1, 1), (3, 3), (2, 2), (8, 12), (14, 14)];
        let mut pruned = Pruned { seqs, ..Pruned::default() };
        pruned.merge_ranges();
        assert_eq!(pruned.seqs, [(1, 3), (7, 12), (14, 14)]);
    }
}
