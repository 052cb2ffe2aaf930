//! What `bundle.toml` says.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest manifest schema that this code reads.
pub const SCHEMA: u32 = 1;

/// The one architecture that the engine knows so far.
pub const QWEN3_VL: &str = "qwen3-vl";

/// Parts without which a bundle cannot serve.
pub const REQUIRED_PARTS: [&str; 4] = [DECODER, VISION, TOKENIZER, CHAT_TEMPLATE];
/// Part: the text decoder, safetensors with the tensor names of Hugging Face's Qwen3-VL
/// (`model.language_model.*`, and `lm_head.weight` unless tied).
pub const DECODER: &str = "decoder";
/// Part: the vision tower, ONNX. Input `frames` f32 `[B, 2, channels, height, width]` in [-1, 1];
/// outputs `tokens` and `deepstack_0` … f32 `[B, tokens_per_pair, hidden]`.
pub const VISION: &str = "vision";
/// Optional part: the vision tower once more, as ONNX, where [`VISION`] is packed for the CPU: what an
/// accelerator's compiler takes.
pub const VISION_ONNX: &str = "vision_onnx";
/// Part: Hugging Face's `tokenizer.json`, a byte-level BPE.
pub const TOKENIZER: &str = "tokenizer";
/// Part: the chat template, Jinja.
pub const CHAT_TEMPLATE: &str = "chat_template";
/// Optional part: a LoRA adapter of the decoder, safetensors, so that a new adapter for a base that stays
/// the same is a part of its own, and nothing else of the bundle is fetched again.
///
/// For each weight that it changes, by Hugging Face's name without `.weight`: `NAME.lora_A.weight`
/// `[rank, columns]` and `NAME.lora_B.weight` `[rows, rank]`, F32, F16 or BF16, as PEFT saves them but for its
/// `base_model.model.` before the name. The file's metadata tell `lora_alpha`, and `use_rslora` (`true` or `false`): the
/// product is then `W x + scale · B (A x)` with the scale `lora_alpha / rank`, or `lora_alpha / √rank`. They stand
/// there and not in this manifest, as they mean nothing without the factors: the part is whole by itself.
///
/// An agent that knows no adapters would run the base alone: give such a bundle a [`GOLDEN`] part, at which
/// that is refused.
pub const ADAPTER: &str = "adapter";
/// Optional part: golden inputs and outputs, JSON.
pub const GOLDEN: &str = "golden";

/// Everything about a policy except its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's layout, [`SCHEMA`] or lower.
    pub schema: u32,
    /// Name of the policy: lower-case letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Version of the policy, `major.minor.patch`.
    pub version: String,
    /// Architecture, [`QWEN3_VL`].
    pub architecture: String,
    /// SPDX expression of the weights' licence.
    pub licence: String,
    /// The lowest agent version that can run this policy.
    pub min_agent: String,
    /// What the vision tower takes and gives.
    pub geometry: Geometry,
    /// Shape of the text decoder.
    pub decoder: Decoder,
    /// Budgets of one inquiry.
    pub inquiry: Inquiry,
    /// Scores at which an event reaches a level.
    pub thresholds: Thresholds,
    /// Texts fed to the policy.
    pub prompts: Prompts,
    /// The labels that the policy was trained to give, in the order of training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// The files, by part name.
    pub parts: BTreeMap<String, Part>,
}

/// What the vision tower takes and gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Width in pixels to which a frame is resized.
    pub width: usize,
    /// Height in pixels to which a frame is resized.
    pub height: usize,
    /// 1: luma; 3: luma three times.
    pub channels: usize,
    /// Seconds from the first to the second frame of a pair.
    pub pair_lag_s: f64,
    /// Furthest that pairs may lie apart, in seconds: the frames of a sparser look are seen one by
    /// one, each given to the tower twice. Without it every look is seen in pairs.
    #[serde(default = "always", skip_serializing_if = "is_always")]
    pub pair_step_s: f64,
    /// Visual tokens of a pair, `rows × cols` of `grid`.
    pub tokens_per_pair: usize,
    /// Rows and columns of the (merged) visual tokens, for their positions.
    pub grid: [usize; 2],
    /// How many of the first decoder layers get DeepStack features.
    pub deepstack: usize,
}

fn always() -> f64 {
    f64::INFINITY
}

fn is_always(seconds: &f64) -> bool {
    *seconds == always()
}

/// Shape of the text decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoder {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Frequencies for time, height and width; their sum is half of `head_dim`.
    pub mrope_section: [usize; 3],
    /// Epsilon of every RMS norm.
    pub rms_eps: f64,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Most tokens that a session may hold.
    pub context_max: usize,
}

/// Budgets of one inquiry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inquiry {
    /// Frames of the first look.
    pub glance_frames: usize,
    /// Frames that an operator brings.
    pub frames_per_operator: usize,
    /// Most turns, the final one included.
    pub max_turns: usize,
    /// Most frames over the whole inquiry.
    pub max_frames: usize,
    /// Most tokens generated in one turn.
    pub max_tokens: usize,
    /// Longest stretch, in seconds, that one operator may ask for.
    pub max_stretch_s: f64,
    /// Most seconds of the whole inquiry; without it, a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wall_s: Option<f64>,
    /// Length in seconds of the window before the wake.
    pub look_back_s: f64,
    /// Whether the policy is told with its glance what it may spend, as it was in training.
    #[serde(default)]
    pub tell_budget: bool,
}

/// Scores at which an event reaches a level, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// From here a person should know.
    pub notice: f64,
    /// From here a person should look now; at least `notice`.
    pub alert: f64,
}

/// Texts fed to the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The system prompt.
    pub system: String,
    /// What every inquiry asks.
    pub question: String,
    /// Fed before the verdict is read from the next token; may be empty.
    pub probe: String,
    /// The token that means yes.
    pub yes: String,
    /// The token that means no.
    pub no: String,
}

/// One label of the policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// As the policy writes it.
    pub name: String,
    /// As a person reads it.
    pub sentence: String,
}

/// One file of the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Path relative to the bundle's directory, `/` between folders.
    pub file: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the contents, 64 hexadecimal digits.
    pub blake3: String,
}

impl Manifest {
    /// What contradicts itself in this manifest, as a clause for people; `Ok` if nothing does.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (g, d) = (&self.geometry, &self.decoder);
        let name_chars =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let rules = [
            (
                !self.name.is_empty() && self.name.chars().all(name_chars),
                "name may hold only lower-case letters, digits, '-', '_' and '.'",
            ),
            (Version::parse(&self.version).is_some(), "version must be major.minor.patch"),
            (Version::parse(&self.min_agent).is_some(), "min_agent must be major.minor.patch"),
            (g.width > 0 && g.height > 0, "geometry.width and geometry.height must be above 0"),
            (matches!(g.channels, 1 | 3), "geometry.channels must be 1 or 3"),
            (g.pair_lag_s > 0.0, "geometry.pair_lag_s must be above 0"),
            (g.pair_step_s > 0.0, "geometry.pair_step_s must be above 0"),
            (
                g.tokens_per_pair > 0
                    && g.grid[0].checked_mul(g.grid[1]) == Some(g.tokens_per_pair),
                "geometry.tokens_per_pair must be grid rows × columns",
            ),
            (g.deepstack <= d.layers, "geometry.deepstack must not exceed decoder.layers"),
            (
                [d.hidden, d.layers, d.heads, d.kv_heads, d.intermediate, d.vocab, d.context_max]
                    .iter()
                    .all(|&n| n > 0),
                "every size of [decoder] must be above 0",
            ),
            (
                d.kv_heads > 0 && d.heads.is_multiple_of(d.kv_heads),
                "decoder.heads must be a multiple of decoder.kv_heads",
            ),
            (
                d.head_dim > 0
                    && d.head_dim.is_multiple_of(2)
                    && d.mrope_section.iter().try_fold(0usize, |sum, &n| sum.checked_add(n))
                        == Some(d.head_dim / 2),
                "decoder.mrope_section must sum to half of decoder.head_dim",
            ),
            (d.rope_theta > 1.0, "decoder.rope_theta must be above 1"),
            (d.rms_eps > 0.0 && d.rms_eps < 1.0, "decoder.rms_eps must lie between 0 and 1"),
            (
                self.inquiry.max_turns > 0 && self.inquiry.max_tokens > 0,
                "inquiry.max_turns and inquiry.max_tokens must be above 0",
            ),
            (
                self.inquiry.max_wall_s.is_none_or(|s| (1.0..=3600.0).contains(&s)),
                "inquiry.max_wall_s must be between 1 and 3600",
            ),
            (
                0.0 <= self.thresholds.notice
                    && self.thresholds.notice <= self.thresholds.alert
                    && self.thresholds.alert <= 1.0,
                "thresholds must be 0 ≤ notice ≤ alert ≤ 1",
            ),
            (
                !self.prompts.yes.is_empty()
                    && !self.prompts.no.is_empty()
                    && self.prompts.yes != self.prompts.no,
                "prompts.yes and prompts.no must be two different tokens",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err((*rule).to_owned()),
            None => Ok(()),
        }
    }
}

/// A version `major.minor.patch`, compared number by number. A suffix after `-` or `+` is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// Of `major.minor.patch`; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(|n| n.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}
