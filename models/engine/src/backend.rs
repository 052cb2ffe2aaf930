//! What runs a part: the seam between the engine and its backends.

use crate::EngineError;
use bundle::Manifest;
use kernels::Aligned;
use std::{fmt, sync::Arc};

/// Whether a backend can work on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It can.
    Ready,
    /// What it needs is not here (no such device, library, driver).
    Absent(String),
    /// What it needs is here but does not work.
    Broken(String),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Absent(why) => write!(f, "absent: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

/// Why a backend did not take a part.
pub(crate) enum Refusal {
    /// The part may be sound but this backend cannot run it; the next one is asked. The CPU never
    /// declines.
    #[allow(dead_code)]
    Decline(String),
    /// The part itself is wrong; no backend will run it.
    Unsound(EngineError),
}

impl<E: Into<EngineError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Unsound(error.into())
    }
}

/// Something that can run parts of a bundle.
pub(crate) trait Backend {
    /// Name and version, as events and trajectories carry it.
    fn id(&self) -> String;
    /// Whether it can work here. Cheap, and never ends the process.
    fn probe(&self) -> Probe;
    /// Takes the vision part: ONNX or packed weights, contents already verified.
    fn vision(&self, manifest: &Manifest, tower: &Arc<Aligned>)
    -> Result<Box<dyn Vision>, Refusal>;
    /// Takes the decoder part, and the adapter part if there is one: safetensors, contents already
    /// verified. Packed weights are used where they lie; the adapter is not needed any more afterwards.
    fn decoder(
        &self,
        manifest: &Manifest,
        weights: &Arc<Aligned>,
        adapter: Option<&[u8]>,
    ) -> Result<Box<dyn Decoder>, Refusal>;
}

/// A vision tower, ready to run.
pub(crate) trait Vision: Send + Sync {
    /// `frames` is `[pairs, 2, channels, height, width]` in [-1, 1]. Returns `tokens` and then
    /// `deepstack_0` …, each `[pairs, tokens_per_pair, hidden]`.
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError>;
}

/// A text decoder, ready to run.
pub(crate) trait Decoder: Send + Sync {
    /// A state that has seen nothing.
    fn start(&self) -> Result<Box<dyn DecoderState>, EngineError>;
    /// Writes the embedding of a token into `out`, `[hidden]`.
    fn embed(&self, token: u32, out: &mut [f32]);
}

/// The keys and values of one session.
pub(crate) trait DecoderState: Send {
    /// Runs a chunk that follows all chunks before it; returns the logits after its last position,
    /// `[vocab]`.
    fn step(&mut self, chunk: Chunk) -> Result<Vec<f32>, EngineError>;
    /// A copy that goes its own way.
    fn fork(&self) -> Box<dyn DecoderState>;
}

/// `n` consecutive positions of a session.
pub(crate) struct Chunk {
    /// Position on the axes of time, height and width.
    pub positions: Vec<[u32; 3]>,
    /// `[n, hidden]`: embeddings of text, visual tokens of frames.
    pub embeddings: Vec<f32>,
    /// What is added after layer 0, 1 …: `[n, hidden]` each, zero at text.
    pub deepstack: Vec<Vec<f32>>,
}

/// What a tower gave as output `name`, for one pair: of the shape that the manifest implies, and finite.
pub(crate) fn sound(
    name: &str,
    shape: &[usize],
    expected: &[usize],
    values: &[f32],
) -> Result<(), EngineError> {
    if shape != expected {
        return Err(EngineError::VisionShape {
            what: format!("output '{name}' of a pair"),
            expected: format!("{expected:?}"),
            found: format!("{shape:?}"),
        });
    }
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(EngineError::NotFinite { part: "the vision tower" }),
    }
}
