//! Systems in a repository, beside policies.

use fleet::repository::{
    self, Added, Hashing, Lifetimes, Redirection, Repository, RepositoryError, RootKeys, Terms,
};
use release::Kind;
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};
use tempfile::{TempDir, tempdir};

const MACHINE: &str = "lookback-qemu-amd64";

#[expect(clippy::disallowed_methods, reason = "tough reads no other clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// As RAUC lays one out in the format verity: squashfs, then what is signed, then how long that is.
fn rauc_bundle(path: &Path, content: u64, manifest: &str) {
    let mut bytes = b"hsqs".to_vec();
    let mut noise = vec![0; 3 << 20];
    blake3::Hasher::new().update(&content.to_le_bytes()).finalize_xof().fill(&mut noise);
    bytes.extend(noise);
    let signature = [b"0\x82\x06\x06\x09*\x86H", manifest.as_bytes(), b"\xa0\x82\x03\x00"].concat();
    bytes.extend(&signature);
    bytes.extend((signature.len() as u64).to_be_bytes());
    fs::write(path, bytes).unwrap();
}

fn manifest(compatible: &str, version: &str) -> String {
    format!(
        "[update]\ncompatible={compatible}\nversion={version}\n\n[bundle]\nformat=verity\n\n[image.rootfs]\nversion=9\n"
    )
}

struct Place {
    temp: TempDir,
    repository: Repository,
}

impl Place {
    async fn new() -> Self {
        let temp = tempdir().unwrap();
        let (dir, keys) = (temp.path().join("repository"), temp.path().join("keys"));
        let roots = RootKeys { keys: 1, threshold: 1 };
        Repository::init(&dir, &keys, roots, Lifetimes::default(), now()).await.unwrap();
        Self { repository: Repository::open(&dir).unwrap(), temp }
    }

    fn file(&self, version: &str, content: u64) -> PathBuf {
        let path = self.temp.path().join(format!("{version}.raucb"));
        rauc_bundle(&path, content, &manifest(MACHINE, version));
        path
    }

    async fn add(
        &self,
        file: &Path,
        compatible: &str,
        version: &str,
        channel: &str,
    ) -> Result<Added, RepositoryError> {
        let (system, terms) = ((file, compatible, version), Terms::default());
        repository::add_system(&self.repository, system, channel, &terms, now(), |_| {}).await
    }

    async fn add_policy(&self, channel: &str) -> Result<Added, RepositoryError> {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano");
        let terms = Terms::default();
        repository::add(&self.repository, &nano, channel, &terms, now(), |_| {}).await
    }

    async fn publish(&self) {
        let (keys, lifetimes) = (self.temp.path().join("keys"), Lifetimes::default());
        repository::sign(&self.repository, &keys, lifetimes, now()).await.unwrap();
        repository::publish(&self.repository, &keys, lifetimes, now()).await.unwrap();
    }
}

#[track_caller]
fn says(refused: Result<Added, RepositoryError>, words: &[&str]) {
    let text = refused.unwrap_err().to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[tokio::test]
async fn a_system_lies_in_the_repository_as_a_policy_does() {
    let place = Place::new().await;
    let added = place.add(&place.file("1.0.0", 1), MACHINE, "1.0.0", "os").await.unwrap();
    assert_eq!((added.kind, added.channel.number), (Kind::System, 1));
    assert!(added.bundle.starts_with("lookback-qemu-amd64@1.0.0+"));
    place.publish().await;
    // A new version of which all is old but the manifest: a chunk or two is packed.
    let again = place.add(&place.file("1.1.0", 1), MACHINE, "1.1.0", "os").await.unwrap();
    assert!(again.new_bytes > 0 && again.new_bytes < added.new_bytes, "{again:?}");
    place.publish().await;
    let shown = repository::overview(place.repository.dir(), Hashing::Chunks, now()).await.unwrap();
    let kinds: Vec<Kind> = shown.bundles.iter().map(|bundle| bundle.kind).collect();
    assert_eq!(kinds, [Kind::System, Kind::System]);
    let back = Redirection { to: Some(added.bundle.clone()), ..Redirection::default() };
    let channel = repository::redirect(&place.repository, "os", &back, now()).await.unwrap();
    assert_eq!((channel.number, channel.bundle), (3, added.bundle));
}

#[tokio::test]
async fn a_channel_offers_policies_or_systems_and_never_both() {
    let place = Place::new().await;
    let system = place.file("1.0.0", 1);
    let policy = place.add_policy("stable").await.unwrap();
    says(
        place.add(&system, MACHINE, "1.0.0", "stable").await,
        &["nano@", "is a policy", "channel of its own"],
    );
    place.add(&system, MACHINE, "1.0.0", "os").await.unwrap();
    says(place.add_policy("os").await, &["is a system", "channel of its own"]);
    let back = Redirection { to: Some(policy.bundle), ..Redirection::default() };
    let refused = repository::redirect(&place.repository, "os", &back, now()).await.unwrap_err();
    assert!(refused.to_string().contains("channel of its own"), "{refused}");
}

#[tokio::test]
async fn what_is_no_bundle_of_rauc_or_another_than_was_said_is_refused() {
    let place = Place::new().await;
    let system = place.file("1.0.0", 1);
    says(
        place.add(&system, MACHINE, "1.0.1", "os").await,
        &["version is 1.0.0", "--version 1.0.0"],
    );
    says(
        place.add(&system, "toaster", "1.0.0", "os").await,
        &["compatible is lookback-qemu", "--os"],
    );
    says(place.add(&system, MACHINE, "1.0", "os").await, &["'1.0' is no version"]);
    says(place.add(&system, "Toast Er", "1.0.0", "os").await, &["'Toast Er'", "a-z"]);
    let image = place.temp.path().join("disk.img");
    for bytes in [&b""[..], b"hs", b"ELF, or something else"] {
        fs::write(&image, bytes).unwrap();
        says(place.add(&image, MACHINE, "1.0.0", "os").await, &["no bundle of RAUC's"]);
    }
    // What does not say what it is is for RAUC to look at.
    for bytes in [&b"hsqs"[..], b"hsqs\xff\xff\xff\xff\xff\xff\xff\xff", b"hsqs\0\0\0\0\0\0\0\0"] {
        fs::write(&image, bytes).unwrap();
        place.add(&image, MACHINE, "1.0.0", "os").await.unwrap();
    }
    let missing = place.add(Path::new("/nowhere.raucb"), MACHINE, "1.0.0", "os").await;
    says(missing, &["/nowhere.raucb"]);
}
