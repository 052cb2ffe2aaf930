//! The bench's network camera as a [`Camera`]: reads MJPEG over HTTP from [`super::server`].

use anyhow::{Context, Result};
use hal_camera::{Camera, CameraError, Capture, Encoding, Frame, MediaTime};
use hal_linux::{Clock, Now, SystemClock};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// No frame for so long is the end.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any camera's frame; a length in a header is believed up to here.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A camera that another process plays.
pub(super) struct StreamCamera {
    from: BufReader<TcpStream>,
    address: SocketAddr,
    size: (u16, u16),
    first: Option<MediaTime>,
}

impl StreamCamera {
    /// Asks the server at `address` for its stream of frames of `size`.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn open(address: SocketAddr, size: (u16, u16)) -> Result<Self> {
        let mut stream = TcpStream::connect(address).context("the bench's stream is not there")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        Ok(Self { from: BufReader::new(stream), address, size, first: None })
    }

    /// The bytes of the next frame; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            if self.from.read_line(&mut line)? == 0 || line.trim_end().ends_with("--") {
                return Ok(None);
            }
            let text = line.trim_end();
            if let Some(value) = text.strip_prefix("Content-Length:") {
                length = value.trim().parse().ok().filter(|&length| length <= FRAME_BYTES_MAX);
            } else if text.is_empty()
                && let Some(length) = length
            {
                let mut bytes = vec![0; length];
                self.from.read_exact(&mut bytes)?;
                return Ok(Some(bytes));
            }
        }
    }
}

impl Camera for StreamCamera {
    fn capture(&mut self) -> Result<Capture, CameraError> {
        match self.next() {
            Ok(Some(bytes)) => {
                let Now { media, wall } = SystemClock.now();
                let first = *self.first.get_or_insert(media);
                Ok(Capture::Frame(Frame {
                    media_time: MediaTime(media.0 - first.0),
                    wall_time: wall,
                    width: self.size.0,
                    height: self.size.1,
                    encoding: Encoding::Jpeg,
                    bytes,
                }))
            }
            // The server ends the stream; how many frames came tells whether it was whole.
            Ok(None) | Err(_) => Ok(Capture::End),
        }
    }

    fn describe(&self) -> String {
        format!("http://{} (MJPG {}x{})", self.address, self.size.0, self.size.1)
    }
}
