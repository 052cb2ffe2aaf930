//! Why a bundle is refused.

use std::{io, path::PathBuf};

/// Why a bundle is refused. Each message is one sentence that names the part and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory holds no readable `bundle.toml`.
    #[error(
        "{} holds no bundle: bundle.toml cannot be read ({source}); give a directory that \
         `lookback-bundle seal` has sealed", dir.display()
    )]
    NotABundle {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `bundle.toml` is not what a manifest looks like.
    #[error(
        "{} is not a bundle manifest: {reason}; write it as models/bundle documents it, then run \
         `lookback-bundle seal`", path.display()
    )]
    Manifest {
        /// The manifest's path.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// The manifest is of a later schema.
    #[error(
        "bundle '{name}' has manifest schema {schema} but this agent reads up to {supported}: \
         update the agent"
    )]
    SchemaTooNew {
        /// Name of the bundle, if it has one.
        name: String,
        /// Its schema.
        schema: u32,
        /// The newest that is understood.
        supported: u32,
    },
    /// The bundle asks for a later agent.
    #[error("bundle '{name}' needs agent {needed} or newer and this is {have}: update the agent")]
    AgentTooOld {
        /// Name of the bundle.
        name: String,
        /// The lowest agent version that it accepts.
        needed: String,
        /// The version of this agent.
        have: String,
    },
    /// The engine does not know the architecture.
    #[error(
        "bundle '{name}' has architecture '{architecture}', which this agent does not know (it \
         knows '{known}'): update the agent or convert the bundle"
    )]
    UnknownArchitecture {
        /// Name of the bundle.
        name: String,
        /// Its architecture.
        architecture: String,
        /// What is known.
        known: &'static str,
    },
    /// The manifest contradicts itself.
    #[error("bundle '{name}' contradicts itself: {rule}; correct bundle.toml and seal it again")]
    Inconsistent {
        /// Name of the bundle.
        name: String,
        /// The rule that does not hold.
        rule: String,
    },
    /// A part that every bundle needs is not listed.
    #[error("bundle '{name}' lists no part '{part}': add [parts.{part}] and seal it again")]
    PartNotListed {
        /// Name of the bundle.
        name: String,
        /// The part.
        part: String,
    },
    /// The file of a part points outside the bundle.
    #[error(
        "part '{part}' names the file '{file}', which lies outside the bundle: every part must be \
         a file inside the bundle's own directory"
    )]
    Escapes {
        /// The part.
        part: String,
        /// Its file as written.
        file: String,
    },
    /// The file of a part cannot be read.
    #[error(
        "part '{part}' cannot be read from {} ({source}): fetch the bundle again", path.display()
    )]
    Unreadable {
        /// The part.
        part: String,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of a part is longer or shorter than the manifest says.
    #[error(
        "part '{part}' is {found} bytes long where the manifest says {expected}: fetch the bundle \
         again"
    )]
    WrongLength {
        /// The part.
        part: String,
        /// Bytes according to the manifest.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The contents of a part are not those that were sealed.
    #[error(
        "part '{part}' has BLAKE3 {found} where the manifest says {expected}: it was damaged or \
         changed, fetch the bundle again"
    )]
    WrongHash {
        /// The part.
        part: String,
        /// Hash according to the manifest.
        expected: String,
        /// Hash of what is there.
        found: String,
    },
    /// A file of the bundle cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
