//! What a policy takes of memory, told before any of it is taken.

use crate::{
    accelerated::part_of,
    engine::{PREFIX_BYTES, pair_cache_bytes},
    packed_tensors,
    session::CHUNK,
};
use bundle::{ADAPTER, Bundle, BundleError, DECODER, Geometry, Manifest, VISION};
use kernels::Format;
use std::fmt;

/// What a policy takes of memory at most, in bytes.
///
/// An estimate from the manifest and the lengths of the parts, made to lie above what is taken
/// rather than below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Weights as they are computed with.
    pub weights: u64,
    /// Keys and values of one inquiry that fills the context, of the prefixes that are kept, and what
    /// lies between the layers.
    pub context: u64,
    /// Visual tokens that are kept, and what lies between the layers of the tower.
    pub sight: u64,
    /// The vocabulary, as the tokenizer and the grammar need it.
    pub words: u64,
    /// Tokens of a full context.
    pub tokens: u64,
}

impl Footprint {
    /// Of the policy in `bundle`.
    ///
    /// # Errors
    /// If it lists no decoder or vision part.
    pub fn of(bundle: &Bundle) -> Result<Self, BundleError> {
        let manifest = &bundle.manifest;
        let decoder = &manifest.decoder;
        let (text, tower) = (bundle.length(DECODER)?, bundle.length(VISION)?);
        let packed = is_packed(manifest, text);
        // A plain part grows to 32 bits, and is there twice while its graph is being put in order.
        let weights = if packed { text } else { 4 * text };
        // As it came, and as it is computed with; of a plain decoder in 32 bits, twice.
        let adapter = manifest.parts.get(ADAPTER).map_or(0, |part| part.bytes as usize);
        let adapter = if packed { 2 * adapter } else { 5 * adapter };
        let onnx = manifest.parts.get(VISION).is_some_and(|part| part.file.ends_with(".onnx"));
        let eyes = if onnx { 2 * tower } else { tower };
        let number = if packed { 2 } else { size_of::<f32>() };
        let token = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * number;
        let between =
            4 * (2 * decoder.intermediate + 4 * decoder.hidden) * size_of::<f32>() * CHUNK;
        let Geometry { width, height, channels, .. } = manifest.geometry;
        // Of 24 layers and a width of 1024: seen to be 15 times the pixels.
        let looking = 16 * 2 * channels * width * height * size_of::<f32>();
        Ok(Self {
            weights: (weights + adapter + eyes) as u64,
            context: (decoder.context_max * token + PREFIX_BYTES + between) as u64,
            sight: (pair_cache_bytes(manifest) + looking) as u64,
            // Of 151,936 tokens: seen to be 165 MB.
            words: 1100 * decoder.vocab as u64,
            tokens: decoder.context_max as u64,
        })
    }

    /// The same with accelerators beside the CPU, one that `sees` and one that `speaks`: they have the tower and the decoder
    /// too, and what they make of them, which is an estimate that no board has confirmed.
    ///
    /// # Errors
    /// If it lists no decoder or vision part.
    pub fn accelerated(bundle: &Bundle, sees: bool, speaks: bool) -> Result<Self, BundleError> {
        let alone = Self::of(bundle)?;
        let tower = if sees { bundle.length(part_of(&bundle.manifest))? } else { 0 };
        let text = if speaks { bundle.length(DECODER)? } else { 0 };
        // A board has one memory for both; the weights are there once more while they are on their way.
        let (weights, context) = (alone.weights + 2 * (tower + text) as u64, alone.context);
        Ok(Self { weights, context: if speaks { 2 * context } else { context }, ..alone })
    }

    /// All of it, and what the allocator keeps of what comes and goes: seen to be a sixth, counted as
    /// a quarter.
    pub fn total(&self) -> u64 {
        let Self { weights, context, sight, words, .. } = *self;
        weights + words + (context + sight) / 4 * 5
    }
}

/// Whether a decoder part of `bytes` is packed: then it is at most 8 bits a weight and a little.
pub(crate) fn is_packed(manifest: &Manifest, bytes: usize) -> bool {
    let tensors = packed_tensors(&manifest.decoder, Format::Q8_0);
    let most: usize = tensors.iter().map(|(_, content)| content.bytes()).sum();
    bytes <= most + most / 16
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, context, sight, words, tokens } = *self;
        let gb = |bytes: u64| bytes as f64 / 1e9;
        write!(
            f,
            "{:.2} GB: weights {:.2}, a context of {tokens} tokens {:.2}, sight {:.2}, words {:.2}",
            gb(self.total()),
            gb(weights),
            gb(context),
            gb(sight),
            gb(words)
        )
    }
}
