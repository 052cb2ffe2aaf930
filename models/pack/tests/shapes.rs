//! Checkpoints of several shapes, packed and run, beside what transformers computes with them
//! (`make_shapes.py`): conversations with three videos, the last of an odd number of frames.

use bundle::Bundle;
use engine::{Engine, EngineOptions, PairInput, PairKey, PairTokens, Piece, Session, cosine};
use hal_camera::Luma;
use safetensors::SafeTensors;
use std::{fs, path::PathBuf, process::Command, sync::Arc};
use tempfile::TempDir;

/// Names, and width and height of the frames.
const SHAPES: [(&str, usize, usize); 3] =
    [("groups_of_four", 96, 64), ("every_head_its_own", 64, 128), ("one_for_all", 160, 96)];

/// `<|video_pad|>` in a vocabulary of 512.
const PAD: u32 = 499;

fn file(name: &str, ending: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/shapes").join(format!("{name}.{ending}"))
}

/// Makes the checkpoint of a shape and packs it.
fn pack(scratch: &TempDir, name: &str, size: (usize, usize), format: &str) -> Engine {
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_lookback-models")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let config = file(name, "json");
    let (checkpoint, out) = (path(name), path(&format!("{name}-{format}")));
    if !scratch.path().join(name).exists() {
        run(&["make-random", "--config", config.to_str().unwrap(), "-o", &checkpoint]);
    }
    let size = format!("{}x{}", size.0, size.1);
    run(&["pack", &checkpoint, "-o", &out, "--size", &size, "--format", format]);
    Engine::load(&Bundle::open(out).unwrap(), EngineOptions::default()).unwrap()
}

/// What transformers computes.
struct Expected(Vec<u8>);

impl Expected {
    fn read(name: &str) -> Self {
        Self(fs::read(file(name, "safetensors")).unwrap())
    }

    fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_le_bytes).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.words(name).into_iter().map(u32::from_le_bytes).collect()
    }

    /// Pair `number`, as the reference saw it: tokens, and a DeepStack feature for each tap.
    fn pair(&self, number: usize, engine: &Engine) -> PairTokens {
        let manifest = engine.manifest();
        let one = manifest.geometry.tokens_per_pair * manifest.decoder.hidden;
        let numbers = self.numbers(&format!("pair_{number}"));
        let mut parts = numbers.chunks(one).map(<[f32]>::to_vec);
        PairTokens { tokens: parts.next().unwrap(), deepstack: parts.collect() }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

/// Feeds the conversation, words as they are and pairs as the reference saw them; gives the logits
/// after the words of each turn.
fn fed(engine: &Engine, expected: &Expected) -> (Session, Vec<Vec<f32>>) {
    let mut session = engine.start("").unwrap();
    let (ids, mut logits, mut number) = (expected.ids("ids"), Vec::new(), 0);
    let mut rest = ids.as_slice();
    loop {
        let Some(pads) = rest.iter().position(|id| *id == PAD) else {
            session.feed_tokens(rest).unwrap();
            logits.push(session.logits().unwrap().to_vec());
            assert_eq!(session.transcript_tokens(), ids);
            return (session, logits);
        };
        // The engine itself writes what is around a pair.
        session.feed_tokens(&rest[..pads - 1]).unwrap();
        logits.push(session.logits().unwrap().to_vec());
        session.feed(&[Piece::Pair(&expected.pair(number, engine))]).unwrap();
        number += 1;
        let count = rest[pads..].iter().take_while(|id| **id == PAD).count();
        rest = &rest[pads + count + 1..];
    }
}

#[test]
fn an_unquantised_decoder_of_any_shape_computes_what_transformers_computes() {
    let scratch = TempDir::new().unwrap();
    for (name, width, height) in SHAPES {
        let engine = pack(&scratch, name, (width, height), "plain");
        let expected = Expected::read(name);
        let (session, logits) = fed(&engine, &expected);
        let truth = expected.numbers("logits");
        for (turn, (found, truth)) in logits.iter().zip(truth.chunks(512)).enumerate() {
            let cosine = cosine(found, truth);
            assert!(cosine > 0.999_999, "{name}, turn {turn}: {cosine}");
        }
        let mut greedy = session.clone();
        for (step, token) in expected.ids("greedy").into_iter().enumerate() {
            assert_eq!(argmax(greedy.logits().unwrap()), token, "{name}, greedy step {step}");
            greedy.feed_tokens(&[token]).unwrap();
        }
        let mut told = session;
        let chosen = expected.ids("chosen");
        assert_eq!(chosen.len(), 64);
        for (step, (token, chosen)) in expected.ids("more").into_iter().zip(chosen).enumerate() {
            told.feed_tokens(&[token]).unwrap();
            assert_eq!(argmax(told.logits().unwrap()), chosen, "{name}, after {step} more words");
        }
    }
}

#[test]
fn a_packed_decoder_of_any_shape_comes_close_to_it() {
    let scratch = TempDir::new().unwrap();
    for (name, width, height) in SHAPES {
        let expected = Expected::read(name);
        let truth = expected.numbers("logits");
        for (format, bound) in [("q8_0", 0.999), ("q4_0", 0.96)] {
            let engine = pack(&scratch, name, (width, height), format);
            let (_, logits) = fed(&engine, &expected);
            for (turn, (found, truth)) in logits.iter().zip(truth.chunks(512)).enumerate() {
                let cosine = cosine(found, truth);
                assert!(cosine > bound, "{name} in {format}, turn {turn}: {cosine}");
            }
        }
    }
}

#[test]
fn a_packed_tower_of_any_shape_sees_what_transformers_sees() {
    let scratch = TempDir::new().unwrap();
    for (name, width, height) in SHAPES {
        let engine = pack(&scratch, name, (width, height), "q8_0");
        let expected = Expected::read(name);
        let frame = |number: usize| {
            let pixel = |i: usize| ((number * width * height + i) * 7 % 251) as u8;
            Luma { width, height, pixels: (0..width * height).map(pixel).collect() }
        };
        let frames: Vec<Luma> = (0..5).map(frame).collect();
        // The fifth frame is a pair with itself.
        let pairs = [[0, 1], [2, 3], [4, 4]];
        let inputs = pairs.map(|[a, b]| PairInput {
            key: PairKey(a as u64, b as u64),
            frames: [&frames[a], &frames[b]],
        });
        let seen: Vec<Arc<PairTokens>> = engine.encode(&inputs).unwrap();
        for (number, seen) in seen.iter().enumerate() {
            let truth = expected.pair(number, &engine);
            let cosine_of = |a: &[f32], b: &[f32]| {
                let found = cosine(a, b);
                assert!(found > 0.999, "{name}, pair {number}: {found}");
            };
            cosine_of(&seen.tokens, &truth.tokens);
            assert_eq!(seen.deepstack.len(), truth.deepstack.len());
            for (seen, truth) in seen.deepstack.iter().zip(&truth.deepstack) {
                cosine_of(seen, truth);
            }
        }
    }
}
