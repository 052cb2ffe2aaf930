//! The vision tower on ONNX Runtime, which hands it to TensorRT or CUDA where a board has them.
//!
//! Its library is not part of this program: a board's vendor builds it for the board's own libraries, and it is loaded
//! by its path. What it cannot do here is a reason in the report, and the CPU serves.

use crate::{
    EngineError,
    accelerated::part_of,
    backend::{Backend, Decoder, Probe, Refusal, Vision, sound},
};
use bundle::Manifest;
use kernels::{Aligned, PackedFile};
use ort::{
    environment::Environment,
    ep,
    session::{Session, builder::GraphOptimizationLevel},
    value::Tensor,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

/// Plans of so many policies and versions are kept: those of the policy that watches, the one before it, and one on
/// trial.
const PLANS_KEPT: usize = 3;

/// What ONNX Runtime is to compute with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// NVIDIA's TensorRT, with numbers of 16 bits where it finds them to do. It makes a plan of the tower first,
    /// which takes minutes, and keeps it.
    #[default]
    TensorRt,
    /// NVIDIA's CUDA.
    Cuda,
    /// The processor, by kernels that are not tract's.
    Cpu,
}

impl Provider {
    const ALL: [Self; 3] = [Self::TensorRt, Self::Cuda, Self::Cpu];

    /// The words for all of them.
    pub const WORDS: [&str; 3] = [Self::ALL[0].word(), Self::ALL[1].word(), Self::ALL[2].word()];

    const fn word(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|provider| provider.word() == word).ok_or_else(|| {
            format!("there is no provider '{word}': there are {}", Self::WORDS.join(", "))
        })
    }
}

/// An ONNX Runtime of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// Its library, `libonnxruntime.so`, with those of its providers beside it.
    pub library: PathBuf,
    /// What it is to compute with.
    pub provider: Provider,
    /// Folder for what TensorRT compiles; it is made.
    pub cache: PathBuf,
}

/// ONNX Runtime, as a backend of towers.
pub(crate) struct OnnxRuntime<'a> {
    accelerator: &'a Accelerator,
    threads: usize,
}

/// A process has one ONNX Runtime, from its first use to its end.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

impl<'a> OnnxRuntime<'a> {
    pub fn new(accelerator: &'a Accelerator, threads: usize) -> Self {
        Self { accelerator, threads }
    }

    /// The library, loaded.
    fn environment(&self) -> Result<Environment, String> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        // Of one that is not absolute ort would look beside this program first.
        let library =
            fs::canonicalize(&self.accelerator.library).map_err(|error| error.to_string())?;
        if let Some((path, environment)) = &*loaded {
            return match *path == library {
                true => Ok(environment.clone()),
                false => Err(format!("{} is loaded already", path.display())),
            };
        }
        let builder = ort::init_from(&library).map_err(|error| error.to_string())?;
        let built = builder.with_name("lookback").with_telemetry(false).build();
        let environment = built.map_err(|error| error.to_string())?;
        Ok(loaded.insert((library, environment)).1.clone())
    }

    fn session(&self, manifest: &Manifest, onnx: &[u8]) -> Result<Session, String> {
        let environment = self.environment()?;
        let providers = self.providers(manifest).map_err(|error| {
            format!("the folder {} cannot be used: {error}", self.accelerator.cache.display())
        })?;
        let build = || -> Result<Session, ort::Error> {
            Session::builder(&environment)?
                .with_intra_threads(self.threads.max(1))?
                .with_deterministic_compute(true)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_execution_providers(providers)?
                .commit_from_memory(onnx)
        };
        build().map_err(|error| error.to_string())
    }

    /// Strict: a provider that is asked for and cannot be had is a refusal, and not a silent way back to the CPU.
    fn providers(&self, manifest: &Manifest) -> io::Result<Vec<ep::ExecutionProviderDispatch>> {
        Ok(match self.accelerator.provider {
            Provider::TensorRt => {
                let plans = self.plans(manifest)?.display().to_string();
                let tensorrt = ep::TensorRT::default()
                    .with_fp16(true)
                    .with_engine_cache(true)
                    .with_engine_cache_path(&plans)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&plans);
                // What TensorRT cannot compile CUDA computes.
                vec![
                    tensorrt.build().error_on_failure(),
                    ep::CUDA::default().build().error_on_failure(),
                ]
            }
            Provider::Cuda => vec![ep::CUDA::default().build().error_on_failure()],
            Provider::Cpu => vec![ep::CPU::default().build().error_on_failure()],
        })
    }

    /// The folder of the plans for this very graph, library and version of TensorRT: with another of them a plan is
    /// none. Plans of others go, but for those that were used last.
    fn plans(&self, manifest: &Manifest) -> io::Result<PathBuf> {
        let all = self.accelerator.cache.join("tensorrt");
        let part = manifest.parts.get(part_of(manifest));
        let graph = part.and_then(|part| part.blake3.get(..16)).unwrap_or_default();
        let library = fs::metadata(&self.accelerator.library)?.len();
        let own = all.join(format!("{graph}-{library}-{}", tensorrt_version()));
        fs::create_dir_all(&own)?;
        // What is used is new, however long ago it was made: its folder's time is that of the last file in it. A disk
        // that is full is no reason to do without the plan.
        let used = own.join("used");
        let _ = fs::write(&used, "").and_then(|()| fs::remove_file(&used));
        let mut others = Vec::new();
        for entry in fs::read_dir(&all)? {
            let (path, about) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if about.is_dir() && path != own {
                others.push((about.modified()?, path));
            }
        }
        others.sort();
        for (_, old) in others.iter().rev().skip(PLANS_KEPT - 1) {
            // What cannot be removed costs room, and no sight.
            if let Err(error) = fs::remove_dir_all(old) {
                tracing::warn!("{} cannot be removed: {error}", old.display());
            }
        }
        Ok(own)
    }
}

/// The version of TensorRT that a board has; empty if it has none where boards have theirs.
fn tensorrt_version() -> String {
    let folders = ["/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
    let versions = folders.iter().filter_map(|folder| {
        version_in_name(&Path::new(folder).join("libnvinfer.so.10"), "libnvinfer.so.")
    });
    versions.into_iter().next().unwrap_or_default()
}

/// What follows `prefix` in the name of the file that `library` leads to, such as 1.32.0.
fn version_in_name(library: &Path, prefix: &str) -> Option<String> {
    let found = fs::canonicalize(library).ok()?;
    Some(found.file_name()?.to_str()?.strip_prefix(prefix)?.to_owned())
}

impl Backend for OnnxRuntime<'_> {
    fn id(&self) -> String {
        let version = version_in_name(&self.accelerator.library, "libonnxruntime.so.");
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        format!("onnxruntime-{}{version}", self.accelerator.provider)
    }

    fn probe(&self) -> Probe {
        let Accelerator { library, provider, .. } = self.accelerator;
        if !library.is_file() {
            return Probe::Absent(format!("there is no {}", library.display()));
        }
        // Without a driver TensorRT hands out a pointer to nowhere, so it is not even asked.
        const DRIVERS: [&str; 3] = ["/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu"];
        if *provider != Provider::Cpu && !DRIVERS.iter().any(|device| Path::new(device).exists()) {
            return Probe::Absent("no driver of NVIDIA's runs here".into());
        }
        match self.environment() {
            Ok(_) => Probe::Ready,
            Err(why) => Probe::Broken(why),
        }
    }

    fn vision(
        &self,
        manifest: &Manifest,
        tower: &Arc<Aligned>,
    ) -> Result<Box<dyn Vision>, Refusal> {
        if PackedFile::is(tower) {
            let why = "the bundle has the tower packed for the CPU only: pack it with --onnx";
            return Err(Refusal::Decline(why.into()));
        }
        let session = Mutex::new(self.session(manifest, tower).map_err(Refusal::Decline)?);
        let geometry = &manifest.geometry;
        let names = std::iter::once("tokens".to_owned())
            .chain((0..geometry.deepstack).map(|k| format!("deepstack_{k}")));
        Ok(Box::new(Tower {
            id: self.id(),
            session,
            frame: [geometry.channels, geometry.height, geometry.width],
            outputs: names.collect(),
            output: [1, geometry.tokens_per_pair, manifest.decoder.hidden],
        }))
    }

    fn decoder(
        &self,
        _: &Manifest,
        _: &Arc<Aligned>,
        _: Option<&[u8]>,
    ) -> Result<Box<dyn Decoder>, Refusal> {
        Err(Refusal::Decline("it keeps no keys and values from turn to turn".into()))
    }
}

/// A tower that ONNX Runtime has taken.
struct Tower {
    id: String,
    session: Mutex<Session>,
    /// Channels, height, width.
    frame: [usize; 3],
    /// Names of the outputs, in order.
    outputs: Vec<String>,
    /// Shape of an output.
    output: [usize; 3],
}

impl Vision for Tower {
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut all = vec![vec![]; self.outputs.len()];
        // One at a time, for one plan, and so that what a pair looks like cannot depend on its company.
        for pair in frames.chunks_exact(frames.len() / pairs.max(1)) {
            self.look(pair, &mut all)?;
        }
        Ok(all)
    }
}

impl Tower {
    /// Adds the outputs for one pair, `[2, channels, height, width]`, to `all`.
    fn look(&self, pair: &[f32], all: &mut [Vec<f32>]) -> Result<(), EngineError> {
        let failed = |doing| {
            move |error: ort::Error| EngineError::Run {
                backend: self.id.clone(),
                doing,
                reason: error.to_string(),
            }
        };
        let [channels, height, width] = self.frame;
        let shape = [1, 2, channels, height, width];
        let pair = Tensor::from_array((shape, pair.to_vec())).map_err(failed("prepared a pair"))?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            session.run(ort::inputs!["frames" => pair]).map_err(failed("ran the vision tower"))?;
        for (name, all) in self.outputs.iter().zip(all) {
            let missing = || EngineError::VisionName { what: format!("output '{name}'") };
            let value = found.get(name).ok_or_else(missing)?;
            let (shape, values) =
                value.try_extract_tensor::<f32>().map_err(failed("read visual tokens"))?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            sound(name, &shape, &self.output, values)?;
            all.extend(values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundle::Bundle;
    use std::{
        collections::BTreeSet,
        fs::File,
        time::{Duration, UNIX_EPOCH},
    };

    #[test]
    fn plans_of_another_graph_or_library_are_others_and_those_used_last_are_kept() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixture");
        let mut manifest = Bundle::open(fixture).unwrap().manifest;
        let part = part_of(&manifest);
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libonnxruntime.so");
        fs::write(&library, "a library").unwrap();
        let accelerator =
            Accelerator { library, provider: Provider::TensorRt, cache: dir.path().to_owned() };
        let runtime = OnnxRuntime::new(&accelerator, 1);
        let mut made = vec![];
        let mut make = |manifest: &Manifest| {
            let own = runtime.plans(manifest).unwrap();
            fs::write(own.join("plan"), "").unwrap();
            // One after the other, and all of them long ago.
            let time = UNIX_EPOCH + Duration::from_secs(1000 + made.len() as u64);
            File::open(&own).unwrap().set_modified(time).unwrap();
            made.push(own);
        };
        make(&manifest);
        fs::write(dir.path().join("tensorrt/lost+found"), "of somebody else").unwrap();
        make(&manifest);
        fs::write(&accelerator.library, "another library").unwrap();
        make(&manifest);
        let first = manifest.clone();
        for graph in 1..=2 {
            manifest.parts.get_mut(part).unwrap().blake3 = format!("{graph}{:063}", 0);
            make(&manifest);
        }
        // The oldest of three is used again, and so another one goes.
        let again = runtime.plans(&first).unwrap();
        manifest.parts.get_mut(part).unwrap().blake3 = format!("3{:063}", 0);
        make(&manifest);
        assert_eq!((&made[0], &made[2]), (&made[1], &again));
        let there: BTreeSet<_> = made.iter().filter(|own| own.join("plan").is_file()).collect();
        assert_eq!(there, [&made[2], &made[4], &made[5]].into());
        assert!(dir.path().join("tensorrt/lost+found").is_file());
    }
}
