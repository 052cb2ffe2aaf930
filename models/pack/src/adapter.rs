//! A LoRA adapter as PEFT saves it, merged while a checkpoint is read: `W + scale · B · A` (Hu et al.,
//! LoRA, 2021).

use crate::checkpoint::{Checkpoint, Tensor};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
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
        let factor = |which: &str, shape: &[usize]| {
            let module = name.strip_suffix(".weight").expect("it was put there");
            self.factors
                .tensor(&format!("{PREFIX}{module}.lora_{which}.weight"), shape)
                .context("the adapter does not fit")
        };
        let down = factor("A", &[rank, columns])?.numbers(0, rank * columns)?;
        let up = factor("B", &[rows, rank])?;
        let divisor = if self.stabilised { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Some(Change { down, up, rank, scale: (self.alpha / divisor) as f32 }))
    }
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
