//! Whole objects in an S3-compatible store: `<prefix>/<first two digits>/<hash>`, as in the folder.

use super::{EvidenceError, MediaType};
use crate::ids::ContentHash;
use axum::body::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, Error, GetResult, ObjectStore,
    ObjectStoreExt, RetryConfig,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Up to this size an object goes in one request, and beyond it in parts, one after the other. Twice as much
/// is held in memory for each upload.
const PART_BYTES: usize = 8 << 20;
/// Written at the start, to see whether the store lets this server write and read.
const GREETING: &str = "lookback-fleet.txt";
const GREETED: &[u8] = b"The evidence of a fleet of cameras, by the BLAKE3 hash of each object.\n";

/// A bucket, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: String,
    /// As it was given.
    url: String,
}

impl Bucket {
    /// The one that `url` names (`s3://BUCKET[/PREFIX]`), with what the environment says of keys, region
    /// and endpoint; nothing is asked yet.
    pub(super) fn new(url: &str) -> Result<Self, EvidenceError> {
        let unusable = |why: &str| EvidenceError::Url(format!("'{url}' {why}"));
        let rest =
            url.strip_prefix("s3://").ok_or_else(|| unusable("does not begin with s3://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(unusable("names no bucket"));
        }
        let prefix = Key::parse(prefix.trim_matches('/')).map_err(|e| unusable(&e.to_string()))?;
        // The HTTP client brings no cryptography of its own; where one was chosen already it is this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let patience = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(20));
        // Not `from_env`: what that reads of the client (AWS_ALLOW_HTTP) would go with its options.
        let of_environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| name.starts_with("AWS_"))?;
            Some((name.to_ascii_lowercase().parse().ok()?, value.into_string().ok()?))
        });
        let builder = of_environment
            .fold(AmazonS3Builder::new().with_client_options(patience), |builder, (key, value)| {
                builder.with_config(key, value)
            })
            .with_bucket_name(bucket)
            .with_retry(RetryConfig {
                max_retries: 2,
                retry_timeout: Duration::from_secs(12),
                backoff: BackoffConfig::default(),
            });
        let store = builder.build().map_err(|e| unusable(&said(&e)))?;
        Ok(Self { store: Arc::new(store), prefix: prefix.to_string(), url: url.to_owned() })
    }

    /// Whether it lets this server write and read.
    pub(super) async fn check(&self) -> Result<(), EvidenceError> {
        let key = self.named(GREETING);
        self.store.put(&key, GREETED.into()).await.map_err(|e| self.failed(&e))?;
        self.store.get(&key).await.map_err(|e| self.failed(&e))?;
        Ok(())
    }

    /// The length of an object, if it is there.
    pub(super) async fn length(&self, hash: &ContentHash) -> Result<Option<u64>, EvidenceError> {
        self.found(self.store.head(&self.key(hash)).await).map(|found| found.map(|meta| meta.size))
    }

    /// An object, if it is there.
    pub(super) async fn get(&self, hash: &ContentHash) -> Result<Option<GetResult>, EvidenceError> {
        self.found(self.store.get(&self.key(hash)).await)
    }

    /// All of a small object, once it was found.
    pub(super) async fn read(&self, found: GetResult) -> Result<Bytes, EvidenceError> {
        found.bytes().await.map_err(|e| self.failed(&e))
    }

    /// Stores what `file` holds; it is there when this ends, or nothing is.
    pub(super) async fn put(
        &self,
        hash: &ContentHash,
        file: &Path,
        media: MediaType,
    ) -> Result<(), EvidenceError> {
        let read = |source| EvidenceError::Folder { path: file.to_owned(), source };
        let mut from = tokio::fs::File::open(file).await.map_err(read)?;
        let kind = Attributes::from_iter([(Attribute::ContentType, media.word())]);
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let mut writer = BufWriter::with_capacity(store, self.key(hash), PART_BYTES)
            .with_max_concurrency(1)
            .with_attributes(kind);
        let stored = async {
            tokio::io::copy(&mut from, &mut writer).await?;
            writer.shutdown().await
        };
        if let Err(error) = stored.await {
            // What a store keeps of an upload that was broken off costs money until somebody sweeps it.
            let _ = writer.abort().await;
            return Err(self.away(error.to_string()));
        }
        Ok(())
    }

    fn key(&self, hash: &ContentHash) -> Key {
        self.named(&format!("{}/{hash}", &hash.as_str()[..2]))
    }

    fn named(&self, name: &str) -> Key {
        Key::from(format!("{}/{name}", self.prefix))
    }

    fn found<T>(&self, answer: object_store::Result<T>) -> Result<Option<T>, EvidenceError> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &Error) -> EvidenceError {
        let refused = matches!(
            error,
            Error::NotFound { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }
                | Error::NotSupported { .. }
                | Error::InvalidPath { .. }
        );
        match refused {
            true => EvidenceError::Refused { store: self.url.clone(), why: said(error) },
            false => self.away(said(error)),
        }
    }

    fn away(&self, why: String) -> EvidenceError {
        EvidenceError::Away { store: self.url.clone(), why }
    }
}

/// The error in one line, with the cause that its own text leaves out.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.contains(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_bucket_is_refused() {
        for (url, word) in [
            ("http://bucket", "s3://"),
            ("s3://", "no bucket"),
            ("s3:///prefix", "no bucket"),
            ("s3://bucket/a//b", "a//b"),
        ] {
            let said = Bucket::new(url).unwrap_err().to_string();
            assert!(said.contains(word) && said.contains("--evidence"), "{said}");
        }
    }

    #[test]
    fn objects_lie_under_the_prefix() {
        let hash = ContentHash::parse(blake3::hash(b"hello").to_hex().as_str()).unwrap();
        for (url, prefix) in
            [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/cams/north/", "cams/north/")]
        {
            let key = Bucket::new(url).unwrap().key(&hash).to_string();
            assert_eq!(key, format!("{prefix}{}/{hash}", &hash.as_str()[..2]));
        }
    }
}
