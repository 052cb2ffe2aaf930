//! The shape of a checkpoint, from its `config.json`.

use anyhow::{Context, Result, ensure};
use engine::TowerShape;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// What `config.json` of a Qwen3-VL says, as far as it decides the shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `qwen3_vl`.
    pub model_type: String,
    /// Whether the output head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The decoder.
    pub text_config: Text,
    /// The tower.
    pub vision_config: Vision,
}

/// The decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of the file
pub struct Text {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub rms_norm_eps: f64,
    /// transformers up to version 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Rope>,
    /// From version 5 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Rope>,
}

/// How positions turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of the file
pub struct Rope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    pub mrope_section: [usize; 3],
    #[serde(default)]
    pub mrope_interleaved: bool,
}

/// The tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of the file
pub struct Vision {
    pub depth: usize,
    pub hidden_size: usize,
    pub num_heads: usize,
    pub intermediate_size: usize,
    pub out_hidden_size: usize,
    pub in_channels: usize,
    pub num_position_embeddings: usize,
    #[serde(default = "tanh")]
    pub hidden_act: String,
    pub patch_size: usize,
    pub spatial_merge_size: usize,
    pub temporal_patch_size: usize,
    pub deepstack_visual_indexes: Vec<usize>,
}

fn tanh() -> String {
    "gelu_pytorch_tanh".to_owned()
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is not there, or of another architecture.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default)]
            model_type: String,
        }
        let text = fs::read_to_string(path).with_context(|| {
            format!("{} cannot be read: give the folder of a checkpoint", path.display())
        })?;
        let unreadable = || format!("{} is not what Qwen3-VL's is", path.display());
        let Kind { model_type } = serde_json::from_str(&text).with_context(unreadable)?;
        ensure!(
            model_type == "qwen3_vl",
            "{} says model_type '{model_type}'; only 'qwen3_vl' can be packed",
            path.display()
        );
        let config: Self = serde_json::from_str(&text).with_context(unreadable)?;
        let vision = &config.vision_config;
        ensure!(
            vision.hidden_act == tanh(),
            "{}: the tower's hidden_act is '{}'; only '{}' is known",
            path.display(),
            vision.hidden_act,
            tanh()
        );
        ensure!(
            (vision.spatial_merge_size, vision.temporal_patch_size) == (2, 2),
            "{}: the tower has to merge 2 x 2 patches of 2 frames",
            path.display()
        );
        Ok(config)
    }

    /// The tower's shape.
    pub fn tower(&self) -> TowerShape {
        let vision = &self.vision_config;
        TowerShape {
            width: vision.hidden_size,
            depth: vision.depth,
            heads: vision.num_heads,
            intermediate: vision.intermediate_size,
            out: vision.out_hidden_size,
            taps: vision.deepstack_visual_indexes.clone(),
            patch: vision.patch_size,
            channels: vision.in_channels,
        }
    }

    /// The decoder's shape as a manifest says it.
    ///
    /// # Errors
    /// If the file does not say how positions turn, or in a way that the engine does not know.
    pub fn decoder(&self, context_max: usize) -> Result<bundle::Decoder> {
        let text = &self.text_config;
        let rope = text.rope_parameters.as_ref().or(text.rope_scaling.as_ref());
        let rope = rope.context("config.json names neither rope_parameters nor rope_scaling")?;
        ensure!(rope.mrope_interleaved, "config.json: only interleaved M-RoPE is known");
        let theta = rope.rope_theta.or(text.rope_theta);
        Ok(bundle::Decoder {
            hidden: text.hidden_size,
            layers: text.num_hidden_layers,
            heads: text.num_attention_heads,
            kv_heads: text.num_key_value_heads,
            head_dim: text.head_dim,
            intermediate: text.intermediate_size,
            vocab: text.vocab_size,
            rope_theta: theta.context("config.json names no rope_theta")?,
            mrope_section: rope.mrope_section,
            rms_eps: text.rms_norm_eps,
            tied: self.tie_word_embeddings,
            context_max,
        })
    }
}
