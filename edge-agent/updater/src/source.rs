//! Where a repository lies: at any web server, or in a folder such as that of a USB stick.

use rustls::crypto;
use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use ureq::{
    Agent, Body,
    http::Response,
    tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem},
};

/// Whoever has not begun to answer by then is not there.
const PATIENCE: Duration = Duration::from_secs(30);
/// A line that is slower than so many bytes a second is given up; what came whole is kept.
const SLOWEST: u64 = 500;
/// Of a chain of redirections as many are followed.
const REDIRECTS_MAX: u32 = 4;
/// The authorities of a whole system are a quarter of it.
const CA_BYTES_MAX: u64 = 1 << 20;

/// Why something of a repository is not there.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address is none.
    #[error("'{address}' is no repository ({why}): write it as https://HOST/PATH or as a folder")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The authorities cannot be used.
    #[error("the authorities in '{}' cannot be used ({why}): give another file", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is not there.
    #[error("there is no '{path}' in the repository {repository}")]
    Missing {
        /// The repository.
        repository: String,
        /// What was asked for.
        path: String,
    },
    /// It cannot be had, now.
    #[error("cannot get '{path}' from the repository {repository} ({why})")]
    Unreachable {
        /// The repository.
        repository: String,
        /// What was asked for.
        path: String,
        /// What the system or the server said.
        why: String,
    },
}

/// A repository, as its files can be had.
#[derive(Debug)]
pub struct Source {
    address: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Web { agent: Agent, base: String },
    Folder(PathBuf),
}

impl Source {
    /// The repository at `address`, an URL or the path of a folder. For `https` the authorities in the file
    /// `ca` are believed. What is signed needs no TLS; it hides what a camera runs from those on the way.
    ///
    /// # Errors
    /// [`SourceError::Address`], [`SourceError::Authorities`]
    pub fn new(address: &str, ca: &Path) -> Result<Self, SourceError> {
        let wrong = |why: &str| SourceError::Address { address: address.into(), why: why.into() };
        let place = match address.split_once("://") {
            Some(("http" | "https", rest)) if rest.contains('@') => {
                return Err(SourceError::Address {
                    address: format!("…@{}", rest.rsplit('@').next().unwrap_or_default()),
                    why: "it holds a password".to_owned(),
                });
            }
            Some((scheme @ ("http" | "https"), rest)) => {
                if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#', ' ']) {
                    return Err(wrong("it names no host, or more than a path"));
                }
                let secure = scheme == "https";
                let roots = if secure { authorities(ca)? } else { vec![] };
                let base = address.trim_end_matches('/').to_owned();
                Place::Web { agent: client(secure, roots), base }
            }
            Some(("file", path)) => Place::Folder(path.into()),
            Some(_) => return Err(wrong("only http, https and file are known")),
            None if address.is_empty() => return Err(wrong("it is empty")),
            None => Place::Folder(address.into()),
        };
        Ok(Self { address: address.to_owned(), place })
    }

    /// What it is called in a sentence.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is a folder, so that nobody else's line is used.
    pub fn is_folder(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// The whole file at `path`, which is no longer than `max`.
    ///
    /// # Errors
    /// [`SourceError::Missing`], [`SourceError::Unreachable`]
    pub fn get(&self, path: &str, max: u64) -> Result<Vec<u8>, SourceError> {
        let mut bytes = vec![];
        let reader = match &self.place {
            Place::Web { .. } => self.asked(path, None, max)?.1,
            Place::Folder(_) => Box::new(self.file(path)?),
        };
        let read = reader.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(path, &error))?;
        match bytes.len() as u64 > max {
            true => Err(self.unreachable(path, &"it does not end where it should")),
            false => Ok(bytes),
        }
    }

    /// A part of the file at `path`; it may end early, as a line breaks.
    ///
    /// # Errors
    /// [`SourceError::Missing`], [`SourceError::Unreachable`]
    pub fn range(&self, path: &str, range: Range<u64>) -> Result<Box<dyn Read>, SourceError> {
        let bytes = range.end.saturating_sub(range.start);
        match &self.place {
            Place::Folder(_) => {
                let mut file = self.file(path)?;
                file.seek(SeekFrom::Start(range.start)).map_err(|e| self.unreachable(path, &e))?;
                Ok(Box::new(file.take(bytes)))
            }
            Place::Web { .. } => {
                let (start, mut body) = self.asked(path, Some(&range), bytes)?;
                // A server that does not know of ranges sends it all from the beginning.
                io::copy(&mut (&mut body).take(range.start - start), &mut io::sink())
                    .map_err(|error| self.unreachable(path, &error))?;
                Ok(Box::new(body.take(bytes)))
            }
        }
    }

    /// An answer, and at which byte of the file it begins.
    fn asked(
        &self,
        path: &str,
        range: Option<&Range<u64>>,
        bytes: u64,
    ) -> Result<(u64, Box<dyn Read>), SourceError> {
        let Place::Web { agent, base } = &self.place else {
            return Err(self.unreachable(path, &"it is no web server"));
        };
        let patience = PATIENCE + Duration::from_secs(bytes / SLOWEST);
        let request = agent.get(format!("{base}/{path}"));
        let request = match range {
            Some(Range { start, end }) => {
                request.header("Range", format!("bytes={start}-{}", end.saturating_sub(1)))
            }
            None => request,
        };
        let request = request.config().timeout_recv_body(Some(patience)).build();
        let answer = request.call().map_err(|error| self.unreachable(path, &error))?;
        let start = match (answer.status().as_u16(), range) {
            (200, _) => 0,
            (206, Some(range)) => match begins(&answer) {
                Some(start) if start == range.start => start,
                _ => return Err(self.unreachable(path, &"it answers with another range")),
            },
            (403 | 404 | 410, _) => {
                let (repository, path) = (self.address.clone(), path.to_owned());
                return Err(SourceError::Missing { repository, path });
            }
            (status, _) => return Err(self.unreachable(path, &format!("status {status}"))),
        };
        Ok((start, Box::new(answer.into_body().into_reader())))
    }

    fn file(&self, path: &str) -> Result<fs::File, SourceError> {
        let Place::Folder(folder) = &self.place else {
            return Err(self.unreachable(path, &"it is no folder"));
        };
        let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain {
            return Err(self.unreachable(path, &"it leads out of the folder"));
        }
        fs::File::open(folder.join(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                SourceError::Missing { repository: self.address.clone(), path: path.to_owned() }
            }
            _ => self.unreachable(path, &error),
        })
    }

    fn unreachable(&self, path: &str, why: &dyn ToString) -> SourceError {
        let (repository, path) = (self.address.clone(), path.to_owned());
        SourceError::Unreachable { repository, path, why: why.to_string() }
    }
}

fn client(secure: bool, roots: Vec<ureq::tls::Certificate<'static>>) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(secure)
        .max_redirects(REDIRECTS_MAX)
        .http_status_as_error(false)
        .proxy(None)
        .timeout_connect(Some(PATIENCE))
        .timeout_send_request(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .user_agent(concat!("lookback/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn authorities(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, SourceError> {
    let unusable = |why: String| SourceError::Authorities { path: path.to_owned(), why };
    let mut pem = vec![];
    let file = fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
    file.take(CA_BYTES_MAX).read_to_end(&mut pem).map_err(|error| unusable(error.to_string()))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(unusable("no certificate in it can be used".to_owned())),
        false => Ok(found),
    }
}

/// The first byte of a `Content-Range: bytes FIRST-LAST/WHOLE`.
fn begins(answer: &Response<Body>) -> Option<u64> {
    let told = answer.headers().get("content-range")?.to_str().ok()?;
    told.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
