//! A repository that is forged by hand, with whatever is wrong with it, and a web server that lies.
#![allow(dead_code, reason = "each test uses a part of it")]

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use bundle::Bundle;
use release::{Channel, Index, METADATA, PACKS, Release, SCHEMA, TARGETS, pack};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tempfile::TempDir;
use tough::{
    async_trait,
    editor::signed::SignedRole,
    key_source::KeySource,
    schema::{KeyHolder, Root, Signed, Snapshot, Targets, Timestamp},
    sign::Sign,
};
use updater::{Catalogue, Clock, FetchError, Partial, Parts, Progress, Source, fetch};

pub const LATER: &str = "2099-01-01T00:00:00Z";
pub const PAST: &str = "2020-01-01T00:00:00Z";
pub const CLOCK: Clock = Clock { now_unix_s: 1_800_000_000, floor_unix_s: 1_700_000_000 };

#[derive(Clone, Debug)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn new() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(key.as_ref().to_vec())
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(&self.0).unwrap()
    }

    fn public(&self) -> (String, Value) {
        let key = self.pair().tuf_key();
        let id = serde_json::to_value(key.key_id().unwrap()).unwrap();
        (id.as_str().unwrap().to_owned(), serde_json::to_value(&key).unwrap())
    }
}

#[async_trait]
impl KeySource for Key {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(self.pair()))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        unreachable!("keys are only read")
    }
}

pub type Files = BTreeMap<String, Vec<u8>>;

/// A repository as its owner, or whoever has some of its keys, makes it.
#[derive(Clone)]
pub struct Forge {
    pub root: [Key; 2],
    pub targets: Key,
    pub snapshot: Key,
    pub timestamp: Key,
    /// Versions of root, targets, snapshot and timestamp.
    pub versions: [u64; 4],
    /// When each expires.
    pub expires: [&'static str; 4],
    /// Who signs the root; the others are signed by the key that the root names.
    pub root_signers: Vec<Key>,
    /// Contents of the targets, by name.
    pub contents: Files,
    pub packs: Files,
}

impl Forge {
    pub fn new() -> Self {
        let root = [Key::new(), Key::new()];
        Self {
            root_signers: root.to_vec(),
            root,
            targets: Key::new(),
            snapshot: Key::new(),
            timestamp: Key::new(),
            versions: [1; 4],
            expires: [LATER; 4],
            contents: Files::new(),
            packs: Files::new(),
        }
    }

    /// Adds the bundle in `dir`, and lets the channel `stable` have it under `number`.
    pub fn offer(&mut self, dir: &Path, number: u64) -> Release {
        let bundle = Bundle::open(dir).unwrap();
        let release = Release::of(&bundle).unwrap();
        let paths: Vec<PathBuf> = release.files.iter().map(|file| dir.join(&file.file)).collect();
        let known: Vec<Index> = self
            .contents
            .iter()
            .filter(|(name, _)| name.starts_with("part-"))
            .map(|(name, json)| Index::parse(name, json).unwrap())
            .collect();
        let packs = TempDir::new().unwrap();
        for index in pack(packs.path(), &paths, &known, |_| ()).unwrap() {
            self.contents.insert(index.target(), index.to_json());
        }
        for entry in fs::read_dir(packs.path()).unwrap().map(Result::unwrap) {
            let name = format!("{PACKS}/{}", entry.file_name().to_str().unwrap());
            self.packs.insert(name, fs::read(entry.path()).unwrap());
        }
        let channel = Channel {
            schema: SCHEMA,
            channel: "stable".to_owned(),
            number,
            release: release.target(),
            bundle: release.bundle.clone(),
            floor: "0.0.0".to_owned(),
            start_unix_s: 0,
            waves: vec![],
            halted: false,
        };
        self.contents.insert(release.target(), serde_json::to_vec(&release).unwrap());
        self.contents.insert(Channel::target("stable"), serde_json::to_vec(&channel).unwrap());
        self.versions[1..].iter_mut().for_each(|version| *version += 1);
        release
    }

    fn keys(&self) -> Value {
        let role = |keys: &[&Key], threshold: u64| {
            let ids: Vec<String> = keys.iter().map(|key| key.public().0).collect();
            json!({"keyids": ids, "threshold": threshold})
        };
        let all = [&self.root[0], &self.root[1], &self.targets, &self.snapshot, &self.timestamp];
        json!({
            "keys": all.iter().map(|key| key.public()).collect::<BTreeMap<_, _>>(),
            "roles": {
                "root": role(&[&self.root[0], &self.root[1]], 2),
                "targets": role(&[&self.targets], 1),
                "snapshot": role(&[&self.snapshot], 1),
                "timestamp": role(&[&self.timestamp], 1),
            },
        })
    }

    pub fn root_json(&self) -> Vec<u8> {
        let mut root = self.keys();
        root["_type"] = "root".into();
        root["spec_version"] = "1.0.0".into();
        root["consistent_snapshot"] = true.into();
        root["version"] = self.versions[0].into();
        root["expires"] = self.expires[0].into();
        let root: Root = serde_json::from_value(root).unwrap();
        let holder = KeyHolder::Root(root.clone());
        block_on(SignedRole::new(root, &holder, &boxed(&self.root_signers), &SystemRandom::new()))
            .buffer()
            .clone()
    }

    /// All files of the repository.
    pub fn files(&self) -> Files {
        let root = self.root_json();
        let parsed: Signed<Root> = serde_json::from_slice(&root).unwrap();
        let holder = KeyHolder::Root(parsed.signed);
        let [root_version, targets_version, snapshot_version, timestamp_version] = self.versions;
        let mut files = self.packs.clone();
        let mut targets = serde_json::Map::new();
        for (name, bytes) in &self.contents {
            let (length, sha256) = (bytes.len(), sha256(bytes));
            targets.insert(name.clone(), json!({"length": length, "hashes": {"sha256": sha256}}));
            files.insert(format!("{TARGETS}/{sha256}.{name}"), bytes.clone());
        }
        let role = |version: u64, expires: &str, key: &str, value: Value| json!({"spec_version": "1.0.0", "version": version, "expires": expires, key: value});
        let targets: Targets = serde_json::from_value(role(
            targets_version,
            self.expires[1],
            "targets",
            targets.into(),
        ))
        .unwrap();
        let rng = SystemRandom::new();
        let sign = |key: &Key| boxed(std::slice::from_ref(key));
        let targets = block_on(SignedRole::new(targets, &holder, &sign(&self.targets), &rng));
        let meta = |name: &str, version: u64, bytes: &[u8]| {
            json!({name: {
                "version": version, "length": bytes.len(), "hashes": {"sha256": sha256(bytes)},
            }})
        };
        let snapshot: Snapshot = serde_json::from_value(role(
            snapshot_version,
            self.expires[2],
            "meta",
            meta("targets.json", targets_version, targets.buffer()),
        ))
        .unwrap();
        let snapshot = block_on(SignedRole::new(snapshot, &holder, &sign(&self.snapshot), &rng));
        let timestamp: Timestamp = serde_json::from_value(role(
            timestamp_version,
            self.expires[3],
            "meta",
            meta("snapshot.json", snapshot_version, snapshot.buffer()),
        ))
        .unwrap();
        let timestamp = block_on(SignedRole::new(timestamp, &holder, &sign(&self.timestamp), &rng));
        let mut put = |name: String, bytes: &[u8]| {
            files.insert(format!("{METADATA}/{name}"), bytes.to_vec());
        };
        put(format!("{root_version}.root.json"), &root);
        put(format!("{targets_version}.targets.json"), targets.buffer());
        put(format!("{snapshot_version}.snapshot.json"), snapshot.buffer());
        put("timestamp.json".to_owned(), timestamp.buffer());
        files
    }
}

fn boxed(keys: &[Key]) -> Vec<Box<dyn KeySource>> {
    keys.iter().map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect()
}

fn block_on<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// A bundle in `dir` like nano, of this version, with a decoder of so many bytes.
pub fn bundle(dir: &Path, version: &str, decoder: &[u8]) {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano");
    fs::create_dir_all(dir).unwrap();
    for name in
        ["vision.onnx", "tokenizer.json", "chat_template.jinja", "golden.json", "bundle.toml"]
    {
        fs::copy(nano.join(name), dir.join(name)).unwrap();
    }
    fs::write(dir.join("decoder.safetensors"), decoder).unwrap();
    let manifest = fs::read_to_string(dir.join("bundle.toml")).unwrap();
    let manifest = manifest.replacen("version = \"0.1.0\"", &format!("version = \"{version}\""), 1);
    fs::write(dir.join("bundle.toml"), manifest).unwrap();
    bundle::seal(dir).unwrap();
}

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// It does not know of ranges.
    NoRanges,
    /// It answers with another range than was asked for.
    OtherRange,
    /// One request in so many is answered 503.
    Busy(usize),
    /// The connection breaks after so many bytes of each pack.
    Cut(usize),
    /// A byte of each pack is another.
    Altered,
    /// Metadata never ends.
    Endless,
    /// It sends everybody in a circle.
    Circle,
}

/// A web server of this machine.
pub struct Web {
    pub address: String,
    pub files: Arc<Mutex<Files>>,
    pub fault: Arc<Mutex<Fault>>,
    /// What was asked for, and how many bytes of it were sent.
    pub asked: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Web {
    pub fn new(files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            address: format!("http://{}/policies", listener.local_addr().unwrap()),
            files: Arc::new(Mutex::new(files)),
            fault: Arc::default(),
            asked: Arc::default(),
        };
        let (files, fault, asked) = (web.files.clone(), web.fault.clone(), web.asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, fault, asked) = (files.clone(), fault.clone(), asked.clone());
                thread::spawn(move || while serve(&stream, &files, &fault, &asked).is_some() {});
            }
        });
        web
    }

    pub fn source(&self) -> Arc<Source> {
        Arc::new(Source::new(&self.address, Path::new("/nowhere")).unwrap())
    }

    pub fn fails(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn holds(&self, files: Files) {
        *self.files.lock().unwrap() = files;
    }

    /// Bytes of packs that were sent since this was asked last.
    pub fn sent(&self) -> usize {
        let asked: Vec<_> = self.asked.lock().unwrap().drain(..).collect();
        asked.iter().filter(|(path, _)| path.starts_with(PACKS)).map(|(_, bytes)| bytes).sum()
    }
}

fn serve(
    stream: &TcpStream,
    files: &Mutex<Files>,
    fault: &Mutex<Fault>,
    asked: &Mutex<Vec<(String, usize)>>,
) -> Option<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let (mut path, mut range) = (String::new(), None);
    for line in reader.by_ref_lines() {
        if let Some(rest) = line.strip_prefix("GET /policies/") {
            path = rest.split(' ').next()?.to_owned();
        }
        let lower = line.to_ascii_lowercase();
        if let Some(told) = lower.strip_prefix("range: bytes=") {
            let (first, last) = told.split_once('-')?;
            range = Some((first.parse().ok()?, last.parse::<usize>().ok()?));
        }
        if line.is_empty() {
            break;
        }
    }
    if path.is_empty() {
        return None;
    }
    let fault = *fault.lock().unwrap();
    let found = files.lock().unwrap().get(&path).cloned();
    let of_pack = path.starts_with(PACKS);
    let count = {
        let mut asked = asked.lock().unwrap();
        asked.push((path.clone(), 0));
        asked.len()
    };
    let mut answer = |head: String, body: &[u8]| {
        write!(writer, "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        writer.write_all(body).ok()
    };
    match fault {
        Fault::Circle => return answer(format!("302 Found\r\nLocation: /policies/{path}"), b""),
        Fault::Busy(n) if of_pack && count % n == 0 => {
            return answer("503 Service Unavailable".to_owned(), b"later");
        }
        Fault::Endless if path.ends_with("timestamp.json") => {
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").ok()?;
            while writer.write_all(&[b' '; 65536]).is_ok() {}
            return None;
        }
        _ => {}
    }
    let Some(mut bytes) = found else { return answer("404 Not Found".to_owned(), b"no") };
    if fault == Fault::Altered && of_pack {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let whole = bytes.len();
    let (head, body) = match range.filter(|_| fault != Fault::NoRanges) {
        None => ("200 OK".to_owned(), &bytes[..]),
        Some((first, last)) => {
            let first = if fault == Fault::OtherRange { first / 2 + 1 } else { first };
            let head =
                format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}");
            (head, &bytes[first..(last + 1).min(whole)])
        }
    };
    let sent = match fault {
        Fault::Cut(after) if of_pack => after.min(body.len()),
        _ => body.len(),
    };
    asked.lock().unwrap()[count - 1].1 = sent;
    if sent < body.len() {
        write!(writer, "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        writer.write_all(&body[..sent]).ok()?;
        // What was sent before the end shall arrive.
        thread::sleep(Duration::from_millis(5));
        return None;
    }
    answer(head, body)
}

trait Lines {
    fn by_ref_lines(&mut self) -> impl Iterator<Item = String>;
}

impl<R: BufRead> Lines for R {
    fn by_ref_lines(&mut self) -> impl Iterator<Item = String> {
        std::iter::from_fn(|| {
            let mut line = String::new();
            let read = self.read_line(&mut line).ok()?;
            (read > 0).then(|| line.trim_end().to_owned())
        })
    }
}

/// What the catalogue offers, with the indexes of its files.
pub fn offered(catalogue: &Catalogue, source: &Source) -> (Channel, Release, Vec<Index>) {
    let target = |name: &str| catalogue.target(source, name).unwrap();
    let channel = Channel::parse("stable", &target("channel-stable.json")).unwrap();
    let release = Release::parse(&channel.release, &target(&channel.release)).unwrap();
    let index = |name: String| Index::parse(&name, &target(&name)).unwrap();
    let indexes = release.files.iter().map(|file| index(file.index())).collect();
    (channel, release, indexes)
}

/// Fetches what is missing of a release, and finishes its files.
pub fn fetched(
    source: &Source,
    parts: &Parts,
    release: &Release,
    indexes: &[Index],
) -> Result<Progress, FetchError> {
    let missing = release.files.iter().zip(indexes).filter(|(file, _)| !parts.has(file));
    let begun: Result<Vec<Partial>, _> =
        missing.map(|(_, index)| parts.begin(index, &[])).collect();
    let mut partials = begun?;
    let mut watch = |_: Progress| ControlFlow::Continue(());
    let progress = fetch(source, parts, &mut partials, None, &mut watch)?;
    partials.into_iter().try_for_each(Partial::finish)?;
    Ok(progress)
}
