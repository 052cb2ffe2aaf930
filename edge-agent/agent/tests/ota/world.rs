//! The owner's side: policies, and a repository that offers them.

use crate::device::{Device, Fault};
use bundle::Bundle;
use engine::{Engine, EngineOptions, Golden};
use fleet::repository::{self, Lifetimes, Redirection, Repository, RootKeys, Terms};
use hal_linux::{Clock, SystemClock};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};
use tempfile::TempDir;

const CHANNEL: &str = "stable";
/// What of a policy comes over the line: some chunks.
const BALLAST_BYTES: usize = 3 << 20;

/// A repository with a policy that is good and one that is not, and a device that has neither.
pub struct World {
    temp: TempDir,
    /// What fails for a program.
    pub preload: PathBuf,
    /// Configuration by which the good policy is offered.
    pub good: PathBuf,
    /// Configuration by which the other is.
    pub bad: PathBuf,
    /// What the device runs.
    pub old: String,
    /// The good policy.
    pub new: String,
    /// The other.
    pub bad_id: String,
    /// The device: it had two updates and gave up a third, which its owner took back.
    pub device: Device,
}

impl World {
    /// Makes it all.
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let preload = path("preload.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ota/preload.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&preload, &source])
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "a C compiler is needed: apt install gcc"
        );
        let bundles = [
            ("0.2.0", 1, Answers::Right),
            ("0.3.0", 1, Answers::Right),
            ("0.4.0", 2, Answers::Right),
            ("0.5.0", 3, Answers::Right),
            ("0.6.0", 4, Answers::Wrong),
        ]
        .map(|(version, ballast, answers)| {
            (path(version), policy(&path(version), version, ballast, answers))
        });
        let [(first, _), (second, old), (third, _), (fourth, new), (fifth, bad_id)] = bundles;
        let owner = Owner::new(&path("good"), &path("keys"));
        let (good, bad) = (path("good.toml"), path("bad.toml"));
        configure(&good, &path("good"), &owner.root);
        configure(&bad, &path("bad"), &owner.root);

        let device = Device::new(&path("device"), &preload);
        for bundle in [&first, &second] {
            owner.offer(bundle);
            assert!(device.apply(&good, &Fault::none()).status.success());
        }
        owner.offer(&third);
        let fetching = Fault { kill_at_sentence: Some("is being fetched"), ..Fault::none() };
        device.apply(&good, &fetching);
        assert_eq!(device.standing(&good).stage, "Fetching");
        owner.returns_to(&old);
        assert!(device.apply(&good, &Fault::none()).status.success());
        assert_eq!(device.standing(&good).stage, "Idle");

        copy(&path("good"), &path("bad"));
        owner.offer(&fourth);
        Owner { dir: path("bad"), ..owner }.offer(&fifth);
        Self { preload, good, bad, old, new, bad_id, device, temp }
    }

    /// A folder for what is tried.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }
}

#[derive(PartialEq)]
enum Answers {
    Right,
    Wrong,
}

/// Nano, of another version, with a part that nobody reads, in a folder of its own.
fn policy(dir: &Path, version: &str, ballast: u64, answers: Answers) -> String {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    copy(&nano, dir);
    let mut noise = vec![0; BALLAST_BYTES];
    blake3::Hasher::new().update(&ballast.to_le_bytes()).finalize_xof().fill(&mut noise);
    fs::create_dir(dir.join("extra")).unwrap();
    fs::write(dir.join("extra/ballast.bin"), noise).unwrap();
    let manifest = fs::read_to_string(dir.join(bundle::MANIFEST)).unwrap();
    let manifest = manifest.replacen("version = \"0.1.0\"", &format!("version = \"{version}\""), 1);
    let manifest =
        manifest + "\n[parts.ballast]\nfile = \"extra/ballast.bin\"\nbytes = 0\nblake3 = \"\"\n";
    fs::write(dir.join(bundle::MANIFEST), &manifest).unwrap();
    let sealed = bundle::seal(dir).unwrap();
    let engine = Engine::load(&sealed, EngineOptions::default()).unwrap();
    let mut golden = serde_json::to_value(Golden::of(&engine).unwrap()).unwrap();
    if answers == Answers::Wrong {
        golden["tokens"][0] = 0.into();
    }
    fs::write(dir.join("golden.json"), golden.to_string()).unwrap();
    bundle::seal(dir).unwrap();
    Bundle::open(dir).unwrap().id()
}

fn configure(file: &Path, repository: &Path, root: &Path) {
    let (repository, root) = (repository.display(), root.display());
    fs::write(file, format!("[update]\nrepository = \"{repository}\"\nroot = \"{root}\"\n"))
        .unwrap();
}

struct Owner {
    dir: PathBuf,
    keys: PathBuf,
    root: PathBuf,
}

impl Owner {
    fn new(dir: &Path, keys: &Path) -> Self {
        let roots = RootKeys { keys: 1, threshold: 1 };
        let begun = wait(Repository::init(dir, keys, roots, Lifetimes::default(), now())).unwrap();
        Self { dir: dir.into(), keys: keys.into(), root: begun.root }
    }

    fn offer(&self, bundle: &Path) {
        let repository = Repository::open(&self.dir).unwrap();
        let terms = Terms::default();
        wait(repository::add(&repository, bundle, CHANNEL, &terms, now(), |_| {})).unwrap();
        self.publish(&repository);
    }

    fn returns_to(&self, bundle: &str) {
        let repository = Repository::open(&self.dir).unwrap();
        let to = Redirection { to: Some(bundle.to_owned()), ..Redirection::default() };
        wait(repository::redirect(&repository, CHANNEL, &to, now())).unwrap();
        self.publish(&repository);
    }

    fn publish(&self, repository: &Repository) {
        wait(repository::sign(repository, &self.keys, Lifetimes::default(), now())).unwrap();
        wait(repository::publish(repository, &self.keys, Lifetimes::default(), now())).unwrap();
    }
}

fn now() -> SystemTime {
    SystemClock.now().wall.into()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Copies a folder; files that are one file there are one file here.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} to {}", from.display(), to.display());
}
