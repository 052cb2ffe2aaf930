//! The language of the interleaved policy: operators, hypotheses, transcript, grammar, budgets.
//!
//! Everything here is pure: no files, no clock, no network, no inference. The loop itself is the
//! state machine [`Inquiry`]; `edge-agent/inquiry` carries out its effects. Times are seconds
//! within the *stretch*, the piece of footage that an inquiry may reach, and have one decimal
//! wherever the policy reads or writes them.
//!
//! The method is inspired by Anom-π (Mo, Leng, Gao, "Learning to Watch", ICML 2026); operator
//! arguments, hypothesis schema and budgets are our reconstruction.
#![forbid(unsafe_code)]

mod action;
mod chat;
mod grammar;
mod hypothesis;
mod inquiry;
mod look;
mod preference;
mod tools;
mod trajectory;
mod utility;

pub use action::{Action, Final, FinalClip, ParseError, Turn, Verdict, parse_turn};
pub use chat::{
    ChatTemplate, Content, Fed, Message, Role, TemplateError, VIDEO_MARKER, fed_pieces, timestamp,
};
pub use grammar::{Vocabulary, turn_grammar};
pub use hypothesis::{ClipHypothesis, Hypothesis};
pub use inquiry::{
    Budgets, Effect, Input, Inquiry, Outcome, Setup, StoppedBy, assistant_turn, observation_line,
};
pub use look::{Limits, Look, Refusal, frames_of, glance, glance_within, look, moments, tenth};
pub use preference::{preference_loss, turn_weights};
pub use tools::{Tools, tool_schemas};
pub use trajectory::{SeenFrame, Step, StepOperator};
pub use utility::{Truth, Utility, Weights, overlap_over_union};
