//! The bad line: carries bytes between clients and a server, and commits each connection's fault.

use crate::faults::{Fault, Kind, Menu};
use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long the rest of a connection may take once one side has ended.
const LAST_WORDS: Duration = Duration::from_secs(60);
/// How long a client that was met with another certificate may think about it.
const HESITATION: Duration = Duration::from_secs(10);
/// The first downstream turn that can be nothing but an answer: before it come the server's part of the
/// handshake and its session tickets.
const FIRST_ANSWER: u64 = 3;

/// What the proxy did.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Those whose server was not there.
    pub unanswered: AtomicU64,
    /// Bytes from clients.
    pub up: AtomicU64,
    /// Bytes to clients.
    pub down: AtomicU64,
    /// Clients that spoke on to the other certificate: there must be none.
    pub deceived: AtomicU64,
    struck: Mutex<BTreeMap<Kind, u64>>,
}

/// [`Counts`] at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Tally {
    /// Connections taken.
    pub connections: u64,
    /// Those whose server was not there.
    pub unanswered: u64,
    /// Clients that spoke on to the other certificate.
    pub deceived: u64,
    /// How often each fault struck: slow lines from their beginning, the others when it came to it.
    pub struck: BTreeMap<String, u64>,
}

/// A proxy that runs.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it did so far.
    pub counts: Arc<Counts>,
    /// While this is set, new connections have no fault, and slow ones are slow no more.
    pub calm: Arc<AtomicBool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Who is told of each connection's fault when it begins.
pub type Told = Arc<dyn Fn(u64, Fault) + Send + Sync>;

/// Begins to carry what comes to `listen` to `server`.
///
/// # Errors
/// If the address cannot be had.
pub async fn start(
    listen: SocketAddr,
    server: SocketAddr,
    menu: Menu,
    seed: u64,
    told: Told,
) -> Result<Proxy> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    let foreign = foreign()?;
    let counts = Arc::new(Counts::default());
    let calm = Arc::new(AtomicBool::new(false));
    let (counting, calmed) = (counts.clone(), calm.clone());
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let n = counting.connections.fetch_add(1, Relaxed);
            let fault = if calmed.load(Relaxed) { Fault::None } else { menu.draw(seed, n) };
            told(n, fault);
            let (counts, foreign, calm) = (counting.clone(), foreign.clone(), calmed.clone());
            tokio::spawn(async move {
                match fault {
                    Fault::Foreign => deceive(client, foreign, &counts).await,
                    _ => connect(client, server, fault, &counts, &calm).await,
                }
            });
        }
    });
    Ok(Proxy { address, counts, calm, accepting })
}

impl Counts {
    fn strike(&self, kind: Kind) {
        let mut struck = self.struck.lock().unwrap_or_else(|e| e.into_inner());
        *struck.entry(kind).or_default() += 1;
    }

    /// As it stands.
    pub fn tally(&self) -> Tally {
        let struck = self.struck.lock().unwrap_or_else(|e| e.into_inner());
        Tally {
            connections: self.connections.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            deceived: self.deceived.load(Relaxed),
            struck: struck.iter().map(|(kind, n)| (kind.name(), *n)).collect(),
        }
    }
}

/// A TLS server that nobody has a reason to believe: the right names, its own signature.
fn foreign() -> Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn deceive(client: TcpStream, foreign: TlsAcceptor, counts: &Counts) {
    counts.strike(Kind::Foreign);
    let spoken = async {
        let mut stream = foreign.accept(client).await?;
        stream.read(&mut [0; 1024]).await
    };
    if let Ok(Ok(1..)) = timeout(HESITATION, spoken).await {
        counts.deceived.fetch_add(1, Relaxed);
    }
}

async fn connect(
    mut client: TcpStream,
    server: SocketAddr,
    fault: Fault,
    counts: &Counts,
    calm: &AtomicBool,
) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        counts.unanswered.fetch_add(1, Relaxed);
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if matches!(fault, Fault::Delay { .. } | Fault::Drip { .. } | Fault::Rate { .. }) {
        fault.kind().into_iter().for_each(|kind| counts.strike(kind));
    }
    if carry(&mut client, &mut server, fault, counts, calm).await == End::Reset {
        // Closing sends a reset instead of an orderly end, and forgets what was not sent.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order.
    Closed,
    /// All at once, for both directions.
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// What the two directions of a connection know of each other.
struct Line<'a> {
    fault: Fault,
    counts: &'a Counts,
    calm: &'a AtomicBool,
    /// Whether the client was the last to say something.
    asked: AtomicBool,
    /// How often the server began to speak after the client had.
    turns: AtomicU64,
}

async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    fault: Fault,
    counts: &Counts,
    calm: &AtomicBool,
) -> End {
    let line =
        Line { fault, counts, calm, asked: AtomicBool::new(false), turns: AtomicU64::new(0) };
    let ((client_reads, client_writes), (server_reads, server_writes)) =
        (client.split(), server.split());
    let up = line.direction(Way::Up, client_reads, server_writes);
    let down = line.direction(Way::Down, server_reads, client_writes);
    tokio::pin!(up, down);
    let other =
        async |first: io::Result<End>,
               rest: &mut (dyn Future<Output = io::Result<End>> + Unpin + Send)| {
            match first {
                Ok(End::Closed) => match timeout(LAST_WORDS, rest).await {
                    Ok(Ok(end)) => end,
                    _ => End::Reset,
                },
                _ => End::Reset,
            }
        };
    tokio::select! {
        end = &mut up => other(end, &mut down).await,
        end = &mut down => other(end, &mut up).await,
    }
}

impl Line<'_> {
    async fn direction(
        &self,
        way: Way,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> io::Result<End> {
        let mut buffer = vec![0; self.bite()];
        let mut carried = 0;
        loop {
            let n = from.read(&mut buffer).await?;
            if n == 0 {
                to.shutdown().await?;
                return Ok(End::Closed);
            }
            let count = if way == Way::Up { &self.counts.up } else { &self.counts.down };
            count.fetch_add(n as u64, Relaxed);
            if self.is_cut(way) {
                self.counts.strike(Kind::CutAnswer);
                return Ok(End::Reset);
            }
            if let (Way::Up, Some(after)) = (way, self.ends_after())
                && carried + n as u64 > after
            {
                to.write_all(&buffer[..(after - carried) as usize]).await?;
                self.fault.kind().into_iter().for_each(|kind| self.counts.strike(kind));
                return self.end(from, to).await;
            }
            carried += n as u64;
            self.write(&mut to, &buffer[..n]).await?;
        }
    }

    /// As much as is read at a time: on a slow line less than a second's worth, so that it is slow from the
    /// first byte on.
    fn bite(&self) -> usize {
        match self.fault {
            Fault::Drip { bytes, .. } => bytes.max(1),
            Fault::Rate { bits_per_s } => (bits_per_s / 8 / 4).clamp(1, 16 << 10) as usize,
            _ => 16 << 10,
        }
    }

    fn ends_after(&self) -> Option<u64> {
        match self.fault {
            Fault::Stall { after } | Fault::Reset { after } | Fault::HalfClose { after } => {
                Some(after)
            }
            _ => None,
        }
    }

    /// Whether what comes now is the beginning of the answer that shall not arrive.
    fn is_cut(&self, way: Way) -> bool {
        if way == Way::Up {
            self.asked.store(true, Relaxed);
            return false;
        }
        if !self.asked.swap(false, Relaxed) {
            return false;
        }
        let turn = self.turns.fetch_add(1, Relaxed) + 1;
        matches!(self.fault, Fault::CutAnswer { passing } if turn >= FIRST_ANSWER + passing)
    }

    /// What becomes of the client's direction where its fault strikes.
    async fn end(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<End> {
        let fault = self.fault;
        if matches!(fault, Fault::Reset { .. }) {
            return Ok(End::Reset);
        }
        if matches!(fault, Fault::HalfClose { .. }) {
            to.shutdown().await?;
        }
        // Whatever the client still says goes nowhere, until it gives up.
        let mut nowhere = [0; 4096];
        while from.read(&mut nowhere).await? > 0 {}
        Ok(End::Reset)
    }

    async fn write(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        match self.fault {
            _ if self.calm.load(Relaxed) => {}
            Fault::Delay { ms } => sleep(Duration::from_millis(ms)).await,
            Fault::Drip { pause_ms, .. } => sleep(Duration::from_millis(pause_ms)).await,
            Fault::Rate { bits_per_s } => {
                let seconds = bytes.len() as f64 * 8.0 / bits_per_s as f64;
                sleep(Duration::from_secs_f64(seconds)).await;
            }
            _ => {}
        }
        to.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// A proxy with one kind of fault before a server that answers each message of 6 bytes with 6 bytes;
    /// what a client that sends three of them gets back, and what the server got.
    async fn exchange(kinds: &[Kind], seed: u64) -> (usize, usize) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counting = received.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                let counting = counting.clone();
                tokio::spawn(async move {
                    let mut message = [0; 6];
                    while stream.read_exact(&mut message).await.is_ok() {
                        counting.fetch_add(6, Relaxed);
                        let _ = stream.write_all(b"answer").await;
                    }
                });
            }
        });
        let menu = Menu { kinds: kinds.to_vec(), share: 1.0 };
        let listen = "127.0.0.1:0".parse().unwrap();
        let proxy = start(listen, address, menu, seed, Arc::new(|_, _| {})).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (mut back, mut answer) = (0, [0; 6]);
        for _ in 0..200 {
            if client.write_all(b"asking").await.is_err() {
                break;
            }
            match timeout(Duration::from_secs(5), client.read_exact(&mut answer)).await {
                Ok(Ok(_)) => back += 6,
                _ => break,
            }
        }
        (back, received.load(Relaxed) as usize)
    }

    #[tokio::test]
    async fn a_line_without_faults_carries_everything() {
        assert_eq!(exchange(&[], 1).await, (1200, 1200));
    }

    #[tokio::test]
    async fn of_a_cut_answer_the_server_has_what_the_client_does_not_know() {
        let (back, received) = exchange(&[Kind::CutAnswer], 3).await;
        assert_eq!(received, back + 6, "the last message arrived and was not answered");
        assert!(back >= 12);
    }

    #[tokio::test]
    async fn a_reset_breaks_a_line_in_the_middle_of_a_message() {
        for seed in 0..20 {
            let (back, received) = exchange(&[Kind::Reset], seed).await;
            if back < 1200 {
                assert_eq!(received / 6 * 6, back, "what was cut short is not answered");
                return;
            }
        }
        panic!("of twenty seeds none cuts within 1200 bytes");
    }

    #[test]
    fn every_kind_of_fault_is_told_in_the_help() {
        for kind in Kind::value_variants() {
            let help = kind.to_possible_value().and_then(|value| value.get_help().cloned());
            assert!(help.is_some(), "{kind:?}");
        }
    }
}
