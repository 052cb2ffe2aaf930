//! The fixture: a tiny Qwen3-VL with random weights, and what PyTorch computed with it
//! (`make_fixture.py`).
#![allow(dead_code)] // each test crate uses a part of it

use bundle::Bundle;
use engine::{Engine, EngineOptions, PairInput, PairKey, PairTokens, Piece};
use hal_camera::Luma;
use safetensors::SafeTensors;
use std::{fs, path::PathBuf, sync::Arc};

pub fn fixture_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixture")
}

pub fn engine() -> Engine {
    engine_of(1)
}

pub fn engine_of(threads: usize) -> Engine {
    Engine::load(
        &Bundle::open(fixture_dir()).unwrap(),
        EngineOptions { threads, ..EngineOptions::default() },
    )
    .unwrap()
}

/// A step of the fixture's conversation.
pub enum Step {
    Text(String),
    Pair(usize),
}

/// What PyTorch computed.
pub struct Expected {
    pub steps: Vec<Step>,
    /// Earlier and later frame of each pair.
    pub frames: Vec<[Luma; 2]>,
    pub ids: Vec<u32>,
    /// Logits after each step.
    pub step_logits: Vec<Vec<f32>>,
    /// Tokens that follow, each the most probable.
    pub greedy: Vec<u32>,
    /// Logits from which each of them was taken.
    pub greedy_logits: Vec<Vec<f32>>,
    pub pair_0_tokens: Vec<f32>,
    pub pair_0_deepstack_1: Vec<f32>,
}

impl Expected {
    pub fn read() -> Self {
        let path = fixture_dir().with_file_name("expected.safetensors");
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let steps = &header.metadata().as_ref().unwrap()["pieces"];
        let steps: Vec<serde_json::Value> = serde_json::from_str(steps).unwrap();
        let step = |step: &serde_json::Value| match step["text"].as_str() {
            Some(text) => Step::Text(text.to_owned()),
            None => Step::Pair(step["pair"].as_u64().unwrap() as usize),
        };
        let numbers = |name: &str| -> Vec<f32> {
            let words = file.tensor(name).unwrap().data().chunks_exact(4);
            words.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let rows = |name: &str| -> Vec<Vec<f32>> {
            let width = file.tensor(name).unwrap().shape()[1];
            numbers(name).chunks_exact(width).map(<[f32]>::to_vec).collect()
        };
        let tokens = |name: &str| -> Vec<u32> {
            let words = file.tensor(name).unwrap().data().chunks_exact(8);
            words.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
        };
        let frames = file.tensor("frames").unwrap();
        let (height, width) = (frames.shape()[2], frames.shape()[3]);
        let frame = |pixels: &[u8]| Luma { width, height, pixels: pixels.to_vec() };
        let frames = frames
            .data()
            .chunks_exact(2 * height * width)
            .map(|pair| [frame(&pair[..height * width]), frame(&pair[height * width..])])
            .collect();
        Self {
            steps: steps.iter().map(step).collect(),
            frames,
            ids: tokens("ids"),
            step_logits: rows("piece_logits"),
            greedy: tokens("greedy"),
            greedy_logits: rows("greedy_logits"),
            pair_0_tokens: numbers("pair_0_tokens"),
            pair_0_deepstack_1: numbers("pair_0_deepstack_1"),
        }
    }

    /// The visual tokens of all pairs.
    pub fn encode(&self, engine: &Engine) -> Vec<Arc<PairTokens>> {
        let input = |(i, pair): (usize, &'_ [Luma; 2])| {
            (PairKey(2 * i as u64, 2 * i as u64 + 1), pair.clone())
        };
        let inputs: Vec<_> = self.frames.iter().enumerate().map(input).collect();
        let inputs: Vec<_> =
            inputs.iter().map(|(key, [a, b])| PairInput { key: *key, frames: [a, b] }).collect();
        engine.encode(&inputs).unwrap()
    }

    /// The conversation, ready to be fed.
    pub fn pieces<'a>(&'a self, pairs: &'a [Arc<PairTokens>]) -> Vec<Piece<'a>> {
        let piece = |step: &'a Step| match step {
            Step::Text(text) => Piece::Text(text),
            Step::Pair(i) => Piece::Pair(&pairs[*i]),
        };
        self.steps.iter().map(piece).collect()
    }
}

/// Fails unless `a` and `b` point the same way (cosine) and are close element by element.
#[track_caller]
pub fn assert_alike(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let worst = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(cosine >= 0.9999 && worst < 1e-3, "{what}: cosine {cosine}, worst {worst}");
}
