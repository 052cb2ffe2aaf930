//! Brings every event to the fleet server, exactly once in effect.
//!
//! The event log keeps what the server has not acknowledged, by seq; [`Uplink`] sends it in batches of
//! CloudEvents over HTTPS with mutual TLS, alerts first, and lets go of a change only when the server
//! has answered that it, and all before it, is committed. What is sent twice is ignored there. The
//! pictures and whatever else is large follow by their hash, with a budget of their own.
//!
//! [`Mirror`] tells an MQTT broker the same, beside it and behind a cursor of its own.
//!
//! [`Plan`] and [`Backoff`] are pure; what does the talking is behind [`Server`], what remembers behind
//! [`Outbox`].
#![forbid(unsafe_code)]

mod backoff;
mod budget;
mod enrol;
mod error;
mod event;
mod https;
mod identity;
mod mirror;
mod plan;
mod uplink;

pub use backoff::{Backoff, LONGEST_ASKED};
pub use enrol::{Token, enrol};
pub use error::{Failure, IdentityError};
pub use event::{Attached, Carried, EVENT_BYTES_MAX, Sender, batch, carried};
pub use https::{Had, Https, Part, Server};
pub use identity::Identity;
pub use mirror::{
    Access, Broker, BrokerAddress, BrokerError, Greeting, Journal, Message, Mirror, MirrorStatus,
    Mqtt, REPEATED_MAX, Remark, Told, Topics, prefix_problem,
};
pub use plan::{Answer, Plan, Waiting};
pub use uplink::{Notice, Options, Outbox, Status, Uplink};
