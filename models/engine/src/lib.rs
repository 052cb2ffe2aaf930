//! Inference of a policy: frames and tokens in, tokens and probabilities out.
//!
//! An [`Engine`] is a [`bundle::Bundle`] made ready. [`Engine::encode`] turns frame pairs into
//! visual tokens, once each; [`Engine::start`] opens a [`Session`], which is fed text and pairs,
//! asked yes or no, and let speak within a [`Grammar`]. Keys and values stay in the session from
//! turn to turn; a clone of a session goes its own way.
//!
//! A decoder may be packed: its weights in 4 or 8 bits, in the layout in which [`kernels`] reads them. It may
//! have an adapter, which is computed beside its weights and never merged into them.
//!
//! The same bundle, engine id and calls give the same tokens, whatever ran before: sums are added
//! up in a fixed order, on however many threads, and a choice among equals is the lowest token.
#![forbid(unsafe_code)]

mod accelerated;
mod alone;
mod backend;
mod engine;
mod error;
mod footprint;
mod golden;
mod grammar;
mod onnx_runtime;
mod packing;
mod pairs;
mod panics;
mod rotary;
mod sampling;
mod session;
mod tract_cpu;
mod tract_cuda;
mod vocabulary;

pub use alone::{Text, TextDecoder, Tower};
pub use backend::Probe;
pub use engine::{ACCELERATED_DECODER, ACCELERATED_VISION, Engine, EngineOptions, Stats};
pub use error::EngineError;
pub use footprint::Footprint;
pub use golden::{Golden, cosine};
pub use grammar::Grammar;
pub use onnx_runtime::{Accelerator, Provider};
pub use packing::{LORA_ALPHA, TOWER, TowerShape, USE_RSLORA, packed_tensors, places, projections};
pub use pairs::{PairInput, PairKey, PairTokens};
pub use sampling::Sampling;
pub use session::{Generated, Piece, Session, Stopped};
