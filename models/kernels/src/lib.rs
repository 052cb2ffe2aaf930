//! Quantised matrix products and attention for a policy of billions of weights, on the CPU.
//!
//! A decoder that speaks one token at a time reads every weight for each: its speed is that of the
//! memory. So weights are 4 or 8 bits wide ([`Matrix`]), laid out in the order in which they are
//! read, and multiplied as integers with activations of 8 bits ([`Activations`]). Keys and values
//! are kept in 16 bits ([`Attention`]). What an adapter adds is two narrow products beside the wide one
//! ([`LowRank`]).
//!
//! Every variant, from plain Rust to AVX-512, computes the same bits: the integer products are exact,
//! and the sums of their scaled values are fused multiply-adds in one order. What a policy says does
//! therefore not depend on the CPU or on the number of threads.

mod activations;
mod aligned;
mod attention;
mod dot;
mod file;
mod low_rank;
mod matrix;
#[cfg(feature = "operators")]
mod operators;
mod plain;
mod stream;
mod threads;

pub use activations::Activations;
pub use aligned::{Aligned, Region};
pub use attention::{Attention, Memory, Precision, Sight, Turns};
pub use dot::Variant;
pub use file::{Content, FileError, PackedFile, Writer};
pub use low_rank::{Factors, LowRank};
pub use matrix::{Format, Matrix, PackError, ROWS, multiply};
#[cfg(feature = "operators")]
pub use operators::{Attend, Linear, Norm, SwiGlu, With};
pub use plain::{Then, add, biased, layer_norm, rms_norm, swiglu};
pub use stream::stream;
pub use threads::Threads;

/// Weights and activations that share a scale.
pub const BLOCK: usize = 32;
