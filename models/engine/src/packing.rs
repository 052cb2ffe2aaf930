//! What packed parts are made of.

use bundle::{Decoder, Geometry};
use kernels::{Content, Format};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the names of all tensors but an output head of its own begin with.
pub(crate) const MODEL: &str = "model.language_model";

/// The tensors of a packed decoder of that shape, by Hugging Face's names: matrices in `format`,
/// norms as numbers, in the order of the file.
pub fn packed_tensors(decoder: &Decoder, format: Format) -> Vec<(String, Content)> {
    let &Decoder { hidden, heads, kv_heads, head_dim, intermediate, vocab, .. } = decoder;
    let matrix = |rows, columns| Content::Matrix { format, rows, columns };
    let mut tensors = vec![(format!("{MODEL}.embed_tokens"), matrix(vocab, hidden))];
    if !decoder.tied {
        tensors.push(("lm_head".into(), matrix(vocab, hidden)));
    }
    tensors.push((format!("{MODEL}.norm"), Content::Numbers(hidden)));
    for layer in 0..decoder.layers {
        let parts = [
            ("self_attn.q_proj", matrix(heads * head_dim, hidden)),
            ("self_attn.k_proj", matrix(kv_heads * head_dim, hidden)),
            ("self_attn.v_proj", matrix(kv_heads * head_dim, hidden)),
            ("self_attn.o_proj", matrix(hidden, heads * head_dim)),
            ("mlp.gate_proj", matrix(intermediate, hidden)),
            ("mlp.up_proj", matrix(intermediate, hidden)),
            ("mlp.down_proj", matrix(hidden, intermediate)),
            ("input_layernorm", Content::Numbers(hidden)),
            ("post_attention_layernorm", Content::Numbers(hidden)),
            ("self_attn.q_norm", Content::Numbers(head_dim)),
            ("self_attn.k_norm", Content::Numbers(head_dim)),
        ];
        let name = |part: &str| format!("{MODEL}.layers.{layer}.{part}");
        tensors.extend(parts.map(|(part, content)| (name(part), content)));
    }
    let named = tensors.into_iter().map(|(name, content)| (format!("{name}.weight"), content));
    kernels::Writer::<()>::order(named.collect())
}

/// Under this name an adapter's metadata tell what PEFT calls `lora_alpha`.
pub const LORA_ALPHA: &str = "lora_alpha";
/// Under this name they tell whether the scale is `lora_alpha / √rank` (`true`) or `lora_alpha / rank`
/// (`false`, or nothing).
pub const USE_RSLORA: &str = "use_rslora";

/// The weights of a decoder of that shape that an adapter may change, by Hugging Face's names: all but the
/// embedding, from which tokens are looked up, too. Rows and columns of each.
pub fn projections(decoder: &Decoder) -> BTreeMap<String, [usize; 2]> {
    let shape = |(name, content): (String, Content)| match content {
        Content::Matrix { rows, columns, .. } => Some((name, [rows, columns])),
        Content::Numbers(_) => None,
    };
    let mut all: BTreeMap<_, _> =
        packed_tensors(decoder, Format::Q8_0).into_iter().filter_map(shape).collect();
    all.remove(&format!("{MODEL}.embed_tokens.weight"));
    all
}

/// What the names of all tensors of a tower begin with.
pub(crate) const VISUAL: &str = "model.visual";

/// Under this name a packed tower's [`TowerShape`] is noted, as JSON.
pub const TOWER: &str = "tower";

/// The shape of a vision tower of Qwen3-VL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerShape {
    /// Width of the residual stream.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Heads; a head's width is a multiple of four.
    pub heads: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Width of a token: the decoder's.
    pub out: usize,
    /// After which blocks DeepStack features are taken.
    pub taps: Vec<usize>,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Channels of a frame.
    pub channels: usize,
}

impl TowerShape {
    /// What does not fit together, as a clause for people; `Ok` if everything does.
    ///
    /// # Errors
    /// That clause.
    pub fn check(&self, geometry: &Geometry, hidden: usize) -> Result<(), String> {
        let cell = 2 * self.patch;
        let rules = [
            (self.patch > 0 && self.heads > 0, "patch and heads must be above 0"),
            (
                self.heads > 0 && self.width.is_multiple_of(4 * self.heads),
                "the width of a head must be a multiple of 4",
            ),
            (self.channels == geometry.channels, "its channels are not geometry.channels"),
            (self.out == hidden, "its tokens are not as wide as decoder.hidden"),
            (self.taps.len() == geometry.deepstack, "its taps are not geometry.deepstack"),
            (self.taps.iter().all(|after| *after < self.depth), "a tap lies behind the last block"),
            (
                cell > 0
                    && [geometry.width, geometry.height].iter().all(|n| n.is_multiple_of(cell)),
                "geometry.width and geometry.height must be multiples of two patches",
            ),
            (
                cell > 0 && geometry.grid == [geometry.height / cell, geometry.width / cell],
                "geometry.grid is not that of its merged patches",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err((*rule).to_owned()),
            None => Ok(()),
        }
    }

    /// Numbers of a patch of two frames.
    pub fn patch_numbers(&self) -> usize {
        2 * self.channels * self.patch * self.patch
    }

    /// The tensors of a packed tower for frames of `patches` patches, by Hugging Face's names:
    /// matrices in `format`, in the order of the file. The position embedding is that of the
    /// patches, `[patches, width]`.
    pub fn tensors(&self, patches: usize, format: Format) -> Vec<(String, Content)> {
        let &Self { width, depth, intermediate, out, .. } = self;
        let mut tensors = Vec::new();
        let dense = |tensors: &mut Vec<_>, name: String, rows, columns| {
            let matrix = Content::Matrix { format, rows, columns };
            tensors.push((format!("{VISUAL}.{name}.weight"), matrix));
            tensors.push((format!("{VISUAL}.{name}.bias"), Content::Numbers(rows)));
        };
        let norm = |tensors: &mut Vec<_>, name: String, width| {
            for part in ["weight", "bias"] {
                tensors.push((format!("{VISUAL}.{name}.{part}"), Content::Numbers(width)));
            }
        };
        dense(&mut tensors, "patch_embed.proj".into(), width, self.patch_numbers());
        tensors.push((format!("{VISUAL}.pos_embed.weight"), Content::Numbers(patches * width)));
        for block in 0..depth {
            let name = |part: &str| format!("blocks.{block}.{part}");
            norm(&mut tensors, name("norm1"), width);
            dense(&mut tensors, name("attn.qkv"), 3 * width, width);
            dense(&mut tensors, name("attn.proj"), width, width);
            norm(&mut tensors, name("norm2"), width);
            dense(&mut tensors, name("mlp.linear_fc1"), intermediate, width);
            dense(&mut tensors, name("mlp.linear_fc2"), width, intermediate);
        }
        let joined = 4 * width;
        let taps = (0..self.taps.len()).map(|k| (format!("deepstack_merger_list.{k}"), joined));
        for (merger, norm_width) in std::iter::once(("merger".to_owned(), width)).chain(taps) {
            norm(&mut tensors, format!("{merger}.norm"), norm_width);
            dense(&mut tensors, format!("{merger}.linear_fc1"), joined, joined);
            dense(&mut tensors, format!("{merger}.linear_fc2"), out, joined);
        }
        kernels::Writer::<()>::order(tensors)
    }

    /// Cosines and sines of the patches, `[patches, width of a head / 2]` each: the first half turns
    /// with the row, the second with the column.
    pub(crate) fn turns(&self, grid: [usize; 2]) -> (Vec<f32>, Vec<f32>) {
        const THETA: f32 = 10_000.0;
        let quarter = self.width / self.heads / 4;
        let frequency = |i: usize| 1.0 / THETA.powf((2 * i) as f32 / (2 * quarter) as f32);
        let frequencies: Vec<f32> = (0..quarter).map(frequency).collect();
        merge_order(grid)
            .flatten()
            .flat_map(|place| frequencies.iter().map(move |f| place as f32 * f))
            .map(|angle| (angle.cos(), angle.sin()))
            .unzip()
    }
}

/// A table of position embeddings `[side, side, width]`, read between its points for a grid of
/// `rows` and `columns` patches whose corners are its corners: `[patches, width]`, the four patches of
/// a token side by side.
pub fn places(table: &[f32], side: usize, width: usize, grid: [usize; 2]) -> Vec<f32> {
    let between = |at: usize, count: usize| -> (usize, f32) {
        let at = at as f32 * (side - 1) as f32 / (count - 1).max(1) as f32;
        let below = (at.floor() as usize).min(side.saturating_sub(2));
        (below, at - below as f32)
    };
    let mut out = Vec::with_capacity(grid[0] * grid[1] * width);
    for [row, column] in merge_order(grid) {
        let ((y, dy), (x, dx)) = (between(row, grid[0]), between(column, grid[1]));
        let point = |y: usize, x: usize, i: usize| {
            table[(y.min(side - 1) * side + x.min(side - 1)) * width + i]
        };
        out.extend((0..width).map(|i| {
            let above = point(y, x, i) * (1.0 - dx) + point(y, x + 1, i) * dx;
            let below = point(y + 1, x, i) * (1.0 - dx) + point(y + 1, x + 1, i) * dx;
            above * (1.0 - dy) + below * dy
        }));
    }
    out
}

/// The rows and columns of patches, the four of a token side by side.
pub(crate) fn merge_order([rows, columns]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    let cells =
        (0..rows / 2).flat_map(move |row| (0..columns / 2).map(move |column| [row, column]));
    cells.flat_map(|[row, column]| {
        [[0, 0], [0, 1], [1, 0], [1, 1]].map(|[y, x]| [row * 2 + y, column * 2 + x])
    })
}
