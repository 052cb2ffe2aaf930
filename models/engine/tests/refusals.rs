//! What is wrong with a bundle is said with the name of the part, tensor or token at fault.

mod common;

use bundle::{Bundle, Manifest, PartFile, write};
use common::fixture_dir;
use engine::{Engine, EngineError, EngineOptions};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{collections::BTreeMap, fs};

/// The fixture with its parts or its manifest changed, sealed again: the hashes match.
struct Changed {
    manifest: Manifest,
    parts: BTreeMap<&'static str, Vec<u8>>,
}

impl Changed {
    fn new() -> Self {
        let bundle = Bundle::open(fixture_dir()).unwrap();
        let parts = ["decoder", "vision", "tokenizer", "chat_template"];
        let parts = parts.map(|part| (part, bundle.read(part).unwrap())).into();
        Self { manifest: bundle.manifest, parts }
    }

    fn load(self) -> Result<Engine, EngineError> {
        let dir = tempfile::tempdir().unwrap();
        let file =
            |(part, bytes): (&&'static str, &'static [u8])| PartFile { part, file: part, bytes };
        let parts: &'static BTreeMap<_, _> = Box::leak(Box::new(self.parts));
        let files: Vec<_> = parts.iter().map(|(part, bytes)| file((part, bytes))).collect();
        Engine::load(&write(dir.path(), self.manifest, &files).unwrap(), EngineOptions::default())
    }

    #[track_caller]
    fn refusal(self) -> String {
        self.load().err().expect("a refusal").to_string()
    }

    /// The decoder with its tensors passed through `change`.
    fn tensors(
        mut self,
        change: impl Fn(&str, TensorView<'static>) -> Option<TensorView<'static>>,
    ) -> Self {
        let bytes: &'static [u8] = Vec::leak(self.parts["decoder"].clone());
        let tensors = SafeTensors::deserialize(bytes).unwrap().tensors();
        let changed = tensors
            .into_iter()
            .filter_map(|(name, tensor)| change(&name, tensor).map(|tensor| (name, tensor)));
        let changed: Vec<_> = changed.collect();
        self.parts.insert("decoder", safetensors::serialize(changed, None).unwrap());
        self
    }
}

#[test]
fn an_unchanged_bundle_loads() {
    assert!(Changed::new().load().is_ok());
}

#[test]
fn a_missing_tensor_is_named() {
    let name = "model.language_model.layers.1.mlp.up_proj.weight";
    let sentence = Changed::new().tensors(|n, t| (n != name).then_some(t)).refusal();
    assert!(sentence.contains(&format!("has no tensor '{name}'")), "{sentence}");
}

#[test]
fn a_tensor_of_another_shape_or_type_is_named_with_both() {
    let name = "model.language_model.layers.2.self_attn.k_norm.weight";
    let swap = |dtype, shape: Vec<usize>| {
        move |n: &str, t: TensorView<'static>| {
            let bytes = &[0u8; 64][..shape.iter().product::<usize>() * 2];
            let bytes: &'static [u8] = Vec::leak(bytes.to_vec());
            Some(if n == name { TensorView::new(dtype, shape.clone(), bytes).unwrap() } else { t })
        }
    };
    let sentence = Changed::new().tensors(swap(Dtype::BF16, vec![8])).refusal();
    assert!(sentence.contains(name) && sentence.contains("[8]") && sentence.contains("[16]"));
    let sentence = Changed::new().tensors(swap(Dtype::I16, vec![16])).refusal();
    assert!(sentence.contains(name) && sentence.contains("I16"), "{sentence}");
}

#[test]
fn weights_that_are_no_numbers_are_refused_before_a_token_is_spoken() {
    let name = "model.language_model.norm.weight";
    let nan: &'static [u8] = Vec::leak(vec![0xff; 96]);
    let engine = Changed::new()
        .tensors(|n, t| {
            Some(if n == name { TensorView::new(Dtype::BF16, vec![48], nan).unwrap() } else { t })
        })
        .load()
        .unwrap();
    assert!(matches!(engine.start("hello"), Err(EngineError::NotFinite { .. })));
}

#[test]
fn a_vision_output_of_another_shape_is_named() {
    let mut bundle = Changed::new();
    (bundle.manifest.geometry.grid, bundle.manifest.geometry.tokens_per_pair) = ([2, 4], 8);
    assert_eq!(
        bundle.refusal(),
        "part 'vision': output 'tokens' of a pair has shape [1, 6, 48] where bundle.toml \
         implies [1, 8, 48]: correct [geometry] or export it again"
    );
}

#[test]
fn a_vision_output_or_input_that_is_not_there_is_named() {
    let mut bundle = Changed::new();
    bundle.manifest.geometry.deepstack = 3;
    assert!(bundle.refusal().starts_with("part 'vision' has no output 'deepstack_2'"));
    let mut bundle = Changed::new();
    bundle.manifest.geometry.height = 64;
    let sentence = bundle.refusal();
    assert!(sentence.starts_with("part 'vision': input 'frames' has shape "), "{sentence}");
    assert!(sentence.contains("B,2,1,64,48,F32"), "{sentence}");
}

#[test]
fn parts_that_are_not_what_they_are_called_are_refused_without_a_panic() {
    for part in ["decoder", "vision", "tokenizer"] {
        for bytes in [&b""[..], b"\x00", b"{}", &[0xff; 100]] {
            let mut bundle = Changed::new();
            bundle.parts.insert(part, bytes.to_vec());
            let sentence = bundle.refusal();
            assert!(sentence.contains(&format!("part '{part}'")), "{sentence}");
        }
    }
}

#[test]
fn truncated_parts_are_refused_without_a_panic() {
    for part in ["decoder", "vision", "tokenizer"] {
        let whole = Changed::new().parts[part].len();
        for length in [8, whole / 3, whole - 1] {
            let mut bundle = Changed::new();
            bundle.parts.get_mut(part).unwrap().truncate(length);
            let sentence = bundle.refusal();
            assert!(sentence.contains(&format!("part '{part}'")), "{part} {length}: {sentence}");
        }
    }
}

#[test]
fn a_tokenizer_without_a_token_that_is_needed_is_refused_with_the_token() {
    let mut bundle = Changed::new();
    let json = String::from_utf8(bundle.parts["tokenizer"].clone()).unwrap();
    bundle.parts.insert("tokenizer", json.replace("<|video_pad|>", "<|other_pad|>").into_bytes());
    assert!(bundle.refusal().contains("no single token for '<|video_pad|>'"));
    let mut bundle = Changed::new();
    bundle.manifest.prompts.yes = "certainly so".into();
    assert!(bundle.refusal().contains("no single token for 'certainly so'"));
}

#[test]
fn more_tokens_than_embeddings_are_refused() {
    let mut bundle = Changed::new();
    bundle.manifest.decoder.vocab = 100;
    assert!(bundle.refusal().contains("tokens and the decoder only 100"));
}

/// I6: no byte of an unverified bundle is ever parsed by the engine.
#[test]
fn a_part_changed_after_it_was_opened_is_refused_before_it_is_parsed() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture_dir()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let bundle = Bundle::open(dir.path()).unwrap();
    for file in ["decoder.safetensors", "vision.onnx", "tokenizer.json"] {
        let path = dir.path().join(file);
        let sound = fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        // The very first byte: a parser that saw it would complain of the format, not of the hash.
        flipped[0] ^= 1;
        fs::write(&path, flipped).unwrap();
        let refusal = Engine::load(&bundle, EngineOptions::default()).err().unwrap().to_string();
        assert!(refusal.contains("has BLAKE3"), "{refusal}");
        fs::write(&path, sound).unwrap();
    }
}
