//! What a method made of a video, as a line of JSON: what is measured and drawn rests on these.

use crate::{Watched, table::Truth};
use serde::{Deserialize, Serialize};

/// One method on one video.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The video and its truth.
    pub video: Truth,
    /// The method's name.
    pub method: String,
    /// Which of several trainings of the policy.
    #[serde(default)]
    pub train_seed: u32,
    /// Its budget of frames, for each stretch of the video.
    pub frames: u32,
    /// The policy.
    pub bundle: String,
    /// What came of it.
    pub watched: Watched,
}
