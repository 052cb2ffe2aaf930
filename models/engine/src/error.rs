//! What can go wrong between a verified bundle and a token.

use crate::Footprint;
use bundle::BundleError;

/// What can go wrong between a verified bundle and a token. Messages name the part or tensor at
/// fault and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A part could not be read, or is no longer what was sealed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What the bundle computes here is not what its `golden` part says that it does.
    #[error("it does not give its golden answers: {reason}")]
    Golden {
        /// What differs.
        reason: String,
    },
    /// The `golden` part is not one.
    #[error("its golden part cannot be read: {reason}; pack it again")]
    GoldenPart {
        /// What is wrong.
        reason: String,
    },
    /// The `tokenizer` part cannot be used.
    #[error("part 'tokenizer' cannot be used: {reason}; export it as a byte-level BPE")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer lacks a token that the engine or the manifest names.
    #[error(
        "part 'tokenizer' has no single token for '{token}' ({needed_for}): add it and retrain"
    )]
    TokenMissing {
        /// The text of the token.
        token: String,
        /// Who asks for it.
        needed_for: &'static str,
    },
    /// A part is no safetensors file.
    #[error("part '{part}' is not a safetensors file: {reason}; export it again")]
    Weights {
        /// The part.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A part lacks a tensor.
    #[error("part '{part}' has no tensor '{tensor}': export it with Hugging Face's names")]
    TensorMissing {
        /// The part.
        part: &'static str,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor's shape is not what the manifest implies.
    #[error(
        "tensor '{tensor}' of part '{part}' has shape {found:?} where bundle.toml implies \
         {expected:?}: correct bundle.toml or export it again"
    )]
    TensorShape {
        /// The part.
        part: &'static str,
        /// Name of the tensor.
        tensor: String,
        /// Shape according to the manifest.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's element type is not supported.
    #[error(
        "tensor '{tensor}' of part '{part}' holds {found} elements: export it as F32, F16 or BF16"
    )]
    TensorType {
        /// The part.
        part: &'static str,
        /// Name of the tensor.
        tensor: String,
        /// Element type in the file.
        found: String,
    },
    /// The `adapter` part is none of this decoder.
    #[error(
        "part 'adapter' cannot be added to this decoder: {reason}; train it on this very base and put it in \
         with `lookback-models adapt`"
    )]
    Adapter {
        /// What is wrong, with the tensor.
        reason: String,
    },
    /// The `vision` part is no ONNX graph that can be run.
    #[error("part 'vision' cannot be run: {reason}; export it again")]
    Vision {
        /// What is wrong.
        reason: String,
    },
    /// The `vision` part does not keep to the contract.
    #[error(
        "part 'vision': {what} has shape {found} where bundle.toml implies {expected}: correct \
         [geometry] or export it again"
    )]
    VisionShape {
        /// Which input or output.
        what: String,
        /// Shape according to the manifest.
        expected: String,
        /// Shape found.
        found: String,
    },
    /// The `vision` part has no input or output of that name.
    #[error("part 'vision' has no {what}: export it with the names that models/bundle documents")]
    VisionName {
        /// Which input or output.
        what: String,
    },
    /// It would take more memory than there is.
    #[error(
        "policy {bundle} needs {footprint}, and {:.2} GB can be had: stop what else runs here, \
         lower decoder.context_max, or take a smaller policy",
        *free as f64 / 1e9
    )]
    Memory {
        /// Id of the bundle.
        bundle: String,
        /// What it needs.
        footprint: Footprint,
        /// Bytes that can be had.
        free: u64,
    },
    /// No backend took a part.
    #[error("no backend can run this bundle:\n{report}")]
    NoBackend {
        /// Every backend with its reason, a line each.
        report: String,
    },
    /// A backend failed at run time.
    #[error("{backend} failed while it {doing}: {reason}")]
    Run {
        /// Id of the backend.
        backend: String,
        /// What it was doing.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// Weights or inputs drove the network to infinity or NaN.
    #[error(
        "{part} gave a number that is not finite: its weights are unsound, roll the bundle back"
    )]
    NotFinite {
        /// `the decoder` or `the vision tower`.
        part: &'static str,
    },
    /// A grammar is wrong, or a generation could not keep to it.
    #[error("grammar: {reason}")]
    Grammar {
        /// What llguidance said.
        reason: String,
    },
    /// A piece does not fit into the context. The session is as it was before.
    #[error("{needed} tokens do not fit into a context of {max}: end the inquiry")]
    ContextFull {
        /// Tokens that the session would have held.
        needed: usize,
        /// `context_max` of the bundle.
        max: usize,
    },
    /// Visual tokens of another bundle were fed.
    #[error("visual tokens of another bundle were fed: encode the frames with this engine")]
    ForeignPair,
    /// The next token was asked for before anything was fed.
    #[error("the session is empty: feed it before asking for the next token")]
    NothingFed,
}
