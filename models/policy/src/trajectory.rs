//! The record of an inquiry: everything that decided.

use crate::Hypothesis;
use serde::{Deserialize, Serialize};

/// A frame that the policy has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenFrame {
    /// The store's id of the frame.
    pub id: String,
    /// When, in seconds within the stretch.
    pub t_s: f64,
    /// Hash of the stored bytes.
    pub hash: String,
}

/// What was done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepOperator {
    /// The opening look at the window.
    Glance,
    /// Look at what came before.
    Backtrack,
    /// Look wider.
    Expand,
    /// Look closer.
    Sample,
    /// The verdict.
    Final,
    /// A turn that was no operator; the error is in `args`.
    Invalid,
}

/// One step: an operator, what came back, and what the policy thought that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step, from 0 (the glance).
    pub step: u32,
    /// The operator.
    pub op: StepOperator,
    /// Its arguments as the policy gave them.
    pub args: serde_json::Value,
    /// The frames that came back, in order of time.
    pub frames: Vec<SeenFrame>,
    /// The thought that led to this step, in words.
    pub thought: String,
    /// The hypothesis after that thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<Hypothesis>,
    /// P(anomalous) after seeing these frames; for `final`, the verdict's.
    pub p: f32,
    /// Ids of the tokens that the policy wrote in the turn that led to this step.
    pub tokens: Vec<u32>,
}
