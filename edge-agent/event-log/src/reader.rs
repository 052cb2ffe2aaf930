//! The reader: looks at the log while the agent writes to it.

use crate::query::{self, EventRow, Outgoing, Query};
use crate::{Level, LogError, schema};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The log, open for reading. Any number of them may be open beside the one
/// [`EventLog`](crate::EventLog), in this process or others; they never block it, and see what was
/// committed when each call began.
#[derive(Debug)]
pub struct LogReader {
    conn: Connection,
    path: PathBuf,
}

impl LogReader {
    /// Opens the log at `path` as it is. Needs the right to write to its directory, where SQLite
    /// keeps the lock that readers and the writer share.
    ///
    /// # Errors
    /// [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Schema`]; a reader sets nothing
    /// aside and changes no schema.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        if !path.exists() {
            return Err(LogError::Missing { path: path.into() });
        }
        let failed = |source| LogError::from_sqlite(path, "read it", source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
        schema::prepare_any(&conn).map_err(failed)?;
        let number = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
        if number("PRAGMA application_id")? != i64::from(schema::APPLICATION_ID) {
            let detail = "it is not an event log".to_owned();
            return Err(LogError::Damaged { path: path.into(), detail });
        }
        match number("PRAGMA user_version")? {
            schema::VERSION => Ok(Self { conn, path: path.into() }),
            found => Err(LogError::Schema { path: path.into(), found, known: schema::VERSION }),
        }
    }

    /// As [`EventLog::events`](crate::EventLog::events).
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn events(&self, query: &Query) -> Result<Vec<EventRow>, LogError> {
        query::events(&self.conn, query)
            .map_err(|e| LogError::from_sqlite(&self.path, "read events", e))
    }

    /// As [`EventLog::event`](crate::EventLog::event).
    ///
    /// # Errors
    /// [`LogError::Id`], [`LogError::Ambiguous`]; failures of SQLite.
    pub fn event(&self, id: &str) -> Result<Option<EventRow>, LogError> {
        query::event(&self.conn, &self.path, id)
    }

    /// As [`EventLog::pins`](crate::EventLog::pins).
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn pins(&self) -> Result<BTreeSet<u64>, LogError> {
        query::pins(&self.conn).map_err(|e| LogError::from_sqlite(&self.path, "read the pins", e))
    }

    /// The log's own name, its newest seq, and the highest that the server has acknowledged.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn names(&self) -> Result<(String, u64, u64), LogError> {
        query::names(&self.conn).map_err(|e| LogError::from_sqlite(&self.path, "read its name", e))
    }

    /// As [`EventLog::outbox`](crate::EventLog::outbox), of changes of at least this level.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn outbox(
        &self,
        after: u64,
        limit: usize,
        level_min: Level,
    ) -> Result<Vec<Outgoing>, LogError> {
        query::outbox(&self.conn, after, limit, level_min)
            .map_err(|e| LogError::from_sqlite(&self.path, "read the outbox", e))
    }

    /// The incident that was recorded next after that of this id, or the first, after "".
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn incident_after(&self, id: &str) -> Result<Option<EventRow>, LogError> {
        query::incident_after(&self.conn, id)
            .map_err(|e| LogError::from_sqlite(&self.path, "read events", e))
    }

    /// The event, as it stands, whose newest change has the lowest seq above `after`. Up to seq
    /// `floor` only incidents that are not over count: what is told of them is still news.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn changed_after(&self, after: u64, floor: u64) -> Result<Option<EventRow>, LogError> {
        query::changed_after(&self.conn, after, floor)
            .map_err(|e| LogError::from_sqlite(&self.path, "read events", e))
    }

    /// How many events whose newest change has a seq above `after`, up to `until`, are over, or of the
    /// device itself.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn over_between(&self, after: u64, until: u64) -> Result<u64, LogError> {
        query::over_between(&self.conn, after, until)
            .map_err(|e| LogError::from_sqlite(&self.path, "count events", e))
    }

    /// The seq up to which all events reach but the `newest` that changed last; 0 if there are no
    /// others.
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn floor(&self, newest: u64) -> Result<u64, LogError> {
        query::floor(&self.conn, newest)
            .map_err(|e| LogError::from_sqlite(&self.path, "read events", e))
    }

    /// As [`EventLog::state_get`](crate::EventLog::state_get).
    ///
    /// # Errors
    /// Failures of SQLite.
    pub fn state_get(&self, key: &str) -> Result<Option<String>, LogError> {
        query::state(&self.conn, key)
            .map_err(|e| LogError::from_sqlite(&self.path, "read state", e))
    }

    /// As [`EventLog::check`](crate::EventLog::check).
    ///
    /// # Errors
    /// Failures of SQLite other than the damage looked for.
    pub fn check(&self) -> Result<Vec<String>, LogError> {
        query::check(&self.conn, &self.path)
    }
}
