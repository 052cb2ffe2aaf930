//! Every way in which a bundle can be wrong is refused with its own sentence.

use bundle::{Bundle, BundleError, MANIFEST, PartFile, seal, write};
use std::{fs, path::Path, process::Command};

/// As a person would write it: no lengths, no hashes, a comment.
const HAND_WRITTEN: &str = r#"# The smallest policy.
schema = 1
name = "toy"
version = "0.1.0"
architecture = "qwen3-vl"
licence = "MIT OR Apache-2.0"
min_agent = "0.1.0"

[geometry]
width = 48
height = 32
channels = 1
pair_lag_s = 0.5
tokens_per_pair = 6
grid = [2, 3]
deepstack = 2

[decoder]
hidden = 48
layers = 2
heads = 4
kv_heads = 2
head_dim = 16
intermediate = 64
vocab = 400
rope_theta = 5e6
mrope_section = [4, 2, 2]
rms_eps = 1e-6
tied = true
context_max = 1024

[inquiry]
glance_frames = 4
frames_per_operator = 4
max_turns = 6
max_frames = 32
max_tokens = 128
max_stretch_s = 60.0
look_back_s = 120.0

[thresholds]
notice = 0.5 # a person should know
alert = 0.8

[prompts]
system = "You watch."
question = "What happens?"
probe = ""
yes = "yes"
no = "no"

[parts.decoder]
file = "weights/decoder.safetensors"

[parts.vision]
file = "vision.onnx"

[parts.tokenizer]
file = "tokenizer.json"

[parts.chat_template]
file = "chat_template.jinja"

[parts.adapter]
file = "weights/adapter.safetensors"
"#;

fn unsealed(manifest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("weights")).unwrap();
    fs::write(dir.path().join("weights/decoder.safetensors"), b"weights").unwrap();
    fs::write(dir.path().join("weights/adapter.safetensors"), b"factors").unwrap();
    fs::write(dir.path().join("vision.onnx"), b"graph").unwrap();
    fs::write(dir.path().join("tokenizer.json"), b"{}").unwrap();
    fs::write(dir.path().join("chat_template.jinja"), b"{{ messages }}").unwrap();
    fs::write(dir.path().join(MANIFEST), manifest).unwrap();
    dir
}

fn sealed() -> tempfile::TempDir {
    let dir = unsealed(HAND_WRITTEN);
    seal(dir.path()).unwrap();
    dir
}

/// The manifest of a sealed bundle with one text replaced by another.
fn edit(dir: &Path, from: &str, to: &str) {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn refusal(dir: &Path) -> String {
    let sentence = Bundle::open(dir).unwrap_err().to_string();
    assert!(!sentence.contains('\n'), "{sentence}");
    sentence
}

#[test]
fn sealing_fills_lengths_and_hashes_and_keeps_the_comments() {
    let dir = sealed();
    let text = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
    assert!(text.contains("notice = 0.5 # a person should know"));
    let bundle = Bundle::open(dir.path()).unwrap();
    assert_eq!(bundle.manifest.parts["decoder"].bytes, 7);
    assert_eq!(bundle.read("decoder").unwrap(), b"weights");
    let hash = blake3::hash(text.as_bytes()).to_hex();
    assert_eq!(bundle.id(), format!("toy@0.1.0+{}", &hash[..12]));
}

#[test]
fn sealing_twice_changes_nothing() {
    let dir = sealed();
    let before = fs::read(dir.path().join(MANIFEST)).unwrap();
    seal(dir.path()).unwrap();
    assert_eq!(fs::read(dir.path().join(MANIFEST)).unwrap(), before);
}

#[test]
fn a_written_bundle_opens_with_the_same_manifest() {
    let manifest = Bundle::open(sealed().path()).unwrap().manifest;
    let files = ["decoder", "vision", "tokenizer", "chat_template"].map(|part| PartFile {
        part,
        file: part,
        bytes: part.as_bytes(),
    });
    let dir = tempfile::tempdir().unwrap();
    let written = write(&dir.path().join("new"), manifest.clone(), &files).unwrap();
    assert_eq!(written.manifest.decoder, manifest.decoder);
    assert_eq!(written.read("vision").unwrap(), b"vision");
}

#[test]
fn a_flipped_byte_of_any_part_is_refused_with_the_part_and_both_hashes() {
    for (part, file) in [
        ("decoder", "weights/decoder.safetensors"),
        ("vision", "vision.onnx"),
        ("tokenizer", "tokenizer.json"),
        ("chat_template", "chat_template.jinja"),
        ("adapter", "weights/adapter.safetensors"),
    ] {
        let dir = sealed();
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
        let sentence = refusal(dir.path());
        assert!(sentence.starts_with(&format!("part '{part}' has BLAKE3 ")), "{sentence}");
        assert!(sentence.ends_with("fetch the bundle again"), "{sentence}");
    }
}

#[test]
fn a_part_that_changes_after_opening_is_not_handed_out() {
    let dir = sealed();
    let bundle = Bundle::open(dir.path()).unwrap();
    fs::write(dir.path().join("vision.onnx"), b"grapH").unwrap();
    assert!(matches!(bundle.read("vision"), Err(BundleError::WrongHash { .. })));
    fs::write(dir.path().join("vision.onnx"), b"grap").unwrap();
    assert!(matches!(bundle.read("vision"), Err(BundleError::WrongLength { .. })));
}

#[test]
fn a_part_that_need_not_be_there_is_read_if_it_is_and_then_checked_like_the_others() {
    let dir = sealed();
    let bundle = Bundle::open(dir.path()).unwrap();
    assert_eq!(bundle.read_optional("adapter").unwrap().as_deref(), Some(&b"factors"[..]));
    assert_eq!(bundle.read_optional("golden").unwrap(), None);
    fs::write(dir.path().join("weights/adapter.safetensors"), b"Factors").unwrap();
    assert!(matches!(bundle.read_optional("adapter"), Err(BundleError::WrongHash { .. })));
}

#[test]
fn a_truncated_or_lengthened_part_is_refused_with_both_lengths() {
    for (bytes, found) in [(&b"weight"[..], 6), (b"weights!", 8)] {
        let dir = sealed();
        fs::write(dir.path().join("weights/decoder.safetensors"), bytes).unwrap();
        let sentence = refusal(dir.path());
        let expected = format!(
            "part 'decoder' is {found} bytes long where the manifest says 7: fetch the bundle again"
        );
        assert_eq!(sentence, expected);
    }
}

#[test]
fn a_missing_file_and_a_missing_part_are_refused_by_name() {
    let dir = sealed();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(refusal(dir.path()).starts_with("part 'tokenizer' cannot be read from "));
    let dir = sealed();
    edit(dir.path(), "[parts.tokenizer]", "[parts.tokeniser]");
    assert_eq!(
        refusal(dir.path()),
        "bundle 'toy' lists no part 'tokenizer': add [parts.tokenizer] and seal it again"
    );
}

#[test]
fn a_file_outside_the_bundle_is_refused_however_it_is_reached() {
    for file in ["../secret", "/etc/passwd", "weights/../../secret"] {
        let dir = sealed();
        edit(dir.path(), "file = \"vision.onnx\"", &format!("file = \"{file}\""));
        let sentence = refusal(dir.path());
        assert!(sentence.contains("lies outside the bundle"), "{sentence}");
    }
    let (dir, outside) = (sealed(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("graph"), b"graph").unwrap();
    fs::remove_file(dir.path().join("vision.onnx")).unwrap();
    let link = dir.path().join("vision.onnx");
    std::os::unix::fs::symlink(outside.path().join("graph"), link).unwrap();
    assert!(refusal(dir.path()).contains("lies outside the bundle"));
}

#[test]
fn a_later_schema_is_told_apart_from_a_mistyped_key() {
    let dir = sealed();
    edit(dir.path(), "schema = 1", "schema = 2\nnovelty = true");
    assert_eq!(
        refusal(dir.path()),
        "bundle 'toy' has manifest schema 2 but this agent reads up to 1: update the agent"
    );
    let dir = sealed();
    edit(dir.path(), "channels = 1", "chanels = 1");
    let sentence = refusal(dir.path());
    assert!(sentence.contains("line 12: unknown field `chanels`"), "{sentence}");
}

#[test]
fn a_bundle_for_a_later_agent_or_another_architecture_is_refused() {
    let dir = sealed();
    edit(dir.path(), "min_agent = \"0.1.0\"", "min_agent = \"99.2.0\"");
    let sentence = refusal(dir.path());
    assert!(sentence.starts_with("bundle 'toy' needs agent 99.2.0 or newer"), "{sentence}");
    let dir = sealed();
    edit(dir.path(), "qwen3-vl", "pi0");
    let sentence = refusal(dir.path());
    assert!(sentence.contains("architecture 'pi0', which this agent does not know"), "{sentence}");
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused_with_the_rule() {
    for (from, to, rule) in [
        ("grid = [2, 3]", "grid = [2, 2]", "tokens_per_pair"),
        ("kv_heads = 2", "kv_heads = 3", "kv_heads"),
        ("kv_heads = 2", "kv_heads = 0", "above 0"),
        ("[4, 2, 2]", "[4, 2, 3]", "mrope_section"),
        ("notice = 0.5", "notice = 0.9", "notice ≤ alert"),
        ("no = \"no\"", "no = \"yes\"", "two different tokens"),
        ("name = \"toy\"", "name = \"../toy\"", "name may hold only"),
    ] {
        let dir = sealed();
        edit(dir.path(), from, to);
        let sentence = refusal(dir.path());
        assert!(sentence.contains("contradicts itself") && sentence.contains(rule), "{sentence}");
    }
}

#[test]
fn the_command_line_seals_verifies_and_refuses_with_exit_code_1() {
    let run = |arguments: &[&str], dir: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_lookback-bundle"))
            .arg(arguments[0])
            .arg(dir)
            .args(&arguments[1..])
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), out, String::from_utf8(output.stderr).unwrap())
    };
    let dir = unsealed(HAND_WRITTEN);
    let (code, _, complaint) = run(&["verify"], dir.path());
    assert_eq!(code, Some(1));
    assert!(complaint.contains("missing field `bytes`"), "{complaint}");
    assert_eq!(run(&["seal"], dir.path()).0, Some(0));
    let (code, out, _) = run(&["verify", "--json"], dir.path());
    assert_eq!(code, Some(0));
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["parts"]["vision"]["bytes"], 5);
    fs::write(dir.path().join("vision.onnx"), b"GRAPH").unwrap();
    let (code, out, _) = run(&["verify", "--json"], dir.path());
    assert_eq!(code, Some(1));
    assert!(out.contains("\"ok\":false") && out.contains("part 'vision'"), "{out}");
}
