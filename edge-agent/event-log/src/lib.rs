//! The log of record: events, their trajectories and evidence, in SQLite.
#![forbid(unsafe_code)]
