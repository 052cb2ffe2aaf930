//! Who a camera is to its server: a key that it made itself, and a certificate for it.

use crate::IdentityError;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// An enrolled device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it reports to, `https://HOST:PORT` without a path.
    pub server: String,
    /// Its id, drawn by the server.
    pub device: String,
    /// Its private key, PEM.
    pub key: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The one authority that it believes, PEM.
    pub ca: String,
}

/// The file that makes a directory an identity; written last.
const WHO: &str = "device.json";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";

#[derive(Serialize, Deserialize)]
struct Who {
    server: String,
    device: String,
}

impl Identity {
    /// The identity in `dir`; `None` if the device was never enrolled.
    ///
    /// # Errors
    /// [`IdentityError::Io`], [`IdentityError::Damaged`].
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let who = match fs::read(dir.join(WHO)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(dir.join(WHO), source)),
            Ok(bytes) => bytes,
        };
        let who: Who = serde_json::from_slice(&who).map_err(|error| IdentityError::Damaged {
            path: dir.join(WHO),
            why: error.to_string(),
        })?;
        let read = |name: &str| {
            fs::read_to_string(dir.join(name)).map_err(|source| failed(dir.join(name), source))
        };
        Ok(Some(Self {
            server: who.server,
            device: who.device,
            key: read(KEY)?,
            certificate: read(CERTIFICATE)?,
            ca: read(CA)?,
        }))
    }

    /// Writes it into `dir`, durably: whole or not at all. The key is readable by its owner alone.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        fs::create_dir_all(dir).map_err(|source| failed(dir.to_owned(), source))?;
        let who = Who { server: self.server.clone(), device: self.device.clone() };
        let who = serde_json::to_string_pretty(&who).unwrap_or_default();
        let files = [(KEY, &self.key), (CERTIFICATE, &self.certificate), (CA, &self.ca)];
        for (name, text) in files.into_iter().chain([(WHO, &who)]) {
            let path = dir.join(name);
            write(&path, text).map_err(|source| failed(path, source))?;
        }
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| failed(dir.to_owned(), source))
    }
}

/// Through a second file, which takes the first one's place when it is on disk.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, path)
}

fn failed(path: PathBuf, source: io::Error) -> IdentityError {
    IdentityError::Io { path, source }
}

/// A new key, which never leaves the device, and the request for a certificate; both PEM.
pub(crate) fn key_and_request() -> Result<(String, String), IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::Key { why: error.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.pem().map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_read_back_as_it_was_and_its_key_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("identity");
        assert_eq!(Identity::load(&dir).unwrap(), None, "never enrolled");
        let text = |name: &str| name.to_owned();
        let identity = Identity {
            server: text("https://fleet:8443"),
            device: text("0123456789abcdef"),
            key: text("a key"),
            certificate: text("a certificate"),
            ca: text("an authority"),
        };
        identity.save(&dir).unwrap();
        assert_eq!(Identity::load(&dir).unwrap(), Some(identity));
        let mode = fs::metadata(dir.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.join(WHO), "{").unwrap();
        let damaged = Identity::load(&dir).unwrap_err().to_string();
        assert!(damaged.contains("device.json' is damaged"), "{damaged}");
    }

    #[test]
    fn an_identity_that_was_not_written_to_its_end_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY), "a key").unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn each_request_is_for_a_key_of_its_own() {
        let (key, request) = key_and_request().unwrap();
        assert!(key.contains("PRIVATE KEY") && request.contains("CERTIFICATE REQUEST"));
        assert_ne!(key, key_and_request().unwrap().0);
    }
}
