//! The broker at the other end: MQTT 5, over TCP or TLS.

use super::{Broker, message::Message};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event, EventLoop,
    LastWill, MqttOptions, Packet, PubAckReason, PublishNoticeError, PublishOptions, QoS,
    StateError, TlsConfiguration, Transport,
};
use rustls::{
    ClientConfig, RootCertStore, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::{self, Runtime},
    time::{error::Elapsed, sleep, timeout},
};

/// A broker that has not answered by then is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// A power cut is noticed by the broker after one and a half times this.
const KEEP_ALIVE_S: u16 = 30;
/// Messages of one exchange; more are published in several.
const AT_ONCE: usize = 16;
/// The broker has nothing to say that is longer.
const INCOMING_BYTES_MAX: u32 = 64 << 10;
/// A file with a password, a certificate or a key is shorter; the authorities of a whole system are
/// a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the broker was not told.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is none.
    #[error(
        "'{url}' is no MQTT broker ({why}): write it as mqtt://HOST, mqtts://HOST or with :PORT"
    )]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that the configuration names cannot be read.
    #[error("[mqtt] {key} '{}' cannot be read ({source}): name a file that this user may read", path.display())]
    File {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that the configuration names is not what it should be.
    #[error("[mqtt] {key} '{}' cannot be used ({why}): give another file", path.display())]
    Unusable {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error(
        "cannot reach the MQTT broker {broker} ({why}): check [mqtt] broker, the network and the firewall"
    )]
    Unreachable {
        /// The broker.
        broker: String,
        /// What the system said.
        why: String,
    },
    /// Its certificate is not believed.
    #[error(
        "the MQTT broker {broker} shows a certificate that is not believed ({why}): give the \
         authority that signed it with [mqtt] ca"
    )]
    Certificate {
        /// The broker.
        broker: String,
        /// What TLS said.
        why: String,
    },
    /// It does not take this user.
    #[error(
        "the MQTT broker {broker} refuses this user name and password: correct [mqtt] username \
         and password_file"
    )]
    Password {
        /// The broker.
        broker: String,
    },
    /// It does not take this device.
    #[error("the MQTT broker {broker} refuses this device ({why}): look at the broker's own log")]
    Refused {
        /// The broker.
        broker: String,
        /// What it said.
        why: String,
    },
    /// It does not take messages there.
    #[error(
        "the MQTT broker {broker} does not take '{topic}' from this device ({why}): allow it \
         there, or change [mqtt] prefix and discovery"
    )]
    Forbidden {
        /// The broker.
        broker: String,
        /// The topic.
        topic: String,
        /// What it said.
        why: String,
    },
    /// Two devices have one name.
    #[error(
        "the MQTT broker {broker} throws this device out, as another seems to be '{client}' too: \
         give each a [device] name of its own"
    )]
    TakenOver {
        /// The broker.
        broker: String,
        /// The client id.
        client: String,
    },
    /// The connection broke.
    #[error("the connection to the MQTT broker {broker} broke ({why})")]
    Broke {
        /// The broker.
        broker: String,
        /// What the system said.
        why: String,
    },
}

impl BrokerError {
    /// Whether somebody must do something, since waiting will not help.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Broke { .. })
    }
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    host: String,
    port: u16,
    tls: bool,
}

impl BrokerAddress {
    /// Of `mqtt://HOST` or `mqtts://HOST`, perhaps with a port.
    ///
    /// # Errors
    /// [`BrokerError::Address`]
    pub fn parse(url: &str) -> Result<Self, BrokerError> {
        let wrong = |why| BrokerError::Address { url: without_user(url), why };
        let (tls, rest) = match (url.strip_prefix("mqtts://"), url.strip_prefix("mqtt://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong("it begins with neither mqtt:// nor mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(wrong("user and password stand in username and password_file"));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("x"))),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#');
        if host.is_empty() || host.contains(odd) {
            return Err(wrong("it has no host, or more than one"));
        }
        let port = match port {
            None if tls => 8883,
            None => 1883,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("its port is none")),
            },
        };
        Ok(Self { host: host.to_owned(), port, tls })
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls
    }
}

/// What an error may show of a URL: no password.
fn without_user(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}

/// How a broker is reached, as the configuration says. Empty texts and paths: none.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Where it is.
    pub url: String,
    /// The user name.
    pub username: String,
    /// File whose first line is the password.
    pub password_file: PathBuf,
    /// File with the authorities that are believed.
    pub ca: PathBuf,
    /// File with the device's certificate.
    pub certificate: PathBuf,
    /// File with its key.
    pub key: PathBuf,
}

/// A [`Broker`] over the network.
pub struct Mqtt {
    options: MqttOptions,
    url: String,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    session: Option<Session>,
}

struct Session {
    client: AsyncClient,
    events: EventLoop,
}

impl Mqtt {
    /// The broker of `access`, not yet connected, as the client `id` whose last will is `will`.
    ///
    /// # Errors
    /// [`BrokerError::Address`], [`BrokerError::File`], [`BrokerError::Unusable`]
    pub fn new(access: &Access, id: &str, will: Option<Message>) -> Result<Self, BrokerError> {
        let BrokerAddress { host, port, tls } = BrokerAddress::parse(&access.url)?;
        let mut options = MqttOptions::new(id, (host, port));
        options
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_start(true)
            .set_connect_timeout(PATIENCE)
            .set_max_packet_size(Some(INCOMING_BYTES_MAX))
            .set_request_channel_capacity(AT_ONCE);
        if tls {
            let config = Arc::new(tls_config(access)?);
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        let password = match is_given(&access.password_file) {
            true => Some(first_line("password_file", &access.password_file)?),
            false => None,
        };
        match (access.username.is_empty(), password) {
            (false, Some(password)) => drop(options.set_credentials(&access.username, password)),
            (false, None) => drop(options.set_username(&access.username)),
            (true, _) => {}
        }
        if let Some(Message { topic, payload, retain }) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, retain, None));
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| BrokerError::Unreachable {
            broker: access.url.clone(),
            why: error.to_string(),
        })?;
        Ok(Self { options, url: access.url.clone(), runtime: Some(runtime), session: None })
    }

    /// Drops the connection, which is of no use any more.
    fn lost<T>(&mut self, error: BrokerError) -> Result<T, BrokerError> {
        self.session = None;
        Err(error)
    }

    fn broke(&self, error: ConnectionError) -> BrokerError {
        let broker = self.url.clone();
        match error {
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
                match reason_code {
                    DisconnectReasonCode::SessionTakenOver => {
                        BrokerError::TakenOver { broker, client: self.options.client_id() }
                    }
                    DisconnectReasonCode::ServerShuttingDown => {
                        BrokerError::Broke { broker, why: "it shuts down".to_owned() }
                    }
                    other => BrokerError::Refused { broker, why: in_words(&format!("{other:?}")) },
                }
            }
            other => BrokerError::Broke { broker, why: reason(&other) },
        }
    }

    fn unreachable(&self, error: ConnectionError) -> BrokerError {
        let broker = self.url.clone();
        match error {
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    BrokerError::Password { broker }
                }
                other => BrokerError::Refused { broker, why: in_words(&format!("{other:?}")) },
            },
            other => match certificate(&other) {
                Some(why) => BrokerError::Certificate { broker, why },
                None => BrokerError::Unreachable { broker, why: reason(&other) },
            },
        }
    }

    fn publish_some(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        let broker = self.url.clone();
        let silent = BrokerError::Broke { broker, why: "it acknowledges nothing".to_owned() };
        let (Some(runtime), Some(session)) = (&self.runtime, &mut self.session) else {
            return Err(silent);
        };
        let Session { client, events } = session;
        let told = within(runtime, async {
            let mut notices = vec![];
            for Message { topic, payload, retain } in messages {
                let how = PublishOptions::at_least_once().retain(*retain);
                // There is room: nothing else is published, and all before it is acknowledged.
                let notice = client.try_publish_tracked(topic.as_str(), payload.clone(), how);
                notices.push((topic, notice));
            }
            let acknowledged = async {
                for (topic, notice) in notices {
                    let notice = notice.map_err(|error| Untold::Unsent(error.to_string()))?;
                    let told = notice.wait_completion_async().await;
                    told.map_err(|error| Untold::Answer(topic.clone(), error))?;
                }
                Ok(())
            };
            tokio::pin!(acknowledged);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut acknowledged => return answer,
                    event = events.poll() => { event.map_err(Untold::Connection)?; }
                }
            }
        });
        let broker = self.url.clone();
        match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Untold::Answer(topic, PublishNoticeError::V5PubAck(reason)))) => {
                let why = in_words(&format!("{reason:?}"));
                match reason {
                    PubAckReason::QuotaExceeded | PubAckReason::UnspecifiedError => {
                        self.lost(BrokerError::Broke { broker, why })
                    }
                    // The connection is as good as before; what else was published was taken.
                    _ => Err(BrokerError::Forbidden { broker, topic, why }),
                }
            }
            Ok(Err(Untold::Answer(topic, error @ PublishNoticeError::RetainNotSupported))) => {
                self.lost(BrokerError::Forbidden { broker, topic, why: error.to_string() })
            }
            Ok(Err(Untold::Answer(_, error))) => {
                self.lost(BrokerError::Broke { broker, why: error.to_string() })
            }
            Ok(Err(Untold::Unsent(why))) => self.lost(BrokerError::Broke { broker, why }),
            Ok(Err(Untold::Connection(error))) => {
                let error = self.broke(error);
                self.lost(error)
            }
            Err(_) => self.lost(silent),
        }
    }
}

/// Why messages were not acknowledged.
enum Untold {
    /// They could not even be queued.
    Unsent(String),
    /// This topic's was answered otherwise.
    Answer(String, PublishNoticeError),
    /// The connection broke.
    Connection(ConnectionError),
}

impl Broker for Mqtt {
    fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    fn connect(&mut self) -> Result<(), BrokerError> {
        // A session that is begun anew has nothing of the last one in it: what is told again is decided
        // by the cursor alone.
        let (client, mut events) = AsyncClient::builder(self.options.clone()).build();
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let greeted = within(runtime, async {
            loop {
                if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await? {
                    return Ok::<(), ConnectionError>(());
                }
            }
        });
        match greeted {
            Ok(Ok(())) => {
                self.session = Some(Session { client, events });
                Ok(())
            }
            Ok(Err(error)) => Err(self.unreachable(error)),
            Err(_) => Err(BrokerError::Unreachable {
                broker: self.url.clone(),
                why: format!("no answer within {} s", PATIENCE.as_secs()),
            }),
        }
    }

    fn publish(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        messages.chunks(AT_ONCE).try_for_each(|some| self.publish_some(some))
    }

    fn rest(&mut self, wait: Duration) -> Result<(), BrokerError> {
        let (Some(runtime), Some(session)) = (&self.runtime, &mut self.session) else {
            return Ok(());
        };
        let rested = runtime.block_on(async {
            tokio::select! {
                () = sleep(wait) => Ok(()),
                error = broken(&mut session.events) => Err(error),
            }
        });
        match rested {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = self.broke(error);
                self.lost(error)
            }
        }
    }

    fn close(&mut self) {
        if let (Some(runtime), Some(session)) = (&self.runtime, &mut self.session) {
            let _ = within(runtime, async {
                session.client.disconnect().await.ok();
                broken(&mut session.events).await
            });
        }
        self.session = None;
    }
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        // Looking up a name may take long, and cannot be called off: nobody waits for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn within<T>(runtime: &Runtime, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    // A timer can only be made where the runtime runs.
    runtime.block_on(async { timeout(PATIENCE, future).await })
}

/// Polls until the connection breaks. The broker has nothing to tell that is listened to.
async fn broken(events: &mut EventLoop) -> ConnectionError {
    loop {
        if let Err(error) = events.poll().await {
            return error;
        }
    }
}

/// What TLS has against the broker's certificate, if that is what an error is about.
fn certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return Some(tls.to_string());
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The innermost cause, which is what a person can do something about.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// `NotAuthorized` as "not authorized".
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

fn tls_config(access: &Access) -> Result<ClientConfig, BrokerError> {
    let unusable =
        |key, path: &Path, why: String| BrokerError::Unusable { key, path: path.into(), why };
    let mut roots = RootCertStore::empty();
    // A system's collection may hold one that is not understood; the others still count.
    roots.add_parsable_certificates(certificates("ca", &access.ca)?);
    if roots.is_empty() {
        return Err(unusable("ca", &access.ca, "no certificate in it can be used".to_owned()));
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("ca", &access.ca, error.to_string()))?
        .with_root_certificates(roots);
    if !is_given(&access.certificate) {
        return Ok(config.with_no_client_auth());
    }
    let chain = certificates("certificate", &access.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read("key", &access.key)?)
        .map_err(|error| unusable("key", &access.key, error.to_string()))?;
    config
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("certificate", &access.certificate, error.to_string()))
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let text = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let unusable = |why: String| BrokerError::Unusable { key, path: path.into(), why };
    match found {
        Ok(found) if found.is_empty() => Err(unusable("there is no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn first_line(key: &'static str, path: &Path) -> Result<String, BrokerError> {
    let unusable =
        |why: &str| BrokerError::Unusable { key, path: path.into(), why: why.to_owned() };
    let text = String::from_utf8(read(key, path)?).map_err(|_| unusable("it is no text"))?;
    match text.lines().next() {
        None | Some("") => Err(unusable("its first line is empty")),
        Some(line) => Ok(line.to_owned()),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, BrokerError> {
    let failed = |source| BrokerError::File { key, path: path.into(), source };
    let found = fs::metadata(path).map_err(failed)?;
    if found.len() > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read(path).map_err(failed)
}

fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_port_and_nothing_else() {
        let of = |host: &str, port, tls| BrokerAddress { host: host.to_owned(), port, tls };
        for (url, expected) in [
            ("mqtt://broker", of("broker", 1883, false)),
            ("mqtts://broker.example.org/", of("broker.example.org", 8883, true)),
            ("mqtt://10.0.0.7:18830", of("10.0.0.7", 18830, false)),
            ("mqtts://[fd00::7]", of("fd00::7", 8883, true)),
            ("mqtts://[fd00::7]:1", of("fd00::7", 1, true)),
        ] {
            assert_eq!(BrokerAddress::parse(url).ok(), Some(expected), "{url}");
        }
        for url in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://:1",
            "mqtt://a b",
            "mqtt://a/b",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://a:65536",
            "mqtt://[::1]x",
            "mqtt://[]:1",
            "mqtt://a?b",
        ] {
            assert!(BrokerAddress::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let refusal = BrokerAddress::parse("mqtt://olga:secret@broker").unwrap_err().to_string();
        assert!(refusal.contains("password_file") && !refusal.contains("secret"), "{refusal}");
        let refusal = BrokerAddress::parse("tcp://olga:secret@broker").unwrap_err().to_string();
        assert!(!refusal.contains("secret"), "{refusal}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_setting() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = temp.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let ca = at("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let (url, username) = ("mqtts://localhost".to_owned(), "olga".to_owned());
        let whole = Access { url, username, ca, ..Access::default() };
        for (access, words) in [
            (Access { ca: "/no/ca".into(), ..whole.clone() }, ["ca '/no/ca'", "No such file"]),
            (
                Access { ca: at("text", "x"), ..whole.clone() },
                ["[mqtt] ca", "no certificate in it"],
            ),
            (whole.clone(), ["[mqtt] ca", "can be used"]),
            (
                Access {
                    url: "mqtt://localhost".to_owned(),
                    password_file: at("none", "\nsecret"),
                    ..whole
                },
                ["[mqtt] password_file", "first line is empty"],
            ),
        ] {
            let refusal = Mqtt::new(&access, "x", None).err().expect("it is refused").to_string();
            assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }
}
