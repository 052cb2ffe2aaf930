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
    /// Microseconds by which the stream was put off, since this process did not get to run.
    pub stalled_us: u64,
}

/// What is counted while a client is fed.
#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    stalled_us: AtomicU64,
}

/// A server that feeds whoever asks.
pub(super) struct Server {
    listener: TcpListener,
    stream: Arc<Stream>,
    fps: f64,
}

/// A client that is being fed.
pub(super) struct Feeding {
    counts: Arc<Counts>,
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
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        thread::spawn({
            let (counts, stop, fps) = (counts.clone(), stop.clone(), self.fps);
            move || pace(&due, &counts, &stop, fps)
        });
        let stream = self.stream.clone();
        let thread = thread::spawn(move || write(client, &stream, &to_write));
        Ok(Feeding { counts, stop, thread })
    }
}

impl Feeding {
    /// Frames that have come due so far.
    pub fn offered(&self) -> u64 {
        self.counts.offered.load(Ordering::Relaxed)
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
        let stalled_us = self.counts.stalled_us.load(Ordering::Relaxed);
        let offered = self.counts.offered.load(Ordering::Relaxed);
        Ok(Given { offered, delivered, stalled_us })
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

/// Says when a frame is due, and adds to `stalled_us` what it came late by.
fn pace(due: &Sender<u64>, counts: &Counts, stop: &AtomicBool, fps: f64) {
    let begun = Instant::now();
    let mut schedule = Schedule::new(fps);
    for number in 0.. {
        thread::sleep(schedule.next.saturating_sub(begun.elapsed()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let stalled = schedule.come(begun.elapsed());
        counts.stalled_us.fetch_add(stalled.as_micros() as u64, Ordering::Relaxed);
        counts.offered.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Disconnected(_)) = due.try_send(number) {
            return;
        }
    }
}

/// When the next frame is due. A thread that did not run for longer than a frame lasts, on a machine that
/// has too much to do, would otherwise make up for it by frames in a burst, as no camera does, and
/// what is lost by that would look like the client's loss.
struct Schedule {
    interval: Duration,
    next: Duration,
}

impl Schedule {
    fn new(fps: f64) -> Self {
        Self { interval: Duration::from_secs_f64(fps.recip()), next: Duration::ZERO }
    }

    /// The frame that was due is there at `now`; says by how much all that follow are put off.
    fn come(&mut self, now: Duration) -> Duration {
        let late = now.saturating_sub(self.next);
        let put_off = if late > self.interval { late } else { Duration::ZERO };
        self.next += self.interval + put_off;
        put_off
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

#[cfg(test)]
mod tests {
    use super::{super::reader::StreamCamera, *};
    use hal_camera::{Camera, Capture};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_thread_that_did_not_run_puts_the_stream_off_and_bursts_nothing() {
        let mut schedule = Schedule::new(10.0);
        let put_off: Vec<Duration> =
            [0, 120, 290, 750, 860, 950].map(|now| schedule.come(ms(now))).to_vec();
        // Late by less than a frame is made up for; the fourth came 450 ms late.
        assert_eq!(put_off, [ms(0), ms(0), ms(0), ms(450), ms(0), ms(0)]);
        assert_eq!(schedule.next, ms(1050));
    }

    fn served() -> Server {
        Server::new(Arc::new(Stream::make((64, 64), 2.0, |_| Ok(())).unwrap()), 200.0).unwrap()
    }

    #[test]
    fn who_takes_every_frame_gets_every_frame() {
        let server = served();
        let address = server.address().unwrap();
        let reader = thread::spawn(move || {
            let mut camera = StreamCamera::open(address, (64, 64)).unwrap();
            let mut taken = 0;
            while let Capture::Frame(frame) = camera.capture().unwrap() {
                assert!(hal_camera::is_jpeg(&frame.bytes));
                taken += 1;
            }
            taken
        });
        let feeding = server.feed_next(|| Ok(())).unwrap();
        let given = feeding.end().unwrap();
        assert_eq!(reader.join().unwrap(), given.delivered);
        assert!(given.offered >= 10 && given.delivered >= given.offered / 2, "{given:?}");
    }

    #[test]
    fn what_a_client_does_not_take_in_time_is_offered_and_not_delivered() {
        // Large enough that no socket holds a second of them.
        let stream = Stream::make((1920, 1080), 1.0, |_| Ok(())).unwrap();
        let server = Server::new(Arc::new(stream), 200.0).unwrap();
        let mut client = TcpStream::connect(server.address().unwrap()).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            io::copy(&mut client, &mut io::sink()).unwrap()
        });
        let given = server.feed_next(|| Ok(())).and_then(Feeding::end).unwrap();
        assert!(given.delivered < given.offered && given.delivered > 0, "{given:?}");
        assert!(reader.join().unwrap() > given.delivered * 50_000);
    }

    #[test]
    fn nobody_who_asks_is_no_reason_to_wait_where_there_is_none() {
        let refused = served().feed_next(|| bail!("the peer ended"));
        assert_eq!(refused.err().unwrap().to_string(), "the peer ended");
    }
}
