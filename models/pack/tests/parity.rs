//! A checkpoint made, packed and run, beside what transformers computes with it
//! (`make_expected.py`), and every way in which a checkpoint can be wrong.

mod common;

use bundle::{Bundle, DECODER};
use common::{Folder, SIZE, models, refused, succeeds};
use engine::{
    Engine, EngineOptions, Grammar, PairInput, PairKey, Piece, Sampling, TextDecoder, cosine,
};
use hal_camera::Luma;
use kernels::Aligned;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Folder {
    #[track_caller]
    fn pack_refused(&self, more: &[&str]) -> String {
        let (from, out) = (self.path("tiny"), self.path("refused"));
        let said = refused(&[&["pack", &from, "-o", &out], more].concat());
        assert!(!Path::new(&out).exists(), "half a bundle was left");
        said
    }
}

fn expected(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected.safetensors");
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = file.tensor(name).unwrap().data().as_chunks::<4>().0;
    words.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// As the script draws it.
fn frames() -> [Luma; 2] {
    let (width, height) = SIZE;
    [0, 1].map(|frame| {
        let pixel = |i: usize| ((frame * width * height + i) * 7 % 251) as u8;
        Luma { width, height, pixels: (0..width * height).map(pixel).collect() }
    })
}

#[test]
fn a_packed_checkpoint_sees_what_transformers_sees() {
    let folder = Folder::new();
    let [first, second] = frames();
    for (format, bound) in [("q8_0", 0.999), ("q4_0", 0.98)] {
        let bundle = folder.pack(format, &["--vision-format", format]);
        let engine =
            Engine::load(&bundle, EngineOptions { threads: 2, ..EngineOptions::default() })
                .unwrap();
        let pair = PairInput { key: PairKey(0, 1), frames: [&first, &second] };
        let seen = &engine.encode(&[pair]).unwrap()[0];
        let found = cosine(&seen.tokens, &expected("tokens"));
        assert!(found > bound, "tokens in {format}: {found}");
        for (k, feature) in seen.deepstack.iter().enumerate() {
            let found = cosine(feature, &expected(&format!("deepstack_{k}")));
            assert!(found > bound, "deepstack_{k} in {format}: {found}");
        }
    }
}

#[test]
fn a_packed_checkpoint_says_what_transformers_says() {
    let folder = Folder::new();
    let tokens: Vec<u32> = (0..90).map(|i| i * 37 % 600).collect();
    for (format, bound) in [("q8_0", 0.999), ("q4_0", 0.97)] {
        let bundle = folder.pack(format, &["--format", format]);
        let mut bytes = Aligned::zeroed(bundle.length(DECODER).unwrap());
        bundle.read_into(DECODER, bytes.as_mut_slice()).unwrap();
        let options = EngineOptions { threads: 1, ..EngineOptions::default() };
        let decoder = TextDecoder::load(&bundle.manifest, &Arc::new(bytes), None, options).unwrap();
        let mut text = decoder.start().unwrap();
        let logits = expected("logits");
        let mut at = 0;
        for (upto, expected) in [1, 41, 90].into_iter().zip(logits.chunks(logits.len() / 3)) {
            let found = cosine(&text.read(&tokens[at..upto]).unwrap(), expected);
            assert!(found > bound, "after {upto} tokens in {format}: {found}");
            at = upto;
        }
    }
}

#[test]
fn a_session_of_random_weights_keeps_to_the_grammar_and_reads_its_verdict() {
    let folder = Folder::new();
    let bundle = folder.pack("bundle", &[]);
    let engine =
        Engine::load(&bundle, EngineOptions { threads: 1, ..EngineOptions::default() }).unwrap();
    let [first, second] = frames();
    let seen =
        engine.encode(&[PairInput { key: PairKey(0, 1), frames: [&first, &second] }]).unwrap();
    let mut session = engine.start("<|im_start|>system\nWatch.<|im_end|>\n").unwrap();
    session.feed(&[Piece::Text("<1.0 seconds>"), Piece::Pair(&seen[0])]).unwrap();
    assert!((0.0..=1.0).contains(&session.yes_no("").unwrap()));
    let grammar = Grammar::new(&engine, r#"start: "{\"frames\":" /[1-9][0-9]/ "}""#).unwrap();
    for seed in 0..5 {
        let mut session = session.clone();
        session.set_sampling(Sampling::Temperature { t: 1.0, seed });
        let text = session.generate(&grammar, 40).unwrap().text;
        let call: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!((10..100).contains(&call["frames"].as_u64().unwrap()));
    }
}

#[test]
fn a_policy_that_computes_something_else_than_where_it_was_packed_is_refused() {
    let folder = Folder::new();
    let bundle = folder.pack("bundle", &[]);
    let dir = folder.path("bundle");
    succeeds(&["verify", &dir]);
    // Sealed again, so that only what it computes can tell.
    let golden = bundle.dir.join("golden.json");
    let mut said: serde_json::Value = serde_json::from_slice(&fs::read(&golden).unwrap()).unwrap();
    said["tokens"][3] = 1.into();
    fs::write(&golden, said.to_string()).unwrap();
    bundle::seal(&bundle.dir).unwrap();
    assert!(refused(&["verify", &dir]).contains("does not compute here"));
    fs::write(&golden, "{}").unwrap();
    bundle::seal(&bundle.dir).unwrap();
    assert!(refused(&["verify", &dir]).contains("golden part cannot be read"));
}

#[test]
fn a_checkpoint_in_shards_is_packed_to_the_same_bytes() {
    let folder = Folder::new();
    let whole = folder.pack("whole", &[]);
    // The same tensors in two files and an index.
    let tiny = PathBuf::from(folder.path("tiny"));
    let bytes = fs::read(tiny.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let name = format!("model-0000{}-of-00002.safetensors", shard + 1);
        let here: Vec<_> =
            file.tensors().into_iter().enumerate().filter(|(i, _)| i % 2 == shard).collect();
        map.extend(here.iter().map(|(_, (tensor, _))| (tensor.clone(), name.clone().into())));
        let here = here.into_iter().map(|(_, tensor)| tensor);
        fs::write(tiny.join(name), safetensors::serialize(here, None).unwrap()).unwrap();
    }
    fs::remove_file(tiny.join("model.safetensors")).unwrap();
    let index = tiny.join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
    assert_eq!(folder.pack("shards", &[]).manifest.parts, whole.manifest.parts);

    let shard = tiny.join("model-00002-of-00002.safetensors");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    let said = folder.pack_refused(&[]);
    assert!(said.contains("00002-of-00002.safetensors is cut short"), "{said}");
    fs::remove_file(&shard).unwrap();
    assert!(folder.pack_refused(&[]).contains("00002-of-00002.safetensors cannot be opened"));
}

#[test]
fn what_cannot_be_packed_is_refused_in_one_line_that_names_it() {
    let folder = Folder::new();
    let config = PathBuf::from(folder.path("tiny")).join("config.json");
    let original = fs::read_to_string(&config).unwrap();
    for (from, to, named) in [
        ("\"qwen3_vl\"", "\"llama\"", "model_type 'llama'"),
        ("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5", "layers.4."),
        ("\"intermediate_size\": 256", "\"intermediate_size\": 512", "has shape [256, 128]"),
        ("\"mrope_interleaved\": true", "\"mrope_interleaved\": false", "interleaved"),
        ("gelu_pytorch_tanh", "relu", "hidden_act is 'relu'"),
        ("{", "[", "config.json"),
    ] {
        assert!(original.contains(from), "{from}");
        fs::write(&config, original.replacen(from, to, 1)).unwrap();
        let said = folder.pack_refused(&[]);
        assert!(said.contains(named), "{said}");
    }
    fs::write(&config, original).unwrap();
    assert!(folder.pack_refused(&["--onnx", "none.onnx"]).contains("none.onnx is no file"));
    assert!(folder.pack_refused(&["--size", "32x9600"]).contains("too long"));
    let processor = PathBuf::from(folder.path("tiny")).join("video_preprocessor_config.json");
    let original = fs::read_to_string(&processor).unwrap();
    for (from, to, named) in [
        ("\"patch_size\": 16", "\"patch_size\": 14", "patch_size is not 16"),
        ("0.5", "0.48", "image_mean and image_std"),
        ("{", "[", "describes no processor"),
    ] {
        assert!(original.contains(from), "{from}");
        fs::write(&processor, original.replacen(from, to, 1)).unwrap();
        let said = folder.pack_refused(&[]);
        assert!(said.contains(named) && said.contains("video_preprocessor_config"), "{said}");
    }
    fs::write(&processor, original).unwrap();
    let template = PathBuf::from(folder.path("tiny")).join("chat_template.jinja");
    let original = fs::read_to_string(&template).unwrap();
    for (from, to, named) in [
        ("<|video_pad|>", "<video>", "where a video is shown"),
        ("{%- for message in messages %}", "{%- for message in messages[-2:] %}", "rewrites"),
        ("{%- endfor %}", "{%- endif %}", "chat template"),
        ("{{- '<|im_end|>\\n' }}", "{{- raise_exception('no') }}", "no"),
    ] {
        assert!(original.contains(from), "{from}");
        fs::write(&template, original.replacen(from, to, 1)).unwrap();
        let said = folder.pack_refused(&[]);
        assert!(said.contains(named) && said.contains("--template"), "{said}");
    }
    fs::remove_file(template).unwrap();
    assert!(folder.pack_refused(&[]).contains("give --template"));
    let there = folder.path("tiny");
    assert!(refused(&["pack", &there, "-o", &there]).contains("is there already"));
    assert!(refused(&["verify", &there]).contains("bundle.toml"));
    assert!(refused(&["pack", &folder.path("none"), "-o", &there]).contains("config.json"));
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let folder = Folder::new();
    let path = PathBuf::from(folder.path("tiny")).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (start, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let name = "model.language_model.layers.1.mlp.up_proj.weight";
    let at = start + 8 + metadata.info(name).unwrap().data_offsets.0;
    bytes[at..at + 2].copy_from_slice(&[0x80, 0x7f]);
    fs::write(&path, bytes).unwrap();
    let said = folder.pack_refused(&[]);
    assert!(said.contains(name) && said.contains("not finite"), "{said}");
}

/// Writes an adapter of rank 2 for one matrix, as PEFT does.
fn adapter(folder: &Folder, config: &str, tensors: &[(&str, [usize; 2])]) -> String {
    let out = folder.path("adapter");
    fs::create_dir_all(&out).unwrap();
    fs::write(format!("{out}/adapter_config.json"), config).unwrap();
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| (0..shape[0] * shape[1]).flat_map(|i| (i as f32).sin().to_le_bytes()))
        .map(Iterator::collect)
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        (format!("base_model.model.{name}"), view)
    });
    let path = PathBuf::from(format!("{out}/adapter_model.safetensors"));
    safetensors::serialize_to_file(views, None, &path).unwrap();
    out
}

const LORA: &str = r#"{"peft_type": "LORA", "lora_alpha": 3, "r": 2, "bias": "none"}"#;
const UP: &str = "model.language_model.layers.1.mlp.up_proj";

fn plain(folder: &Folder, name: &str, more: &[&str]) -> Vec<f32> {
    let bundle = folder.pack(name, &[&["--format", "plain"], more].concat());
    let bytes = bundle.read(DECODER).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(&format!("{UP}.weight")).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        _ => data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
    }
}

#[test]
fn an_adapter_is_added_to_the_weights_that_it_changes() {
    let folder = Folder::new();
    let (a, b) = (format!("{UP}.lora_A.weight"), format!("{UP}.lora_B.weight"));
    let before = plain(&folder, "before", &[]);
    let (rows, columns) = (before.len() / 128, 128);
    let given = adapter(&folder, LORA, &[(&a, [2, columns]), (&b, [rows, 2])]);
    let after = plain(&folder, "after", &["--adapter", &given]);
    for (i, (after, before)) in after.iter().zip(&before).enumerate() {
        let (row, column) = (i / columns, i % columns);
        let product: f32 = (0..2)
            .map(|k| ((2 * row + k) as f32).sin() * ((k * columns + column) as f32).sin())
            .sum();
        assert!((after - before - 1.5 * product).abs() < 1e-5, "{row} {column}");
    }
    assert!(before.iter().zip(&after).any(|(before, after)| (before - after).abs() > 0.1));
}

#[test]
fn an_adapter_that_cannot_be_merged_is_refused() {
    let folder = Folder::new();
    let (a, b) = (format!("{UP}.lora_A.weight"), format!("{UP}.lora_B.weight"));
    let (a, b): (&str, &str) = (&a, &b);
    let norm = "model.language_model.norm.lora_A.weight";
    let rows = plain(&folder, "whole", &[]).len() / 128;
    let dora = LORA.replace('}', r#", "use_dora": true}"#);
    type Case<'a> = (&'a str, &'a [(&'a str, [usize; 2])], &'a str);
    let cases: [Case<'_>; 9] = [
        ("{}", &[], "does not describe a LoRA adapter"),
        (&dora, &[(a, [2, 128]), (b, [rows, 2])], "use_dora is set"),
        (LORA, &[], "changes nothing"),
        (LORA, &[(a, [2, 128])], "lora_B.weight' is missing"),
        (LORA, &[(b, [rows, 2])], "has no lora_A"),
        (LORA, &[(a, [2, 64]), (b, [rows, 2])], "has shape [2, 64]"),
        (LORA, &[(a, [0, 128]), (b, [rows, 0])], "has no rank"),
        (LORA, &[(norm, [2, 128])], "no matrix of this checkpoint"),
        (LORA, &[("model.visual.patch_embed.bias", [2, 2])], "no factor of LoRA"),
    ];
    for (config, tensors, named) in cases {
        let given = adapter(&folder, config, tensors);
        let said = folder.pack_refused(&["--adapter", &given]);
        assert!(said.contains(named), "{said}");
    }
    assert!(folder.pack_refused(&["--adapter", &folder.path("none")]).contains("adapter_config"));
}

#[test]
fn frames_get_a_size_that_the_checkpoint_takes() {
    let folder = Folder::new();
    let (from, out) = (folder.path("tiny"), folder.path("odd"));
    let output = models(&["pack", &from, "-o", &out, "--size", "200x130"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("resized to 192x128"), "{said}");
    let geometry = Bundle::open(out).unwrap().manifest.geometry;
    assert_eq!((geometry.width, geometry.height, geometry.grid), (192, 128, [4, 6]));
}
