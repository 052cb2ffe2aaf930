//! The vision tower of Qwen3-VL over packed weights: a plain sequence of our kernels.
//!
//! Pairs go through it one by one, as Qwen3-VL itself attends within a pair only.

use super::tensors::Tensors;
use crate::{
    EngineError,
    backend::Vision,
    packing::{TOWER, TowerShape, VISUAL, merge_order},
};
use bundle::{Manifest, VISION};
use kernels::{
    Activations, Aligned, Attention, Matrix, Memory, PackedFile, Precision, Sight, Then, Turns,
    With, add, biased, layer_norm, multiply,
};
use std::sync::Arc;

/// Epsilon of every norm of the tower.
const EPS: f32 = 1e-6;

/// A vision tower, ready to run.
pub(super) struct PackedTower {
    with: With,
    shape: TowerShape,
    /// Rows and columns of patches.
    grid: [usize; 2],
    embed: Dense,
    /// What the place of a patch adds to it, `[patches, width]`.
    places: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    attention: Attention,
    blocks: Vec<Block>,
    merger: Merger,
    /// DeepStack: after which block, and what joins its patches.
    taps: Vec<(usize, Merger)>,
}

/// A product with a bias.
struct Dense {
    matrix: [Matrix; 1],
    bias: Vec<f32>,
}

/// Weight and bias of a norm.
struct LayerNorm(Vec<f32>, Vec<f32>);

struct Block {
    norm1: LayerNorm,
    qkv: Dense,
    proj: Dense,
    norm2: LayerNorm,
    fc1: Dense,
    fc2: Dense,
}

/// Joins four patches to a token.
struct Merger {
    /// Over the four together, or over each patch.
    norm: LayerNorm,
    fc1: Dense,
    fc2: Dense,
}

impl PackedTower {
    pub fn load(
        manifest: &Manifest,
        bytes: &Arc<Aligned>,
        with: With,
    ) -> Result<Self, EngineError> {
        let unusable = |reason: String| EngineError::Vision { reason };
        let file = PackedFile::parse(bytes).map_err(|e| unusable(e.to_string()))?;
        let note = file.note(TOWER).ok_or_else(|| unusable(format!("it has no note '{TOWER}'")))?;
        let shape: TowerShape = serde_json::from_str(note)
            .map_err(|e| unusable(format!("its note '{TOWER}' is wrong: {e}")))?;
        let geometry = &manifest.geometry;
        shape.check(geometry, manifest.decoder.hidden).map_err(unusable)?;
        let TowerShape { width, depth, heads, intermediate, .. } = shape;
        let grid = [geometry.height / shape.patch, geometry.width / shape.patch];
        let patches = grid[0] * grid[1];
        let from = Tensors { file: &file, part: VISION };
        let numbers = |name: &str, count| from.numbers(&format!("{VISUAL}.{name}"), count);
        let norm = |name: &str, width| -> Result<LayerNorm, EngineError> {
            let part = |part| numbers(&format!("{name}.{part}"), width);
            Ok(LayerNorm(part("weight")?, part("bias")?))
        };
        let dense = |name: &str, to, width| -> Result<Dense, EngineError> {
            let matrix = from.matrix(&format!("{VISUAL}.{name}.weight"), to, width)?;
            Ok(Dense { matrix: [matrix], bias: numbers(&format!("{name}.bias"), to)? })
        };
        let merger = |name: &str, norm_width| -> Result<Merger, EngineError> {
            Ok(Merger {
                norm: norm(&format!("{name}.norm"), norm_width)?,
                fc1: dense(&format!("{name}.linear_fc1"), 4 * width, 4 * width)?,
                fc2: dense(&format!("{name}.linear_fc2"), manifest.decoder.hidden, 4 * width)?,
            })
        };
        let block = |number: usize| -> Result<Block, EngineError> {
            let name = |part: &str| format!("blocks.{number}.{part}");
            Ok(Block {
                norm1: norm(&name("norm1"), width)?,
                qkv: dense(&name("attn.qkv"), 3 * width, width)?,
                proj: dense(&name("attn.proj"), width, width)?,
                norm2: norm(&name("norm2"), width)?,
                fc1: dense(&name("mlp.linear_fc1"), intermediate, width)?,
                fc2: dense(&name("mlp.linear_fc2"), width, intermediate)?,
            })
        };
        let taps = shape.taps.iter().enumerate().map(|(k, after)| {
            Ok((*after, merger(&format!("deepstack_merger_list.{k}"), 4 * width)?))
        });
        let (cos, sin) = shape.turns(grid);
        let head_dim = width / heads;
        Ok(Self {
            embed: dense("patch_embed.proj", width, shape.patch_numbers())?,
            places: numbers("pos_embed.weight", patches * width)?,
            cos,
            sin,
            attention: Attention {
                heads,
                kv_heads: heads,
                head_dim,
                sight: Sight::All,
                q_norm: vec![],
                k_norm: vec![],
                eps: EPS,
            },
            blocks: (0..depth).map(block).collect::<Result<_, _>>()?,
            merger: merger("merger", width)?,
            taps: taps.collect::<Result<_, EngineError>>()?,
            with,
            shape,
            grid,
        })
    }

    /// The outputs for one pair, `[2, channels, height, width]`.
    fn look(&self, pair: &[f32], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let threads = &self.with.threads;
        let mut x = Vec::new();
        self.dense(&self.embed, &self.patches(pair), Then::Nothing, &mut x, scratch);
        let mut sum = vec![0.0; x.len()];
        add(&x, &self.places, &mut sum, threads);
        std::mem::swap(&mut x, &mut sum);
        let (mut h, mut wide, mut features) = (vec![0.0; x.len()], Vec::new(), Vec::new());
        for (number, block) in self.blocks.iter().enumerate() {
            block.norm1.run(&x, &mut h, &self.with);
            self.dense(&block.qkv, &h, Then::Nothing, &mut wide, scratch);
            let turns = Turns { cos: &self.cos, sin: &self.sin };
            let mut memory = Memory::new(Precision::F32);
            self.attention.attend(&mut memory, &wide, turns, &mut h, threads);
            self.dense(&block.proj, &h, Then::Nothing, &mut wide, scratch);
            add(&x, &wide, &mut sum, threads);
            std::mem::swap(&mut x, &mut sum);
            block.norm2.run(&x, &mut h, &self.with);
            self.dense(&block.fc1, &h, Then::GeluTanh, &mut wide, scratch);
            let mut back = std::mem::take(&mut scratch.back);
            self.dense(&block.fc2, &wide, Then::Nothing, &mut back, scratch);
            add(&x, &back, &mut sum, threads);
            scratch.back = back;
            std::mem::swap(&mut x, &mut sum);
            features.extend(
                self.taps
                    .iter()
                    .filter(|(after, _)| *after == number)
                    .map(|(_, merger)| self.merged(merger, &x, scratch)),
            );
        }
        let mut outputs = vec![self.merged(&self.merger, &x, scratch)];
        outputs.extend(features);
        outputs
    }

    /// Four patches, which lie side by side, to a token.
    fn merged(&self, merger: &Merger, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let (mut normed, mut wide, mut out) = (vec![0.0; x.len()], Vec::new(), Vec::new());
        merger.norm.run(x, &mut normed, &self.with);
        self.dense(&merger.fc1, &normed, Then::Gelu, &mut wide, scratch);
        self.dense(&merger.fc2, &wide, Then::Nothing, &mut out, scratch);
        out
    }

    /// `out = then(x · matrix + bias)`.
    fn dense(
        &self,
        dense: &Dense,
        x: &[f32],
        then: Then,
        out: &mut Vec<f32>,
        scratch: &mut Scratch,
    ) {
        let [matrix] = &dense.matrix;
        let activations = &mut scratch.activations;
        let With { variant, threads } = &self.with;
        activations.quantise(x, matrix.columns(), threads);
        out.resize(activations.rows() * matrix.rows(), 0.0);
        multiply(&dense.matrix, activations, out, *variant, threads);
        biased(out, &dense.bias, then, threads);
    }

    /// A pair cut into patches, in the order of Qwen3-VL's video processor: the four patches of a
    /// token side by side; within a patch channels, then the two frames, then rows.
    fn patches(&self, pair: &[f32]) -> Vec<f32> {
        let side = self.shape.patch;
        let [rows, columns] = self.grid;
        let (height, width) = (rows * side, columns * side);
        let channels = self.shape.channels;
        let mut out = Vec::with_capacity(pair.len());
        for [row, column] in merge_order(self.grid) {
            for channel in 0..channels {
                for frame in 0..2 {
                    for y in 0..side {
                        let line = (frame * channels + channel) * height + row * side + y;
                        out.extend_from_slice(&pair[line * width + column * side..][..side]);
                    }
                }
            }
        }
        out
    }
}

/// Memory that is used again from product to product.
#[derive(Default)]
struct Scratch {
    activations: Activations,
    back: Vec<f32>,
}

impl LayerNorm {
    fn run(&self, x: &[f32], out: &mut [f32], with: &With) {
        layer_norm(x, [&self.0, &self.1], EPS, out, &with.threads);
    }
}

impl Vision for PackedTower {
    fn encode(&self, frames: Vec<f32>, pairs: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut all = vec![vec![]; 1 + self.taps.len()];
        let mut scratch = Scratch::default();
        for pair in frames.chunks_exact(frames.len() / pairs.max(1)) {
            for (all, of_pair) in all.iter_mut().zip(self.look(pair, &mut scratch)) {
                all.extend(of_pair);
            }
        }
        if all.iter().flatten().all(|x| x.is_finite()) {
            Ok(all)
        } else {
            Err(EngineError::NotFinite { part: "the vision tower" })
        }
    }
}
