//! What an inquiry hands to the log.

use crate::LogError;
use hal_camera::{CameraId, MediaTime, WallTime};
use serde::{Deserialize, Serialize, Serializer};

/// How much an event asks of people. Ordered: `Info < Notice < Alert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth keeping.
    Info,
    /// Worth reading.
    Notice,
    /// Worth acting on now.
    Alert,
}

/// Where an event stands: recorded, changed while the incident goes on, over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Just recorded.
    New,
    /// The incident goes on and more is known.
    Update,
    /// The incident is over; the event changes no more.
    End,
}

/// One frame that an event rests on. Serialises as `{"id", "t_s", "hash"}`, as in trajectories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EvidenceItem {
    /// The frame's id in the frame store.
    #[serde(rename = "id")]
    pub frame_id: String,
    /// When it was taken; seconds on the media clock in JSON.
    #[serde(rename = "t_s", serialize_with = "seconds")]
    pub media_time: MediaTime,
    /// The frame's hash, as the frame store gave it.
    pub hash: String,
}

/// A verdict about one stretch of one camera, with everything that decided it.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// The camera's number.
    pub camera: CameraId,
    /// The camera's name in the configuration.
    pub camera_name: String,
    /// When the incident began.
    pub start: WallTime,
    /// When it ended, or was last seen.
    pub end: WallTime,
    /// `start` on the camera's media clock.
    pub start_media: MediaTime,
    /// `end` on the camera's media clock.
    pub end_media: MediaTime,
    /// How much it asks of people.
    pub level: Level,
    /// What it is, in a word or two.
    pub label: String,
    /// How probable, 0 to 1.
    pub score: f32,
    /// What happened, in one plain sentence.
    pub sentence: String,
    /// The clips of the final verdict.
    pub clips: serde_json::Value,
    /// The steps that led to it.
    pub trajectory: serde_json::Value,
    /// How many frames the inquiry looked at.
    pub frames_used: u32,
    /// The bundle that decided.
    pub bundle: String,
    /// The engine that ran it.
    pub engine: String,
    /// What ended the inquiry: the policy's own `final`, or the budget that ran out.
    pub stopped_by: String,
    /// The frames it rests on.
    pub evidence: Vec<EvidenceItem>,
    /// The frame store's pin that holds them, already synced.
    pub pin: Option<u64>,
}

impl Incident {
    /// Refuses what would make a row that no one can read.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let refuse = |reason: String| Err(LogError::Incident { reason });
        if !(0.0..=1.0).contains(&self.score) {
            return refuse(format!("its score {} is not between 0 and 1", self.score));
        }
        if self.end_media < self.start_media {
            return refuse(format!(
                "it ends at {}, before it starts at {}",
                self.end_media, self.start_media
            ));
        }
        if !self.evidence.is_empty() && self.pin.is_none() {
            return refuse("it cites evidence that is not pinned".to_owned());
        }
        Ok(())
    }
}

impl Level {
    /// The name used in JSON and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Alert => "alert",
        }
    }
}

impl Phase {
    /// The name used in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::End => "end",
        }
    }

    /// Whether an event in this phase may go to `next`: `new → update* → end`.
    pub fn may_become(self, next: Phase) -> bool {
        self != Self::End && next != Self::New
    }
}

fn seconds<S: Serializer>(time: &MediaTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_s())
}
