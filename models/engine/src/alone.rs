//! Parts of a policy alone, a decoder without words or grammar and a tower without frames: to be
//! measured and compared.

use crate::{
    EngineError, EngineOptions,
    backend::{Backend, Chunk, Decoder, DecoderState, Refusal, Vision},
    rotary::Walker,
    tract_cpu::TractCpu,
};
use bundle::Manifest;
use kernels::Aligned;
use std::sync::Arc;

/// A text decoder on the CPU.
pub struct TextDecoder {
    decoder: Box<dyn Decoder>,
    hidden: usize,
    deepstack: usize,
}

impl TextDecoder {
    /// From the contents of a `decoder` part, and those of an `adapter` part if there is one.
    ///
    /// # Errors
    /// As [`crate::Engine::load`].
    pub fn load(
        manifest: &Manifest,
        weights: &Arc<Aligned>,
        adapter: Option<&[u8]>,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let decoder = TractCpu::new(options.threads).decoder(manifest, weights, adapter);
        let decoder = decoder.map_err(refused)?;
        let (hidden, deepstack) = (manifest.decoder.hidden, manifest.geometry.deepstack);
        Ok(Self { decoder, hidden, deepstack })
    }

    /// A text of which nothing was read yet.
    ///
    /// # Errors
    /// If the decoder fails.
    pub fn start(&self) -> Result<Text<'_>, EngineError> {
        let state = self.decoder.start()?;
        Ok(Text { of: self, state, walker: Walker::default() })
    }
}

/// A text that a [`TextDecoder`] reads.
pub struct Text<'a> {
    of: &'a TextDecoder,
    state: Box<dyn DecoderState>,
    walker: Walker,
}

impl Text<'_> {
    /// Reads `tokens` in one run; returns the logits after the last, `[vocab]`.
    ///
    /// # Errors
    /// If the decoder fails.
    ///
    /// # Panics
    /// If a token is not below `vocab`.
    pub fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let TextDecoder { decoder, hidden, deepstack } = self.of;
        let mut embeddings = vec![0.0; tokens.len() * hidden];
        for (token, out) in tokens.iter().zip(embeddings.chunks_exact_mut(*hidden)) {
            decoder.embed(*token, out);
        }
        let deepstack = vec![vec![0.0; embeddings.len()]; *deepstack];
        let positions = tokens.iter().map(|_| self.walker.text()).collect();
        self.state.step(Chunk { positions, embeddings, deepstack })
    }
}

impl Clone for Text<'_> {
    fn clone(&self) -> Self {
        Self { of: self.of, state: self.state.fork(), walker: self.walker.clone() }
    }
}

/// A vision tower on the CPU.
pub struct Tower {
    vision: Box<dyn Vision>,
}

impl Tower {
    /// From the contents of a `vision` part.
    ///
    /// # Errors
    /// As [`crate::Engine::load`].
    pub fn load(
        manifest: &Manifest,
        part: &Arc<Aligned>,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let vision = TractCpu::new(options.threads).vision(manifest, part).map_err(refused)?;
        Ok(Self { vision })
    }

    /// Tokens and DeepStack features, `[pairs, tokens, hidden]` each, of `frames`
    /// `[pairs, 2, channels, height, width]`, between -1 and 1.
    ///
    /// # Errors
    /// If the tower fails.
    pub fn look(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        self.vision.encode(frames, pairs)
    }
}

fn refused(refusal: Refusal) -> EngineError {
    match refusal {
        Refusal::Unsound(error) => error,
        Refusal::Decline(report) => EngineError::NoBackend { report },
    }
}
