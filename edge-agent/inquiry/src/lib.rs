//! The closed loop: policy and frame store, within budgets, until a verdict.
//!
//! [`policy::Inquiry`] decides what comes next; [`Inquirer`] carries it out: it fetches frames from
//! [`Footage`], feeds the engine, reads the verdict probe and lets the policy speak.
#![forbid(unsafe_code)]

mod footage;
mod inquirer;
mod replay;

pub use footage::{Evidence, Footage, Stored};
pub use inquirer::{Inquirer, InquiryError, Report, Request, Timing, Turn};
pub use replay::{Replay, ReplayError, replay};
