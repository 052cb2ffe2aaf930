//! The server over HTTPS with mutual TLS.

use crate::{Failure, Identity};
use rustls::crypto;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use ureq::{
    Agent, Body,
    http::Response,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider},
};

/// An answer that is longer is none: what is asked for is a number or a sentence.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Of a server's own words as much is passed on.
const WORDS_KEPT: usize = 300;

/// The fleet server, as the uplink uses it.
pub trait Server {
    /// What it is called in a sentence.
    fn name(&self) -> &str;

    /// Sends a batch of events of log `epoch` (`application/cloudevents-batch+json`); returns the
    /// highest seq of that log up to which the server has committed all.
    ///
    /// # Errors
    /// [`Failure`].
    fn deliver(&mut self, epoch: &str, batch: &[u8]) -> Result<u64, Failure>;

    /// How much of the object with this hash the server has.
    ///
    /// # Errors
    /// [`Failure`].
    fn evidence(&mut self, hash: &str) -> Result<Had, Failure>;

    /// Appends `part` of an object of `total` bytes, at `offset`; returns how much it has then.
    ///
    /// # Errors
    /// [`Failure`].
    fn append(&mut self, object: &Part<'_>) -> Result<Had, Failure>;
}

/// What a server has of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Had {
    /// All of it, and its hash is right.
    Whole,
    /// So many bytes.
    Bytes(u64),
}

/// A piece of an object that is known by its hash.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// blake3 of the whole, 64 hexadecimal digits.
    pub hash: &'a str,
    /// `image/jpeg` or `application/json`.
    pub media_type: &'a str,
    /// Bytes before this piece.
    pub offset: u64,
    /// Bytes of the whole.
    pub total: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

/// A [`Server`] at the other end of a line.
#[derive(Debug)]
pub struct Https {
    agent: Agent,
    server: String,
}

impl Https {
    /// The server of `identity`, asked as the device that it is. No request takes longer than
    /// `patience`.
    ///
    /// # Errors
    /// [`Failure::Refused`] with status 0 if the identity cannot be used.
    pub fn new(identity: &Identity, patience: Duration) -> Result<Self, Failure> {
        let unusable = |why: ureq::Error| Failure::Refused {
            server: identity.server.clone(),
            status: 0,
            why: format!("the device's own identity cannot be used: {why}"),
        };
        let ca = Certificate::from_pem(identity.ca.as_bytes()).map_err(unusable)?;
        let chain: Vec<Certificate<'static>> =
            ureq::tls::parse_pem(identity.certificate.as_bytes())
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
        let key = PrivateKey::from_pem(identity.key.as_bytes()).map_err(unusable)?;
        let own = ClientCert::new_with_certs(&chain, key);
        Ok(Self { agent: client(&ca, Some(own), patience), server: identity.server.clone() })
    }

    /// The numbers of `channel` whose rollout the server has halted: no device should begin it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn halted(&self, channel: &str) -> Result<Vec<u64>, Failure> {
        let url = format!("{}/v1/halts?channel={channel}", self.server);
        let answer = self.agent.get(url).call().map_err(|e| self.unreachable(&e))?;
        if answer.status().as_u16() != 200 {
            return Err(self.failure(answer));
        }
        #[derive(Deserialize)]
        struct Halts {
            halted: Vec<u64>,
        }
        let body = read(answer).map_err(|why| self.nonsense(why))?;
        let halts: Halts =
            serde_json::from_slice(&body).map_err(|e| self.nonsense(e.to_string()))?;
        Ok(halts.halted)
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::Unreachable { server: self.server.clone(), why: error.to_string() }
    }

    fn nonsense(&self, why: String) -> Failure {
        Failure::Nonsense { server: self.server.clone(), why }
    }

    /// What a status that is no success means.
    fn failure(&self, answer: Response<Body>) -> Failure {
        let (server, status) = (self.server.clone(), answer.status().as_u16());
        if matches!(status, 408 | 425 | 429 | 500..=599) {
            let asked = answer.headers().get("retry-after").and_then(|v| v.to_str().ok());
            let retry_after = asked.and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
            return Failure::Busy { server, status, retry_after };
        }
        let why = read(answer).map_or_else(|why| why, |body| words(&body));
        Failure::Refused { server, status, why }
    }

    fn offset(&self, answer: &Response<Body>) -> Result<u64, Failure> {
        let header = answer.headers().get("upload-offset").and_then(|v| v.to_str().ok());
        let offset = header.and_then(|text| text.parse().ok());
        offset.ok_or_else(|| self.nonsense("it does not say how much it has".to_owned()))
    }
}

impl Server for Https {
    fn name(&self) -> &str {
        &self.server
    }

    fn deliver(&mut self, epoch: &str, batch: &[u8]) -> Result<u64, Failure> {
        let answer = self
            .agent
            .post(format!("{}/v1/events", self.server))
            .content_type("application/cloudevents-batch+json")
            .send(batch)
            .map_err(|e| self.unreachable(&e))?;
        if answer.status().as_u16() != 200 {
            return Err(self.failure(answer));
        }
        #[derive(Deserialize)]
        struct Committed {
            committed: u64,
            epoch: String,
        }
        let body = read(answer).map_err(|why| self.nonsense(why))?;
        let Committed { committed, epoch: told } =
            serde_json::from_slice(&body).map_err(|e| self.nonsense(e.to_string()))?;
        match told == epoch {
            true => Ok(committed),
            false => Err(self.nonsense("it answers about another log".to_owned())),
        }
    }

    fn evidence(&mut self, hash: &str) -> Result<Had, Failure> {
        let url = format!("{}/v1/evidence/{hash}", self.server);
        let answer = self.agent.head(url).call().map_err(|e| self.unreachable(&e))?;
        match answer.status().as_u16() {
            200 => Ok(Had::Whole),
            404 => self.offset(&answer).map(Had::Bytes),
            _ => Err(self.failure(answer)),
        }
    }

    fn append(&mut self, part: &Part<'_>) -> Result<Had, Failure> {
        let answer = self
            .agent
            .patch(format!("{}/v1/evidence/{}", self.server, part.hash))
            .content_type("application/offset+octet-stream")
            .header("Upload-Offset", part.offset.to_string())
            .header("Upload-Length", part.total.to_string())
            .header("Lookback-Media-Type", part.media_type)
            .send(part.bytes)
            .map_err(|e| self.unreachable(&e))?;
        match answer.status().as_u16() {
            201 => Ok(Had::Whole),
            // 409: it has another number of bytes than was thought, and says how many.
            204 | 409 => self.offset(&answer).map(Had::Bytes),
            _ => Err(self.failure(answer)),
        }
    }
}

/// A client that believes `ca` alone.
pub(crate) fn client(ca: &Certificate<'_>, own: Option<ClientCert>, patience: Duration) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[ca.to_owned()]))
        .client_cert(own)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(patience))
        .user_agent(concat!("lookback/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The body of an answer, if it is no longer than an answer may be.
pub(crate) fn read(mut answer: Response<Body>) -> Result<Vec<u8>, String> {
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    body.map_err(|error| format!("its answer cannot be read: {error}"))
}

/// The server's own words for what is wrong, on one line.
pub(crate) fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let said = match serde_json::from_slice(body) {
        Ok(Said { error }) => error,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let plain = said.chars().map(|c| if c.is_control() { ' ' } else { c });
    let kept: String = plain.take(WORDS_KEPT).collect();
    if kept.trim().is_empty() { "it does not say why".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_servers_words_are_one_short_line_whatever_it_sends() {
        assert_eq!(
            words(br#"{"error":"revoked:\nask the operator"}"#),
            "revoked: ask the operator"
        );
        assert_eq!(words(b"<html>\r\n"), "<html>  ");
        assert_eq!(words(b""), "it does not say why");
        assert_eq!(words(&[0xff; 9000]).chars().count(), 300);
    }
}
