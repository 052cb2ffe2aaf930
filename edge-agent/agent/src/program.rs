//! Running another program that is not trusted to end, nor to be brief. Never a shell.

use crossbeam_channel::bounded;
use std::{
    ffi::OsStr,
    io::{self, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often it is looked whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);
/// What it has said when it ended is there within this.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Whoever says more is not listened to any further.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// What came of a program.
pub struct Said {
    /// How it ended; `None`: it did not in its time, and was ended.
    pub status: Option<ExitStatus>,
    /// The beginning of what it said on its standard output.
    pub out: String,
    /// And on its standard error.
    pub err: String,
}

/// Runs `program` for at most the time `limit`, with messages in English.
///
/// # Errors
/// If it cannot be started, [`io::ErrorKind::NotFound`] if there is none.
pub fn run(program: &Path, arguments: &[&OsStr], limit: Duration) -> io::Result<Said> {
    let mut child = Command::new(program)
        .args(arguments)
        // What it says is looked through for words.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (said, heard) = bounded(2);
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for (which, pipe) in pipes.into_iter().enumerate() {
        let (Some(pipe), said) = (pipe, said.clone()) else { continue };
        // Beyond its bound nobody listens any more, and who goes on talking is ended by that.
        thread::spawn(move || said.send((which, beginning(pipe))));
    }
    let status = wait(&mut child, limit)?;
    drop(said);
    // A child of the program may hold the pipe open; nobody waits for that.
    let [mut out, mut err] = [String::new(), String::new()];
    while let Ok((which, text)) = heard.recv_timeout(LAST_WORDS) {
        *if which == 0 { &mut out } else { &mut err } = text;
    }
    Ok(Said { status, out, err })
}

/// As much as may be said.
fn beginning(pipe: Box<dyn Read + Send>) -> String {
    let mut bytes = vec![];
    // What came before it broke off counts.
    let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How it ended; `None`: it did not, and was ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(GLANCE);
    }
}
