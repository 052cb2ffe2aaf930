//! A LoRA adapter as PEFT saves it: merged while a checkpoint is read, `W + scale · B · A` (Hu et al., LoRA,
//! 2021), or written as a part of its own.

use crate::checkpoint::{Checkpoint, Tensor};
use anyhow::{Context, Result, bail, ensure};
use engine::{LORA_ALPHA, USE_RSLORA, projections};
use half::f16;
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::Path};

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// What PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

/// Two narrow matrices for each weight that was adapted.
pub struct Adapter {
    factors: Checkpoint,
    alpha: f64,
    /// Rank-stabilised: the scale is `α / √rank`, and not `α / rank`.
    stabilised: bool,
    /// The weights that it changes, by name, and the rank of each.
    ranks: BTreeMap<String, usize>,
}

/// What is read of `adapter_config.json`.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
}

impl Adapter {
    /// Reads what the adapter in `dir` changes.
    ///
    /// # Errors
    /// If it is none, or of a kind that cannot be merged.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let config: Config = serde_json::from_str(&text)
            .with_context(|| format!("{} does not describe a LoRA adapter", path.display()))?;
        let unlike = [
            (config.peft_type != "LORA", "peft_type is not LORA"),
            (config.use_dora, "use_dora is set"),
            (config.fan_in_fan_out, "fan_in_fan_out is set"),
            (config.bias.is_some_and(|bias| bias != "none"), "bias is not none"),
            (!config.alpha_pattern.is_empty(), "alpha_pattern is not empty"),
        ];
        if let Some((_, what)) = unlike.iter().find(|(unlike, _)| *unlike) {
            bail!("{}: {what}; merge it with PEFT and pack what that gives", path.display());
        }
        let factors = Checkpoint::open_file(&dir.join(WEIGHTS))?;
        let mut ranks = BTreeMap::new();
        for name in factors.names() {
            let module = name.strip_prefix(PREFIX).unwrap_or(name);
            if let Some(module) = module.strip_suffix(".lora_A.weight") {
                let rank = factors.shape(name).first().copied().filter(|rank| *rank > 0);
                let rank = rank.with_context(|| format!("the adapter's '{name}' has no rank"))?;
                ranks.insert(format!("{module}.weight"), rank);
            } else if !module.ends_with(".lora_B.weight") {
                bail!(
                    "{}: '{name}' is no factor of LoRA; merge it with PEFT and pack what that gives",
                    dir.join(WEIGHTS).display()
                );
            }
        }
        for name in factors.names() {
            let module = name.strip_prefix(PREFIX).unwrap_or(name);
            let weight = module.strip_suffix(".lora_B.weight").map(|m| format!("{m}.weight"));
            ensure!(
                weight.is_none_or(|weight| ranks.contains_key(&weight)),
                "the adapter does not fit: '{name}' has no lora_A"
            );
        }
        ensure!(!ranks.is_empty(), "{} changes nothing", dir.join(WEIGHTS).display());
        let (alpha, stabilised) = (config.lora_alpha, config.use_rslora);
        Ok(Self { factors, alpha, stabilised, ranks })
    }

    /// The weights that it changes.
    pub fn changes(&self) -> impl Iterator<Item = &str> {
        self.ranks.keys().map(String::as_str)
    }

    /// What it adds to the weight `name`, `[rows, columns]`, if anything.
    ///
    /// # Errors
    /// If a factor is missing, or of another shape.
    pub fn of(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Change<'_>>> {
        let Some(&rank) = self.ranks.get(name) else { return Ok(None) };
        let down = self.factor(name, "A", &[rank, columns])?.numbers(0, rank * columns)?;
        let up = self.factor(name, "B", &[rows, rank])?;
        let divisor = if self.stabilised { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Some(Change { down, up, rank, scale: (self.alpha / divisor) as f32 }))
    }

    fn factor(&self, weight: &str, which: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let module = weight.strip_suffix(".weight").expect("it was put there");
        let name = format!("{PREFIX}{module}.lora_{which}.weight");
        self.factors.tensor(&name, shape).context("the adapter does not fit")
    }

    /// Writes it to `path` as the part `adapter` of a bundle with that decoder. Factors of 32 bits are
    /// written in 16, which is twice what is computed with, so that half as much goes over the air.
    ///
    /// # Errors
    /// If it changes something else than the decoder's projections, or does not fit; or it cannot be written.
    pub fn write(&self, decoder: &bundle::Decoder, path: &Path) -> Result<()> {
        let projections = projections(decoder);
        let (mut header, mut data) = (Map::new(), Vec::new());
        let told =
            json!({LORA_ALPHA: self.alpha.to_string(), USE_RSLORA: self.stabilised.to_string()});
        header.insert("__metadata__".into(), told);
        for (name, &rank) in &self.ranks {
            let &[rows, columns] = projections.get(name).with_context(|| {
                format!(
                    "the adapter changes '{name}', and only what changes the projections of this bundle's \
                     decoder can be kept apart: merge it, with `pack --adapter`"
                )
            })?;
            for (which, shape) in [("A", [rank, columns]), ("B", [rows, rank])] {
                let (dtype, bytes) =
                    narrowed(&self.factor(name, which, &shape)?, shape[0] * shape[1])
                        .with_context(|| {
                            format!("the adapter's lora_{which} of '{name}' cannot be kept")
                        })?;
                let offsets = [data.len(), data.len() + bytes.len()];
                let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
                let module = name.strip_suffix(".weight").expect("it was put there");
                header.insert(format!("{module}.lora_{which}.weight"), entry);
                data.extend(bytes);
            }
        }
        // Not by `safetensors::serialize`: it writes metadata in the order of a hash map, and the same adapter would have
        // another hash each time.
        let mut file = Value::Object(header).to_string().into_bytes();
        file.resize(file.len().next_multiple_of(size_of::<u64>()), b' ');
        file.splice(..0, (file.len() as u64).to_le_bytes());
        file.extend(data);
        fs::write(path, file).with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// The numbers of a tensor: as they are if they have 16 bits, else rounded to F16, unless they lie where that
/// has few bits or none.
fn narrowed(tensor: &Tensor<'_>, count: usize) -> Result<(Dtype, Vec<u8>)> {
    let numbers = tensor.numbers(0, count)?;
    ensure!(numbers.iter().all(|x| x.is_finite()), "it holds a number that is not finite");
    let largest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
    // Below, what is lost of the smallest numbers would be seen beside the largest.
    let least = 2f32.powi(-12);
    let fits = largest == 0.0 || (least..=f16::MAX.to_f32()).contains(&largest);
    if tensor.dtype() != Dtype::F32 || !fits {
        return Ok((tensor.dtype(), tensor.raw(0, count)?));
    }
    let halves = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes());
    Ok((Dtype::F16, halves.collect()))
}

/// What an adapter adds to one weight.
pub struct Change<'a> {
    /// `[rank, columns]`.
    down: Vec<f32>,
    /// `[rows, rank]`.
    up: Tensor<'a>,
    rank: usize,
    scale: f32,
}

impl Change<'_> {
    /// Adds it to `weights`, whole rows from row `first` on.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn add(&self, first: usize, weights: &mut [f32]) -> Result<()> {
        let columns = self.down.len() / self.rank;
        let rows = weights.len() / columns;
        let up = self.up.numbers(first * self.rank, rows * self.rank)?;
        for (row, up) in weights.chunks_exact_mut(columns).zip(up.chunks_exact(self.rank)) {
            for (up, down) in up.iter().zip(self.down.chunks_exact(columns)) {
                let up = up * self.scale;
                row.iter_mut().zip(down).for_each(|(weight, down)| *weight += up * down);
            }
        }
        Ok(())
    }
}
