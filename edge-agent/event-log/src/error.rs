//! What can go wrong with the log, one variant each, with the remedy.

use crate::{EventId, Phase};
use std::path::{Path, PathBuf};

/// Why the log could not do what was asked. A failed write has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The SQLite that was linked in has a bug that can corrupt a log.
    #[error(
        "SQLite {found} can corrupt a write-ahead log; {needed} or newer is needed: build this \
         program with its bundled SQLite"
    )]
    SqliteTooOld {
        /// The version that is linked.
        found: String,
        /// The first version without the bug.
        needed: &'static str,
    },
    /// Another process writes to the log.
    #[error("event log '{}' is in use by another process: stop that one, or read only", path.display())]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// There is no log to read.
    #[error("there is no event log '{}': nothing was recorded there yet", path.display())]
    Missing {
        /// The log.
        path: PathBuf,
    },
    /// A file operation beside SQLite failed.
    #[error("event log '{}': cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The disk, or the log's own hard limit, is full.
    #[error("event log '{}': cannot {doing}, no space is left: free some, or prune the log", path.display())]
    Full {
        /// The log.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// The file is damaged; opening it again for writing sets it aside and begins a new one.
    #[error("event log '{}' is damaged ({detail}): restart the agent, which sets it aside", path.display())]
    Damaged {
        /// The log.
        path: PathBuf,
        /// What SQLite found.
        detail: String,
    },
    /// The file's schema is not the one this program knows.
    #[error(
        "event log '{}' has schema {found}, this program reads {known}: use the version of the \
         program that wrote it",
        path.display()
    )]
    Schema {
        /// The log.
        path: PathBuf,
        /// The schema version in the file.
        found: i64,
        /// The schema version this program knows.
        known: i64,
    },
    /// Any other failure of SQLite.
    #[error("event log '{}': cannot {doing}: {source}", path.display())]
    Sqlite {
        /// The log.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The incident cannot be recorded as it is.
    #[error("the incident cannot be recorded: {reason}")]
    Incident {
        /// What is wrong with it.
        reason: String,
    },
    /// No incident of this id is in the log (it may have been pruned).
    #[error("there is no incident {id} in the log")]
    Unknown {
        /// The id asked for.
        id: EventId,
    },
    /// The event cannot go to that phase.
    #[error("event {id} is in phase '{}' and cannot become '{}'", from.name(), to.name())]
    Phase {
        /// The event.
        id: EventId,
        /// Where it stands.
        from: Phase,
        /// Where it should have gone.
        to: Phase,
    },
    /// What was given is not, and does not begin, an id.
    #[error(transparent)]
    Id(#[from] crate::IdError),
    /// More than one id begins so.
    #[error("'{prefix}' begins the ids of several events ({}): give more of it", names(candidates))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// The first few ids that begin so, oldest first.
        candidates: Vec<EventId>,
    },
    /// The server acknowledged what was never sent: it speaks of another log.
    #[error(
        "seq {seq} was acknowledged, but the log ends at {last}: the server's cursor belongs to \
         another log"
    )]
    AcknowledgedAhead {
        /// What was acknowledged.
        seq: u64,
        /// The last seq of this log.
        last: u64,
    },
}

impl LogError {
    /// The error of SQLite that happened while `doing` something with the log at `path`.
    pub(crate) fn from_sqlite(path: &Path, doing: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Damaged { path, detail: source.to_string() }
            }
            Some(DiskFull) => Self::Full { path, doing },
            _ => Self::Sqlite { path, doing, source },
        }
    }
}

fn names(ids: &[EventId]) -> String {
    ids.iter().map(EventId::as_str).collect::<Vec<_>>().join(", ")
}
