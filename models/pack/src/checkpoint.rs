//! A checkpoint of Hugging Face's: safetensors in one file or in shards, read a stretch at a time.

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The one file of a small checkpoint.
const WHOLE: &str = "model.safetensors";
/// Which shard holds which tensor of a large one.
const INDEX: &str = "model.safetensors.index.json";
/// A header is some hundred KB at most.
const HEADER_MAX: u64 = 100 << 20;

/// The tensors of a checkpoint.
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// Shard of each tensor, and where it lies.
    tensors: HashMap<String, (usize, TensorInfo)>,
}

struct Shard {
    path: PathBuf,
    file: File,
    /// Where the data begins.
    start: u64,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir` and checks that every shard is there and whole.
    ///
    /// # Errors
    /// If one is not.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join(INDEX);
        if !index.exists() {
            return Self::open_file(&dir.join(WHOLE));
        }
        let mut checkpoint = Self { shards: Vec::new(), tensors: HashMap::new() };
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = fs::read_to_string(&index)
            .with_context(|| format!("{} cannot be read", index.display()))?;
        let Index { weight_map } = serde_json::from_str(&text)
            .with_context(|| format!("{} is no index of shards", index.display()))?;
        for name in weight_map.values().collect::<BTreeSet<_>>() {
            ensure!(
                Path::new(name).file_name().is_some_and(|file| file == name.as_str()),
                "{} names the shard '{name}', which is no file beside it",
                index.display()
            );
            checkpoint.add(&dir.join(name))?;
        }
        let lost = weight_map.iter().find(|(tensor, _)| !checkpoint.tensors.contains_key(*tensor));
        if let Some((tensor, shard)) = lost {
            bail!("{} lacks the tensor '{tensor}': fetch it again", dir.join(shard).display());
        }
        Ok(checkpoint)
    }

    /// Opens one file of safetensors, all there is.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn open_file(path: &Path) -> Result<Self> {
        let mut checkpoint = Self { shards: Vec::new(), tensors: HashMap::new() };
        checkpoint.add(path)?;
        Ok(checkpoint)
    }

    /// The names of its tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].1.shape
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path)
            .with_context(|| format!("{} cannot be opened: fetch it again", path.display()))?;
        let bytes = file.metadata()?.len();
        let cut = || format!("{} is cut short or no safetensors: fetch it again", path.display());
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).with_context(cut)?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= HEADER_MAX && length + 8 <= bytes, cut());
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, 8).with_context(cut)?;
        let metadata: Metadata = serde_json::from_slice(&header).with_context(cut)?;
        let start = 8 + length;
        for (tensor, info) in metadata.tensors() {
            let end = start + info.data_offsets.1 as u64;
            ensure!(
                end <= bytes,
                "{} is cut short: the tensor '{tensor}' ends at byte {end} of {bytes}; fetch it \
                 again",
                path.display()
            );
            self.tensors.insert(tensor, (self.shards.len(), info.clone()));
        }
        self.shards.push(Shard { path: path.to_owned(), file, start });
        Ok(())
    }

    /// The tensor `name`, which has to have that shape.
    ///
    /// # Errors
    /// If it is not there, or of another shape or type.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let (shard, info) = self.tensors.get(name).with_context(|| {
            format!("the tensor '{name}' is missing, though the configuration implies it")
        })?;
        ensure!(
            info.shape == shape,
            "tensor '{name}' has shape {:?} where config.json implies {shape:?}",
            info.shape
        );
        let width = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => bail!("tensor '{name}' holds {other:?}; F32, F16 and BF16 can be packed"),
        };
        let shard = &self.shards[*shard];
        let start = shard.start + info.data_offsets.0 as u64;
        Ok(Tensor { name: name.to_owned(), shard, start, width, dtype: info.dtype })
    }
}

/// One tensor of a [`Checkpoint`].
pub struct Tensor<'a> {
    name: String,
    shard: &'a Shard,
    start: u64,
    width: usize,
    dtype: Dtype,
}

impl Tensor<'_> {
    /// Their type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Bytes of `count` numbers.
    pub fn bytes(&self, count: usize) -> usize {
        count * self.width
    }

    /// `count` numbers from number `first` on, as the checkpoint has them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn raw(&self, first: usize, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes(count)];
        let at = self.start + self.bytes(first) as u64;
        self.shard.file.read_exact_at(&mut bytes, at).with_context(|| {
            format!("tensor '{}' of {} cannot be read", self.name, self.shard.path.display())
        })?;
        Ok(bytes)
    }

    /// `count` numbers from number `first` on.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn numbers(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        let bytes = self.raw(first, count)?;
        let (halves, words) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
        Ok(match self.dtype {
            Dtype::F32 => words.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => halves.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            _ => halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        })
    }
}
