//! The backend that is always there: tract on the CPU.

mod adapter;
mod attention;
mod decoder;
mod packed;
mod tensors;
mod tower;
mod vision;
mod weights;

use crate::{
    EngineError,
    backend::{Backend, Decoder, Probe, Refusal, Vision},
};
use adapter::Adapter;
use bundle::Manifest;
pub(crate) use decoder::{Host, TractDecoder};
use kernels::{Aligned, PackedFile, Threads, Variant, With};
use std::sync::Arc;
use tower::PackedTower;
use tract_core::internal::{RunOptions, TractError};
use tract_linalg::multithread::Executor;

/// The workspace pins tract to this very version: its kernels decide the last bits of a number, and
/// with them which tokens a replay reaches.
const ID: &str = "tract-cpu 0.23.9";

/// tract on the CPU.
pub(crate) struct TractCpu {
    /// Of tract's own matrix products.
    executor: Executor,
    /// Of our kernels.
    threads: Threads,
}

impl TractCpu {
    /// A backend whose matrix products use `threads` threads.
    ///
    /// Each plan carries its own executor, so that nothing here depends on tract's process-wide
    /// default, and attention is our own operator, since tract's goes to rayon's global pool whatever
    /// the executor says: an engine of one thread is one thread.
    pub fn new(threads: usize) -> Self {
        let executor = match threads {
            0 | 1 => Executor::SingleThread,
            n => Executor::multithread_with_name(n, "engine"),
        };
        Self { executor, threads: Threads::new(threads) }
    }

    fn with(&self) -> With {
        With { threads: self.threads.clone(), variant: Variant::best() }
    }

    fn options(&self) -> RunOptions {
        RunOptions { executor: Some(self.executor.clone()), ..RunOptions::default() }
    }
}

impl Backend for TractCpu {
    fn id(&self) -> String {
        ID.to_owned()
    }

    fn probe(&self) -> Probe {
        Probe::Ready
    }

    fn vision(
        &self,
        manifest: &Manifest,
        tower: &Arc<Aligned>,
    ) -> Result<Box<dyn Vision>, Refusal> {
        Ok(if PackedFile::is(tower) {
            Box::new(PackedTower::load(manifest, tower, self.with())?)
        } else {
            Box::new(vision::Tower::load(manifest, tower, &self.options())?)
        })
    }

    fn decoder(
        &self,
        manifest: &Manifest,
        weights: &Arc<Aligned>,
        adapter: Option<&[u8]>,
    ) -> Result<Box<dyn Decoder>, Refusal> {
        let options = self.options();
        let adapter = adapter.map(|bytes| Adapter::parse(bytes, &manifest.decoder)).transpose()?;
        let adapter = adapter.as_ref();
        Ok(Box::new(if PackedFile::is(weights) {
            TractDecoder::packed(manifest, weights, adapter, self.with(), &options)?
        } else {
            TractDecoder::plain(manifest, weights, adapter, &options)?
        }))
    }
}

/// tract's error as ours. `{:#}` writes the causes on one line.
fn failed(doing: &'static str) -> impl Fn(TractError) -> EngineError {
    move |e| EngineError::Run { backend: ID.to_owned(), doing, reason: format!("{e:#}") }
}
