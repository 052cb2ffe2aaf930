//! The fleet's certificate authority: its key and certificate in the data directory.
//!
//! Certificates begin in 1970 and those of cameras and of the authority never end (RFC 5280, 4.1.2.5;
//! what IEEE 802.1AR asks of devices): a camera whose clock was never set must still reach the server,
//! and a camera that hung on a wall for ten years must not fall silent on a birthday. A camera's time
//! is over when it is revoked, which is looked up at every request.

use crate::ids::DeviceId;
use crate::secret::{self, hex, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "ca.pem";
/// How long the server's own certificate lasts; it is made anew at every start.
const SERVER_YEARS: i32 = 10;
/// The year that RFC 5280 has for what does not end.
const FOR_EVER: i32 = 9999;

/// The authority, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key, for the server's side of TLS.
pub struct ServerIdentity {
    /// The leaf, then the authority's own.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key; it never leaves the process.
    pub key: PrivateKeyDer<'static>,
}

/// A camera's certificate.
pub struct Issued {
    /// For the camera.
    pub pem: String,
    /// SHA-256 of its DER, by which the camera is known from then on.
    pub print: [u8; 32],
}

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of it cannot be read or written.
    #[error("{what} '{}' fails ({source}): check --data, its owner and its disk", path.display())]
    File {
        /// Such as "writing".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it holds something else.
    #[error("'{}' is damaged ({reason}): put it back from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        reason: String,
    },
    /// The certificate is there without its key.
    #[error(
        "'{}' is there without its key '{KEY_FILE}': put the key back from a copy, or move the \
         certificate away and enrol every camera anew",
        path.display()
    )]
    NoKey {
        /// The certificate's file.
        path: PathBuf,
    },
    /// A name of the server is none.
    #[error("--name '{name}' is neither a host name nor an IP address ({reason})")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A signing request is not usable.
    #[error("csr is not usable ({0}): send a PKCS#10 request with an ECDSA P-256 key, in PEM")]
    Request(String),
    /// Signing failed.
    #[error("a certificate cannot be made ({0}); report this")]
    Signing(rcgen::Error),
    /// No key could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] secret::NoRandomness),
}

impl Authority {
    /// Opens the authority in `dir`, which is made with it if it is not there. What is there is never
    /// written again; processes that begin at the same time end with the same one.
    ///
    /// # Errors
    /// [`AuthorityError`]
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| AuthorityError::File { what: "making", path: dir.into(), source })?;
        let (key_path, pem_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        if pem_path.exists() && !key_path.exists() {
            return Err(AuthorityError::NoKey { path: pem_path });
        }
        let damaged = |path: &Path| {
            let path = path.to_owned();
            move |reason: String| AuthorityError::Damaged { path, reason }
        };
        let key_text = read_or_make(&key_path, || {
            KeyPair::generate().map(|key| key.serialize_pem()).map_err(AuthorityError::Signing)
        })?;
        let key = KeyPair::from_pem(&key_text).map_err(|e| damaged(&key_path)(e.to_string()))?;
        // The key is what counts: should the certificate not have been written before a power cut, one of
        // the same name and key does the same.
        let pem = read_or_make(&pem_path, || {
            let made = params("Lookback fleet", FOR_EVER, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            })?;
            made.self_signed(&key).map(|c| c.pem()).map_err(AuthorityError::Signing)
        })?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| damaged(&pem_path)(e.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|e| damaged(&pem_path)(e.to_string()))?;
        Ok(Self { issuer, pem, der })
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// SHA-256 of the certificate's DER, in hex: what a token names.
    pub fn fingerprint(&self) -> String {
        hex(&sha256(&self.der))
    }

    /// A certificate for a server of these host names and addresses that starts in `year`.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] if one is neither.
    pub fn server(&self, names: &[String], year: i32) -> Result<ServerIdentity, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Signing)?;
        let mut alternatives = Vec::new();
        for name in names {
            let read = CertificateParams::new([name.clone()])
                .map_err(|e| AuthorityError::Name { name: name.clone(), reason: e.to_string() })?;
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                let reason = "it holds a character that host names have not".into();
                return Err(AuthorityError::Name { name: name.clone(), reason });
            }
            alternatives.extend(read.subject_alt_names);
        }
        let leaf = params("Lookback fleet server", year + SERVER_YEARS, |p| {
            p.subject_alt_names = alternatives;
            p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })?
        .signed_by(&key, &self.issuer)
        .map_err(AuthorityError::Signing)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(ServerIdentity { chain: vec![leaf.der().clone(), self.der.clone()], key })
    }

    /// A certificate for `device` and the key in `request`, a PKCS#10 request in PEM. Its signature is
    /// checked; nothing else of it is taken.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] if the request is not usable.
    pub fn sign(&self, request: &str, device: &DeviceId) -> Result<Issued, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request)
            .map_err(|e| AuthorityError::Request(e.to_string()))?;
        let key = &request.public_key;
        // An uncompressed point of P-256: 4, then two coordinates of 32 bytes.
        let is_p256 = std::ptr::eq(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256)
            || key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256;
        if !is_p256 || key.der_bytes().len() != 65 {
            return Err(AuthorityError::Request("its key is not of ECDSA P-256".into()));
        }
        let leaf = params(device.as_str(), FOR_EVER, |params| {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })?
        .signed_by(key, &self.issuer)
        .map_err(AuthorityError::Signing)?;
        Ok(Issued { pem: leaf.pem(), print: sha256(leaf.der()) })
    }
}

/// What all certificates have in common.
fn params(
    common_name: &str,
    last_year: i32,
    more: impl FnOnce(&mut CertificateParams),
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    // The first bit clear: a serial number is positive and at most 20 bytes.
    let mut serial = secret::random::<16>()?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    more(&mut params);
    Ok(params)
}

/// The text in `path`; if there is none, what `make` makes, written with mode 0600 and never over
/// another's.
fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<String, AuthorityError>,
) -> Result<String, AuthorityError> {
    let failed = |what| move |source| AuthorityError::File { what, path: path.into(), source };
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map_err(failed("reading")),
    }
    let text = make()?;
    let draft = path.with_extension(format!("{}.draft", secret::random_text()?));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(
            |mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            },
        );
    // A link, unlike a rename, fails if somebody else was faster.
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let _ = fs::remove_file(&draft);
    linked.map_err(failed("writing"))?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("writing"))?;
    }
    fs::read_to_string(path).map_err(failed("reading"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        DeviceId::parse("abcdefgh01234567").unwrap()
    }

    fn request(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn the_authority_is_made_once_and_then_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let again = Authority::open(dir.path()).unwrap();
        assert_eq!(first.pem(), again.pem());
        assert_eq!(first.fingerprint().len(), 64);
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn processes_that_begin_together_end_with_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Authority::open(dir.path()).unwrap().fingerprint();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            let prints: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
        });
    }

    #[test]
    fn a_certificate_without_its_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        assert!(matches!(Authority::open(dir.path()), Err(AuthorityError::NoKey { .. })));
    }

    #[test]
    fn only_the_key_of_a_request_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let asked = request(&key, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "somebody else");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let issued = authority.sign(&asked, &device()).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let has = |bytes: &[u8]| der.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"abcdefgh01234567") && !has(b"somebody else"));
        assert!(has(&[0x2b, 6, 1, 5, 5, 7, 3, 2]), "clientAuth");
        assert!(!has(&[0x2b, 6, 1, 5, 5, 7, 3, 1]), "no serverAuth");
        assert!(!has(&[0x55, 0x1d, 0x13]), "no basic constraints: no authority");
        assert_eq!(issued.print, sha256(&der));
    }

    #[test]
    fn requests_that_cannot_be_used_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let good = request(&KeyPair::generate().unwrap(), |_| {});
        let damaged = good.replacen("MIH", "MII", 1);
        for text in ["", "-----BEGIN", &request(&p384, |_| {}), &damaged, &good[..200]] {
            assert!(
                matches!(authority.sign(text, &device()), Err(AuthorityError::Request(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_server_may_have_names_and_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let names = ["fleet.example", "127.0.0.1", "::1"].map(String::from);
        assert_eq!(authority.server(&names, 2026).unwrap().chain.len(), 2);
        for wrong in ["", "a b", "https://x"] {
            let refused = authority.server(&[wrong.into()], 2026);
            assert!(matches!(refused, Err(AuthorityError::Name { .. })), "{wrong}");
        }
    }
}
