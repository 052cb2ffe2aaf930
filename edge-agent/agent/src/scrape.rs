//! Where Prometheus reads the agent's numbers: `GET /metrics` over HTTP, beside the path of a frame.
//!
//! Whoever connects is a stranger. One thread serves them all, a few at a time, each for a few seconds and
//! for one request; nothing of the path waits for it.

use crate::meters::Meters;
use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    net::{TcpListener as Listener, TcpStream},
    runtime,
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Connections at the same time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Whoever has not asked by then is let go, so that those who wait come in soon.
const HEAD: Duration = Duration::from_secs(2);
/// Whoever has not read the answer by then is let go.
const CONNECTION: Duration = Duration::from_secs(10);
/// Bytes of a request's head; Prometheus sends some hundred.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How often the end of the watch is looked up.
const GLANCE: Duration = Duration::from_millis(100);
/// What Prometheus takes the page for.
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// After an error of the listener itself, such as too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// The address, taken; nobody is served yet.
pub struct Scraped {
    listener: TcpListener,
    meters: Arc<Meters>,
}

impl Scraped {
    /// Takes `address`.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn listen(address: SocketAddr, meters: Arc<Meters>) -> Result<Self> {
        let taken = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = taken
            .with_context(|| format!("[metrics] listen: {address} cannot be had; give another"))?;
        Ok(Self { listener, meters })
    }

    /// Serves until the end of the `watch`, on a thread of its own; returns that thread.
    ///
    /// # Errors
    /// What the system said.
    pub fn serve(self, over: Arc<AtomicBool>) -> Result<thread::JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let Self { listener, meters } = self;
        let listener = {
            let _in_it = runtime.enter();
            Listener::from_std(listener)?
        };
        Ok(thread::spawn(move || runtime.block_on(serve(listener, meters, &over))))
    }
}

async fn serve(listener: Listener, meters: Arc<Meters>, over: &AtomicBool) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while !over.load(Ordering::Relaxed) {
        // Nobody closes the semaphore.
        let Ok(Ok(place)) = timeout(GLANCE, places.clone().acquire_owned()).await else { continue };
        match timeout(GLANCE, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                let meters = meters.clone();
                tokio::spawn(async move {
                    // A stranger's failings are the stranger's.
                    let _ = timeout(CONNECTION, converse(stream, meters)).await;
                    drop(place);
                });
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the listener for metrics");
                sleep(AFTER_ERROR).await;
            }
            Err(_) => {}
        }
    }
}

async fn converse(stream: TcpStream, meters: Arc<Meters>) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &meters);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

fn answer(request: &Request<Incoming>, meters: &Meters) -> Response<Full<Bytes>> {
    let text = |status, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, PLAIN);
        response
    };
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => text(StatusCode::OK, meters.text()),
        ("/metrics", _) => {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET it\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refusal
        }
        _ => text(StatusCode::NOT_FOUND, "numbers are at /metrics\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net,
        time::Instant,
    };

    struct Served {
        address: SocketAddr,
        over: Arc<AtomicBool>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Served {
        fn new() -> Self {
            let meters = Arc::new(Meters::new(["gate"]));
            let scraped = Scraped::listen("127.0.0.1:0".parse().unwrap(), meters).unwrap();
            let address = scraped.listener.local_addr().unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let thread = Some(scraped.serve(over.clone()).unwrap());
            Self { address, over, thread }
        }

        fn connected(&self) -> net::TcpStream {
            let stream = net::TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        }

        fn answer(&self, request: &[u8]) -> String {
            let mut stream = self.connected();
            let _ = stream.write_all(request);
            let mut answer = Vec::new();
            // What is refused may be cut off while it is still being sent.
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.over.store(true, Ordering::Relaxed);
            self.thread.take().unwrap().join().unwrap();
        }
    }

    const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn numbers_are_told_to_whoever_asks_and_nothing_else() {
        let served = Served::new();
        let numbers = served.answer(GET);
        assert!(numbers.starts_with("HTTP/1.1 200 "), "{numbers}");
        assert!(numbers.contains("text/plain; version=0.0.4"), "{numbers}");
        assert!(numbers.contains("lookback_frames_captured_total{camera=\"gate\"} 0"), "{numbers}");
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "404"),
            (b"GET /metrics/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", "400"),
            (b"GET /metrics\r\n\r\n", "400"),
        ] {
            let answer = served.answer(request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        }
        let mut endless = GET.strip_suffix(b"\r\n").unwrap().to_vec();
        endless.extend([b'a'; 1 << 20]);
        let answer = served.answer(&endless);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(served.answer(GET).starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn those_who_only_connect_do_not_keep_others_out() {
        let served = Served::new();
        let silent: Vec<_> = (0..3 * CONNECTIONS_MAX).map(|_| served.connected()).collect();
        let slow: Vec<_> = (0..8).map(|_| served.connected()).collect();
        slow.iter().for_each(|mut stream| stream.write_all(b"GET /met").unwrap());
        let begun = Instant::now();
        assert!(served.answer(GET).starts_with("HTTP/1.1 200 "));
        assert!(begun.elapsed() < 10 * HEAD, "{:?}", begun.elapsed());
        drop((silent, slow));
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_its_setting() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Scraped::listen(address, Arc::default()).err().expect("it is taken");
        assert!(error.to_string().starts_with(&format!("[metrics] listen: {address} ")), "{error}");
    }
}
