//! What of a repository is believed: TUF, with what was verified last kept where no power cut harms it.

use crate::source::{Source, SourceError};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path, sync::Arc};
use tempfile::TempDir;
use tokio::{runtime, task::spawn_blocking};
use tough::{
    Bytes, ExpirationEnforcement, IntoVec, Limits, Repository, RepositoryLoader, TargetName,
    Transport, TransportError, TransportErrorKind, TransportStream, async_trait,
    error::Error as Tuf,
};
use url::Url;

/// No target and no metadata is longer: the index of a gigabyte is half a megabyte.
const TARGET_BYTES_MAX: u64 = 16 << 20;
/// TUF's own limits; a role of ours is a few kilobytes.
const LIMITS: Limits = Limits {
    max_root_size: 256 << 10,
    max_targets_size: 4 << 20,
    max_timestamp_size: 64 << 10,
    max_snapshot_size: 64 << 10,
    max_root_updates: 1024,
};
/// Paths are looked up in the source; the host is never asked for.
const BASE: &str = "https://repository/";

/// Why a repository is not believed, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be reached.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The device was given nothing to believe.
    #[error(
        "the trusted root cannot be used ({0}): give the repository's 1.root.json in [update] root"
    )]
    Root(String),
    /// It has not been renewed, or somebody holds the newer one back.
    #[error(
        "the repository {repository} is frozen: its {role} has expired, and nobody renewed it, or somebody \
         holds the newer one back; publish it anew, or look at the way there"
    )]
    Frozen {
        /// The repository.
        repository: String,
        /// Which of its roles.
        role: String,
    },
    /// Its metadata is not what it should be.
    #[error("the repository {repository} is not believed ({why}): nothing of it was taken")]
    Unbelieved {
        /// The repository.
        repository: String,
        /// What is wrong.
        why: String,
    },
    /// The device itself fails.
    #[error("the repository {repository} cannot be checked on this device ({why})")]
    Device {
        /// The repository.
        repository: String,
        /// What failed.
        why: String,
    },
    /// It is signed that there is no such target.
    #[error("the repository {repository} has no '{target}'")]
    NoTarget {
        /// The repository.
        repository: String,
        /// The target.
        target: String,
    },
}

/// The metadata that was verified last, each as its JSON. Whoever keeps it keeps it as a whole: nothing
/// older is believed after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    root: String,
    timestamp: Option<String>,
    snapshot: Option<String>,
    targets: Option<String>,
}

const KEPT: [&str; 4] = ["root.json", "timestamp.json", "snapshot.json", "targets.json"];

impl Trust {
    /// Of a device that was given this `root.json` and has seen nothing yet.
    pub fn new(root: impl Into<String>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// As files, where TUF's client looks for them.
    fn lay_out(&self, folder: &Path) -> io::Result<()> {
        let Self { root, timestamp, snapshot, targets } = self;
        let texts = [Some(root), timestamp.as_ref(), snapshot.as_ref(), targets.as_ref()];
        for (name, text) in KEPT.iter().zip(texts) {
            text.map_or(Ok(()), |text| fs::write(folder.join(name), text))?;
        }
        Ok(())
    }

    /// What TUF's client left there; `None`: no root. A file that cannot be read is an error and not one that is
    /// not there: whoever forgot the last timestamp would believe an older one.
    fn gathered(folder: &Path) -> io::Result<Option<Self>> {
        let read = |name: &str| match fs::read_to_string(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        };
        let [root, timestamp, snapshot, targets] = KEPT.map(read);
        let (timestamp, snapshot, targets) = (timestamp?, snapshot?, targets?);
        Ok(root?.map(|root| Self { root, timestamp, snapshot, targets }))
    }
}

/// What time it is, as far as a camera can know, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the system says.
    pub now_unix_s: i64,
    /// It is not before this: when the program was built, or what the device last knew for sure.
    pub floor_unix_s: i64,
}

impl Clock {
    /// Whether the system's time can be true.
    fn is_credible(self) -> bool {
        self.now_unix_s >= self.floor_unix_s
    }
}

/// A repository whose metadata was verified.
pub struct Catalogue {
    repository: Repository,
    runtime: runtime::Runtime,
    address: String,
    // Where TUF's client keeps what it needs as long as it lives.
    _folder: TempDir,
}

impl Catalogue {
    /// Verifies the repository, from `trust`, which becomes what is believed from now on and must be
    /// kept: of a repository that is not believed it keeps the newer root alone.
    ///
    /// A clock that goes back to before `clock`'s floor is wrong, as after a power cut where no battery
    /// keeps it: then what had expired at the floor is refused, and nothing more can be said.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn open(source: &Arc<Source>, trust: &mut Trust, clock: Clock) -> Result<Self, TrustError> {
        let address = source.address().to_owned();
        let device = |error: io::Error| TrustError::Device {
            repository: address.clone(),
            why: error.to_string(),
        };
        let folder = TempDir::new().map_err(device)?;
        trust.lay_out(folder.path()).map_err(device)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(device)?;
        let enforced = match clock.is_credible() {
            true => ExpirationEnforcement::Safe,
            false => ExpirationEnforcement::Unsafe,
        };
        let [metadata, targets] = [release::METADATA, release::TARGETS].map(|folder| {
            Url::parse(&format!("{BASE}{folder}/")).map_err(|error| TrustError::Unbelieved {
                repository: address.clone(),
                why: error.to_string(),
            })
        });
        let root = trust.root.clone();
        let loader = RepositoryLoader::new(&root, metadata?, targets?)
            .transport(Bridge(source.clone()))
            .limits(LIMITS)
            .datastore(folder.path())
            .expiration_enforcement(enforced);
        let loaded = runtime.block_on(loader.load());
        match (&loaded, Trust::gathered(folder.path()).map_err(device)?) {
            (Ok(_), Some(verified)) => *trust = verified,
            // A newer root was signed by the one before it, whatever else is wrong.
            (Err(_), Some(verified)) if is_another(&verified.root, &trust.root) => {
                trust.root = verified.root;
            }
            _ => {}
        }
        let repository = loaded.map_err(|error| understood(source, error))?;
        let catalogue = Self { repository, runtime, address, _folder: folder };
        if enforced == ExpirationEnforcement::Unsafe {
            catalogue.is_fresh_at(clock.floor_unix_s)?;
        }
        Ok(catalogue)
    }

    /// When the first of its roles expires, in seconds since 1970.
    pub fn expires_unix_s(&self) -> i64 {
        self.expiries().into_iter().map(|(_, expires)| expires).min().unwrap_or(i64::MAX)
    }

    /// The contents of a target, as they were signed.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn target(&self, source: &Source, name: &str) -> Result<Vec<u8>, TrustError> {
        let (repository, target) = (self.address.clone(), name.to_owned());
        let unbelieved =
            |why: String| TrustError::Unbelieved { repository: repository.clone(), why };
        let parsed = TargetName::new(name).map_err(|error| unbelieved(error.to_string()))?;
        let signed = self.repository.targets().signed.targets.get(&parsed);
        let length = signed.map_or(0, |target| target.length);
        if length > TARGET_BYTES_MAX {
            return Err(unbelieved(format!("'{name}' has {length} bytes")));
        }
        let read = self.runtime.block_on(async {
            match self.repository.read_target(&parsed).await? {
                Some(stream) => stream.into_vec().await.map(Some),
                None => Ok(None),
            }
        });
        match read {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(TrustError::NoTarget { repository: self.address.clone(), target }),
            Err(error) => Err(understood(source, error)),
        }
    }

    fn expiries(&self) -> [(&'static str, i64); 4] {
        let r = &self.repository;
        [
            ("root", r.root().signed.expires.as_second()),
            ("timestamp", r.timestamp().signed.expires.as_second()),
            ("snapshot", r.snapshot().signed.expires.as_second()),
            ("targets", r.targets().signed.expires.as_second()),
        ]
    }

    fn is_fresh_at(&self, unix_s: i64) -> Result<(), TrustError> {
        match self.expiries().into_iter().find(|(_, expires)| *expires < unix_s) {
            None => Ok(()),
            Some((role, _)) => {
                Err(TrustError::Frozen { repository: self.address.clone(), role: role.to_owned() })
            }
        }
    }
}

/// Whether two texts of JSON say different things; what a disk that failed cut short says nothing.
fn is_another(one: &str, other: &str) -> bool {
    let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    value(one).zip(value(other)).is_some_and(|(one, other)| one != other)
}

/// What an error of TUF's client means to people.
fn understood(source: &Source, error: Tuf) -> TrustError {
    let repository = source.address().to_owned();
    match error {
        Tuf::ExpiredMetadata { role, .. } => {
            TrustError::Frozen { repository, role: role.to_string() }
        }
        Tuf::ParseTrustedMetadata { source, .. } => TrustError::Root(source.to_string()),
        Tuf::VerifyTrustedMetadata { source, .. } => TrustError::Root(source.to_string()),
        Tuf::Transport { source: error, .. } => {
            let why = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            let path = Url::parse(error.url())
                .map_or_else(|_| error.url().to_owned(), |url| url.path().to_owned());
            let path = path.trim_start_matches('/').to_owned();
            match error.kind() {
                TransportErrorKind::FileNotFound => {
                    SourceError::Missing { repository, path }.into()
                }
                // What was fetched and is not what was signed is told by the same kind.
                _ if std::error::Error::source(&error).is_some_and(|e| e.is::<SourceError>()) => {
                    SourceError::Unreachable { repository, path, why }.into()
                }
                _ => TrustError::Unbelieved { repository, why },
            }
        }
        other => TrustError::Unbelieved { repository, why: other.to_string().replace(BASE, "") },
    }
}

/// A [`Source`], as TUF's client wants it.
#[derive(Clone, Debug)]
struct Bridge(Arc<Source>);

#[async_trait]
impl Transport for Bridge {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let (source, path) = (self.0.clone(), url.path().trim_start_matches('/').to_owned());
        let got = spawn_blocking(move || source.get(&path, TARGET_BYTES_MAX)).await;
        let failed = |kind, error: Box<dyn std::error::Error + Send + Sync>| {
            TransportError::new_with_cause(kind, url.as_str(), error)
        };
        let bytes = match got {
            Ok(Ok(bytes)) => Bytes::from(bytes),
            Ok(Err(error @ SourceError::Missing { .. })) => {
                return Err(failed(TransportErrorKind::FileNotFound, error.into()));
            }
            Ok(Err(error)) => return Err(failed(TransportErrorKind::Other, error.into())),
            Err(error) => return Err(failed(TransportErrorKind::Other, error.into())),
        };
        Ok(Box::pin(stream::iter([Ok(bytes)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_a_disk_cut_short_is_no_newer_one() {
        let root = r#"{"signed": {"version": 1}}"#;
        assert!(!is_another("", root) && !is_another(&root[..9], root));
        assert!(!is_another(r#"{ "signed":{"version":1} }"#, root));
        assert!(is_another(r#"{"signed": {"version": 2}}"#, root));
    }

    #[test]
    fn metadata_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Trust { timestamp: Some("{}".to_owned()), ..Trust::new("{}") };
        kept.lay_out(folder.path()).unwrap();
        assert_eq!(Trust::gathered(folder.path()).unwrap(), Some(kept));
        fs::remove_file(folder.path().join("timestamp.json")).unwrap();
        assert_eq!(Trust::gathered(folder.path()).unwrap(), Some(Trust::new("{}")));
        fs::create_dir(folder.path().join("timestamp.json")).unwrap();
        assert!(Trust::gathered(folder.path()).is_err());
    }
}
