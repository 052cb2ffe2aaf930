//! An adapter kept as a part of its own: beside a base that stays as it is, and replaced by another.

mod common;

use bundle::{ADAPTER, Bundle, DECODER, GOLDEN};
use common::{Folder, models, refused, succeeds};
use engine::{EngineOptions, TextDecoder, cosine};
use kernels::Aligned;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::{fs, path::Path, sync::Arc};

impl Folder {
    fn pack_q8(&self, name: &str, more: &[&str]) -> Bundle {
        self.pack(name, &[&["--format", "q8_0"], more].concat())
    }

    /// An adapter as PEFT saves it, in `name`: what `of` names, with its rows and columns.
    fn adapter(
        &self,
        name: &str,
        of: &[(&str, usize, usize)],
        number: impl Fn(usize) -> f32,
    ) -> String {
        const RANK: usize = 4;
        let out = self.path(name);
        fs::create_dir_all(&out).unwrap();
        let config = r#"{"peft_type": "LORA", "lora_alpha": 8, "r": 4, "bias": "none"}"#;
        fs::write(format!("{out}/adapter_config.json"), config).unwrap();
        let mut tensors = Vec::new();
        for (module, rows, columns) in of {
            for (which, shape) in [("A", [RANK, *columns]), ("B", [*rows, RANK])] {
                let data = (0..shape[0] * shape[1]).flat_map(|i| number(i).to_le_bytes());
                let name = format!("base_model.model.{module}.lora_{which}.weight");
                tensors.push((name, shape, data.collect::<Vec<u8>>()));
            }
        }
        let views = tensors.iter().map(|(name, shape, data)| {
            (name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap())
        });
        let path = format!("{out}/adapter_model.safetensors");
        safetensors::serialize_to_file(views, None, Path::new(&path)).unwrap();
        out
    }
}

/// In the tiny shape: query heads, and a projection of the MLP.
const PROJECTIONS: [(&str, usize, usize); 3] = [
    ("model.language_model.layers.0.self_attn.q_proj", 128, 128),
    ("model.language_model.layers.1.mlp.up_proj", 256, 128),
    ("model.language_model.layers.3.mlp.down_proj", 128, 256),
];

fn wave(i: usize) -> f32 {
    ((i * 7919) as f32).sin() / 3.0
}

/// The logits after some tokens.
fn says(bundle: &Bundle) -> Vec<f32> {
    let mut bytes = Aligned::zeroed(bundle.length(DECODER).unwrap());
    bundle.read_into(DECODER, bytes.as_mut_slice()).unwrap();
    let adapter = bundle.read_optional(ADAPTER).unwrap();
    let options = EngineOptions::default();
    let decoder =
        TextDecoder::load(&bundle.manifest, &Arc::new(bytes), adapter.as_deref(), options).unwrap();
    decoder.start().unwrap().read(&(0..60).map(|i| i * 37 % 600).collect::<Vec<_>>()).unwrap()
}

/// Names of the parts of `a` that `b` has not the same.
fn changed(a: &Bundle, b: &Bundle) -> Vec<String> {
    let same = |name: &String| a.manifest.parts.get(name) == b.manifest.parts.get(name);
    let all = a.manifest.parts.keys().chain(b.manifest.parts.keys());
    let mut changed: Vec<_> = all.filter(|name| !same(name)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}

#[test]
fn an_adapter_that_is_kept_leaves_the_base_as_it_is_and_says_what_a_merged_one_says() {
    let folder = Folder::new();
    let lora = folder.adapter("lora", &PROJECTIONS, wave);
    let base = folder.pack_q8("base", &[]);
    let merged = folder.pack_q8("merged", &["--adapter", &lora]);
    let kept = folder.pack_q8("kept", &["--adapter", &lora, "--keep-adapter"]);
    assert_eq!(changed(&base, &merged), [DECODER, GOLDEN]);
    assert_eq!(changed(&base, &kept), [ADAPTER, GOLDEN]);
    let truth = says(&merged);
    assert!(cosine(&says(&base), &truth) < 0.99, "the adapter changes next to nothing");
    let found = cosine(&says(&kept), &truth);
    assert!(found > 0.999, "{found}");
    succeeds(&["verify", &folder.path("kept")]);
    // Half of what PEFT saved, and a header.
    let part = kept.read(ADAPTER).unwrap();
    let file = SafeTensors::deserialize(&part).unwrap();
    let names: Vec<_> = file.names();
    assert!(
        names.contains(&"model.language_model.layers.0.self_attn.q_proj.lora_A.weight"),
        "{names:?}"
    );
    assert!(file.iter().all(|(_, tensor)| tensor.dtype() == Dtype::F16));
    // Where 16 bits are too few they are not used.
    let tiny = folder.adapter("small", &PROJECTIONS, |i| wave(i) * 1e-6);
    let part = folder
        .pack_q8("small-kept", &["--adapter", &tiny, "--keep-adapter"])
        .read(ADAPTER)
        .unwrap();
    let file = SafeTensors::deserialize(&part).unwrap();
    assert!(file.iter().all(|(_, tensor)| tensor.dtype() == Dtype::F32));
}

#[test]
fn another_adapter_goes_into_a_packed_bundle_beside_the_very_same_base() {
    let folder = Folder::new();
    let first = folder.adapter("first", &PROJECTIONS, wave);
    let second = folder.adapter("second", &PROJECTIONS[1..], |i| wave(i + 5));
    let base = folder.pack_q8("base", &[]);
    let (plain, one, two) = (folder.path("base"), folder.path("one"), folder.path("two"));
    succeeds(&["adapt", &plain, "--adapter", &first, "-o", &one]);
    succeeds(&["adapt", &one, "--adapter", &second, "-o", &two, "--version", "0.2.0"]);
    let (one, two) = (Bundle::open(one).unwrap(), Bundle::open(two).unwrap());
    assert_eq!(changed(&base, &one), [ADAPTER, GOLDEN]);
    assert_eq!(changed(&one, &two), [ADAPTER, GOLDEN]);
    assert_eq!((&*one.manifest.version, &*two.manifest.version), ("0.1.0", "0.2.0"));
    for part in base.manifest.parts.values().filter(|part| part.file != "golden.json") {
        assert_eq!(
            fs::read(base.dir.join(&part.file)).unwrap(),
            fs::read(two.dir.join(&part.file)).unwrap()
        );
    }
    // It is as if it had been packed with it.
    let packed = folder.pack_q8("packed", &["--adapter", &second, "--keep-adapter"]);
    assert_eq!(packed.manifest.parts, two.manifest.parts);
    assert_eq!(Bundle::open(plain).unwrap().id(), base.id(), "the bundle given was changed");
    for name in ["one", "two"] {
        succeeds(&["verify", &folder.path(name)]);
        succeeds(&["golden", &folder.path(name)]);
    }
    assert_eq!(
        Bundle::open(folder.path("two")).unwrap().id(),
        two.id(),
        "it computes something else now"
    );
    // The golden outputs are those with the adapter: the base alone is another policy.
    fs::copy(one.dir.join("golden.json"), base.dir.join("golden.json")).unwrap();
    bundle::seal(&base.dir).unwrap();
    assert!(refused(&["verify", &folder.path("base")]).contains("does not compute here"));
}

#[test]
fn an_adapter_that_cannot_be_kept_is_refused_in_one_line_and_nothing_is_left() {
    let folder = Folder::new();
    folder.pack_q8("base", &[]);
    let (from, base, out) = (folder.path("tiny"), folder.path("base"), folder.path("refused"));
    let visual = ("model.visual.blocks.0.attn.qkv", 192, 64);
    let embedding = ("model.language_model.embed_tokens", 640, 128);
    let narrow = (PROJECTIONS[0].0, 128, 64);
    let wide = (PROJECTIONS[0].0, 64, 128);
    let nan = |i: usize| if i == 40 { f32::NAN } else { 0.5 };
    let cases = [
        (
            folder.adapter("visual", &[visual], wave),
            "changes 'model.visual.blocks.0.attn.qkv.weight'",
        ),
        (
            folder.adapter("embedding", &[embedding], wave),
            "changes 'model.language_model.embed_tokens",
        ),
        (folder.adapter("narrow", &[narrow], wave), "lora_A.weight' has shape [4, 64]"),
        (folder.adapter("wide", &[wide], wave), "lora_B.weight' has shape [64, 4]"),
        (folder.adapter("nan", &[PROJECTIONS[0]], nan), "not finite"),
        (folder.path("none"), "adapter_config.json"),
    ];
    for (adapter, named) in &cases {
        for command in [
            &[
                "pack",
                &from,
                "--adapter",
                adapter,
                "--keep-adapter",
                "--size",
                "192x128",
                "-o",
                &out,
            ][..],
            &["adapt", &base, "--adapter", adapter, "-o", &out],
        ] {
            let said = refused(command);
            assert!(said.contains(named), "{said}");
            assert!(!Path::new(&out).exists(), "half a bundle was left");
        }
    }
    let good = folder.adapter("good", &PROJECTIONS, wave);
    let adapt = |bundle: &str, more: &[&str]| {
        refused(&[&["adapt", bundle, "--adapter", &good], more].concat())
    };
    assert!(adapt(&base, &["-o", &base]).contains("is there already"));
    assert!(adapt(&from, &["-o", &out]).contains("holds no bundle"));
    assert!(adapt(&base, &["-o", &out, "--version", "new"]).contains("version must be"));
    assert!(!Path::new(&out).exists());
    fs::write(format!("{base}/tokenizer.json"), "{}").unwrap();
    assert!(adapt(&base, &["-o", &out]).contains("part 'tokenizer' is 2 bytes long"));
    // Without an adapter there is none to be kept.
    let said = models(&["pack", &from, "-o", &out, "--keep-adapter"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8(said.stderr).unwrap().contains("--adapter"));
}
