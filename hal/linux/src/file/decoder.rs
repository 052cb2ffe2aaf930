//! An ffmpeg process that writes grey frames into a pipe.

use super::probe::{as_url, last_lines, not_started};
use hal_camera::{CameraError, MediaTime};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for the first frame: ffmpeg may have to read far into a large file for it.
const FIRST_FRAME: Duration = Duration::from_secs(60);
/// The header and the line before each frame are shorter; more is not from ffmpeg.
const LONGEST_LINE: usize = 512;
/// Larger pictures are not from a camera, and would be a quarter of a small board's memory each.
const MOST_PIXELS: usize = 64 << 20;
/// What is kept of ffmpeg's complaints; a damaged film can cause one for every frame.
const COMPLAINT_LINES: usize = 2;

/// What the stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub width: u16,
    pub height: u16,
    /// Frames a second, as a fraction.
    fps: (i64, i64),
}

impl Header {
    /// When frame `n` was taken; the first is 0.
    pub fn time_of(self, n: u64) -> MediaTime {
        let (num, den) = (i128::from(self.fps.0), i128::from(self.fps.1));
        MediaTime((i128::from(n) * 1_000_000 * den / num) as i64)
    }
}

/// What one reading gave.
pub(super) enum Read {
    /// A frame's pixels, packed.
    Frame(Vec<u8>),
    /// There are no more; [`Decoder::finish`] says whether that is well.
    End,
    /// Nothing yet; ask again.
    TimedOut,
}

/// The process and what was read of its output so far. Dropping it ends the process.
pub(super) struct Decoder {
    child: Child,
    output: ChildStdout,
    complaints: Option<JoinHandle<String>>,
    pub header: Header,
    /// Bytes read and not yet delivered: the beginning of the next frame.
    pending: Vec<u8>,
}

impl Decoder {
    /// Starts ffmpeg on the file and waits for the first frame.
    pub fn start(ffmpeg: &Path, name: &str, fps: f64) -> Result<Self, CameraError> {
        let mut child = Command::new(ffmpeg)
            .args(["-nostdin", "-hide_banner", "-v", "error", "-protocol_whitelist", "file"])
            .args(["-i", &as_url(name), "-map", "0:V:0"])
            // From time 0 of the file, even if its video begins later: times stay the file's own.
            .args(["-vf", &format!("fps={fps}:start_time=0")])
            .args(["-pix_fmt", "gray", "-f", "yuv4mpegpipe", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| not_started(name, ffmpeg, &error))?;
        let output = child.stdout.take().expect("asked for a pipe");
        let stderr = child.stderr.take().expect("asked for a pipe");
        let complaints = Some(std::thread::spawn(move || collect(stderr)));
        let header = Header { width: 0, height: 0, fps: (1, 1) };
        let mut decoder = Self { child, output, complaints, header, pending: Vec::new() };
        decoder.header = decoder.read_header(name)?;
        Ok(decoder)
    }

    fn read_header(&mut self, name: &str) -> Result<Header, CameraError> {
        let unusable = |reason| CameraError::Unusable { name: name.to_string(), reason };
        let deadline = Instant::now() + FIRST_FRAME;
        loop {
            if let Some(line) = self.take_line() {
                let line = line.map_err(|()| unusable("ffmpeg wrote no YUV4MPEG2".to_string()))?;
                return parse_header(&line).map_err(unusable);
            }
            match self.fill(LONGEST_LINE, deadline) {
                Fill::More => {}
                Fill::End => {
                    let said = self.finish().unwrap_or_else(|| "no frame in it".to_string());
                    return Err(unusable(format!("ffmpeg cannot decode it: {said}")));
                }
                Fill::TimedOut => {
                    let waited_ms = FIRST_FRAME.as_millis() as u64;
                    return Err(CameraError::Stalled { name: name.to_string(), waited_ms });
                }
            }
        }
    }

    /// The next frame; waits at most `timeout`.
    pub fn read(&mut self, timeout: Duration) -> Read {
        let deadline = Instant::now() + timeout;
        let size = usize::from(self.header.width) * usize::from(self.header.height);
        loop {
            // `FRAME`, options, a line feed, then the pixels.
            let line_end = self.pending.iter().take(LONGEST_LINE).position(|&b| b == b'\n');
            if let Some(end) = line_end
                && self.pending.len() > end + size
            {
                let rest = self.pending.split_off(end + 1 + size);
                let mut frame = std::mem::replace(&mut self.pending, rest);
                frame.drain(..=end);
                return Read::Frame(frame);
            }
            let wanted = (line_end.map_or(LONGEST_LINE, |end| end + 1) + size).max(1);
            match self.fill(wanted, deadline) {
                Fill::More => {}
                Fill::End => return Read::End,
                Fill::TimedOut => return Read::TimedOut,
            }
        }
    }

    /// After [`Read::End`]: waits for the process and returns what is wrong, if anything is.
    pub fn finish(&mut self) -> Option<String> {
        // Its output has ended, so it is ending; if it is not, it is made to.
        let deadline = Instant::now() + Duration::from_secs(5);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => {
                    self.stop();
                    return Some("it closed its output and went on".to_string());
                }
            }
        };
        let said = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        match (status.success(), said.is_empty()) {
            (true, true) if self.pending.is_empty() => None,
            (true, true) => Some("it ended within a frame".to_string()),
            (_, false) => Some(last_lines(&said)),
            (false, true) => Some(status.to_string()),
        }
    }

    /// Reads once, waiting until `deadline`; `wanted` bytes in all will be needed soon.
    fn fill(&mut self, wanted: usize, deadline: Instant) -> Fill {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::new(&self.output, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Fill::TimedOut,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                // Nothing a pipe of ours can cause; treated as its end, and `finish` reaps.
                Err(_) => return Fill::End,
            }
            let filled = self.pending.len();
            self.pending.resize(filled + wanted.saturating_sub(filled).clamp(1, 1 << 20), 0);
            let read = self.output.read(&mut self.pending[filled..]);
            self.pending.truncate(filled + read.as_ref().map_or(0, |&n| n));
            match read {
                Ok(0) => return Fill::End,
                Ok(_) => return Fill::More,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Fill::End,
            }
        }
    }

    /// The first line of what is pending, if it is complete; an error if it is too long.
    fn take_line(&mut self) -> Option<Result<String, ()>> {
        match self.pending.iter().position(|&b| b == b'\n') {
            Some(end) => {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                Some(Ok(String::from_utf8_lossy(&line[..end]).into_owned()))
            }
            None => (self.pending.len() >= LONGEST_LINE).then_some(Err(())),
        }
    }

    #[cfg(test)]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    fn stop(&mut self) {
        // Both fail only if it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.complaints.take() {
            let _ = thread.join();
        }
    }
}

enum Fill {
    More,
    End,
    TimedOut,
}

fn parse_header(line: &str) -> Result<Header, String> {
    let strange = || format!("ffmpeg wrote a strange header: {}", line.escape_debug());
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("YUV4MPEG2") {
        return Err(strange());
    }
    let (mut width, mut height, mut fps, mut grey) = (0usize, 0usize, (0i64, 0i64), false);
    for word in words.filter(|word| word.is_char_boundary(1)) {
        let (tag, value) = word.split_at(1);
        match tag {
            "W" => width = value.parse().map_err(|_| strange())?,
            "H" => height = value.parse().map_err(|_| strange())?,
            "F" => {
                let (num, den) = value.split_once(':').ok_or_else(strange)?;
                let number = |text: &str| text.parse::<i64>().map_err(|_| strange());
                fps = (number(num)?, number(den)?);
            }
            "C" => grey = value == "mono",
            _ => {}
        }
    }
    if width == 0 || height == 0 || fps.0 <= 0 || fps.1 <= 0 || !grey {
        return Err(strange());
    }
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(w), Ok(h)) if width * height <= MOST_PIXELS => Ok(Header { width: w, height: h, fps }),
        _ => Err(format!("its pictures of {width}x{height} are larger than any camera's")),
    }
}

/// Reads what ffmpeg complains to its end (else it would wait for us) and keeps the last lines.
fn collect(stderr: ChildStderr) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // By bytes: file names in it need not be UTF-8. No line of ffmpeg's is long.
    while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim().to_string();
        line.clear();
        if !text.is_empty() {
            kept.push(text);
        }
        if kept.len() > COMPLAINT_LINES {
            kept.remove(0);
        }
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_size_and_exact_frame_times() {
        let header = parse_header("YUV4MPEG2 W64 H48 F30000:1001 Ip A1:1 Cmono XCOLORRANGE=FULL");
        let header = header.unwrap();
        assert_eq!((header.width, header.height), (64, 48));
        assert_eq!(header.time_of(0), MediaTime(0));
        assert_eq!(header.time_of(30_000), MediaTime(1_001_000_000));
    }

    #[test]
    fn a_header_that_makes_no_sense_is_refused() {
        for line in [
            "",
            "RIFF",
            "YUV4MPEG2 W64 H48 F0:1 Cmono",
            "YUV4MPEG2 W64 H48 F8:1 C420jpeg",
            "YUV4MPEG2 W-1 H48 F8:1 Cmono",
            "YUV4MPEG2 W99999 H2 F8:1 Cmono",
            "YUV4MPEG2 W65535 H65535 F8:1 Cmono",
        ] {
            assert!(parse_header(line).is_err(), "{line}");
        }
    }
}
