//! Why the repository was left as it was.

use bundle::BundleError;
use release::{FormatError, PackError};
use std::io;
use std::path::{Path, PathBuf};
use tough::schema::RoleType;

/// Why the repository was left as it was. Each message is one sentence that names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A file cannot be read or written.
    #[error("{what} '{}' fails ({source}): check its folder, its owner and its disk", path.display())]
    File {
        /// Such as "writing".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else is at it.
    #[error("another command is changing the repository '{}': wait for it", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// It is none.
    #[error("'{}' is no repository: `lookback-fleet repo init` makes one", dir.display())]
    NoRepository {
        /// The folder.
        dir: PathBuf,
    },
    /// It is one already.
    #[error("'{}' is a repository already: give another folder", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// It would never be trusted.
    #[error(
        "{threshold} of {keys} root keys cannot be: --root-keys takes 1 to 32, --root-threshold 1 to as many"
    )]
    Threshold {
        /// How many keys.
        keys: u64,
        /// How many of them.
        threshold: u64,
    },
    /// Whoever fetches the repository would fetch the keys.
    #[error(
        "the keys '{}' would be published with the repository '{}', which they lie in: give --keys a folder \
         outside",
        keys.display(), dir.display()
    )]
    KeysInside {
        /// The folder of the keys.
        keys: PathBuf,
        /// The repository.
        dir: PathBuf,
    },
    /// A key would be lost.
    #[error("the key '{}' is there already: give --keys an empty folder", path.display())]
    KeyExists {
        /// Its file.
        path: PathBuf,
    },
    /// A key is needed.
    #[error(
        "the key '{}' is missing, which signs {role}.json: put it there, or give --keys the folder that has it",
        path.display()
    )]
    KeyMissing {
        /// Its file.
        path: PathBuf,
        /// What it signs.
        role: RoleType,
    },
    /// A file holds no key.
    #[error("'{}' holds no private key ({why}): put it back from a copy", path.display())]
    KeyDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key is not trusted.
    #[error(
        "the key '{}' is not the one that root.json {version} trusts for {role}.json: give --keys the folder \
         of this repository's keys",
        path.display()
    )]
    KeyStrange {
        /// Its file.
        path: PathBuf,
        /// What it is to sign.
        role: RoleType,
        /// The root's version.
        version: u64,
    },
    /// Too few keys of the root.
    #[error(
        "{found} root keys of root.json {version} are in '{}' and {needed} must sign: bring root-….pem together \
         there",
        keys.display()
    )]
    RootKeys {
        /// The folder.
        keys: PathBuf,
        /// How many are there.
        found: u64,
        /// How many are needed.
        needed: u64,
        /// The root's version.
        version: u64,
    },
    /// No key can be made, or nothing signed.
    #[error("{what} cannot be made ({why}); report this")]
    Signing {
        /// What.
        what: String,
        /// What the library said.
        why: String,
    },
    /// A moment too far away.
    #[error("{days} days from now is no date: give fewer days")]
    Days {
        /// How many.
        days: u32,
    },
    /// Its signatures are good no more.
    #[error(
        "{role}.json has expired, and cameras take nothing from the repository: run `lookback-fleet repo {remedy}`"
    )]
    Expired {
        /// What.
        role: RoleType,
        /// The command that renews it.
        remedy: &'static str,
    },
    /// It is not what was signed.
    #[error("the repository '{}' is damaged ({why}): put it back from a copy", dir.display())]
    Unsound {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A target names what is not there.
    #[error("'{by}' names '{name}', which is not there: add its bundle again")]
    Loose {
        /// What is missing.
        name: String,
        /// Where it is named.
        by: String,
    },
    /// A file that is nothing.
    #[error("'{name}' is no channel, release or index: take it away")]
    Stranger {
        /// Its name.
        name: String,
    },
    /// A pack is not what it was.
    #[error("the pack '{}' {what}: put it back from a copy, or remove it and add its bundles again", path.display())]
    Pack {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What is prepared is not signed.
    #[error(
        "{what} in '{}' is not signed as it stands: run `lookback-fleet repo sign` with the key of the targets, \
         then publish",
        staged.display()
    )]
    NotSigned {
        /// What.
        what: String,
        /// Where it is prepared.
        staged: PathBuf,
    },
    /// A name that no file may have.
    #[error(
        "{what} '{text}' cannot be in a file's name: take up to 64 of a-z, 0-9, '-', '_' and '.'"
    )]
    Label {
        /// Whose name.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// There is no such channel.
    #[error("there is no channel '{0}': `lookback-fleet repo add` begins it with its first bundle")]
    NoChannel(String),
    /// It is no version.
    #[error("'{0}' is no version: write major.minor.patch, such as 1.2.0")]
    Version(String),
    /// A file is no bundle of RAUC's, or another than was said.
    #[error("'{}' {why}", path.display())]
    RaucBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such bundle.
    #[error(
        "there is no bundle '{0}' in the repository: `lookback-fleet repo show` lists them, `repo add` adds one"
    )]
    NoBundle(String),
    /// It is not to go.
    #[error(
        "channel '{channel}' offers {bundle}: lead it to another first, with `lookback-fleet repo waves --to`"
    )]
    Offered {
        /// The bundle.
        bundle: String,
        /// The channel.
        channel: String,
    },
    /// Nothing is asked for.
    #[error(
        "nothing of channel '{0}' would change: give --waves, --start, --floor, --halt, --resume or --to"
    )]
    Unchanged(String),
    /// A channel is not to be so.
    #[error("channel '{channel}' cannot be so: {why}")]
    Rule {
        /// The channel.
        channel: String,
        /// The rule, and the remedy.
        why: String,
    },
    /// No waves.
    #[error(
        "'{0}' is no wave: write SHARE%@TIME, such as 10%@24h, with s, m, h or d, or all for all at once"
    )]
    Wave(String),
    /// No moment.
    #[error("'{0}' is no moment to start at: write now, or such as 2026-11-30T09:00:00Z")]
    Start(String),
    /// The bundle is none.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Nothing could be packed.
    #[error(transparent)]
    Packing(#[from] PackError),
    /// A target cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl RepositoryError {
    /// A file cannot be read or written.
    pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { what, path: path.into(), source }
    }
}
