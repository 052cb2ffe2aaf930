//! The tables, how they came to be, and how a connection must be set up.

use crate::LogError;
use rusqlite::{Connection, Transaction, config::DbConfig};
use std::path::Path;
use std::time::Duration;

/// Marks the file as a Lookback log ("LkBk"), so that another program's database is never taken
/// for one.
pub(crate) const APPLICATION_ID: i32 = 0x4c6b_426b;

/// SQLite before this version can corrupt a write-ahead log when two connections checkpoint and
/// commit at the same moment.
const OLDEST_SQLITE: (i32, &str) = (3_051_003, "3.51.3");

/// The write-ahead log is folded into the database after this many pages (1 MiB): small enough that
/// opening after a crash is quick, large enough that an ordinary event costs one sync.
const CHECKPOINT_PAGES: u32 = 256;

/// Bytes that the write-ahead log keeps on disk after a checkpoint, when one large transaction or a
/// slow reader had let it grow.
const WAL_BYTES_KEPT: u32 = 4 << 20;

/// Page cache, in KiB: the log is written a row at a time and seldom read, so it shall not cost the
/// camera SQLite's usual memory.
const CACHE_KIB: u32 = 1024;

/// Each entry brings the schema from its index to the next version; a published entry is never
/// edited, only followed by another.
const MIGRATIONS: [&str; 1] = ["
    -- One row: what the log knows about itself.
    CREATE TABLE log (
        one              INTEGER PRIMARY KEY CHECK (one = 1),
        log_id           TEXT    NOT NULL,
        last_seq         INTEGER NOT NULL CHECK (last_seq >= 0),
        -- Time part of the newest id; the next one is later, whatever the wall clock says.
        last_id_ms       INTEGER NOT NULL,
        acknowledged_seq INTEGER NOT NULL CHECK (acknowledged_seq BETWEEN 0 AND last_seq)
    ) STRICT;

    -- Incidents and the device's own events. `number` is the order of recording; `seq` the event's
    -- latest change. Times ending in _us are in microseconds, wall times since 1970 UTC.
    CREATE TABLE event (
        number         INTEGER PRIMARY KEY,
        id             TEXT    NOT NULL UNIQUE,
        seq            INTEGER NOT NULL UNIQUE,
        kind           TEXT    NOT NULL CHECK (kind IN ('incident', 'health')),
        phase          TEXT    NOT NULL CHECK (phase IN ('new', 'update', 'end')),
        level          INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2),
        start_us       INTEGER NOT NULL,
        end_us         INTEGER NOT NULL,
        clock          TEXT    NOT NULL CHECK (clock IN ('unsynced', 'ntp')),
        committed_us   INTEGER NOT NULL,
        label          TEXT    NOT NULL,
        sentence       TEXT    NOT NULL,
        -- Of health events only:
        fields         TEXT,
        -- Of incidents only:
        camera         INTEGER,
        camera_name    TEXT,
        start_media_us INTEGER,
        end_media_us   INTEGER,
        score          REAL,
        clips          TEXT,
        trajectory     TEXT,
        frames_used    INTEGER,
        bundle         TEXT,
        engine         TEXT,
        stopped_by     TEXT,
        pin            INTEGER,
        CHECK ((kind = 'incident') = (camera IS NOT NULL))
    ) STRICT;
    CREATE INDEX event_by_end ON event (end_us);

    CREATE TABLE evidence (
        event    INTEGER NOT NULL REFERENCES event (number) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        frame    TEXT    NOT NULL,
        media_us INTEGER NOT NULL,
        hash     TEXT    NOT NULL,
        PRIMARY KEY (event, position)
    ) STRICT, WITHOUT ROWID;

    -- Changes that the server has not acknowledged. An entry names the event, not a copy of it: what
    -- is sent for a seq is the event as it stands then, and a later seq brings what came after.
    CREATE TABLE outbox (
        seq   INTEGER PRIMARY KEY,
        event INTEGER NOT NULL REFERENCES event (number) ON DELETE CASCADE,
        phase TEXT    NOT NULL,
        level INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX outbox_by_event ON outbox (event);

    -- Small facts that other parts must not lose.
    CREATE TABLE state (
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

/// The schema this program writes.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Refuses a SQLite with the write-ahead log bug. `version` is as `rusqlite::version_number` says.
pub(crate) fn refuse_old_sqlite(version: i32) -> Result<(), LogError> {
    let (oldest, needed) = OLDEST_SQLITE;
    if version >= oldest {
        return Ok(());
    }
    let found = format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000);
    Err(LogError::SqliteTooOld { found, needed })
}

/// Brings a database of schema `from` (0: an empty one) to [`VERSION`]. All or nothing, with `tx`.
pub(crate) fn migrate(tx: &Transaction<'_>, from: i64) -> rusqlite::Result<()> {
    for (version, statements) in (1..).zip(MIGRATIONS) {
        if version > from {
            tx.execute_batch(statements)?;
        }
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)
}

/// Sets a connection up for the durability that the crate promises. `path` is for messages.
pub(crate) fn prepare_writer(conn: &Connection, path: &Path) -> Result<(), LogError> {
    let failed = |source| LogError::from_sqlite(path, "set the connection up", source);
    prepare_any(conn).map_err(failed)?;
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        let message = format!("the file system allows no write-ahead log (journal mode '{mode}')");
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, message);
        return Err(LogError::Io { path: path.into(), doing: "open it for writing", source });
    }
    let pragmas = || {
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))
    };
    pragmas().map_err(failed)
}

/// The part of the set-up that readers and writers share.
pub(crate) fn prepare_any(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).or_else(no_rows_is_fine)?;
    conn.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))
}

/// `mmap_size` answers with no row where memory maps were left out of the build.
fn no_rows_is_fine(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_with_the_wal_bug_is_refused_in_a_sentence() {
        let refusal = refuse_old_sqlite(3_051_002).unwrap_err().to_string();
        assert!(refusal.starts_with("SQLite 3.51.2 can corrupt"), "{refusal}");
        assert!(refusal.contains("3.51.3 or newer"), "{refusal}");
        assert!(refuse_old_sqlite(3_051_003).is_ok());
    }

    #[test]
    fn the_linked_sqlite_is_new_enough() {
        refuse_old_sqlite(rusqlite::version_number()).unwrap();
    }
}
