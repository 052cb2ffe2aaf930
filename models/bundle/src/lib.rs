//! A model bundle: its manifest, its parts, their hashes.
//!
//! A bundle is a directory with `bundle.toml` (a [`Manifest`]) and the files that it lists, each
//! with its length and BLAKE3. [`Bundle::open`] refuses a bundle of which anything is missing,
//! changed or too new, in one sentence; [`Bundle::read`] hands out a part only after hashing the
//! very bytes that it returns, so that no byte of an unverified part is ever parsed.
#![forbid(unsafe_code)]

mod error;
mod manifest;
mod seal;
mod setup;

pub use error::BundleError;
pub use manifest::{
    ADAPTER, CHAT_TEMPLATE, DECODER, Decoder, GOLDEN, Geometry, Inquiry, Label, Manifest, Part,
    Prompts, QWEN3_VL, REQUIRED_PARTS, SCHEMA, TOKENIZER, Thresholds, VISION, VISION_ONNX, Version,
};
pub use seal::{PartFile, seal, write};

use std::{
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// Name of the manifest inside a bundle.
pub const MANIFEST: &str = "bundle.toml";

/// A manifest larger than this is refused unread; a real one is a few KB.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// A bundle whose manifest is sound and whose parts were all there, whole and unchanged when it was
/// opened.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The directory.
    pub dir: PathBuf,
    /// What `bundle.toml` says.
    pub manifest: Manifest,
    manifest_hash: blake3::Hash,
}

impl Bundle {
    /// Opens the bundle in `dir` and checks the length and hash of every part.
    ///
    /// # Errors
    /// [`BundleError`], one variant for each way in which a bundle can be wrong.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let dir = dir.into();
        let text = read_manifest(&dir)?;
        let manifest = parse_manifest(&dir.join(MANIFEST), &text)?;
        let bundle = Self { dir, manifest, manifest_hash: blake3::hash(text.as_bytes()) };
        for (name, part) in &bundle.manifest.parts {
            let mut hasher = blake3::Hasher::new();
            let unreadable = |source| bundle.unreadable(name, part, source);
            let file = bundle.open_part(name, part)?;
            hasher.update_reader(file.take(part.bytes)).map_err(unreadable)?;
            check_hash(name, part, hasher.finalize())?;
        }
        Ok(bundle)
    }

    /// `name@version+hash`, where `hash` is the first 12 hexadecimal digits of the BLAKE3 of
    /// `bundle.toml`, which in turn holds the hashes of all parts.
    pub fn id(&self) -> String {
        let hash = self.manifest_hash.to_hex();
        format!("{}@{}+{}", self.manifest.name, self.manifest.version, &hash[..12])
    }

    /// The contents of a part. The bytes returned are the bytes that were hashed.
    ///
    /// # Errors
    /// If the manifest lists no such part, or its file is gone or has changed since.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, BundleError> {
        let mut bytes = vec![0; self.length(name)?];
        self.read_into(name, &mut bytes)?;
        Ok(bytes)
    }

    /// [`Bundle::read`] of a part that a bundle need not have; `None` if the manifest lists none.
    ///
    /// # Errors
    /// If its file is gone or has changed since.
    pub fn read_optional(&self, name: &str) -> Result<Option<Vec<u8>>, BundleError> {
        self.manifest.parts.contains_key(name).then(|| self.read(name)).transpose()
    }

    /// Length of a part in bytes.
    ///
    /// # Errors
    /// If the manifest lists no such part.
    pub fn length(&self, name: &str) -> Result<usize, BundleError> {
        Ok(self.part(name)?.bytes as usize)
    }

    /// [`Bundle::read`] into memory of the caller's choice, as long as the part.
    ///
    /// # Errors
    /// As [`Bundle::read`]; `bytes` are then not to be used.
    ///
    /// # Panics
    /// If `bytes` is not as long as the part.
    pub fn read_into(&self, name: &str, bytes: &mut [u8]) -> Result<(), BundleError> {
        /// Read, then hashed while it is still in the cache.
        const PIECE: usize = 1 << 20;
        let part = self.part(name)?;
        assert_eq!(bytes.len() as u64, part.bytes);
        let mut file = self.open_part(name, part)?;
        let mut hasher = blake3::Hasher::new();
        for piece in bytes.chunks_mut(PIECE) {
            file.read_exact(piece).map_err(|source| self.unreadable(name, part, source))?;
            hasher.update(piece);
        }
        check_hash(name, part, hasher.finalize())
    }

    fn part(&self, name: &str) -> Result<&Part, BundleError> {
        self.manifest.parts.get(name).ok_or_else(|| BundleError::PartNotListed {
            name: self.manifest.name.clone(),
            part: name.to_owned(),
        })
    }

    /// The file of a part, after its place and length were checked.
    fn open_part(&self, name: &str, part: &Part) -> Result<fs::File, BundleError> {
        let unreadable = |source| self.unreadable(name, part, source);
        let escapes = || BundleError::Escapes { part: name.to_owned(), file: part.file.clone() };
        if !stays_inside(&part.file) {
            return Err(escapes());
        }
        // A link inside the directory may still lead out of it.
        let root = self.dir.canonicalize().map_err(unreadable)?;
        let path = self.dir.join(&part.file).canonicalize().map_err(unreadable)?;
        if !path.starts_with(&root) {
            return Err(escapes());
        }
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("not a regular file")));
        }
        if metadata.len() != part.bytes {
            return Err(BundleError::WrongLength {
                part: name.to_owned(),
                expected: part.bytes,
                found: metadata.len(),
            });
        }
        fs::File::open(&path).map_err(unreadable)
    }

    fn unreadable(&self, name: &str, part: &Part, source: io::Error) -> BundleError {
        BundleError::Unreadable { part: name.to_owned(), path: self.dir.join(&part.file), source }
    }
}

/// Whether a part's path is relative and made of plain names only.
pub fn stays_inside(file: &str) -> bool {
    !file.is_empty() && Path::new(file).components().all(|c| matches!(c, Component::Normal(_)))
}

fn check_hash(name: &str, part: &Part, found: blake3::Hash) -> Result<(), BundleError> {
    // Compared as text: a manifest with capital digits is as good as no manifest.
    if found.to_hex().as_str() == part.blake3 {
        return Ok(());
    }
    Err(BundleError::WrongHash {
        part: name.to_owned(),
        expected: part.blake3.clone(),
        found: found.to_hex().to_string(),
    })
}

pub(crate) fn read_manifest(dir: &Path) -> Result<String, BundleError> {
    let not_a_bundle = |source| BundleError::NotABundle { dir: dir.to_owned(), source };
    let mut text = String::new();
    fs::File::open(dir.join(MANIFEST))
        .and_then(|file| file.take(MANIFEST_MAX_BYTES).read_to_string(&mut text))
        .map_err(not_a_bundle)?;
    Ok(text)
}

/// Reads a manifest in two steps: first only what decides whether the rest can be understood, so
/// that a bundle of a later schema is told apart from a mistyped one.
fn parse_manifest(path: &Path, text: &str) -> Result<Manifest, BundleError> {
    #[derive(serde::Deserialize)]
    struct Header {
        schema: u32,
        #[serde(default)]
        name: String,
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        min_agent: String,
    }
    let unreadable = |e: toml::de::Error| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let reason = format!("line {line}: {}", e.message().replace('\n', " "));
        BundleError::Manifest { path: path.to_owned(), reason }
    };
    let header: Header = toml::from_str(text).map_err(unreadable)?;
    let Header { schema, name, architecture, min_agent } = header;
    if schema > SCHEMA {
        return Err(BundleError::SchemaTooNew { name, schema, supported: SCHEMA });
    }
    let have = env!("CARGO_PKG_VERSION");
    if Version::parse(&min_agent) > Version::parse(have) {
        return Err(BundleError::AgentTooOld { name, needed: min_agent, have: have.to_owned() });
    }
    if !architecture.is_empty() && architecture != QWEN3_VL {
        return Err(BundleError::UnknownArchitecture { name, architecture, known: QWEN3_VL });
    }
    let manifest: Manifest = toml::from_str(text).map_err(unreadable)?;
    let name = || manifest.name.clone();
    manifest.check().map_err(|rule| BundleError::Inconsistent { name: name(), rule })?;
    for part in REQUIRED_PARTS {
        if !manifest.parts.contains_key(part) {
            return Err(BundleError::PartNotListed { name: name(), part: part.to_owned() });
        }
    }
    Ok(manifest)
}
