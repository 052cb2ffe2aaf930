//! tract on an NVIDIA GPU, for the decoder.
//!
//! A program has it if it was built with the feature `cuda-12060` or `cuda-13020`; CUDA's libraries are looked for when it is
//! asked for, not when the program is built or started. **It was never run on a GPU**: what is tried is the graph that it is
//! given, on tract's own runtime for processors, and that its absence is told. What it computes on a board has to pass the
//! canary there.

use crate::{
    backend::{Backend, Decoder, Probe, Refusal, Vision},
    panics::caught,
    tract_cpu::{Host, TractDecoder},
};
use bundle::Manifest;
use kernels::Aligned;
use std::sync::Arc;
use tract_core::{
    internal::{RunOptions, Runtime},
    runtime::runtime_for_name,
};
// It registers its runtime by being there.
#[cfg(feature = "cuda")]
use tract_cuda as _;
use tract_linalg::multithread::Executor;

/// The CUDA that this program talks to, if any.
const BUILT_FOR: Option<&str> = if cfg!(feature = "cuda-13020") {
    Some("13.2")
} else if cfg!(feature = "cuda-12060") {
    Some("12.6")
} else {
    None
};

/// What tract says of a machine that has no NVIDIA driver at all.
const NO_DRIVER: &str = "driver library not found";

/// tract on an NVIDIA GPU.
pub(crate) struct TractCuda;

impl TractCuda {
    /// # Errors
    /// Why there is none.
    fn runtime() -> Result<&'static dyn Runtime, Probe> {
        if BUILT_FOR.is_none() {
            let why = "this program was built without it: cross/build --features cuda-12060 or cuda-13020 has it";
            return Err(Probe::Absent(why.into()));
        }
        let found = caught(|| runtime_for_name("cuda").map_err(|error| format!("{error:#}")));
        match found {
            Ok(Some(runtime)) => Ok(runtime),
            Ok(None) => Err(Probe::Broken("its runtime is not in this program".into())),
            Err(why) if why.contains(NO_DRIVER) => {
                Err(Probe::Absent("there is no NVIDIA driver (libcuda.so.1)".into()))
            }
            Err(why) => Err(Probe::Broken(why)),
        }
    }
}

impl Backend for TractCuda {
    fn id(&self) -> String {
        match BUILT_FOR {
            Some(cuda) => format!("tract-cuda 0.23.9 with CUDA {cuda}"),
            None => "tract-cuda".into(),
        }
    }

    fn probe(&self) -> Probe {
        Self::runtime().err().unwrap_or(Probe::Ready)
    }

    fn vision(&self, _: &Manifest, _: &Arc<Aligned>) -> Result<Box<dyn Vision>, Refusal> {
        Err(Refusal::Decline("it is for decoders".into()))
    }

    fn decoder(
        &self,
        manifest: &Manifest,
        weights: &Arc<Aligned>,
        adapter: Option<&[u8]>,
    ) -> Result<Box<dyn Decoder>, Refusal> {
        let runtime = Self::runtime().map_err(|probe| Refusal::Decline(probe.to_string()))?;
        // A clone of a state writes into the same memory of the GPU.
        let host = Host { runtime, backend: self.id(), shares: true };
        // What it has no kernel for stays on the processor.
        let executor = Some(Executor::SingleThread);
        let options = RunOptions { executor, ..RunOptions::default() };
        let loaded =
            caught(|| Ok(TractDecoder::standard(manifest, weights, adapter, host, &options)));
        match loaded.map_err(Refusal::Decline)? {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(refusal) => Err(refusal),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        accelerated::{Voice, canary_of_voice},
        packed_tensors,
        tract_cpu::TractCpu,
    };
    use bundle::{Bundle, DECODER};
    use kernels::{Content, Format, Matrix, Writer};
    use tract_core::internal::*;

    /// What the GPU is given, on tract's own runtime for processors.
    pub(crate) struct Standard;

    /// The same, with keys and values in operators of their own, as on the GPU: for processors tract joins them with
    /// attention.
    struct Apart;

    impl Runtime for Apart {
        fn name(&self) -> StaticName {
            "apart".into()
        }
        fn check(&self) -> TractResult<()> {
            Ok(())
        }
        fn prepare_with_options(
            &self,
            model: TypedModel,
            options: &RunOptions,
        ) -> TractResult<Box<dyn Runnable>> {
            let model = model.into_decluttered()?;
            Ok(Box::new(TypedSimplePlan::new_with_options(model, options)?))
        }
    }

    impl std::fmt::Debug for Apart {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("apart")
        }
    }

    fn on(
        runtime: &dyn Runtime,
        manifest: &Manifest,
        weights: &Arc<Aligned>,
        adapter: Option<&[u8]>,
    ) -> Result<Box<dyn Decoder>, Refusal> {
        let host = Host { runtime, backend: "standard 1".into(), shares: true };
        let executor = Some(Executor::SingleThread);
        let options = RunOptions { executor, ..RunOptions::default() };
        Ok(Box::new(TractDecoder::standard(manifest, weights, adapter, host, &options)?))
    }

    impl Backend for Standard {
        fn id(&self) -> String {
            "standard 1".into()
        }
        fn probe(&self) -> Probe {
            Probe::Ready
        }
        fn vision(&self, _: &Manifest, _: &Arc<Aligned>) -> Result<Box<dyn Vision>, Refusal> {
            Err(Refusal::Decline("it is for decoders".into()))
        }
        fn decoder(
            &self,
            manifest: &Manifest,
            weights: &Arc<Aligned>,
            adapter: Option<&[u8]>,
        ) -> Result<Box<dyn Decoder>, Refusal> {
            on(runtime_for_name("cpu").unwrap().unwrap(), manifest, weights, adapter)
        }
    }

    fn aligned(bytes: &[u8]) -> Arc<Aligned> {
        let mut aligned = Aligned::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        Arc::new(aligned)
    }

    fn manifest_of(dir: &str) -> (Manifest, Arc<Aligned>) {
        let bundle = Bundle::open(format!("{}/{dir}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let decoder = aligned(&bundle.read(DECODER).unwrap());
        (bundle.manifest.clone(), decoder)
    }

    /// Drawn weights in the shape of `manifest`.
    fn drawn(manifest: &Manifest, format: Format) -> Arc<Aligned> {
        let tensors = packed_tensors(&manifest.decoder, format);
        let mut writer = Writer::new(Vec::new(), tensors.clone(), &[]).unwrap();
        let mut state = 1u32;
        let mut numbers = |n: usize, around: f32| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                around + (state >> 8) as f32 / (1 << 24) as f32 * 0.4 - 0.2
            };
            (0..n).map(|_| next()).collect()
        };
        for (name, content) in tensors {
            match content {
                Content::Matrix { format, rows, columns } => {
                    let numbers = numbers(rows * columns, 0.0);
                    let matrix = Matrix::quantise(format, &numbers, columns).unwrap();
                    writer.matrix(&name, &matrix).unwrap();
                }
                Content::Numbers(n) => writer.numbers(&name, &numbers(n, 1.0)).unwrap(),
            }
        }
        aligned(&writer.finish())
    }

    /// What becomes of the graph for accelerators beside our own.
    fn beside(manifest: &Manifest, weights: &Arc<Aligned>) -> String {
        let ours = || TractCpu::new(1).decoder(manifest, weights, None).ok().unwrap();
        let mut report = vec![];
        let _ = Voice::of(ours()).before(&Standard, manifest, (weights, None), &mut report);
        if let Ok(apart) = on(&Apart, manifest, weights, None) {
            let said = canary_of_voice(&*apart, &*ours(), manifest);
            assert!(said.is_ok(), "{said:?}");
        }
        report.join("\n")
    }

    #[test]
    fn the_graph_for_accelerators_says_what_ours_says() {
        const PASSED: &str = "rather on standard 1, whose canary said what the CPU says";
        for dir in ["tests/fixture", "../nano"] {
            let (manifest, weights) = manifest_of(dir);
            let report = beside(&manifest, &weights);
            assert!(report.contains(PASSED), "{dir}: {report}");
        }
        let (mut manifest, _) = manifest_of("tests/fixture");
        // With a width of a head of 64 keys and values are kept in 16 bits.
        for head_dim in [32, 64] {
            let decoder = &mut manifest.decoder;
            (decoder.hidden, decoder.intermediate, decoder.head_dim) = (64, 96, head_dim);
            decoder.mrope_section = [head_dim / 4, head_dim / 8, head_dim / 8];
            let report = beside(&manifest, &drawn(&manifest, Format::Q4_0));
            assert!(report.contains(PASSED), "{head_dim}: {report}");
            let report = beside(&manifest, &drawn(&manifest, Format::Q8_0));
            assert!(
                report.contains("not on standard 1, its weights are not of 4 bits"),
                "{report}"
            );
        }
    }

    #[test]
    fn what_is_not_there_is_told_in_a_sentence() {
        let Probe::Absent(why) = TractCuda.probe() else {
            return assert_eq!(TractCuda.probe(), Probe::Ready, "a driver that does not work");
        };
        match BUILT_FOR {
            None => assert!(why.contains("built without it"), "{why}"),
            Some(_) => assert!(why.contains("no NVIDIA driver"), "{why}"),
        }
    }
}
