//! The log of record: events, their trajectories and evidence, in SQLite.
//!
//! An event exists when its row is committed; nothing outward happens before. One process writes
//! ([`EventLog`], which owns the only writing connection and a lock file), any number may read
//! beside it ([`LogReader`]).
//!
//! What holds after any crash:
//! - Every id that was returned is there, with its evidence (the caller pins and syncs the frames
//!   first, then records).
//! - Every change of an event got the next *seq*: 1, 2, 3 … without gaps for the life of the log. The
//!   outbox holds the seqs that the server has not acknowledged; a seq that leaves it otherwise is
//!   named in a drop event ([`EventLog::prune`]).
//! - The log opens. What cannot be used is set aside beside it, and a new log begins with an event
//!   that says so ([`OpenReport`]); the last three such losses are kept.
//!
//! SQLite runs with a write-ahead log, `synchronous=FULL` and no memory map: a commit that returned
//! survives a power cut as far as the disk keeps its word.
#![forbid(unsafe_code)]

mod error;
mod id;
mod incident;
mod log;
mod open;
mod prune;
mod query;
mod reader;
mod rfc3339;
mod schema;

pub use error::LogError;
pub use id::{EventId, IdError};
pub use incident::{EvidenceItem, Incident, Level, Phase};
pub use log::EventLog;
pub use open::{LOG_LOST, Loss, OpenReport};
pub use prune::{Bound, EVENTS_DROPPED, Pruned};
pub use query::{EventKind, EventRow, Kinds, Outgoing, Query};
pub use reader::LogReader;
pub use rfc3339::rfc3339;
