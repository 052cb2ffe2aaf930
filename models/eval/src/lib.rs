//! How good a policy is: metrics of video anomaly detection, benchmarks' annotations, and the
//! observation strategies that the policy is compared with.
#![forbid(unsafe_code)]

pub mod annotations;
mod bootstrap;
pub mod curve;
mod eyes;
pub mod metrics;
mod record;
pub mod report;
mod sim;
mod strategies;
pub mod table;

pub use bootstrap::{Estimate, bootstrap};
pub use eyes::{EyesError, Passive, PassiveOn};
pub use record::Record;
pub use sim::SimVideo;
pub use strategies::{Eyes, Strategy, Watched, watch};
