//! A web server of plain files at the far end of a slow line that fails: what a camera far out fetches from.

use crate::dice::Dice;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What goes onto the line at once: a few packets.
const PIECE_BYTES: usize = 8 << 10;
/// A line that stood still for longer, since nobody read, does not make up for it.
const LATE_MAX: Duration = Duration::from_millis(100);

/// What the line is like.
#[derive(Clone, Copy, Debug)]
pub struct LineTerms {
    /// How much goes through it, for all connections together.
    pub bits_per_s: f64,
    /// How long a request takes to get there and its answer to begin.
    pub latency: Duration,
    /// The share of requests that fail: half of them are refused with 503, the others break in the middle.
    pub failing: f64,
    /// The same seed fails the same requests.
    pub seed: u64,
}

/// What was asked for, and what went over the line.
#[derive(Debug, Default)]
pub struct Served {
    /// Requests.
    pub requests: AtomicU64,
    /// Those that were refused.
    pub refused: AtomicU64,
    /// Those that broke in the middle.
    pub broken: AtomicU64,
    /// Bytes of files under `packs/`.
    pub pack_bytes: AtomicU64,
    /// Bytes of all files.
    pub bytes: AtomicU64,
}

/// A server that runs until the program ends.
pub struct Shelf {
    /// Where the files are.
    pub address: String,
    /// What it did so far.
    pub served: Arc<Served>,
}

struct Line {
    terms: LineTerms,
    /// When the line is free again.
    free: Mutex<Instant>,
    dice: Mutex<Dice>,
}

impl Shelf {
    /// Serves the files in `folder` over such a line.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn open(folder: &Path, terms: LineTerms) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        let address = format!("http://{}", listener.local_addr()?);
        let line = Arc::new(Line {
            terms,
            free: Mutex::new(Instant::now()),
            dice: Mutex::new(Dice::new(terms.seed)),
        });
        let (served, folder) = (Arc::new(Served::default()), folder.to_owned());
        let counts = served.clone();
        thread::Builder::new().name("shelf".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let (line, counts, folder) = (line.clone(), counts.clone(), folder.clone());
                thread::spawn(move || while line.serve(&stream, &folder, &counts).is_some() {});
            }
        })?;
        Ok(Self { address, served })
    }
}

/// What was asked for.
struct Asked {
    path: PathBuf,
    of_pack: bool,
    range: Option<(u64, u64)>,
}

impl Asked {
    fn read(stream: &TcpStream) -> Option<Self> {
        let (mut asked, mut line) = (None, String::new());
        let mut reader = BufReader::new(stream);
        let mut range = None;
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("GET /") {
                asked = Some(rest.split(' ').next()?.to_owned());
            } else if let Some(told) = lower.strip_prefix("range: bytes=") {
                let (first, last) = told.split_once('-')?;
                range = Some((first.parse().ok()?, last.parse().ok()?));
            } else if lower.is_empty() {
                break;
            }
        }
        let path = PathBuf::from(asked?);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let of_pack = path.starts_with("packs");
        plain.then_some(Self { path, of_pack, range })
    }
}

impl Line {
    /// Answers one request; `None`: the connection is over.
    fn serve(&self, stream: &TcpStream, folder: &Path, served: &Served) -> Option<()> {
        let asked = Asked::read(stream)?;
        served.requests.fetch_add(1, Relaxed);
        thread::sleep(self.terms.latency);
        let (fails, refused) = {
            let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
            (dice.happens(self.terms.failing), dice.happens(0.5))
        };
        let mut to = stream;
        if fails && refused {
            served.refused.fetch_add(1, Relaxed);
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
            return to.write_all(answer).ok();
        }
        let Ok(mut file) = File::open(folder.join(&asked.path)) else {
            return to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
        };
        let whole = file.metadata().ok()?.len();
        let (head, first, bytes) = match asked.range {
            None => ("200 OK".to_owned(), 0, whole),
            Some((first, last)) => {
                let last = last.min(whole.saturating_sub(1));
                let head =
                    format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}");
                (head, first, (last + 1).saturating_sub(first))
            }
        };
        write!(to, "HTTP/1.1 {head}\r\nContent-Length: {bytes}\r\n\r\n").ok()?;
        file.seek(SeekFrom::Start(first)).ok()?;
        let (mut left, mut piece) = (bytes, [0; PIECE_BYTES]);
        while left > 0 {
            if fails && left <= bytes / 2 {
                served.broken.fetch_add(1, Relaxed);
                return None;
            }
            let now = left.min(PIECE_BYTES as u64) as usize;
            file.read_exact(&mut piece[..now]).ok()?;
            self.wait_for(now, left == bytes);
            to.write_all(&piece[..now]).ok()?;
            served.bytes.fetch_add(now as u64, Relaxed);
            if asked.of_pack {
                served.pack_bytes.fetch_add(now as u64, Relaxed);
            }
            left -= now as u64;
        }
        Some(())
    }

    /// Waits until so many bytes have gone through. A sleep ends late; within an answer the line makes up for that.
    fn wait_for(&self, bytes: usize, is_first: bool) {
        let takes = Duration::from_secs_f64(bytes as f64 * 8.0 / self.terms.bits_per_s);
        let late = if is_first { Duration::ZERO } else { LATE_MAX };
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *free = (*free).max(now.checked_sub(late).unwrap_or(now)) + takes;
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(bits_per_s: f64, failing: f64) -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("packs")).unwrap();
        std::fs::write(folder.path().join("packs/a"), vec![7; 100_000]).unwrap();
        let latency = Duration::ZERO;
        let shelf = Shelf::open(folder.path(), LineTerms { bits_per_s, latency, failing, seed: 1 })
            .unwrap();
        (folder, shelf)
    }

    fn get(shelf: &Shelf, range: &str) -> Vec<u8> {
        let mut stream =
            TcpStream::connect(shelf.address.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET /packs/a HTTP/1.1\r\n{range}\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut got = vec![];
        let _ = stream.read_to_end(&mut got);
        got
    }

    #[test]
    fn a_range_comes_at_the_speed_of_the_line() {
        let (_folder, shelf) = shelf(800_000.0, 0.0);
        let begun = Instant::now();
        let answer = get(&shelf, "Range: bytes=10-20009\r\n");
        assert!(answer.starts_with(b"HTTP/1.1 206") && answer.ends_with(&[7; 20_000]));
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        assert_eq!(shelf.served.pack_bytes.load(Relaxed), 20_000);
    }

    #[test]
    fn of_requests_that_fail_some_are_refused_and_some_break() {
        let (_folder, shelf) = shelf(1e9, 1.0);
        for _ in 0..16 {
            assert!(get(&shelf, "").len() < 100_000);
        }
        assert!(shelf.served.refused.load(Relaxed) > 0 && shelf.served.broken.load(Relaxed) > 0);
    }
}
