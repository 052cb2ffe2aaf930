//! A repository of policies: real files, real bundles, and tough's own client as the camera.

use bundle::Bundle;
use fleet::repository::{
    self, Change, Hashing, Lifetimes, Overview, Packing, Pause, Redirection, Repository,
    RepositoryError, RootKeys, Rotation, Step, Terms,
};
use release::{Channel, Index, Release, pack_path};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::{TempDir, tempdir};
use tough::{FilesystemTransport, IntoVec, RepositoryLoader, TargetName};
use url::Url;

const DAY: Duration = Duration::from_secs(86_400);

#[expect(clippy::disallowed_methods, reason = "tough reads no other clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A repository and its keys.
struct Place {
    temp: TempDir,
}

impl Place {
    async fn new() -> Self {
        let place = Self { temp: tempdir().unwrap() };
        let roots = RootKeys { keys: 3, threshold: 2 };
        let (dir, keys) = (place.dir(), place.keys());
        Repository::init(&dir, &keys, roots, Lifetimes::default(), now()).await.unwrap();
        place
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("repository")
    }

    fn keys(&self) -> PathBuf {
        self.temp.path().join("keys")
    }

    fn open(&self) -> Repository {
        Repository::open(&self.dir()).unwrap()
    }

    /// Nano as it is, but of another version and with another template.
    fn variant(&self, version: &str, template: &str) -> PathBuf {
        let dir = self.temp.path().join(version);
        copy(&nano(), &dir);
        let manifest = fs::read_to_string(dir.join("bundle.toml")).unwrap();
        let changed = manifest.replace("version = \"0.1.0\"", &format!("version = \"{version}\""));
        fs::write(dir.join("bundle.toml"), changed).unwrap();
        if !template.is_empty() {
            fs::write(dir.join("chat_template.jinja"), template).unwrap();
        }
        bundle::seal(&dir).unwrap();
        dir
    }

    async fn try_add(
        &self,
        bundle: &Path,
        terms: Terms,
    ) -> Result<repository::Added, RepositoryError> {
        let now = now();
        repository::add(&self.open(), bundle, "stable", &terms, now, |_| {}).await
    }

    async fn add(&self, bundle: &Path) -> repository::Added {
        self.try_add(bundle, Terms::default()).await.unwrap()
    }

    async fn redirect(&self, redirection: Redirection) -> Result<Channel, RepositoryError> {
        repository::redirect(&self.open(), "stable", &redirection, now()).await
    }

    async fn sign(&self) -> Result<repository::Signed, RepositoryError> {
        let lifetimes = Lifetimes::default();
        repository::sign(&self.open(), &self.keys(), lifetimes, now()).await
    }

    async fn publish_at(&self, now: SystemTime) -> Result<repository::Published, RepositoryError> {
        repository::publish(&self.open(), &self.keys(), Lifetimes::default(), now).await
    }

    async fn publish(&self) -> Result<repository::Published, RepositoryError> {
        self.publish_at(now()).await
    }

    async fn release(&self, bundle: &Path) -> repository::Added {
        let added = self.add(bundle).await;
        self.sign().await.unwrap();
        self.publish().await.unwrap();
        added
    }

    async fn rotate(&self, rotation: Rotation) -> Result<repository::Rotated, RepositoryError> {
        let (lifetimes, now) = (Lifetimes::default(), now());
        repository::rotate(&self.open(), &self.keys(), rotation, lifetimes, now).await
    }

    async fn show(&self, hashing: Hashing) -> Result<Overview, RepositoryError> {
        repository::overview(&self.dir(), hashing, now()).await
    }

    fn channel(&self, camera: &Camera) -> Channel {
        Channel::parse("stable", &camera.targets["channel-stable.json"]).unwrap()
    }
}

/// What a camera sees that was made with the first root, and keeps what it saw from one look to the next.
#[derive(Debug)]
struct Camera {
    repository: tough::Repository,
    targets: BTreeMap<String, Vec<u8>>,
}

impl Camera {
    async fn look(dir: &Path, kept: &Path) -> Result<Self, tough::error::Error> {
        let root = fs::read(dir.join("metadata/1.root.json")).unwrap();
        let base = |folder: &str| Url::from_directory_path(dir.join(folder)).unwrap();
        let loader = RepositoryLoader::new(&root, base("metadata"), base("targets"))
            .transport(FilesystemTransport)
            .datastore(kept);
        let repository = loader.load().await?;
        let mut targets = BTreeMap::new();
        let names: Vec<TargetName> = repository.targets().signed.targets.keys().cloned().collect();
        for name in names {
            let stream = repository.read_target(&name).await?.unwrap();
            targets.insert(name.raw().to_owned(), stream.into_vec().await?);
        }
        Ok(Self { repository, targets })
    }

    async fn fresh(dir: &Path) -> Self {
        Self::look(dir, tempdir().unwrap().path()).await.unwrap()
    }

    /// The files of the bundle that the channel offers, put together from packs.
    fn files(&self, dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let channel = Channel::parse("stable", &self.targets["channel-stable.json"]).unwrap();
        let release = Release::parse(&channel.release, &self.targets[&channel.release]).unwrap();
        let file = |file: &release::File| {
            let index = Index::parse(&file.index(), &self.targets[&file.index()]).unwrap();
            let chunk = |chunk: &release::Chunk| {
                let pack = fs::read(dir.join("packs").join(pack_path(&chunk.pack))).unwrap();
                chunk.open(&pack[chunk.offset as usize..chunk.end() as usize]).unwrap()
            };
            let bytes: Vec<u8> = index.chunks.iter().flat_map(chunk).collect();
            (file.file.clone(), bytes)
        };
        release.files.iter().map(file).collect()
    }
}

/// All files of a folder, by their paths.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => files.extend(tree(&entry.path())),
            false => drop(files.insert(entry.path(), fs::read(entry.path()).unwrap())),
        }
    }
    files
}

fn says(error: &RepositoryError, words: &[&str]) {
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
}

#[tokio::test]
async fn a_bundle_that_was_published_comes_out_as_it_went_in() {
    let place = Place::new().await;
    assert!(Camera::fresh(&place.dir()).await.targets.is_empty());
    let before = tree(&place.dir().join("metadata"));

    let (mut seen, mut announced) = (0, 0);
    let progress = |packing| match packing {
        Packing::Begin { bytes } => announced = bytes,
        Packing::Done { bytes } => seen += bytes,
    };
    let now = now();
    let waves = repository::waves("1%@0h,100%@72h").unwrap();
    let terms = Terms { waves: Some(waves), ..Terms::default() };
    let added =
        repository::add(&place.open(), &nano(), "stable", &terms, now, progress).await.unwrap();
    assert_eq!((announced, seen), (added.bytes, added.bytes));
    assert_eq!(tree(&place.dir().join("metadata")), before, "nothing is visible yet");
    assert!(!place.dir().join("targets").exists());

    let signed = place.sign().await.unwrap();
    assert_eq!((signed.version, signed.targets.len()), (2, 6 + 1 + 1));
    assert_eq!(tree(&place.dir().join("metadata")), before, "nothing is visible yet");
    let published = place.publish().await.unwrap();
    assert_eq!((published.targets_version, published.targets), (2, signed.targets));
    assert_eq!(fs::read_dir(place.dir().join("staged")).unwrap().count(), 0);

    let camera = Camera::fresh(&place.dir()).await;
    let channel = place.channel(&camera);
    assert_eq!(channel, added.channel);
    assert_eq!((channel.number, channel.waves.len(), channel.halted), (1, 2, false));
    assert_eq!(channel.bundle, Bundle::open(nano()).unwrap().id());
    let files = camera.files(&place.dir());
    assert_eq!(files.len(), 6);
    for (name, bytes) in files {
        assert!(bytes == fs::read(nano().join(&name)).unwrap(), "{name}");
    }
    for file in tree(&place.keys()).keys() {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn of_a_bundle_only_what_is_new_is_packed() {
    let place = Place::new().await;
    let first = place.release(&nano()).await;
    let packs = tree(&place.dir().join("packs"));
    assert_eq!(first.new_bytes, packs.values().map(|pack| pack.len() as u64).sum::<u64>());

    let again = place.add(&nano()).await;
    assert_eq!((again.new_bytes, again.channel.number), (0, 2));
    assert_eq!(tree(&place.dir().join("packs")), packs);
    let staged = tree(&place.dir().join("staged")).into_keys();
    let staged: Vec<_> = staged.map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(staged, ["channel-stable.json"]);

    let template = "{{ another }}".repeat(10);
    let other = place.release(&place.variant("0.2.0", &template)).await;
    assert!(other.new_bytes < 4_000, "{} bytes for a template and a manifest", other.new_bytes);
    let files = Camera::fresh(&place.dir()).await.files(&place.dir());
    assert_eq!(files["chat_template.jinja"], template.as_bytes());
    assert!(files["vision.onnx"] == fs::read(nano().join("vision.onnx")).unwrap());
}

#[tokio::test]
async fn what_lay_in_a_lost_pack_is_packed_again() {
    let place = Place::new().await;
    place.release(&nano()).await;
    fs::remove_dir_all(place.dir().join("packs")).unwrap();
    says(
        &place.show(Hashing::Lengths).await.unwrap_err(),
        &[".pack' is missing", "add its bundles again"],
    );
    let again = place.release(&nano()).await;
    assert!(again.new_bytes > 5_000_000, "{}", again.new_bytes);
    Camera::fresh(&place.dir()).await.files(&place.dir());
}

#[tokio::test]
async fn what_is_not_signed_is_not_published() {
    let place = Place::new().await;
    place.release(&nano()).await;
    let before = tree(&place.dir().join("metadata"));
    place.add(&place.variant("0.2.0", "")).await;
    says(&place.publish().await.unwrap_err(), &["repo sign"]);

    place.sign().await.unwrap();
    place
        .redirect(Redirection { pause: Some(Pause::Halt), ..Redirection::default() })
        .await
        .unwrap();
    says(&place.publish().await.unwrap_err(), &["repo sign"]);

    // Signed by another repository's key.
    place.sign().await.unwrap();
    let other = Place::new().await;
    copy(&place.dir().join("packs"), &other.dir().join("packs"));
    other.release(&nano()).await;
    other.add(&place.variant("0.2.0", "")).await;
    other.sign().await.unwrap();
    fs::copy(other.dir().join("staged/3.targets.json"), place.dir().join("staged/3.targets.json"))
        .unwrap();
    says(&place.publish().await.unwrap_err(), &["3.targets.json", "repo sign"]);
    assert_eq!(tree(&place.dir().join("metadata")), before, "nothing became visible");

    place.sign().await.unwrap();
    place.publish().await.unwrap();
    let channel = place.channel(&Camera::fresh(&place.dir()).await);
    assert!(channel.halted && channel.bundle.starts_with("nano@0.2.0+"));
}

#[tokio::test]
async fn a_channel_can_be_halted_resumed_and_led_back_but_not_below_its_floor() {
    let place = Place::new().await;
    let now = now();
    let none = place.redirect(Redirection::default()).await.unwrap_err();
    says(&none, &["no channel 'stable'", "repo add"]);
    let old = place.release(&nano()).await;
    place.release(&place.variant("0.2.0", "")).await;
    let pause = |pause| Redirection { pause: Some(pause), ..Redirection::default() };
    let floor = |floor: &str| Redirection {
        terms: Terms { floor: Some(floor.into()), ..Terms::default() },
        ..Redirection::default()
    };

    let halted = place.redirect(pause(Pause::Halt)).await.unwrap();
    assert_eq!((halted.halted, halted.number), (true, 3));
    says(
        &place.redirect(pause(Pause::Halt)).await.unwrap_err(),
        &["nothing of channel 'stable' would change"],
    );
    let waves = Some(repository::waves("10%@0h,100%@1d").unwrap());
    let slower =
        Redirection { terms: Terms { waves, ..Terms::default() }, ..Redirection::default() };
    let slower = place.redirect(slower).await.unwrap();
    assert_eq!((slower.halted, slower.waves.len(), slower.number), (true, 2, 4));
    let resumed = place.redirect(pause(Pause::Resume)).await.unwrap();
    assert_eq!((resumed.halted, resumed.waves.len(), resumed.number), (false, 2, 5));

    let back = Redirection { to: Some(old.bundle.clone()), ..Redirection::default() };
    let led_back = place.redirect(back.clone()).await.unwrap();
    assert_eq!((&led_back.bundle, led_back.number), (&old.bundle, 6));
    assert!(led_back.waves.is_empty() && !led_back.halted);
    place.sign().await.unwrap();
    place.publish().await.unwrap();
    assert_eq!(place.channel(&Camera::fresh(&place.dir()).await), led_back);

    says(&place.redirect(floor("0.2.0")).await.unwrap_err(), &["is below its floor 0.2.0"]);
    says(&place.redirect(floor("second")).await.unwrap_err(), &["floor", "major.minor.patch"]);
    assert_eq!(place.redirect(floor("0.1.0")).await.unwrap().floor, "0.1.0");
    says(&place.redirect(floor("0.0.9")).await.unwrap_err(), &["never fall", "0.1.0"]);
    let newer = place.variant("0.3.0", "");
    let terms = Terms { floor: Some("0.3.0".into()), ..Terms::default() };
    place.try_add(&newer, terms).await.unwrap();
    says(&place.redirect(back).await.unwrap_err(), &["nano@0.1.0", "is below its floor 0.3.0"]);
    says(&place.try_add(&nano(), Terms::default()).await.unwrap_err(), &["below its floor"]);
    let nowhere = Redirection { to: Some("nano@9.9.9+0".into()), ..Redirection::default() };
    says(&place.redirect(nowhere).await.unwrap_err(), &["nano@9.9.9+0", "repo show"]);

    // Whoever holds no key can still write into staged/; a signature is not to be had for it.
    let fallen = Channel { floor: "0.0.1".into(), number: 99, ..led_back.clone() };
    let path = place.dir().join("staged/channel-stable.json");
    place.redirect(floor("0.3.0")).await.unwrap_err();
    place.sign().await.unwrap();
    place.publish_at(now).await.unwrap();
    fs::write(&path, serde_json::to_vec(&fallen).unwrap()).unwrap();
    says(&place.sign().await.unwrap_err(), &["never fall"]);
    let stale = Channel { number: 1, floor: "0.3.0".into(), ..led_back };
    fs::write(&path, serde_json::to_vec(&stale).unwrap()).unwrap();
    says(&place.sign().await.unwrap_err(), &["its number would go from"]);
}

#[tokio::test]
async fn only_what_nothing_refers_to_is_pruned() {
    let place = Place::new().await;
    let first = place.release(&place.variant("0.2.0", "one")).await;
    let second = place.release(&place.variant("0.3.0", "two")).await;
    place.add(&place.variant("0.4.0", "three")).await;
    let names = |folder: &str| -> usize { fs::read_dir(place.dir().join(folder)).unwrap().count() };
    let (packs, targets) = (names("packs"), names("targets"));
    let pruned = repository::prune(&place.open()).await.unwrap();
    assert_eq!((pruned.packs, pruned.targets), (0, 1), "the channel as it was");
    assert_eq!((names("packs"), names("targets")), (packs, targets - 1));
    let retire = async |bundle: &str| {
        let (repository, keys) = (place.open(), place.keys());
        let bundle = [bundle.to_owned()];
        repository::sign_without(&repository, &keys, &bundle, Lifetimes::default(), now()).await
    };
    says(&retire("nano@9.9.9+0").await.unwrap_err(), &["no bundle", "9.9.9"]);
    place.sign().await.unwrap();
    place.publish().await.unwrap();
    let offered = place.add(&place.variant("0.4.0", "three")).await.bundle;
    says(&retire(&offered).await.unwrap_err(), &["offers", "--to"]);
    for bundle in [&first.bundle, &second.bundle] {
        assert!(!retire(bundle).await.unwrap().retired.is_empty());
        assert_eq!(repository::prune(&place.open()).await.unwrap().packs, 0, "still published");
        place.publish().await.unwrap();
    }
    let pruned = repository::prune(&place.open()).await.unwrap();
    assert!(pruned.packs >= 1 && pruned.bytes > 0, "{pruned:?}");
    let shown = place.show(Hashing::Chunks).await.unwrap();
    assert_eq!(shown.bundles.iter().map(|b| &b.bundle).collect::<Vec<_>>(), [&offered]);
    assert_eq!(names("packs"), shown.packs.count, "and what was packed for it is whole");
    let again = repository::prune(&place.open()).await.unwrap();
    assert_eq!(again.packs + again.targets + again.metadata, 0);
}

#[tokio::test]
async fn nothing_is_signed_that_names_what_is_not_there() {
    let place = Place::new().await;
    place.add(&nano()).await;
    let staged = place.dir().join("staged");
    let part = tree(&staged).into_keys().find(|path| path.to_string_lossy().contains("/part-"));
    fs::remove_file(part.unwrap()).unwrap();
    says(
        &place.sign().await.unwrap_err(),
        &["release-nano-0.1.0", "part-", "add its bundle again"],
    );
    fs::write(staged.join("notes.txt"), "x").unwrap();
    says(&place.sign().await.unwrap_err(), &["notes.txt", "take it away"]);
    fs::remove_file(staged.join("notes.txt")).unwrap();
    place.release(&nano()).await;
    Camera::fresh(&place.dir()).await.files(&place.dir());
}

#[tokio::test]
async fn a_camera_with_the_first_root_follows_every_rotation() {
    let place = Place::new().await;
    place.release(&nano()).await;
    let kept = tempdir().unwrap();
    Camera::look(&place.dir(), kept.path()).await.unwrap();
    let all = [
        Rotation::Timestamp,
        Rotation::Snapshot,
        Rotation::Targets,
        Rotation::Root,
        Rotation::Root,
        Rotation::Root,
        Rotation::Root,
        Rotation::Timestamp,
    ];
    for (n, rotation) in all.into_iter().enumerate() {
        let rotated = place.rotate(rotation).await.unwrap();
        assert_eq!(rotated.root_version, n as u64 + 2);
        let (key, retired) = (fs::read(&rotated.key).unwrap(), fs::read(rotated.retired.unwrap()));
        assert_ne!(key, retired.unwrap());
        let camera = Camera::look(&place.dir(), kept.path()).await.unwrap();
        assert_eq!(camera.repository.root().signed.version.get(), n as u64 + 2);
        place.release(&place.variant(&format!("0.{}.0", n + 2), "")).await;
        let camera = Camera::look(&place.dir(), kept.path()).await.unwrap();
        assert_eq!(place.channel(&camera).number, n as u64 + 2);
        Camera::fresh(&place.dir()).await.files(&place.dir());
    }
    // No key that there was in the beginning, nor the first that replaced one, and no name twice.
    let names: Vec<_> = tree(&place.keys()).into_keys().collect();
    let has = |name: &&str| names.contains(&place.keys().join(name));
    assert!(["root-8.pem", "root-9.pem", "root-10.pem"].iter().all(has), "{names:?}");
    let retired = ["root-1.pem", "root-2.pem", "root-3.pem", "root-7.pem"];
    assert!(!retired.iter().any(has), "{names:?}");
}

#[tokio::test]
async fn what_the_replaced_key_signs_is_refused() {
    for (rotation, file) in [(Rotation::Timestamp, "timestamp"), (Rotation::Snapshot, "snapshot")] {
        let place = Place::new().await;
        place.release(&nano()).await;
        // A thief with the old keys, who goes on publishing in a copy.
        let stolen = Place { temp: tempdir().unwrap() };
        copy(&place.keys(), &stolen.keys());
        copy(&place.dir(), &stolen.dir());
        place.rotate(rotation).await.unwrap();
        stolen.publish().await.unwrap();
        stolen.publish().await.unwrap();
        Camera::fresh(&stolen.dir()).await;
        copy(&place.dir().join("metadata"), &stolen.temp.path().join("honest"));
        let root = "metadata/2.root.json";
        fs::copy(place.dir().join(root), stolen.dir().join(root)).unwrap();
        let refused = Camera::look(&stolen.dir(), tempdir().unwrap().path()).await.unwrap_err();
        assert!(refused.to_string().contains(file), "{refused}");
    }
}

#[tokio::test]
async fn a_key_that_was_lost_can_be_replaced() {
    let place = Place::new().await;
    place.release(&nano()).await;
    for (rotation, name) in [
        (Rotation::Timestamp, "timestamp.pem"),
        (Rotation::Targets, "targets.pem"),
        (Rotation::Root, "root-1.pem"),
    ] {
        fs::remove_file(place.keys().join(name)).unwrap();
        assert_eq!(place.rotate(rotation).await.unwrap().retired, None);
        Camera::fresh(&place.dir()).await.files(&place.dir());
    }
    place.release(&place.variant("0.2.0", "")).await;
}

#[tokio::test]
async fn a_key_that_is_missing_or_wrong_is_named() {
    let place = Place::new().await;
    place.add(&nano()).await;
    let other = Place::new().await;
    let keys = place.keys();
    let without = |name: &str| {
        let (from, to) = (keys.join(name), keys.join(format!("{name}.away")));
        fs::rename(&from, &to).unwrap();
        move || fs::rename(&to, &from).unwrap()
    };
    let restore = without("targets.pem");
    says(&place.sign().await.unwrap_err(), &["targets.pem' is missing", "--keys"]);
    fs::copy(other.keys().join("targets.pem"), keys.join("targets.pem")).unwrap();
    says(&place.sign().await.unwrap_err(), &["targets.pem", "root.json 1", "--keys"]);
    fs::write(keys.join("targets.pem"), "no key").unwrap();
    says(&place.sign().await.unwrap_err(), &["targets.pem' holds no private key"]);
    restore();
    place.sign().await.unwrap();
    for name in ["snapshot.pem", "timestamp.pem"] {
        let restore = without(name);
        says(&place.publish().await.unwrap_err(), &[name, "is missing"]);
        restore();
    }
    let (first, second) = (without("root-1.pem"), without("root-3.pem"));
    let too_few = place.rotate(Rotation::Timestamp).await.unwrap_err();
    says(&too_few, &["1 root keys", "2 must sign"]);
    first();
    second();
    assert!(!keys.join("timestamp.pem.next").exists());
    // What is offline is not needed for what is online.
    for name in ["targets.pem", "root-1.pem", "root-2.pem", "root-3.pem"] {
        drop(without(name));
    }
    place.publish().await.unwrap();
}

#[tokio::test]
async fn keys_inside_the_repository_are_refused_however_they_are_named() {
    let temp = tempdir().unwrap();
    let dir = temp.path().join("repository");
    let roots = RootKeys { keys: 3, threshold: 2 };
    let init = async |dir: &Path, keys: &Path, roots| {
        Repository::init(dir, keys, roots, Lifetimes::default(), now()).await
    };
    fs::create_dir_all(dir.join("deep")).unwrap();
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(dir.join("deep"), &link).unwrap();
    let keys = [dir.clone(), dir.join("keys"), dir.join("deep/keys"), link.join("keys"), link];
    for keys in keys {
        let refused = init(&dir, &keys, roots).await.unwrap_err();
        says(&refused, &["would be published", "--keys"]);
        assert_eq!(tree(&dir).len(), 0);
    }
    for (keys, threshold) in [(3, 4), (3, 0), (0, 0), (33, 2)] {
        let refused = init(&dir, &temp.path().join("keys"), RootKeys { keys, threshold }).await;
        says(&refused.unwrap_err(), &["--root-threshold"]);
    }
    init(&dir, &temp.path().join("keys"), roots).await.unwrap();
    says(&init(&dir, &temp.path().join("k"), roots).await.unwrap_err(), &["a repository already"]);
    let other = temp.path().join("other");
    let refused = init(&other, &temp.path().join("keys"), roots).await.unwrap_err();
    says(&refused, &["root-1.pem' is there already"]);
    assert!(!other.exists());
    says(&Repository::open(&other).err().unwrap(), &["no repository", "repo init"]);
}

/// After each step of a change, cut off there, a camera finds the state of before or of after, and the next
/// command ends with that of after.
async fn survives_any_cut(
    place: &Place,
    change: &Change,
    after: u64,
    version: impl Fn(&Camera) -> u64,
) {
    let steps = change.steps().unwrap();
    assert!(steps.len() >= 3, "{steps:?}");
    let mut seen = vec![];
    for cut in 0..=steps.len() {
        let copied = Place { temp: tempdir().unwrap() };
        copy(&place.dir(), &copied.dir());
        let camera = Camera::fresh(&copied.dir()).await;
        seen.push(version(&camera));
        if !camera.targets.is_empty() {
            camera.files(&copied.dir());
        }
        drop(Repository::open(&copied.dir()).unwrap());
        assert_eq!(
            version(&Camera::fresh(&copied.dir()).await),
            after,
            "cut after {cut} of {steps:?}"
        );
        assert!(!copied.dir().join("staged/ready").exists());
        if let Some(step) = steps.get(cut) {
            step.take().unwrap();
        }
    }
    assert_eq!((seen[0], seen[steps.len()]), (after - 1, after));
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(matches!(steps.last(), Some(Step::End { .. })));
}

#[tokio::test]
async fn a_publication_that_is_cut_off_anywhere_leaves_what_fits_together() {
    let place = Place::new().await;
    place.release(&nano()).await;
    place.add(&place.variant("0.2.0", "new")).await;
    place.sign().await.unwrap();
    let (lifetimes, now) = (Lifetimes::default(), now());
    let repository = place.open();
    let (change, _) =
        repository::prepare(&repository, &place.keys(), lifetimes, now).await.unwrap();
    let version = |camera: &Camera| camera.repository.targets().signed.version.get();
    survives_any_cut(&place, &change, 3, version).await;
    drop(repository);
    assert_eq!(fs::read_dir(place.dir().join("staged")).unwrap().count(), 0);
    place.publish().await.unwrap();
}

#[tokio::test]
async fn a_rotation_that_is_cut_off_anywhere_leaves_what_fits_together() {
    for rotation in [Rotation::Timestamp, Rotation::Snapshot, Rotation::Targets] {
        let place = Place::new().await;
        place.release(&nano()).await;
        let (lifetimes, now) = (Lifetimes::default(), now());
        let repository = place.open();
        let keys = place.keys();
        let (change, decided) =
            repository::prepare_rotation(&repository, &keys, rotation, lifetimes, now)
                .await
                .unwrap();
        let version = |camera: &Camera| camera.repository.root().signed.version.get();
        survives_any_cut(&place, &change, 2, version).await;
        drop(repository);
        // The power failed before the keys got their names: the next command gives them.
        drop(decided);
        place.release(&place.variant("0.2.0", "")).await;
        let names: Vec<_> = tree(&keys).into_keys().collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with("next")), "{names:?}");
        assert_eq!(names.iter().filter(|n| n.to_string_lossy().ends_with("retired-1")).count(), 1);
    }
}

#[tokio::test]
async fn what_has_expired_is_named_and_renewed() {
    let place = Place::new().await;
    place.release(&nano()).await;
    let whole = place.show(Hashing::Chunks).await.unwrap();
    assert!(whole.roles.iter().all(|role| !role.expires_soon), "{whole:?}");
    assert!(whole.packs.hashed && whole.packs.bytes > 5_000_000);
    assert_eq!((whole.channels.len(), whole.bundles.len(), whole.staged.len()), (1, 1, 0));

    place.publish_at(now() - 8 * DAY).await.unwrap();
    let soon = place.show(Hashing::Chunks).await.unwrap();
    let soon: Vec<_> = soon.roles.iter().filter(|role| role.expires_soon).collect();
    assert_eq!((soon.len(), soon[0].role), (1, "timestamp"));
    place.publish_at(now() - 15 * DAY).await.unwrap();
    says(
        &place.show(Hashing::Chunks).await.unwrap_err(),
        &["timestamp.json has expired", "repo publish"],
    );
    assert!(Camera::look(&place.dir(), tempdir().unwrap().path()).await.is_err());
    let renewed = place.publish().await.unwrap();
    assert!(renewed.targets.is_empty() && renewed.expiring.is_empty());
    assert_eq!(renewed.targets_version, 2);
    place.show(Hashing::Chunks).await.unwrap();

    let later = place.publish_at(now() + 336 * DAY).await.unwrap();
    assert_eq!(later.expiring, ["targets"]);
    assert_eq!(place.sign().await.unwrap().targets.len(), 0);

    // A timer that runs for long does not fill the folder.
    for _ in 0..20 {
        place.publish().await.unwrap();
    }
    let snapshots = tree(&place.dir().join("metadata")).into_keys();
    let snapshots = snapshots.filter(|path| path.to_string_lossy().contains("snapshot")).count();
    assert_eq!(snapshots, 8);
    Camera::fresh(&place.dir()).await;
}

#[tokio::test]
async fn damage_is_found() {
    let place = Place::new().await;
    place.release(&nano()).await;
    let (pack, whole) = tree(&place.dir().join("packs")).pop_first().unwrap();
    let mut other = whole.clone();
    other[whole.len() / 2] ^= 1;
    fs::write(&pack, other).unwrap();
    place.show(Hashing::Lengths).await.unwrap();
    says(&place.show(Hashing::Chunks).await.unwrap_err(), &[".pack' was altered"]);
    fs::write(&pack, &whole[..whole.len() - 1]).unwrap();
    says(&place.show(Hashing::Lengths).await.unwrap_err(), &[".pack' is cut off"]);
    fs::write(&pack, &whole).unwrap();
    let (target, bytes) = tree(&place.dir().join("targets")).pop_first().unwrap();
    fs::write(&target, [bytes, b" ".to_vec()].concat()).unwrap();
    says(&place.show(Hashing::Lengths).await.unwrap_err(), &["is damaged", "from a copy"]);
}

#[tokio::test]
async fn a_repository_may_lie_on_a_stick_with_any_name() {
    let temp = tempdir().unwrap();
    let (dir, keys) = (temp.path().join("USB stick, 100 % ü"), temp.path().join("keys"));
    let (roots, now) = (RootKeys { keys: 1, threshold: 1 }, now());
    Repository::init(&dir, &keys, roots, Lifetimes::default(), now).await.unwrap();
    let repository = Repository::open(&dir).unwrap();
    says(&Repository::open(&dir).err().unwrap(), &["another command", "wait"]);
    repository::add(&repository, &nano(), "stable", &Terms::default(), now, |_| {}).await.unwrap();
    repository::sign(&repository, &keys, Lifetimes::default(), now).await.unwrap();
    repository::publish(&repository, &keys, Lifetimes::default(), now).await.unwrap();
    repository::overview(&dir, Hashing::Chunks, now).await.unwrap();
}

#[tokio::test]
async fn a_bundle_whose_name_would_be_no_file_name_is_refused() {
    let place = Place::new().await;
    for version in ["0.2.0-../../x", "0.2.0-RC1", "0.2.0+b"] {
        let dir = place.temp.path().join("odd");
        copy(&nano(), &dir);
        let manifest = fs::read_to_string(dir.join("bundle.toml")).unwrap();
        let manifest = manifest.replace("version = \"0.1.0\"", &format!("version = \"{version}\""));
        fs::write(dir.join("bundle.toml"), manifest).unwrap();
        bundle::seal(&dir).unwrap();
        let refused = place.try_add(&dir, Terms::default()).await.unwrap_err();
        says(&refused, &[version, "version", "0-9"]);
    }
    let (now, terms) = (now(), Terms::default());
    let add = repository::add(&place.open(), &nano(), "../up", &terms, now, |_| {}).await;
    says(&add.unwrap_err(), &["'../up'", "channel"]);
    assert!(!place.dir().join("staged").exists() && !place.dir().join("packs").exists());
}
