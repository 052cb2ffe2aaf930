//! Oracle traces: what a policy that knew the truth would have looked at, as training data.
//!
//! The [`Teacher`] sees only what its looks have shown, but is told what each of them shows. It
//! drives the same state machine and the same chat template as the camera, so the examples are in
//! the camera's protocol by construction; the trainer never re-implements an operator.
#![forbid(unsafe_code)]

mod dice;
mod episode;
mod pupil;
mod rollout;
mod task;
mod teacher;
mod vigil;

pub use dice::Dice;
pub use episode::{Episode, Lesson, Segment, Strays, sees};
pub use pupil::Pupil;
pub use rollout::{Rollout, Rollouts};
pub use task::{Task, WINDOW_S, harmful_intervals, start_of};
pub use teacher::{Left, Teacher, kind_words};
pub use vigil::{Told, Vigil};
