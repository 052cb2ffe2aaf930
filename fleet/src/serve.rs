//! The listener: TLS, the limits on connections, and a clean stop.

use crate::api::{Peer, Server, Shared, router};
use crate::authority::{Authority, AuthorityError};
use crate::database::{Database, DatabaseError};
use crate::evidence::{Evidence, EvidenceError, forget_charges};
use crate::metrics::Metrics;
use crate::secret::sha256;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A client that has not ended its handshake or sent a request's head by then is let go; so is an idle
/// connection, which costs its camera one handshake more.
const HANDSHAKE: Duration = Duration::from_secs(15);
const HEAD: Duration = Duration::from_secs(75);
/// How long requests in work may go on after the stop.
const FAREWELL: Duration = Duration::from_secs(20);
/// How often partitions are made ahead and given-up uploads swept.
const UPKEEP: Duration = Duration::from_secs(3600);

/// How much of the machine the server may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at the same time; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests in work at the same time; more are told to come later.
    pub requests: usize,
    /// Bodies coming in at the same time; more are told to come later.
    pub bodies: usize,
    /// Connections to the database.
    pub database: usize,
    /// Bytes of evidence that a device may send on a day; 0 is no bound.
    pub evidence_per_day: u64,
    /// The share of devices that do not keep a policy from which on its rollout is halted; 0 is never.
    pub halt_share: f64,
}

impl Default for Limits {
    /// For a machine with 2 GB that serves some thousands of cameras: an idle connection costs about
    /// 50 kB, a body at most 4 MiB. A camera whose policy sees an incident in every minute of a day sends
    /// some hundred MB.
    fn default() -> Self {
        Self {
            connections: 4096,
            requests: 64,
            bodies: 256,
            database: 16,
            evidence_per_day: 2 << 30,
            halt_share: 0.1,
        }
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address} ({source}): give another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error("the certificates in --data cannot be used for TLS ({0}): put them back from a copy")]
    Tls(String),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Where evidence is kept.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// Everything ready, nobody served yet.
pub struct Listening {
    server: Shared,
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: Limits,
}

/// Opens the data directory `data` and the store of evidence that `evidence` names, if any, brings the
/// database's schema forward and takes the address.
///
/// # Errors
/// [`ServeError`]
pub async fn listen(
    database: Database,
    data: &Path,
    evidence: Option<&str>,
    address: SocketAddr,
    names: &[String],
    limits: Limits,
) -> Result<Listening, ServeError> {
    let authority = Authority::open(data)?;
    database.migrate().await?;
    let evidence = Evidence::open(data, evidence).await?;
    let tls = acceptor(&authority, names, year(&database).await?)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let server = Arc::new(Server {
        database,
        authority,
        evidence,
        evidence_per_day: limits.evidence_per_day,
        halt_share: limits.halt_share,
        metrics: Metrics::default(),
        work: Semaphore::new(limits.requests),
        bodies: Semaphore::new(limits.bodies),
    });
    Ok(Listening { server, listener, tls, limits })
}

impl Listening {
    /// The address that was taken.
    ///
    /// # Errors
    /// What the system said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` ends; requests in work are then still answered.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { server, listener, tls, limits } = self;
        let routes = router(&server);
        let places = Arc::new(Semaphore::new(limits.connections));
        // Every connection holds a receiver; that all are gone is seen by the sender.
        let (stopping, stopped) = watch::channel(false);
        let upkeep = tokio::spawn(upkeep(server.clone()));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: those that end give some back.
                    tracing::warn!("a connection cannot be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, routes, server) = (tls.clone(), routes.clone(), server.clone());
            let stopped = stopped.clone();
            tokio::spawn(async move {
                Metrics::add(&server.metrics.connections, 1);
                if connection(stream, tls, routes, stopped).await.is_err() {
                    Metrics::add(&server.metrics.handshakes_failed, 1);
                }
                Metrics::take(&server.metrics.connections, 1);
                drop(place);
            });
        }
        tracing::info!("stopping");
        drop((listener, stopped));
        upkeep.abort();
        let _ = stopping.send(true);
        let _ = timeout(FAREWELL, stopping.closed()).await;
        server.database.close();
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// One connection, from its handshake to its end. An error is that the handshake failed.
async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    routes: Router,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let stream = timeout(HANDSHAKE, tls.accept(stream)).await??;
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = Peer(certificates.and_then(|chain| chain.first()).map(|leaf| sha256(leaf)));
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return Ok(()),
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
    Ok(())
}

fn acceptor(authority: &Authority, names: &[String], year: i32) -> Result<TlsAcceptor, ServeError> {
    let unusable = |error: String| ServeError::Tls(error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).map_err(|e| unusable(e.to_string()))?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| unusable(e.to_string()))?;
    let identity = authority.server(names, year)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(e.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain, identity.key)
        .map_err(|e| unusable(e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The database's clock is the only one that the server asks.
async fn year(database: &Database) -> Result<i32, DatabaseError> {
    let client = database.client().await?;
    Ok(client.query_one("SELECT extract(year FROM now())::int", &[]).await?.get(0))
}

async fn upkeep(server: Shared) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        if let Err(error) = keep_up(&server).await {
            tracing::warn!("upkeep is put off: {error}");
        }
    }
}

async fn keep_up(server: &Shared) -> Result<(), ServeError> {
    server.database.make_partitions().await?;
    forget_charges(&server.database).await?;
    let client = server.database.client().await?;
    let now: SystemTime =
        client.query_one("SELECT now()", &[]).await.map_err(DatabaseError::from)?.get(0);
    drop(client);
    let folder = server.evidence.clone();
    let swept = tokio::task::spawn_blocking(move || folder.sweep(now)).await;
    if let Ok(swept) = swept {
        let swept = swept?;
        if swept > 0 {
            tracing::info!(swept, "uploads that were given up are removed");
        }
    }
    Ok(())
}
