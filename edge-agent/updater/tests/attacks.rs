//! The attacks against which TUF is made (section "Goals to protect against specific attacks" of its
//! specification), each by the real client against a repository that attacks.

mod common;

use common::{CLOCK, Fault, Forge, Key, PAST, Web, bundle, fetched, noise, offered};
use release::Index;
use tempfile::{TempDir, tempdir};
use updater::{Catalogue, Clock, Parts, Trust, TrustError};

/// A forge that offers a bundle, a server that has it, and a device that believes the forge.
fn world() -> (TempDir, Forge, Web, Trust) {
    let temp = tempdir().unwrap();
    let mut forge = Forge::new();
    bundle(&temp.path().join("first"), "0.2.0", &noise(1, 3 << 20));
    forge.offer(&temp.path().join("first"), 1);
    let web = Web::new(forge.files());
    let trust = Trust::new(String::from_utf8(forge.root_json()).unwrap());
    (temp, forge, web, trust)
}

fn refused(web: &Web, trust: &mut Trust) -> TrustError {
    match Catalogue::open(&web.source(), trust, CLOCK) {
        Ok(_) => panic!("it was believed"),
        Err(error) => error,
    }
}

fn unbelieved(web: &Web, trust: &mut Trust, word: &str) {
    let before = trust.clone();
    let error = refused(web, trust);
    let sentence = error.to_string();
    assert!(matches!(error, TrustError::Unbelieved { .. }), "{sentence}");
    assert!(sentence.contains(word), "{sentence}");
    assert!(*trust == before, "nothing of it is remembered");
}

/// The device has seen the repository as it stands.
fn seen(web: &Web, trust: &mut Trust) {
    drop(Catalogue::open(&web.source(), trust, CLOCK).unwrap());
}

#[test]
fn arbitrary_installation_by_another_key() {
    let (_temp, forge, web, mut trust) = world();
    for which in 0..3 {
        let mut other = forge.clone();
        // The root of the device names other keys than those that signed.
        match which {
            0 => other.targets = Key::new(),
            1 => other.snapshot = Key::new(),
            _ => other.timestamp = Key::new(),
        }
        web.holds(other.files());
        unbelieved(&web, &mut trust, "signature");
    }
    web.holds(forge.files());
    seen(&web, &mut trust);
}

#[test]
fn endless_data() {
    let (_temp, _forge, web, mut trust) = world();
    web.fails(Fault::Endless);
    let sentence = refused(&web, &mut trust).to_string();
    assert!(sentence.contains("does not end where it should"), "{sentence}");
    web.fails(Fault::None);
    seen(&web, &mut trust);
}

#[test]
fn extraneous_dependencies_that_nobody_signed() {
    let (_temp, mut forge, web, mut trust) = world();
    forge.contents.retain(|name, _| !name.starts_with("part-"));
    web.holds(forge.files());
    let source = web.source();
    let catalogue = Catalogue::open(&source, &mut trust, CLOCK).unwrap();
    let name = format!("part-{}.json", "0".repeat(64));
    let error = catalogue.target(&source, &name).unwrap_err();
    assert!(matches!(error, TrustError::NoTarget { .. }), "{error}");
}

#[test]
fn fast_forward_is_recovered_from_by_new_keys() {
    let (_temp, mut forge, web, mut trust) = world();
    let mut stolen = forge.clone();
    stolen.versions[2..].fill(u64::from(u32::MAX));
    web.holds(stolen.files());
    seen(&web, &mut trust);
    forge.versions[3] += 1;
    web.holds(forge.files());
    unbelieved(&web, &mut trust, "version");
    // The owner takes the stolen keys out of the root.
    let old_root = forge.root_json();
    (forge.snapshot, forge.timestamp) = (Key::new(), Key::new());
    forge.versions[0] += 1;
    let mut files = forge.files();
    files.insert("metadata/1.root.json".to_owned(), old_root);
    web.holds(files);
    seen(&web, &mut trust);
}

#[test]
fn indefinite_freeze() {
    let (_temp, mut forge, web, mut trust) = world();
    for (which, role) in [(3, "timestamp"), (2, "snapshot"), (1, "targets")] {
        let mut old = forge.clone();
        old.expires[which] = PAST;
        web.holds(old.files());
        let error = refused(&web, &mut trust);
        assert!(matches!(error, TrustError::Frozen { .. }), "{error}");
        assert!(error.to_string().contains(role), "{error}");
        // A camera whose clock was lost still knows that it is not before its floor.
        let lost = Clock { now_unix_s: 0, floor_unix_s: 4_000_000_000 };
        let error = Catalogue::open(&web.source(), &mut trust, lost).err();
        assert!(matches!(error, Some(TrustError::Frozen { .. })), "{error:?}");
    }
    forge.versions[1..].iter_mut().for_each(|version| *version += 1);
    web.holds(forge.files());
    seen(&web, &mut trust);
    let lost = Clock { now_unix_s: 0, floor_unix_s: 4_000_000_000 };
    assert!(Catalogue::open(&web.source(), &mut trust, lost).is_ok());
}

#[test]
fn a_malicious_mirror_cannot_alter_a_byte_of_a_bundle() {
    let (temp, _forge, web, mut trust) = world();
    let source = web.source();
    let catalogue = Catalogue::open(&source, &mut trust, CLOCK).unwrap();
    let (_, release, indexes) = offered(&catalogue, &source);
    let parts = Parts::open(&temp.path().join("device")).unwrap();
    web.fails(Fault::Altered);
    let error = fetched(&source, &parts, &release, &indexes).unwrap_err().to_string();
    assert!(error.contains("something else than what was signed"), "{error}");
    assert!(parts.lay_out(&release).is_err());
    web.fails(Fault::None);
    fetched(&source, &parts, &release, &indexes).unwrap();
    assert_eq!(parts.lay_out(&release).unwrap().id(), release.bundle);
}

#[test]
fn mix_and_match_of_two_states() {
    let (temp, mut forge, web, mut trust) = world();
    let first = forge.files();
    bundle(&temp.path().join("second"), "0.3.0", &noise(2, 1 << 20));
    forge.offer(&temp.path().join("second"), 2);
    let second = forge.files();
    let [_, targets, snapshot, _] = forge.versions;
    for name in
        [format!("metadata/{targets}.targets.json"), format!("metadata/{snapshot}.snapshot.json")]
    {
        let older = name.replace(&targets.to_string(), &(targets - 1).to_string());
        let mut mixed = second.clone();
        mixed.insert(name, first[&older].clone());
        web.holds(mixed);
        unbelieved(&web, &mut trust, "mismatch");
    }
}

#[test]
fn rollback_to_what_was_before() {
    let (temp, mut forge, web, mut trust) = world();
    let first = forge.files();
    bundle(&temp.path().join("second"), "0.3.0", &noise(2, 1 << 20));
    forge.offer(&temp.path().join("second"), 2);
    web.holds(forge.files());
    seen(&web, &mut trust);
    web.holds(first);
    unbelieved(&web, &mut trust, "version");
    // Neither by a new timestamp over the old snapshot, nor by a new snapshot over the old targets.
    for low in [2, 1] {
        let mut older = forge.clone();
        older.versions[3] += 1;
        older.versions[2] += u64::from(low == 1);
        older.versions[low] -= 1;
        web.holds(older.files());
        unbelieved(&web, &mut trust, "version");
    }
}

#[test]
fn keys_below_the_threshold() {
    let (_temp, forge, web, mut trust) = world();
    let mut stolen = forge.clone();
    stolen.versions[0] = 2;
    stolen.timestamp = Key::new();
    stolen.root_signers = vec![forge.root[0].clone()];
    web.holds(stolen.files());
    unbelieved(&web, &mut trust, "signature");
    // The same key twice is one key.
    stolen.root_signers = vec![forge.root[0].clone(), forge.root[0].clone()];
    web.holds(stolen.files());
    unbelieved(&web, &mut trust, "");
}

#[test]
fn wrong_software_under_the_right_name() {
    let (temp, forge, web, mut trust) = world();
    let mut other = Forge::new();
    bundle(&temp.path().join("other"), "9.9.9", &noise(9, 1 << 20));
    let release = other.offer(&temp.path().join("other"), 9);
    let mut files = forge.files();
    let channel = files.keys().find(|name| name.contains("channel-stable")).unwrap().clone();
    let index = files.keys().find(|name| name.contains("part-")).unwrap().clone();
    files.insert(channel, other.contents["channel-stable.json"].clone());
    files.insert(index.clone(), other.contents[&release.files[0].index()].clone());
    web.holds(files);
    let source = web.source();
    let catalogue = Catalogue::open(&source, &mut trust, CLOCK).unwrap();
    let part = index.rsplit_once("part-").unwrap().1;
    for name in ["channel-stable.json", &format!("part-{part}")] {
        let error = catalogue.target(&source, name).unwrap_err();
        assert!(matches!(error, TrustError::Unbelieved { .. }), "{error}");
    }
    // Even one that is signed is only what its name says.
    let signed = &forge.contents[&format!("part-{part}")];
    assert!(Index::parse(&format!("part-{}.json", "0".repeat(64)), signed).is_err());
}

#[test]
fn a_device_that_was_given_nonsense_to_believe_says_so() {
    let (_temp, _forge, web, _) = world();
    for nonsense in ["", "{}", "{\"signed\":{}}"] {
        let error = refused(&web, &mut Trust::new(nonsense));
        assert!(matches!(error, TrustError::Root(_)), "{error}");
    }
    let (_, other, ..) = world();
    let mut trust = Trust::new(String::from_utf8(other.root_json()).unwrap());
    unbelieved(&web, &mut trust, "");
}
