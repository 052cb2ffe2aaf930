//! Releases of systems, and of policies, told apart.

use release::{FormatError, Kind, Release, SYSTEM_FILE};
use serde_json::{Value, json};
use std::fs;

fn system() -> (tempfile::TempDir, Release) {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("any-name.raucb");
    fs::write(&file, "what RAUC installs").unwrap();
    let release = Release::of_system(&file, "lookback-qemu_amd64", "1.2.0").unwrap();
    (temp, release)
}

#[test]
fn a_system_is_one_file_and_its_id_says_which() {
    let (_temp, release) = system();
    assert_eq!((release.kind, release.bytes()), (Kind::System, 18));
    let hash = blake3::hash(b"what RAUC installs").to_hex();
    assert_eq!(release.bundle, format!("lookback-qemu_amd64@1.2.0+{}", &hash[..12]));
    assert_eq!(release.files[0].file, SYSTEM_FILE);
    let json = serde_json::to_vec(&release).unwrap();
    assert_eq!(Release::parse(&release.target(), &json).unwrap(), release);
}

/// As a program of before systems reads it: its newest layout was 1, and so it says of this one.
#[test]
fn a_program_that_knows_policies_alone_refuses_a_system_as_too_new() {
    let (_temp, release) = system();
    let written = serde_json::to_value(&release).unwrap();
    assert_eq!((&written["schema"], &written["kind"]), (&json!(2), &json!("system")));
    let newer = json!({"schema": 3, "kind": "planet"}).to_string();
    let refusal = Release::parse("release-x.json", newer.as_bytes()).unwrap_err();
    assert!(matches!(refusal, FormatError::TooNew { found: 3, known: 2, .. }));
    assert!(refusal.to_string().contains("update the program"), "{refusal}");
}

#[test]
fn what_is_neither_a_policy_nor_a_system_is_refused() {
    let (_temp, release) = system();
    let whole = serde_json::to_value(&release).unwrap();
    for (key, value) in [
        ("schema", json!(1)),
        ("kind", json!("policy")),
        ("kind", json!("planet")),
        ("bundle", json!("lookback-qemu_amd64@1.2.0+000000000000")),
        ("name", json!("Other Machine")),
        ("version", json!("1.2")),
        ("files", json!([])),
        ("files", json!([whole["files"][0], whole["files"][0]])),
        (
            "files",
            json!([{"file": "../system.raucb", "bytes": 18, "blake3": whole["files"][0]["blake3"]}]),
        ),
        ("files", json!([{"file": SYSTEM_FILE, "bytes": 18, "blake3": "ä".repeat(32)}])),
        ("more", json!(1)),
    ] {
        let mut changed = whole.clone();
        changed[key] = value.clone();
        let read = Release::parse(&release.target(), changed.to_string().as_bytes());
        assert!(read.is_err(), "{key}: {value}");
    }
    let mut policy: Value = whole;
    policy.as_object_mut().unwrap().remove("kind");
    policy["schema"] = json!(1);
    let read = Release::parse(&release.target(), policy.to_string().as_bytes());
    assert!(read.is_err(), "a policy has a manifest");
}
