//! The packed form of a bundle: what a repository of policies holds and a camera fetches.
//!
//! A repository is a folder of plain files, which any web server or USB stick can carry:
//!
//! | folder | file | what |
//! |---|---|---|
//! | `metadata/` | | TUF's four roles; they sign the targets, and nothing else needs to be believed |
//! | `targets/` | `channel-NAME.json` | a [`Channel`]: which release its cameras should have, in which waves |
//! | | `release-NAME-VERSION-HASH.json` | a [`Release`]: the files of a bundle, or of a system's image, by their hashes |
//! | | `part-HASH.json` | an [`Index`]: of which chunks a file is made, and in which packs they lie |
//! | `packs/` | `HASH.pack` | chunks one after the other, each compressed by itself |
//!
//! A file of a bundle is cut where its content says so, so that what a new version shares with an old one is
//! the same chunks, wherever it lies. What a repository has already is not packed again, and what a camera
//! has already is not fetched again. A pack is not signed: each chunk of it is checked against a hash of a
//! signed index before it is decompressed, and once more after.
//!
//! Everything here is pure but [`Release::of`], [`Release::of_system`] and [`cut`], which read files, and [`pack`], which writes packs.
#![forbid(unsafe_code)]

mod channel;
mod index;
mod pack;

pub use channel::{Admission, Channel, SEEDS, WAVES_MAX, Wave};
pub use index::{CHUNK_BYTES_MAX, Chunk, ChunkError, Index, PACK_BYTES_MAX};
pub use pack::{PackError, cut, pack, pack_path};

use bundle::{Bundle, MANIFEST, Version, stays_inside};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, BufReader},
    path::Path,
};

/// The newest layout of the files here that this code reads, but for releases of systems.
pub const SCHEMA: u32 = 1;
/// The layout of a release of a system: whoever knows policies alone refuses it as too new.
pub const SYSTEM_SCHEMA: u32 = 2;

/// Folder of TUF's metadata in a repository.
pub const METADATA: &str = "metadata";
/// Folder of the targets.
pub const TARGETS: &str = "targets";
/// Folder of the packs.
pub const PACKS: &str = "packs";

/// The one file of a release of a system: what RAUC installs.
pub const SYSTEM_FILE: &str = "system.raucb";

/// No bundle has more files.
const FILES_MAX: usize = 64;

/// Why what a repository says cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is no such file.
    #[error("'{name}' of the repository cannot be understood ({why}): publish it anew")]
    Malformed {
        /// The target.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is of a later layout.
    #[error(
        "'{name}' of the repository has layout {found}, and this program reads up to {known}: update the program"
    )]
    TooNew {
        /// The target.
        name: String,
        /// Its layout.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
}

/// What a release is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A bundle, by which a camera decides.
    #[default]
    Policy,
    /// The image of an operating system, which RAUC installs.
    System,
}

impl Kind {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::System => "system",
        }
    }

    /// Whether it is [`Kind::Policy`], which is what a file that does not say is of.
    pub fn is_policy(&self) -> bool {
        *self == Self::Policy
    }
}

/// A bundle, or the image of a system, as a repository holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Layout of this file.
    pub schema: u32,
    /// What it is of.
    #[serde(default, skip_serializing_if = "Kind::is_policy")]
    pub kind: Kind,
    /// [`Bundle::id`]: `name@version+hash`; of a system the hash is that of its file.
    pub bundle: String,
    /// Name of the policy; of a system the kind of machine that it is for, RAUC's `compatible`.
    pub name: String,
    /// Its version, `major.minor.patch`.
    pub version: String,
    /// The lowest agent version that can run it, `major.minor.patch`.
    pub min_agent: String,
    /// All files of the bundle, its manifest included; of a system [`SYSTEM_FILE`].
    pub files: Vec<File>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path inside the bundle.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of it, 64 hexadecimal digits.
    pub blake3: String,
}

impl File {
    /// Of the file at `path`, which has the name `file`.
    fn of(path: &Path, file: &str) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(BufReader::new(fs::File::open(path)?))?;
        let (bytes, blake3) = (hasher.count(), hasher.finalize().to_hex().to_string());
        Ok(Self { file: file.to_owned(), bytes, blake3 })
    }

    /// Name of the target that says of which chunks it is made.
    pub fn index(&self) -> String {
        format!("part-{}.json", self.blake3)
    }
}

impl Release {
    /// Of a bundle.
    ///
    /// # Errors
    /// If its manifest cannot be read any more.
    pub fn of(bundle: &Bundle) -> io::Result<Self> {
        let own = File::of(&bundle.dir.join(MANIFEST), MANIFEST)?;
        let parts = bundle.manifest.parts.values().map(|part| File {
            file: part.file.clone(),
            bytes: part.bytes,
            blake3: part.blake3.clone(),
        });
        let mut files: Vec<File> = parts.chain([own]).collect();
        files.sort_by(|a, b| a.file.cmp(&b.file));
        // Two parts may be one file.
        files.dedup();
        Ok(Self {
            schema: SCHEMA,
            kind: Kind::Policy,
            bundle: bundle.id(),
            name: bundle.manifest.name.clone(),
            version: bundle.manifest.version.clone(),
            min_agent: bundle.manifest.min_agent.clone(),
            files,
        })
    }

    /// Of the RAUC bundle in `file`, which is for machines of the kind `compatible` and of this version,
    /// `major.minor.patch`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_system(file: &Path, compatible: &str, version: &str) -> io::Result<Self> {
        let file = File::of(file, SYSTEM_FILE)?;
        Ok(Self {
            schema: SYSTEM_SCHEMA,
            kind: Kind::System,
            bundle: system_id(compatible, version, &file),
            name: compatible.to_owned(),
            version: version.to_owned(),
            // Whoever reads this layout can hand it to RAUC.
            min_agent: "0.0.0".to_owned(),
            files: vec![file],
        })
    }

    /// Name of the target.
    pub fn target(&self) -> String {
        let hash = self.bundle.rsplit('+').next().unwrap_or_default();
        format!("release-{}-{}-{hash}.json", self.name, self.version)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Reads the target `name`.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn parse(name: &str, json: &[u8]) -> Result<Self, FormatError> {
        let release: Self = read(name, json, SYSTEM_SCHEMA)?;
        let distinct =
            |n: usize| release.files[..n].iter().all(|f| f.file != release.files[n].file);
        let is_of_its_kind = match (release.kind, &release.files[..]) {
            (Kind::Policy, files) => {
                release.schema == SCHEMA && files.iter().any(|file| file.file == MANIFEST)
            }
            (Kind::System, [file]) => {
                release.schema == SYSTEM_SCHEMA
                    && file.file == SYSTEM_FILE
                    && is_hash(&file.blake3)
                    && release.bundle == system_id(&release.name, &release.version, file)
            }
            (Kind::System, _) => false,
        };
        let sound = is_of_its_kind
            && release.files.len() <= FILES_MAX
            && (0..release.files.len()).all(distinct)
            && release.files.iter().all(|f| stays_inside(&f.file) && is_hash(&f.blake3))
            && Version::parse(&release.version).is_some()
            && Version::parse(&release.min_agent).is_some()
            && is_label(&release.name)
            && release.target() == name;
        match sound {
            true => Ok(release),
            false => Err(malformed(name, "it is no release of a bundle or a system")),
        }
    }
}

fn system_id(compatible: &str, version: &str, file: &File) -> String {
    format!("{compatible}@{version}+{}", file.blake3.get(..12).unwrap_or_default())
}

/// Whether a text can be part of a target's name: lower-case letters, digits, `-`, `_`, `.`.
pub fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(plain)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn malformed(name: &str, why: impl ToString) -> FormatError {
    FormatError::Malformed { name: name.to_owned(), why: why.to_string() }
}

/// In two steps, so that a later layout is told apart from nonsense.
fn read<'a, T: Deserialize<'a>>(name: &str, json: &'a [u8], known: u32) -> Result<T, FormatError> {
    #[derive(Deserialize)]
    struct Header {
        schema: u32,
    }
    let header: Header = serde_json::from_slice(json).map_err(|error| malformed(name, error))?;
    if header.schema > known {
        return Err(FormatError::TooNew { name: name.to_owned(), found: header.schema, known });
    }
    serde_json::from_slice(json).map_err(|error| malformed(name, error))
}
