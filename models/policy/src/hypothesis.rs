//! What the policy believes at a step.

use serde::{Deserialize, Serialize};

/// A structured hypothesis: the clips that may be anomalous, and how likely it is that anything is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// Suspected clips, most likely first.
    pub clips: Vec<ClipHypothesis>,
    /// P(anything anomalous in the stretch), from the yes/no distribution of the verdict probe; the
    /// policy does not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_p: Option<f32>,
}

/// One suspected clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipHypothesis {
    /// `[start, end]` in seconds.
    pub span: [f64; 2],
    /// What it may be, in the words of the bundle.
    pub label: String,
    /// P(this clip is anomalous); filled in by the host, as `video_p` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f32>,
    /// Numbers of the observations that speak for it, from 1.
    pub evidence: Vec<u32>,
    /// What would settle it.
    pub missing: String,
}
