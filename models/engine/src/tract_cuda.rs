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
        let loaded = caught(|| Ok(on(runtime, self.id(), manifest, (weights, adapter))));
        loaded.map_err(Refusal::Decline)?
    }
}

/// The decoder on a runtime of which a clone of a state writes into the same memory, as a GPU's does.
fn on(
    runtime: &dyn Runtime,
    backend: String,
    manifest: &Manifest,
    (weights, adapter): (&Arc<Aligned>, Option<&[u8]>),
) -> Result<Box<dyn Decoder>, Refusal> {
    let host = Host { runtime, backend, shares: true };
    // What it has no kernel for stays on the processor.
    let executor = Some(Executor::SingleThread);
    let options = RunOptions { executor, ..RunOptions::default() };
    Ok(Box::new(TractDecoder::standard(manifest, weights, adapter, host, &options)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        accelerated::{Voice, canary_of_voice},
        packed_tensors,
        packing::LORA_ALPHA,
        projections,
        tract_cpu::TractCpu,
    };
    use bundle::{Bundle, DECODER};
    use kernels::{Content, Format, Matrix, Writer};
    use safetensors::{Dtype, tensor::TensorView};
    use std::collections::HashMap;
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
            let runtime = runtime_for_name("cpu").unwrap().unwrap();
            on(runtime, self.id(), manifest, (weights, adapter))
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

    /// Numbers within `spread` of `around`, others for each `seed`.
    fn numbers(seed: usize, n: usize, around: f32, spread: f32) -> Vec<f32> {
        let mut state = seed as u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            around + ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * spread
        };
        (0..n).map(|_| next()).collect()
    }

    /// Drawn weights in the shape of `manifest`.
    fn drawn(manifest: &Manifest, format: Format) -> Arc<Aligned> {
        let tensors = packed_tensors(&manifest.decoder, format);
        let mut writer = Writer::new(Vec::new(), tensors.clone(), &[]).unwrap();
        for (seed, (name, content)) in tensors.into_iter().enumerate() {
            match content {
                Content::Matrix { format, rows, columns } => {
                    let numbers = numbers(seed, rows * columns, 0.0, 0.2);
                    let matrix = Matrix::quantise(format, &numbers, columns).unwrap();
                    writer.matrix(&name, &matrix).unwrap();
                }
                Content::Numbers(n) => writer.numbers(&name, &numbers(seed, n, 1.0, 0.2)).unwrap(),
            }
        }
        aligned(&writer.finish())
    }

    /// A drawn adapter that changes every projection of `manifest`'s decoder.
    fn drawn_adapter(manifest: &Manifest) -> Vec<u8> {
        const RANK: usize = 4;
        let mut factors = vec![];
        for (seed, (name, [rows, columns])) in projections(&manifest.decoder).iter().enumerate() {
            let of = name.strip_suffix(".weight").unwrap();
            for (which, shape) in [("A", [RANK, *columns]), ("B", [*rows, RANK])] {
                let numbers = numbers(seed, shape.iter().product(), 0.0, 0.2);
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                factors.push((format!("{of}.lora_{which}.weight"), shape, bytes));
            }
        }
        let views = factors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        let told = HashMap::from([(LORA_ALPHA.to_owned(), "8".to_owned())]);
        safetensors::serialize(views, Some(told)).unwrap()
    }

    /// What becomes of the graph for accelerators beside our own.
    fn beside(manifest: &Manifest, weights: &Arc<Aligned>, adapter: Option<&[u8]>) -> String {
        let ours = |adapter| TractCpu::new(1).decoder(manifest, weights, adapter).ok().unwrap();
        let mut report = vec![];
        let part = (weights, adapter);
        let _ = Voice::of(ours(adapter)).before(&Standard, manifest, part, &mut report);
        if let Ok(apart) = on(&Apart, "apart 1".into(), manifest, part) {
            let said = canary_of_voice(&*apart, &*ours(adapter), manifest);
            assert!(said.is_ok(), "{said:?}");
            // The canary sees what an adapter changes.
            let said = canary_of_voice(&*apart, &*ours(None), manifest);
            assert_eq!(said.is_ok(), adapter.is_none(), "{said:?}");
        }
        report.join("\n")
    }

    #[test]
    fn the_graph_for_accelerators_says_what_ours_says() {
        const PASSED: &str = "rather on standard 1, whose canary said what the CPU says";
        let passes = |manifest: &Manifest, weights: &Arc<Aligned>, of: &str| {
            for adapter in [None, Some(drawn_adapter(manifest))] {
                let report = beside(manifest, weights, adapter.as_deref());
                assert!(report.contains(PASSED), "{of}, adapter {}: {report}", adapter.is_some());
            }
        };
        for dir in ["tests/fixture", "../nano"] {
            let (manifest, weights) = manifest_of(dir);
            passes(&manifest, &weights, dir);
        }
        let (mut manifest, _) = manifest_of("tests/fixture");
        // With a width of a head of 64 keys and values are kept in 16 bits.
        for head_dim in [32, 64] {
            let decoder = &mut manifest.decoder;
            (decoder.hidden, decoder.intermediate, decoder.head_dim) = (64, 96, head_dim);
            decoder.mrope_section = [head_dim / 4, head_dim / 8, head_dim / 8];
            passes(&manifest, &drawn(&manifest, Format::Q4_0), &format!("heads of {head_dim}"));
            let report = beside(&manifest, &drawn(&manifest, Format::Q8_0), None);
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
