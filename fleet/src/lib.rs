//! The server of a fleet of cameras: enrolment, events, evidence and the operator's pages.
//!
//! The path of an event, each arrow one module:
//! [`serve`] (TLS, limits) → [`api`] (routes of the cameras) → [`cloudevents`] (what the bytes mean) →
//! [`ingest`] (one transaction; what is new is [`ledger`]'s decision) → PostgreSQL → the answer. The
//! operator's side: [`search`], [`devices`] and [`rollouts`] read, [`pages`] shows. The [`repository`] of policies is made
//! of plain files and needs none of these.
//!
//! What holds:
//! - An event is acknowledged only after its transaction has committed; what was received before is
//!   never stored twice.
//! - A refused batch leaves nothing behind.
//! - A process keeps no state of its own but open uploads: any number of replicas share one database
//!   and one data directory.
#![forbid(unsafe_code)]

pub mod api;
pub mod authority;
pub mod cloudevents;
pub mod database;
pub mod devices;
pub mod enrolment;
pub mod evidence;
pub mod ids;
pub mod ingest;
pub mod ledger;
pub mod metrics;
pub mod moment;
pub mod pages;
pub mod repository;
pub mod rollouts;
pub mod search;
pub mod secret;
pub mod serve;
pub mod users;
