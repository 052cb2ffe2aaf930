//! The repository as a camera sees it: everything that is read of it has been verified.

use super::{FIRST_ROOT, RepositoryError, files, is_repository};
use futures_util::{future::ready, stream};
use release::METADATA;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tough::error::Error;
use tough::schema::RoleType;
use tough::{
    Bytes, ExpirationEnforcement, IntoVec, RepositoryLoader, TargetName, Transport, TransportError,
    TransportErrorKind, TransportStream,
};
use url::Url;

/// Reads files of a folder, whose name may hold anything, which tough's own transport does not bear.
#[derive(Clone, Debug)]
struct Folder(PathBuf);

#[tough::async_trait]
impl Transport for Folder {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let path = self.0.join(url.path().trim_start_matches('/'));
        let bytes = fs::read(&path).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => TransportErrorKind::FileNotFound,
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, path.to_string_lossy(), error)
        })?;
        Ok(Box::pin(stream::once(ready(Ok(Bytes::from(bytes))))))
    }
}

/// Loads the repository in `dir` as a camera would that trusts its first root. To renew what has expired it must
/// be possible to load it all the same.
pub async fn load(
    dir: &Path,
    expiration: ExpirationEnforcement,
) -> Result<tough::Repository, RepositoryError> {
    if !is_repository(dir) {
        return Err(RepositoryError::NoRepository { dir: dir.into() });
    }
    let root = files::read(&dir.join(METADATA).join(FIRST_ROOT))?;
    let base = |folder: &str| Url::parse(&format!("file:///{folder}/"));
    let (metadata, targets) = match (base(METADATA), base(release::TARGETS)) {
        (Ok(metadata), Ok(targets)) => (metadata, targets),
        (Err(error), _) | (_, Err(error)) => return Err(unsound(dir, error)),
    };
    let loader = RepositoryLoader::new(&root, metadata, targets)
        .transport(Folder(dir.into()))
        .expiration_enforcement(expiration);
    loader.load().await.map_err(|error| match error {
        Error::ExpiredMetadata { role, .. } => {
            RepositoryError::Expired { role, remedy: remedy(role) }
        }
        other => unsound(dir, other),
    })
}

/// A target, verified.
pub async fn read(
    dir: &Path,
    loaded: &tough::Repository,
    name: &TargetName,
) -> Result<Vec<u8>, RepositoryError> {
    let wrong = |error| unsound(dir, error);
    match loaded.read_target(name).await.map_err(wrong)? {
        Some(stream) => stream.into_vec().await.map_err(wrong),
        None => Err(unsound(dir, format!("it has no '{}'", name.raw()))),
    }
}

fn unsound(dir: &Path, why: impl ToString) -> RepositoryError {
    RepositoryError::Unsound { dir: dir.into(), why: why.to_string() }
}

fn remedy(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "rotate --role root",
        RoleType::Targets | RoleType::DelegatedTargets => "sign` and `lookback-fleet repo publish",
        RoleType::Snapshot | RoleType::Timestamp => "publish",
    }
}
