//! What ffprobe says of a file before it is decoded.

use hal_camera::CameraError;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// The length in seconds that the file states for its video, if it does.
///
/// # Errors
/// [`CameraError::Unusable`] if the file holds no video.
pub(super) fn probe(ffprobe: &Path, name: &str) -> Result<Option<f64>, CameraError> {
    let unusable = |reason: String| Err(CameraError::Unusable { name: name.to_string(), reason });
    let output = Command::new(ffprobe)
        .args(["-v", "error", "-protocol_whitelist", "file", "-select_streams", "V:0"])
        .args([
            "-show_entries",
            "format=format_name,nb_streams,duration:stream=duration:stream_tags=DURATION",
        ])
        .args(["-of", "flat"])
        .arg(as_url(name))
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return Err(not_started(name, ffprobe, &error)),
    };
    if !output.status.success() {
        let said = last_lines(&String::from_utf8_lossy(&output.stderr));
        return unusable(format!(
            "ffmpeg cannot read it as a video ({said}); play it elsewhere to see whether it is \
             whole, or convert it"
        ));
    }
    let facts = Facts(String::from_utf8_lossy(&output.stdout).into_owned());
    // ffmpeg renders text files as if they were a terminal; nobody means that.
    if facts.get("format.format_name").is_some_and(|format| format == "tty") {
        return unusable("it is text, not a video; give a video file".to_string());
    }
    if !facts.0.contains("streams.stream.0") {
        return unusable("there is no video in it, only other streams; give a video file".into());
    }
    let stated = facts
        .seconds("streams.stream.0.duration")
        .or_else(|| facts.seconds("streams.stream.0.tags.DURATION"));
    // The length of the whole is that of the video only if there is nothing else: sound may be
    // longer.
    let alone = facts.get("format.nb_streams").is_some_and(|n| n == "1");
    Ok(stated.or_else(|| alone.then(|| facts.seconds("format.duration")).flatten()))
}

/// A path as ffmpeg's URL of a local file, so that no path is taken for an option or a protocol.
pub(super) fn as_url(name: &str) -> String {
    format!("file:{name}")
}

/// The error for a program that could not be started.
pub(super) fn not_started(name: &str, program: &Path, error: &io::Error) -> CameraError {
    let program = program.display();
    let reason = if error.kind() == io::ErrorKind::NotFound {
        format!("video files are read by `{program}`, which is not installed: apt install ffmpeg")
    } else {
        format!("`{program}` cannot be started: {error}")
    };
    CameraError::Unusable { name: name.to_string(), reason }
}

/// The end of what a program complained, on one line: its last two lines (the last alone is often
/// `Invalid data found`, the one before says which), without the addresses that ffmpeg puts before
/// them.
pub(super) fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(without_address).filter(|l| !l.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(2)..].join("; ");
    match last.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &last[..end]),
        None if last.is_empty() => "no reason given".to_string(),
        None => last,
    }
}

/// `[mov,mp4 @ 0x5581] moov atom not found` without the brackets.
fn without_address(line: &str) -> &str {
    let line = line.trim();
    match line.split_once("] ") {
        Some((module, rest)) if module.starts_with('[') && module.contains(" @ 0x") => {
            without_address(rest)
        }
        _ => line,
    }
}

/// Lines `key="value"`.
struct Facts(String);

impl Facts {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?;
            Some(value.trim_matches('"'))
        })
    }

    /// Seconds written as `12.5` or as `00:00:12.5`.
    fn seconds(&self, key: &str) -> Option<f64> {
        let parts = self.get(key)?.split(':').map(|part| part.trim().parse::<f64>().ok());
        parts.into_iter().try_fold(0.0, |sum, part| Some(sum * 60.0 + part?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_length_is_read_in_both_notations() {
        let facts = Facts("a=\"12.5\"\nb=\"01:02:03.5\"\nc=\"N/A\"\nab=\"7\"\n".to_string());
        assert_eq!(facts.seconds("a"), Some(12.5));
        assert_eq!(facts.seconds("b"), Some(3723.5));
        assert_eq!(facts.seconds("c"), None);
        assert_eq!(facts.seconds("d"), None);
    }

    #[test]
    fn a_complaint_is_the_last_two_lines_without_addresses() {
        let stderr = "one\n[mov,mp4 @ 0x55d0] [x @ 0x1] moov atom not found\n\nx: Invalid data\n";
        assert_eq!(last_lines(stderr), "moov atom not found; x: Invalid data");
        assert_eq!(last_lines(""), "no reason given");
        assert_eq!(last_lines(&"é".repeat(400)).chars().count(), 301);
    }
}
