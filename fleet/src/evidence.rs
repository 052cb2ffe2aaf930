//! Objects that cameras upload, by the hash of what they hold, in a folder or in an S3-compatible store.
//!
//! `DIR/<first two digits>/<hash>` is whole: it was verified and synced before it got that name. What is
//! still coming is beside it as `<hash>.<device>.part`, one per device, so that no camera can spoil the
//! upload of another. With a store, what is whole and verified goes there, and only what is still coming
//! is in the folder; what the folder held before stays good.

mod allowance;
mod bucket;
mod file_body;

pub use allowance::{charge, forget_charges};

use bucket::Bucket;
use file_body::FileBody;

use crate::database::{Database, DatabaseError};
use crate::ids::{ContentHash, DeviceId};
use axum::body::{Body, Bytes};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;

/// The most bytes in one object.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;
/// An upload that has not gone on for so long is given up.
const STALE: Duration = Duration::from_secs(14 * 86_400);

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// A picture.
    Jpeg,
    /// A part of an event.
    Json,
}

impl MediaType {
    /// As HTTP writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Json => "application/json",
        }
    }

    /// The one of this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Jpeg, Self::Json].into_iter().find(|media| media.word() == word)
    }
}

/// How much of an object is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of it.
    Whole {
        /// Its length.
        bytes: u64,
    },
    /// Its beginning, from this device.
    Begun {
        /// How much; 0 if nothing.
        bytes: u64,
    },
}

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It goes on elsewhere.
    #[error("{there} bytes of this object are here: go on from there")]
    Offset {
        /// Where it goes on.
        there: u64,
    },
    /// The same device uploads the same object over another connection.
    #[error("this object is being uploaded over another connection: wait for that to end")]
    Busy,
    /// More came than was announced.
    #[error("the body goes beyond Upload-Length {length}: announce the whole length")]
    TooLong {
        /// What was announced.
        length: u64,
    },
    /// It is another object.
    #[error("what was uploaded has the hash {found}: it is thrown away, begin again from 0")]
    Hash {
        /// What it is.
        found: String,
    },
    /// The device has sent as much as it may.
    #[error(
        "this device has sent its evidence for today, {} MiB: it is taken again after midnight UTC \
         (--evidence-per-day)", per_day >> 20
    )]
    Enough {
        /// Bytes that it may send on a day.
        per_day: u64,
    },
    /// What is to name a store does not.
    #[error(
        "--evidence {0}: give it as s3://BUCKET/PREFIX, and keys, region and endpoint as AWS_… in the environment"
    )]
    Url(String),
    /// The store is there and says no.
    #[error(
        "the store of evidence {store} refuses ({why}): check that the bucket exists, and AWS_ENDPOINT, \
         AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Refused {
        /// Its URL.
        store: String,
        /// What it says.
        why: String,
    },
    /// The store does not answer, or fails.
    #[error("the store of evidence {store} fails ({why}): it is asked again")]
    Away {
        /// Its URL.
        store: String,
        /// What is known.
        why: String,
    },
    /// The folder fails.
    #[error("'{}' fails ({source}): check --data, its owner and its disk", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The folder, and the store if there is one.
#[derive(Clone, Debug)]
pub struct Evidence {
    dir: PathBuf,
    bucket: Option<Bucket>,
}

impl Evidence {
    /// Opens the folder in the data directory `data`, which is made if it is not there, and the store
    /// that `url` names, if any. One that does not answer is asked again whenever it is needed.
    ///
    /// # Errors
    /// [`EvidenceError::Folder`], [`EvidenceError::Url`], [`EvidenceError::Refused`]
    pub async fn open(data: &Path, url: Option<&str>) -> Result<Self, EvidenceError> {
        let dir = data.join("evidence");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let bucket = url.map(Bucket::new).transpose()?;
        if let Some(bucket) = &bucket {
            match bucket.check().await {
                Ok(()) => {}
                Err(error @ EvidenceError::Away { .. }) => {
                    tracing::warn!("{error}; evidence waits on the cameras until then");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { dir, bucket })
    }

    /// How much of `hash` is there for `device`.
    ///
    /// # Errors
    /// [`EvidenceError::Folder`], or what the store says.
    pub async fn presence(
        &self,
        hash: &ContentHash,
        device: &DeviceId,
    ) -> Result<Presence, EvidenceError> {
        if let Some(bytes) = length(&self.whole(hash)).await? {
            return Ok(Presence::Whole { bytes });
        }
        if let Some(bucket) = &self.bucket
            && let Some(bytes) = bucket.length(hash).await?
        {
            return Ok(Presence::Whole { bytes });
        }
        let bytes = length(&self.part(hash, device)).await?.unwrap_or(0);
        Ok(Presence::Begun { bytes })
    }

    /// The whole object, as the body of an answer, and its length; `None` if it is not there.
    ///
    /// # Errors
    /// [`EvidenceError::Folder`], or what the store says.
    pub async fn body(&self, hash: &ContentHash) -> Result<Option<(u64, Body)>, EvidenceError> {
        let path = self.whole(hash);
        match tokio::fs::File::open(&path).await {
            Ok(file) => {
                let body = FileBody::new(file).await.map_err(failed(&path))?;
                return Ok(Some((body.length(), Body::new(body))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let found = bucket.get(hash).await?;
        Ok(found.map(|found| (found.meta.size, Body::from_stream(found.into_stream()))))
    }

    /// The whole object in memory, if it is there and not larger than `bytes_max`.
    ///
    /// # Errors
    /// [`EvidenceError::Folder`], or what the store says.
    pub async fn read(
        &self,
        hash: &ContentHash,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, EvidenceError> {
        let path = self.whole(hash);
        match length(&path).await? {
            Some(bytes) if bytes <= bytes_max => {
                return tokio::fs::read(&path).await.map(|b| Some(b.into())).map_err(failed(&path));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        let Some(bucket) = &self.bucket else { return Ok(None) };
        match bucket.get(hash).await? {
            Some(found) if found.meta.size <= bytes_max => bucket.read(found).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Where the whole object is in the folder, if it is there.
    fn whole(&self, hash: &ContentHash) -> PathBuf {
        self.dir.join(&hash.as_str()[..2]).join(hash.as_str())
    }

    /// Goes on with an upload from `offset`.
    ///
    /// # Errors
    /// [`EvidenceError::Offset`] if it goes on elsewhere, [`EvidenceError::Busy`] if it is being uploaded,
    /// [`EvidenceError::Folder`].
    pub fn go_on(
        &self,
        hash: &ContentHash,
        device: &DeviceId,
        offset: u64,
        length: u64,
    ) -> Result<Upload, EvidenceError> {
        let path = self.part(hash, device);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed(dir))?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EvidenceError::Busy),
            Err(TryLockError::Error(source)) => return Err(EvidenceError::Folder { path, source }),
        }
        let there = file.metadata().map_err(failed(&path))?.len();
        if there != offset {
            return Err(EvidenceError::Offset { there });
        }
        if offset > length {
            return Err(EvidenceError::TooLong { length });
        }
        Ok(Upload {
            file: file.into(),
            path,
            whole: self.whole(hash),
            bucket: self.bucket.clone(),
            hash: hash.clone(),
            device: device.clone(),
            there,
            length,
        })
    }

    /// Removes uploads that have not gone on for a fortnight before `now`; how many.
    ///
    /// # Errors
    /// [`EvidenceError::Folder`]
    pub fn sweep(&self, now: SystemTime) -> Result<usize, EvidenceError> {
        let mut removed = 0;
        for dir in fs::read_dir(&self.dir).map_err(failed(&self.dir))? {
            let dir = dir.map_err(failed(&self.dir))?.path();
            for entry in fs::read_dir(&dir).map_err(failed(&dir))? {
                let path = entry.map_err(failed(&dir))?.path();
                let modified = || fs::metadata(&path).and_then(|m| m.modified()).ok();
                let stale = || now.duration_since(modified()?).ok().filter(|age| *age > STALE);
                if path.extension().is_some_and(|e| e == "part") && stale().is_some() {
                    fs::remove_file(&path).map_err(failed(&path))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn part(&self, hash: &ContentHash, device: &DeviceId) -> PathBuf {
        self.dir.join(&hash.as_str()[..2]).join(format!("{hash}.{device}.part"))
    }
}

/// An upload that goes on; nobody else goes on with it meanwhile.
pub struct Upload {
    file: tokio::fs::File,
    path: PathBuf,
    whole: PathBuf,
    bucket: Option<Bucket>,
    hash: ContentHash,
    device: DeviceId,
    there: u64,
    length: u64,
}

impl Upload {
    /// Appends.
    ///
    /// # Errors
    /// [`EvidenceError::TooLong`], [`EvidenceError::Folder`]
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), EvidenceError> {
        if bytes.len() as u64 > self.length - self.there {
            return Err(EvidenceError::TooLong { length: self.length });
        }
        self.file.write_all(bytes).await.map_err(failed(&self.path))?;
        self.there += bytes.len() as u64;
        Ok(())
    }

    /// Ends this request's part of the upload; whether the object is now whole. How many bytes are there
    /// is told with it.
    ///
    /// # Errors
    /// [`EvidenceError::Hash`] if it is whole and another object: it is then gone. [`EvidenceError::Folder`],
    /// [`EvidenceError::Database`] and what the store says: what was received stays.
    pub async fn end(
        mut self,
        database: &Database,
        media: MediaType,
    ) -> Result<Presence, EvidenceError> {
        self.file.flush().await.map_err(failed(&self.path))?;
        let bytes = self.there;
        if bytes < self.length {
            return Ok(Presence::Begun { bytes });
        }
        self.file.sync_all().await.map_err(failed(&self.path))?;
        let found = {
            let path = self.path.clone();
            let hashed = tokio::task::spawn_blocking(move || {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(path)?)?;
                io::Result::Ok(hasher.finalize().to_hex().to_string())
            });
            hashed.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(failed(&self.path))?
        };
        if found != self.hash.as_str() {
            fs::remove_file(&self.path).map_err(failed(&self.path))?;
            return Err(EvidenceError::Hash { found });
        }
        // The row first: a file without its row would have no media type, while a row without its file is
        // only early.
        self.record(database, media).await?;
        if let Some(bucket) = &self.bucket {
            bucket.put(&self.hash, &self.path, media).await?;
            fs::remove_file(&self.path).map_err(failed(&self.path))?;
            return Ok(Presence::Whole { bytes });
        }
        fs::rename(&self.path, &self.whole).map_err(failed(&self.whole))?;
        if let Some(dir) = self.whole.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))?;
        }
        Ok(Presence::Whole { bytes })
    }

    async fn record(&self, database: &Database, media: MediaType) -> Result<(), DatabaseError> {
        let client = database.client().await?;
        client
            .execute(
                "INSERT INTO evidence (hash, bytes, media_type, device) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING",
                &[
                    &self.hash.as_str(),
                    &self.length.cast_signed(),
                    &media.word(),
                    &self.device.as_str(),
                ],
            )
            .await?;
        Ok(())
    }
}

/// What kind of object each of `hashes` is; those that nobody uploaded are not in it.
///
/// # Errors
/// [`DatabaseError`]
pub async fn media_types(
    database: &Database,
    hashes: &[&str],
) -> Result<Vec<(String, MediaType)>, DatabaseError> {
    let client = database.client().await?;
    let rows = client
        .query("SELECT hash, media_type FROM evidence WHERE hash = ANY($1)", &[&hashes])
        .await?;
    let known = |row: &tokio_postgres::Row| Some((row.get(0), MediaType::parse(row.get(1))?));
    Ok(rows.iter().filter_map(known).collect())
}

async fn length(path: &Path) -> Result<Option<u64>, EvidenceError> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EvidenceError::Folder { path: path.into(), source }),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> EvidenceError {
    let path = path.to_owned();
    move |source| EvidenceError::Folder { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (ContentHash, DeviceId) {
        let hash = blake3::hash(b"hello").to_hex().to_string();
        (ContentHash::parse(&hash).unwrap(), DeviceId::parse("abcdefgh01234567").unwrap())
    }

    async fn opened(dir: &Path) -> Evidence {
        Evidence::open(dir, None).await.unwrap()
    }

    #[tokio::test]
    async fn an_upload_goes_on_only_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = opened(dir.path()).await;
        let (hash, device) = names();
        let mut upload = folder.go_on(&hash, &device, 0, 5).unwrap();
        upload.append(b"he").await.unwrap();
        assert!(matches!(folder.go_on(&hash, &device, 2, 5), Err(EvidenceError::Busy)));
        upload.file.flush().await.unwrap();
        drop(upload);
        assert_eq!(folder.presence(&hash, &device).await.unwrap(), Presence::Begun { bytes: 2 });
        assert!(matches!(
            folder.go_on(&hash, &device, 0, 5),
            Err(EvidenceError::Offset { there: 2 })
        ));
        let other = DeviceId::parse("zzzzzzzz01234567").unwrap();
        assert!(folder.go_on(&hash, &other, 0, 5).is_ok(), "each device has its own");
    }

    #[tokio::test]
    async fn more_than_was_announced_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = opened(dir.path()).await;
        let (hash, device) = names();
        let mut upload = folder.go_on(&hash, &device, 0, 5).unwrap();
        assert!(matches!(
            upload.append(b"hello!").await,
            Err(EvidenceError::TooLong { length: 5 })
        ));
    }

    #[tokio::test]
    async fn only_uploads_that_were_given_up_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = opened(dir.path()).await;
        let (hash, device) = names();
        drop(folder.go_on(&hash, &device, 0, 5).unwrap());
        fs::write(folder.whole(&hash), b"hello").unwrap();
        let made = fs::metadata(folder.whole(&hash)).unwrap().modified().unwrap();
        assert_eq!(folder.sweep(made + STALE / 2).unwrap(), 0);
        assert_eq!(folder.sweep(made + STALE * 2).unwrap(), 1);
        assert!(folder.whole(&hash).exists());
    }
}
