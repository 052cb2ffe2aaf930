//! A network camera for the bench: MJPEG over HTTP, on loopback, at the stream's own pace.
//!
//! It behaves as a camera does: each frame comes at its time, and whoever does not take it loses it.
//! A frame that is due waits behind at most [`BUFFERS`] others, as many as a driver would hold.

use super::stream::Stream;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Frames that wait to be taken, as in a V4L2 driver with four buffers.
const BUFFERS: usize = 4;
/// Between two parts of the answer.
pub(super) const BOUNDARY: &str = "lookback-frame";
/// A client that has not asked again by then will not.
const SETTLING: Duration = Duration::from_secs(2);
/// How long a client may take to come, and to take a frame.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was done for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Frames that came due.
    pub offered: u64,
    /// Frames that the client took.
    pub delivered: u64,
}

/// A server that feeds whoever asks.
pub(super) struct Server {
    listener: TcpListener,
    stream: Arc<Stream>,
    fps: f64,
}

/// A client that is being fed.
pub(super) struct Feeding {
    offered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u64>>,
}

impl Server {
    /// # Errors
    /// If there is no loopback network.
    pub fn new(stream: Arc<Stream>, fps: f64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .context("cannot serve the stream on 127.0.0.1")?;
        Ok(Self { listener, stream, fps })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Waits for a client that asks for a picture, and feeds it. Some ask twice and go on with the
    /// second answer: what counts is the last within [`SETTLING`].
    ///
    /// # Errors
    /// If none comes in time, or `wait` says that there is no use in waiting.
    pub fn feed_next(&self, mut wait: impl FnMut() -> Result<()>) -> Result<Feeding> {
        let (mut begun, mut newest) = (Instant::now(), None);
        loop {
            match self.listener.accept() {
                Ok((client, _)) => {
                    (begun, newest) = (Instant::now(), Some(self.feed(client)?));
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("cannot serve the stream"),
            }
            match newest {
                Some(feeding) if begun.elapsed() > SETTLING => return Ok(feeding),
                None if begun.elapsed() > PATIENCE => {
                    bail!("nobody asked for the stream within {} s", PATIENCE.as_secs())
                }
                _ => {}
            }
            wait()?;
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn feed(&self, client: TcpStream) -> Result<Feeding> {
        let client = greeted(client).context("a client went away before it got a frame")?;
        let (due, to_write) = bounded(BUFFERS);
        let (offered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        thread::spawn({
            let (offered, stop, fps) = (offered.clone(), stop.clone(), self.fps);
            move || pace(&due, &offered, &stop, fps)
        });
        let stream = self.stream.clone();
        let thread = thread::spawn(move || write(client, &stream, &to_write));
        Ok(Feeding { offered, stop, thread })
    }
}

impl Feeding {
    /// Frames that have come due so far.
    pub fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// Ends the stream behind the frames that are due.
    ///
    /// # Errors
    /// If the client went away before.
    pub fn end(self) -> Result<Given> {
        self.stop.store(true, Ordering::Relaxed);
        let delivered = match self.thread.join() {
            Ok(delivered) => delivered?,
            Err(_) => bail!("the thread that feeds a client panicked"),
        };
        Ok(Given { offered: self.offered.load(Ordering::Relaxed), delivered })
    }
}

/// Reads the request and answers that frames follow.
fn greeted(client: TcpStream) -> io::Result<TcpStream> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    client.set_nodelay(true)?;
    let mut request = BufReader::new(&client);
    let mut line = String::new();
    while request.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    (&client).write_all(
        format!(
            "HTTP/1.0 200 OK\r\nConnection: close\r\nCache-Control: no-cache\r\n\
             Content-Type: multipart/x-mixed-replace; boundary={BOUNDARY}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    Ok(client)
}

/// Says when a frame is due. Where this thread itself comes late by more than [`BUFFERS`] frames, as on
/// a machine that has too much to do, what is lost by that cannot be told from what the client lost.
fn pace(due: &Sender<u64>, offered: &AtomicU64, stop: &AtomicBool, fps: f64) {
    let begun = Instant::now();
    for number in 0.. {
        let at = Duration::from_secs_f64(number as f64 / fps);
        thread::sleep(at.saturating_sub(begun.elapsed()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        offered.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Disconnected(_)) = due.try_send(number) {
            return;
        }
    }
}

/// Writes what is due; returns how many frames that were.
fn write(mut client: TcpStream, stream: &Stream, due: &Receiver<u64>) -> Result<u64> {
    let mut delivered = 0;
    for number in due {
        let frame = stream.frame(number);
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
            frame.len()
        );
        client
            .write_all(head.as_bytes())
            .and_then(|()| client.write_all(frame))
            .and_then(|()| client.write_all(b"\r\n"))
            .context("the client that is being fed went away")?;
        delivered += 1;
    }
    client.write_all(format!("--{BOUNDARY}--\r\n").as_bytes()).ok();
    Ok(delivered)
}
