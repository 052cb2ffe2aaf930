//! The writer: what happened goes in here, one transaction each.

use crate::query::{self, EventRow, Outgoing, Query};
use crate::{EventId, Incident, Level, LogError, OpenReport, Phase, open};
use hal_camera::{ClockQuality, WallTime};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The log, open for writing. There is one in the whole system for a file: a second one, in this
/// process or another, is refused ([`LogError::InUse`]). Dropping it ends the log cleanly.
///
/// Each writing method is one transaction: when it returns `Ok` the change is on disk, when it
/// returns an error nothing has changed and no seq was used up.
#[derive(Debug)]
pub struct EventLog {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    // Declared last: the connection closes, and folds its write-ahead log, while still locked.
    _lock: File,
}

impl EventLog {
    /// Opens the log at `path`, beginning one if there is none. It always opens unless the system
    /// forbids it: a log that cannot be used is set aside beside it and a new one begun, whose first
    /// event (at `now`) says so.
    ///
    /// Reads the whole file once to check it: about 1 ms a MiB when it is in the page cache, else as
    /// long as the disk takes.
    ///
    /// # Errors
    /// [`LogError::InUse`], [`LogError::SqliteTooOld`], or what the system said: no such directory,
    /// no right to write, no space.
    pub fn open(path: &Path, now: WallTime) -> Result<(Self, OpenReport), LogError> {
        let (conn, lock, report) = open::open(path, now)?;
        Ok((Self { conn, path: path.to_owned(), _lock: lock }, report))
    }

    /// Records an incident, in phase `new`, and queues it for the server. Its evidence must be
    /// pinned and synced before: once this returns, the event exists.
    ///
    /// # Errors
    /// [`LogError::Incident`] if the score is outside 0 to 1, it ends before it starts, or evidence
    /// is cited without a pin; [`LogError::Full`]; other failures of SQLite.
    pub fn record(
        &mut self,
        incident: &Incident,
        committed_at: WallTime,
    ) -> Result<EventId, LogError> {
        incident.check()?;
        self.write("record an incident", |tx| {
            let ticket = Ticket::draw(tx, committed_at)?;
            insert_incident(tx, &ticket, incident, committed_at)?;
            Ok(ticket.id)
        })
    }

    /// Replaces an incident by what is known of it now, under the next seq. Phases go
    /// `new → update* → end`.
    ///
    /// # Errors
    /// As [`EventLog::record`]; [`LogError::Unknown`] if there is no such incident (any more);
    /// [`LogError::Phase`] if it has ended, or `phase` is `new`.
    pub fn update(
        &mut self,
        id: &EventId,
        incident: &Incident,
        phase: Phase,
    ) -> Result<(), LogError> {
        incident.check()?;
        let from = self
            .write("update an incident", |tx| {
                let Some((number, from)) = incident_phase(tx, id)? else {
                    return Ok(None);
                };
                if from.may_become(phase) {
                    let seq = next_seq(tx)?;
                    replace_incident(tx, number, seq, phase, incident)?;
                }
                Ok(Some(from))
            })?
            .ok_or_else(|| LogError::Unknown { id: id.clone() })?;
        match from.may_become(phase) {
            true => Ok(()),
            false => Err(LogError::Phase { id: id.clone(), from, to: phase }),
        }
    }

    /// Ends every incident that is not over, as it stands, each under a seq of its own; returns how
    /// many. For the beginning of a watch: whoever would have ended them is gone, with the power or
    /// by a crash, and nobody would ever hear their end.
    ///
    /// # Errors
    /// [`LogError::Full`]; other failures of SQLite.
    pub fn end_open(&mut self) -> Result<u64, LogError> {
        self.write("end the incidents left open", |tx| {
            let open: Vec<(i64, u8)> = tx
                .prepare(
                    "SELECT number, level FROM event
                     WHERE kind = 'incident' AND phase <> 'end' ORDER BY number",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for &(number, level) in &open {
                let seq = next_seq(tx)?;
                tx.prepare_cached("UPDATE event SET seq = ?, phase = 'end' WHERE number = ?")?
                    .execute(params![seq, number])?;
                queue(tx, seq, number, Phase::End, level)?;
            }
            Ok(open.len() as u64)
        })
    }

    /// Records an event of the device itself: a camera lost, a store recovered, frames dropped.
    /// `kind` is its label, `text` a plain sentence, `fields` (an object, or null) the facts in it
    /// that a program may want. Its level is `notice`.
    ///
    /// # Errors
    /// [`LogError::Full`]; other failures of SQLite.
    pub fn health(
        &mut self,
        kind: &str,
        text: &str,
        fields: Value,
        at: WallTime,
    ) -> Result<EventId, LogError> {
        self.write("record a health event", |tx| {
            let ticket = Ticket::draw(tx, at)?;
            insert_health(tx, &ticket, Level::Notice, kind, text, &fields, at)?;
            Ok(ticket.id)
        })
    }

    /// Records an event of the device itself and remembers `value` for `key`: both or neither.
    ///
    /// # Errors
    /// As [`EventLog::health`].
    pub fn health_with_state(
        &mut self,
        (kind, text, fields): (&str, &str, &Value),
        at: WallTime,
        (key, value): (&str, &str),
    ) -> Result<EventId, LogError> {
        self.write("record a health event", |tx| {
            let ticket = Ticket::draw(tx, at)?;
            insert_health(tx, &ticket, Level::Notice, kind, text, fields, at)?;
            set_state(tx, key, value)?;
            Ok(ticket.id)
        })
    }

    /// The newest events that match, oldest of them first.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn events(&self, query: &Query) -> Result<Vec<EventRow>, LogError> {
        query::events(&self.conn, query).map_err(|e| self.failed("read events", e))
    }

    /// The event whose id is, or alone begins with, `id`.
    ///
    /// # Errors
    /// [`LogError::Id`] if no id begins so, [`LogError::Ambiguous`] if several do.
    pub fn event(&self, id: &str) -> Result<Option<EventRow>, LogError> {
        query::event(&self.conn, &self.path, id)
    }

    /// The frame store's pins that events in the log cite. Every other pin is an orphan.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn pins(&self) -> Result<BTreeSet<u64>, LogError> {
        query::pins(&self.conn).map_err(|e| self.failed("read the pins", e))
    }

    /// This log's own name, 16 hexadecimal digits; with the seq it names a change once and for all,
    /// also after a log was lost and another begun at seq 1.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn log_id(&self) -> Result<String, LogError> {
        self.conn
            .query_row("SELECT log_id FROM log", [], |row| row.get(0))
            .map_err(|e| self.failed("read its name", e))
    }

    /// What the server has not acknowledged, after seq `after`, in order, at most `limit` of it.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn outbox(&self, after: u64, limit: usize) -> Result<Vec<Outgoing>, LogError> {
        query::outbox(&self.conn, after, limit, Level::Info)
            .map_err(|e| self.failed("read the outbox", e))
    }

    /// Takes everything up to and including `seq` out of the outbox: the server has committed it.
    /// A seq that was acknowledged already changes nothing.
    ///
    /// # Errors
    /// [`LogError::AcknowledgedAhead`] if the log never gave out `seq`.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), LogError> {
        let last = self.write("note an acknowledgement", |tx| {
            let last: u64 = tx.query_row("SELECT last_seq FROM log", [], |row| row.get(0))?;
            if seq <= last {
                tx.execute("DELETE FROM outbox WHERE seq <= ?", [seq])?;
                tx.execute("UPDATE log SET acknowledged_seq = max(acknowledged_seq, ?)", [seq])?;
            }
            Ok(last)
        })?;
        match seq <= last {
            true => Ok(()),
            false => Err(LogError::AcknowledgedAhead { seq, last }),
        }
    }

    /// The highest seq that the server has acknowledged, 0 before the first.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn acknowledged(&self) -> Result<u64, LogError> {
        self.conn
            .query_row("SELECT acknowledged_seq FROM log", [], |row| row.get(0))
            .map_err(|e| self.failed("read the acknowledged seq", e))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value last set for `key`.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn state_get(&self, key: &str) -> Result<Option<String>, LogError> {
        query::state(&self.conn, key).map_err(|e| self.failed("read state", e))
    }

    /// Remembers `value` for `key`, durably.
    ///
    /// # Errors
    /// [`LogError::Full`]; other failures of SQLite.
    pub fn state_set(&mut self, key: &str, value: &str) -> Result<(), LogError> {
        self.write("write state", |tx| set_state(tx, key, value))
    }

    /// Forbids the database file to outgrow `bytes` (its write-ahead log, at most a few MiB, comes on
    /// top): what would need more fails with [`LogError::Full`] until [`EventLog::prune`] has made
    /// room. Holds until the log is closed. Returns the limit in force, which is not below the
    /// present size.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn limit_file(&mut self, bytes: u64) -> Result<u64, LogError> {
        let limit = |conn: &Connection| {
            let page: u64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            let pages = i64::try_from(bytes / page).unwrap_or(i64::MAX);
            let in_force: u64 =
                conn.pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))?;
            Ok(in_force.saturating_mul(page))
        };
        limit(&self.conn).map_err(|e| self.failed("limit its size", e))
    }

    /// Checks the whole log, indexes included, and returns what is wrong in it: nothing, if all is
    /// well.
    ///
    /// # Errors
    /// Failures of SQLite other than the damage looked for.
    pub fn check(&self) -> Result<Vec<String>, LogError> {
        query::check(&self.conn, &self.path)
    }

    /// One transaction: all of `body` on disk, or none of it.
    pub(crate) fn write<T>(
        &mut self,
        doing: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LogError> {
        let conn = &mut self.conn;
        let done = || {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        done().map_err(|e| LogError::from_sqlite(&self.path, doing, e))
    }

    fn failed(&self, doing: &'static str, source: rusqlite::Error) -> LogError {
        LogError::from_sqlite(&self.path, doing, source)
    }
}

/// The id and the seq of an event about to be written, drawn in the same transaction.
pub(crate) struct Ticket {
    pub id: EventId,
    pub seq: u64,
}

impl Ticket {
    /// Draws the next of both. The id's time is `at`, or just after the newest id's if the wall
    /// clock stood still or went back.
    pub fn draw(tx: &Transaction<'_>, at: WallTime) -> rusqlite::Result<Self> {
        tx.query_row(
            "UPDATE log SET last_seq = last_seq + 1, last_id_ms = max(last_id_ms + 1, ?)
             RETURNING last_seq, last_id_ms, random()",
            [(at.unix_us / 1000).clamp(0, EventId::LAST_MS)],
            |row| {
                let random: i64 = row.get(2)?;
                Ok(Self { seq: row.get(0)?, id: EventId::new(row.get(1)?, random as u64) })
            },
        )
    }
}

fn set_state(tx: &Transaction<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO state VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
        [key, value],
    )
    .map(drop)
}

fn next_seq(tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    tx.query_row("UPDATE log SET last_seq = last_seq + 1 RETURNING last_seq", [], |row| row.get(0))
}

fn insert_incident(
    tx: &Transaction<'_>,
    ticket: &Ticket,
    incident: &Incident,
    committed_at: WallTime,
) -> rusqlite::Result<()> {
    let number: i64 = tx
        .prepare_cached(
            "INSERT INTO event (id, seq, kind, phase, camera, level, start_us, end_us, clock,
                                committed_us, label, sentence)
             VALUES (?, ?, 'incident', 'new', 0, 0, 0, 0, 'ntp', ?, '', '') RETURNING number",
        )?
        .query_row(params![ticket.id.as_str(), ticket.seq, committed_at.unix_us], |row| {
            row.get(0)
        })?;
    replace_incident(tx, number, ticket.seq, Phase::New, incident)
}

/// Writes every column that an incident decides, its evidence, and the outbox entry.
fn replace_incident(
    tx: &Transaction<'_>,
    number: i64,
    seq: u64,
    phase: Phase,
    incident: &Incident,
) -> rusqlite::Result<()> {
    let Incident { start, end, .. } = incident;
    let clock = match (start.quality, end.quality) {
        (ClockQuality::Ntp, ClockQuality::Ntp) => ClockQuality::Ntp,
        _ => ClockQuality::Unsynced,
    };
    tx.prepare_cached(
        "UPDATE event SET
             seq = ?, phase = ?, level = ?, start_us = ?, end_us = ?, clock = ?, label = ?,
             sentence = ?, camera = ?, camera_name = ?, start_media_us = ?, end_media_us = ?,
             score = ?, clips = ?, trajectory = ?, frames_used = ?, bundle = ?, engine = ?,
             stopped_by = ?, pin = ?
         WHERE number = ?",
    )?
    .execute(params![
        seq,
        phase.name(),
        incident.level as u8,
        start.unix_us,
        end.unix_us,
        query::clock_name(clock),
        incident.label,
        incident.sentence,
        incident.camera.0,
        incident.camera_name,
        incident.start_media.0,
        incident.end_media.0,
        query::shortest(incident.score),
        incident.clips.to_string(),
        incident.trajectory.to_string(),
        incident.frames_used,
        incident.bundle,
        incident.engine,
        incident.stopped_by,
        // SQLite's integers are signed: the bits are kept, not the number.
        incident.pin.map(u64::cast_signed),
        number,
    ])?;
    tx.execute("DELETE FROM evidence WHERE event = ?", [number])?;
    let mut insert = tx.prepare_cached("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)")?;
    for (position, item) in (0_i64..).zip(&incident.evidence) {
        insert.execute(params![number, position, item.frame_id, item.media_time.0, item.hash])?;
    }
    queue(tx, seq, number, phase, incident.level as u8)
}

/// Writes an event of the device itself.
pub(crate) fn insert_health(
    tx: &Transaction<'_>,
    ticket: &Ticket,
    level: Level,
    kind: &str,
    text: &str,
    fields: &Value,
    at: WallTime,
) -> rusqlite::Result<()> {
    let number: i64 = tx
        .prepare_cached(
            "INSERT INTO event (id, seq, kind, phase, level, start_us, end_us, clock, committed_us,
                                label, sentence, fields)
             VALUES (?1, ?2, 'health', 'end', ?3, ?4, ?4, ?5, ?4, ?6, ?7, ?8) RETURNING number",
        )?
        .query_row(
            params![
                ticket.id.as_str(),
                ticket.seq,
                level as u8,
                at.unix_us,
                query::clock_name(at.quality),
                kind,
                text,
                (!fields.is_null()).then(|| fields.to_string()),
            ],
            |row| row.get(0),
        )?;
    queue(tx, ticket.seq, number, Phase::End, level as u8)
}

fn queue(
    tx: &Transaction<'_>,
    seq: u64,
    number: i64,
    phase: Phase,
    level: u8,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO outbox VALUES (?, ?, ?, ?)")?
        .execute(params![seq, number, phase.name(), level])
        .map(drop)
}

fn incident_phase(tx: &Transaction<'_>, id: &EventId) -> rusqlite::Result<Option<(i64, Phase)>> {
    tx.query_row(
        "SELECT number, phase FROM event WHERE id = ? AND kind = 'incident'",
        [id.as_str()],
        |row| Ok((row.get(0)?, query::phase(row, 1)?)),
    )
    .optional()
}
