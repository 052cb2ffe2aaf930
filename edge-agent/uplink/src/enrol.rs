//! How a camera and its server come to know each other: by a token that a person carries over.
//!
//! The token holds a secret, by which the server knows the camera, and the fingerprint of the server's
//! authority, by which the camera knows the server. Nobody in between can be either.

use crate::{Identity, IdentityError, identity::key_and_request};
use ring::digest::{SHA256, digest};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::Deserialize;
use serde_json::json;
use std::{
    io::{self, ErrorKind},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};
use ureq::tls::Certificate;

/// A person waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 443;

/// What a person carries from the server to the camera: `lbk1.SECRET.FINGERPRINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// SHA-256 of the authority's certificate, DER.
    fingerprint: [u8; 32],
}

impl Token {
    /// Reads a token, with spaces around it.
    ///
    /// # Errors
    /// [`IdentityError::Token`].
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        let mut parts = text.split('.');
        let (Some("lbk1"), Some(secret), Some(fingerprint), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Token);
        };
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        if secret.len() != 40 || fingerprint.len() != 64 || !is_hex(secret) || !is_hex(fingerprint)
        {
            return Err(IdentityError::Token);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(fingerprint.as_bytes().chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Self { text: text.to_owned(), fingerprint: bytes })
    }
}

/// Makes a key, has the server certify it, and keeps both in `dir`. `name` is what people call the
/// device, `agent` the version of the program.
///
/// # Errors
/// [`IdentityError`]; nothing is kept then.
pub fn enrol(
    server: &str,
    token: &Token,
    name: &str,
    agent: &str,
    dir: &Path,
) -> Result<Identity, IdentityError> {
    if let Some(known) = Identity::load(dir)? {
        let (device, server) = (known.device, known.server);
        return Err(IdentityError::Enrolled { device, server, dir: dir.to_owned() });
    }
    let (host, port) = host_and_port(server)?;
    let server = format!("https://{host}:{port}");
    let ca = authority(&server, &host, port, token)?;
    let (key, request) = key_and_request()?;
    let client = crate::https::client(&Certificate::from_der(&ca), None, PATIENCE);
    let asked = json!({"token": token.text, "csr": request, "name": name, "agent": agent});
    let refused = |why: String| IdentityError::Refused { server: server.clone(), why };
    let unreachable = |error: ureq::Error| IdentityError::Unreachable {
        server: server.clone(),
        source: io::Error::other(error.to_string()),
    };
    let answer = client
        .post(format!("{server}/v1/enrol"))
        .content_type("application/json")
        .send(&serde_json::to_vec(&asked).unwrap_or_default()[..])
        .map_err(unreachable)?;
    let status = answer.status().as_u16();
    let body = crate::https::read(answer).map_err(refused)?;
    if status != 200 {
        return Err(refused(crate::https::words(&body)));
    }
    #[derive(Deserialize)]
    struct Enrolled {
        device: String,
        certificate: String,
        ca: String,
    }
    let Enrolled { device, certificate, ca } =
        serde_json::from_slice(&body).map_err(|error| refused(error.to_string()))?;
    let identity = Identity { server, device, key, certificate, ca };
    identity.save(dir)?;
    Ok(identity)
}

fn host_and_port(server: &str) -> Result<(String, u16), IdentityError> {
    let wrong = || IdentityError::Server { server: server.to_owned() };
    let rest = server.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong());
    }
    // The port comes after the last colon, unless that is one within [::1].
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
        }
        _ => Ok((rest.to_owned(), PORT)),
    }
}

/// The authority that the server presents, DER, if it is the one of the token and signed the rest.
fn authority(server: &str, host: &str, port: u16, token: &Token) -> Result<Vec<u8>, IdentityError> {
    let unreachable = |source| IdentityError::Unreachable { server: server.to_owned(), source };
    let stranger = |why: String| IdentityError::Stranger { server: server.to_owned(), why };
    let bare = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(bare.to_owned()).map_err(|e| stranger(e.to_string()))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let pinned = Arc::new(Pinned { fingerprint: token.fingerprint, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| stranger(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|e| stranger(e.to_string()))?;
    let mut socket = connect(bare, port).map_err(unreachable)?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut socket) {
            return Err(match error.get_ref().and_then(|e| e.downcast_ref::<TlsError>()) {
                Some(tls) => stranger(tls.to_string()),
                None => unreachable(error),
            });
        }
    }
    let chain = tls.peer_certificates().unwrap_or_default();
    let found = chain.iter().find(|c| fingerprint(c) == token.fingerprint[..]);
    found.map(|c| c.to_vec()).ok_or_else(|| stranger("its authority is another".to_owned()))
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Vec<u8> {
    digest(&SHA256, certificate).as_ref().to_vec()
}

/// Believes one authority, known by its fingerprint, and whom it has signed.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn inner(&self, ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| TlsError::General(error.to_string()))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let ca = others.iter().find(|c| fingerprint(c) == self.fingerprint[..]);
        let ca = ca.ok_or_else(|| TlsError::General("its authority is another".to_owned()))?;
        self.inner(ca)?.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_with_spaces_around_it_and_anything_else_is_none() {
        let (secret, print) = ("5".repeat(40), "aF".repeat(32));
        let token = Token::parse(&format!(" lbk1.{secret}.{print}\n")).unwrap();
        assert_eq!(token.fingerprint, [0xaf; 32]);
        assert_eq!(token.text, format!("lbk1.{secret}.{print}"));
        for wrong in [
            String::new(),
            format!("lbk2.{secret}.{print}"),
            format!("lbk1.{secret}"),
            format!("lbk1.{secret}.{print}.x"),
            format!("lbk1.{}.{print}", "x".repeat(40)),
            format!("lbk1.{secret}.{}", "é".repeat(32)),
        ] {
            assert!(Token::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_written_with_https_and_without_a_path() {
        let read = |server: &str| host_and_port(server).ok();
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(read("https://fleet.example"), is("fleet.example", 443));
        assert_eq!(read("https://fleet.example:8443/"), is("fleet.example", 8443));
        assert_eq!(read("https://[::1]:8443"), is("[::1]", 8443));
        assert_eq!(read("https://[::1]"), is("[::1]", 443));
        for wrong in ["http://fleet", "fleet:8443", "https://", "https://a/b", "https://a:b"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
