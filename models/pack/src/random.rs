//! Checkpoints of random weights: the real shape, for measuring and testing where there are no
//! weights.

use crate::{
    config::{Config, Rope, Text, Vision},
    progress::Progress,
};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
};

/// Bytes after which a shard ends.
const SHARD: u64 = 1 << 30;

/// What a random checkpoint is to be.
#[derive(Args)]
pub struct Random {
    /// Whose shape it has.
    #[arg(long, value_enum, default_value_t = Shape::Qwen3Vl2b)]
    shape: Shape,
    /// A config.json of Qwen3-VL whose shape it has instead.
    #[arg(long, conflicts_with = "shape")]
    config: Option<PathBuf>,
    /// Folder of the checkpoint; must not be there yet.
    #[arg(short, long)]
    out: PathBuf,
    /// Another seed gives other weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Random {
    /// Of a shape, into a folder.
    pub fn of(shape: Shape, out: PathBuf) -> Self {
        Self { shape, config: None, out, seed: 1 }
    }
}

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Qwen3-VL-2B, which Cosmos-Reason2-2B has too: 4.3 GB.
    #[value(name = "qwen3-vl-2b")]
    Qwen3Vl2b,
    /// The same architecture, a few MB.
    Tiny,
}

impl Shape {
    /// The `config.json` of that shape.
    pub fn config(self) -> Config {
        let rope =
            |mrope_section| Rope { rope_theta: Some(5e6), mrope_section, mrope_interleaved: true };
        let (text_config, vision_config) = match self {
            Self::Qwen3Vl2b => (
                Text {
                    hidden_size: 2048,
                    num_hidden_layers: 28,
                    num_attention_heads: 16,
                    num_key_value_heads: 8,
                    head_dim: 128,
                    intermediate_size: 6144,
                    vocab_size: 151_936,
                    rms_norm_eps: 1e-6,
                    rope_theta: None,
                    rope_scaling: None,
                    rope_parameters: Some(rope([24, 20, 20])),
                },
                Vision {
                    depth: 24,
                    hidden_size: 1024,
                    num_heads: 16,
                    intermediate_size: 4096,
                    out_hidden_size: 2048,
                    in_channels: 3,
                    num_position_embeddings: 2304,
                    hidden_act: "gelu_pytorch_tanh".into(),
                    patch_size: 16,
                    spatial_merge_size: 2,
                    temporal_patch_size: 2,
                    deepstack_visual_indexes: vec![5, 11, 17],
                },
            ),
            Self::Tiny => (
                Text {
                    hidden_size: 128,
                    num_hidden_layers: 4,
                    num_attention_heads: 4,
                    num_key_value_heads: 2,
                    head_dim: 32,
                    intermediate_size: 256,
                    vocab_size: 640,
                    rms_norm_eps: 1e-6,
                    rope_theta: None,
                    rope_scaling: None,
                    rope_parameters: Some(rope([6, 5, 5])),
                },
                Vision {
                    depth: 4,
                    hidden_size: 64,
                    num_heads: 4,
                    intermediate_size: 128,
                    out_hidden_size: 128,
                    in_channels: 3,
                    num_position_embeddings: 64,
                    hidden_act: "gelu_pytorch_tanh".into(),
                    patch_size: 16,
                    spatial_merge_size: 2,
                    temporal_patch_size: 2,
                    deepstack_visual_indexes: vec![0, 1, 2],
                },
            ),
        };
        Config {
            model_type: "qwen3_vl".into(),
            tie_word_embeddings: true,
            text_config,
            vision_config,
        }
    }
}

/// Writes the checkpoint; gives the bytes of its weights.
///
/// # Errors
/// If it cannot be written.
pub fn make(given: &Random, progress: &Progress) -> Result<u64> {
    let Random { out, shape, seed, .. } = given;
    ensure!(!out.exists(), "{} is there already: remove it or give another --out", out.display());
    let config = match &given.config {
        Some(file) => Config::read(file)?,
        None => shape.config(),
    };
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let mut json = serde_json::to_value(&config)?;
    json["architectures"] = json!(["Qwen3VLForConditionalGeneration"]);
    json["vision_config"]["model_type"] = json!("qwen3_vl_vision");
    json["text_config"]["model_type"] = json!("qwen3_vl_text");
    json["text_config"]["rope_parameters"]["rope_type"] = json!("default");
    json["text_config"]["tie_word_embeddings"] = json!(config.tie_word_embeddings);
    let specials = specials(config.text_config.vocab_size);
    let id = |name: &str| specials.iter().find(|(_, n)| n == name).map(|(id, _)| *id);
    for (key, token) in [
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    ] {
        json[key] = json!(id(token));
    }
    fs::write(out.join("config.json"), serde_json::to_string_pretty(&json)?)?;
    fs::write(out.join("tokenizer.json"), tokenizer(&specials).to_string())?;
    fs::write(out.join("chat_template.jinja"), include_str!("../../nano/chat_template.jinja"))?;
    let processor = json!({
        "size": {"shortest_edge": 4096, "longest_edge": 25_165_824},
        "patch_size": config.vision_config.patch_size,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "video_processor_type": "Qwen3VLVideoProcessor",
    });
    let path = out.join("video_preprocessor_config.json");
    fs::write(path, serde_json::to_string_pretty(&processor)?)?;
    write_weights(&config, given, *seed, progress)
}

/// Name and shape of every tensor, as Hugging Face has them.
fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    let hidden = text.hidden_size;
    add("model.language_model.embed_tokens.weight".into(), &[text.vocab_size, hidden]);
    let (q, kv) =
        (text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim);
    for layer in 0..text.num_hidden_layers {
        let parts: [(&str, &[usize]); 11] = [
            ("input_layernorm", &[hidden]),
            ("mlp.down_proj", &[hidden, text.intermediate_size]),
            ("mlp.gate_proj", &[text.intermediate_size, hidden]),
            ("mlp.up_proj", &[text.intermediate_size, hidden]),
            ("post_attention_layernorm", &[hidden]),
            ("self_attn.k_norm", &[text.head_dim]),
            ("self_attn.k_proj", &[kv, hidden]),
            ("self_attn.o_proj", &[hidden, q]),
            ("self_attn.q_norm", &[text.head_dim]),
            ("self_attn.q_proj", &[q, hidden]),
            ("self_attn.v_proj", &[kv, hidden]),
        ];
        for (part, shape) in parts {
            add(format!("model.language_model.layers.{layer}.{part}.weight"), shape);
        }
    }
    add("model.language_model.norm.weight".into(), &[hidden]);
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), &[text.vocab_size, hidden]);
    }
    let (width, patch) = (vision.hidden_size, vision.patch_size);
    let mut both = |name: String, shape: &[usize]| {
        add(format!("model.visual.{name}.weight"), shape);
        add(format!("model.visual.{name}.bias"), &shape[..1]);
    };
    both("patch_embed.proj".into(), &[width, vision.in_channels, 2, patch, patch]);
    for block in 0..vision.depth {
        let parts: [(&str, &[usize]); 6] = [
            ("norm1", &[width]),
            ("attn.qkv", &[3 * width, width]),
            ("attn.proj", &[width, width]),
            ("norm2", &[width]),
            ("mlp.linear_fc1", &[vision.intermediate_size, width]),
            ("mlp.linear_fc2", &[width, vision.intermediate_size]),
        ];
        for (part, shape) in parts {
            both(format!("blocks.{block}.{part}"), shape);
        }
    }
    let joined = 4 * width;
    let taps = (0..vision.deepstack_visual_indexes.len())
        .map(|k| (format!("deepstack_merger_list.{k}"), joined));
    for (merger, norm) in std::iter::once(("merger".to_owned(), width)).chain(taps) {
        both(format!("{merger}.norm"), &[norm]);
        both(format!("{merger}.linear_fc1"), &[joined, joined]);
        both(format!("{merger}.linear_fc2"), &[vision.out_hidden_size, joined]);
    }
    let places = [vision.num_position_embeddings, width];
    tensors.push(("model.visual.pos_embed.weight".into(), places.to_vec()));
    tensors
}

fn write_weights(config: &Config, given: &Random, seed: u64, progress: &Progress) -> Result<u64> {
    let tensors = tensors(config);
    let bytes = |shape: &[usize]| shape.iter().product::<usize>() as u64 * 2;
    let all: u64 = tensors.iter().map(|(_, shape)| bytes(shape)).sum();
    progress.begin(all);
    let mut shards: Vec<Vec<&(String, Vec<usize>)>> = vec![vec![]];
    let mut filled = 0;
    for tensor in &tensors {
        let size = bytes(&tensor.1);
        if filled > 0 && filled + size > SHARD {
            shards.push(vec![]);
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("there is one").push(tensor);
    }
    let mut map = Map::new();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", number + 1),
        };
        let (mut header, mut at) = (Map::new(), 0);
        for (tensor, shape) in shard {
            let end = at + bytes(shape);
            let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]});
            header.insert(tensor.clone(), entry);
            map.insert(tensor.clone(), name.clone().into());
            at = end;
        }
        let mut text = Value::Object(header).to_string();
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(given.out.join(name))?);
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(text.as_bytes())?;
        for (tensor, shape) in shard {
            let kind = Kind::of(tensor);
            let mut left = bytes(shape) as usize;
            let mut buffer = vec![0; left.min(1 << 20)];
            while left > 0 {
                let part = buffer.len().min(left);
                kind.fill(&mut state, &mut buffer[..part]);
                file.write_all(&buffer[..part])?;
                left -= part;
                progress.add(part as u64);
            }
        }
        file.flush()?;
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": all}, "weight_map": map});
        fs::write(given.out.join("model.safetensors.index.json"), index.to_string())?;
    }
    Ok(all)
}

/// What a tensor is filled with.
#[derive(Clone, Copy)]
enum Kind {
    /// Norms.
    One,
    /// Biases.
    Zero,
    /// Either sign, magnitudes of 1/64 to 1/32.
    Random,
}

impl Kind {
    fn of(tensor: &str) -> Self {
        if tensor.ends_with(".bias") {
            Self::Zero
        } else if tensor.contains("norm") {
            Self::One
        } else {
            Self::Random
        }
    }

    /// bfloat16, little-endian.
    fn fill(self, state: &mut u64, out: &mut [u8]) {
        match self {
            Self::Zero => out.fill(0),
            Self::One => out.as_chunks_mut::<2>().0.fill(0x3f80u16.to_le_bytes()),
            Self::Random => {
                for four in out.chunks_mut(8) {
                    *state ^= *state << 13;
                    *state ^= *state >> 7;
                    *state ^= *state << 17;
                    // In each: the sign and seven bits of the fraction, with the exponent -6.
                    let bits = *state & 0x807f_807f_807f_807f | 0x3c80_3c80_3c80_3c80;
                    let bytes = bits.to_le_bytes();
                    four.copy_from_slice(&bytes[..four.len()]);
                }
            }
        }
    }
}

/// The special tokens, with the ids that Qwen has given them; at the end of a small vocabulary.
fn specials(vocabulary: usize) -> Vec<(usize, String)> {
    const QWEN: [(usize, &str); 26] = [
        (151_643, "<|endoftext|>"),
        (151_644, "<|im_start|>"),
        (151_645, "<|im_end|>"),
        (151_646, "<|object_ref_start|>"),
        (151_647, "<|object_ref_end|>"),
        (151_648, "<|box_start|>"),
        (151_649, "<|box_end|>"),
        (151_650, "<|quad_start|>"),
        (151_651, "<|quad_end|>"),
        (151_652, "<|vision_start|>"),
        (151_653, "<|vision_end|>"),
        (151_654, "<|vision_pad|>"),
        (151_655, "<|image_pad|>"),
        (151_656, "<|video_pad|>"),
        (151_657, "<tool_call>"),
        (151_658, "</tool_call>"),
        (151_659, "<|fim_prefix|>"),
        (151_660, "<|fim_middle|>"),
        (151_661, "<|fim_suffix|>"),
        (151_662, "<|fim_pad|>"),
        (151_663, "<|repo_name|>"),
        (151_664, "<|file_sep|>"),
        (151_665, "<tool_response>"),
        (151_666, "</tool_response>"),
        (151_667, "<think>"),
        (151_668, "</think>"),
    ];
    let shift = QWEN[25].0.saturating_sub(vocabulary - 1);
    QWEN.iter().map(|(id, name)| (id - shift, (*name).to_owned())).collect()
}

/// A byte-level BPE with few words and a token of its own for every id below the special ones, so
/// that it is as large as the real one.
fn tokenizer(specials: &[(usize, String)]) -> Value {
    let bytes = byte_characters();
    let mut words: Vec<String> = bytes.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    for word in ["yes", "no"] {
        let mut known = word[..1].to_owned();
        for next in word[1..].chars() {
            merges.push(json!([known, next.to_string()]));
            known.push(next);
            words.push(known.clone());
        }
    }
    let count = specials[0].0;
    words.extend((words.len()..count).map(|id| format!("unused{id}")));
    let vocabulary: Map<String, Value> =
        words.into_iter().enumerate().map(|(id, word)| (word, id.into())).collect();
    let added: Vec<Value> = specials
        .iter()
        .map(|(id, name)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    })
}

/// The characters by which byte-level BPE writes the bytes 0 to 255: themselves where they can be
/// seen, others from U+0100 on.
fn byte_characters() -> Vec<char> {
    let seen = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
    let mut next = 256;
    (0..256)
        .map(|b| {
            let code = if seen(b) { b } else { next };
            next += u32::from(!seen(b));
            char::from_u32(code).expect("a character of the first two pages")
        })
        .collect()
}
