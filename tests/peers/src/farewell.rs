//! What must not outlive the program when a signal ends it: no destructor runs then, and a PostgreSQL that
//! was left behind keeps its port, its disk and its memory for ever.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::{io, process, thread};

type Task = Box<dyn FnOnce() + Send>;

/// By number; the newest is done first, as destructors would.
static TASKS: Mutex<(u64, BTreeMap<u64, Task>)> = Mutex::new((0, BTreeMap::new()));

/// Something that is done if a signal ends the program before this is dropped.
#[must_use]
pub struct Farewell(u64);

impl Farewell {
    /// `task` is done then.
    pub fn new(task: impl FnOnce() + Send + 'static) -> Self {
        let mut tasks = TASKS.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.0 += 1;
        let number = tasks.0;
        tasks.1.insert(number, Box::new(task));
        Self(number)
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        TASKS.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.0);
    }
}

/// From now on the program ends by itself after SIGINT, SIGTERM and SIGHUP, with the exit code that a shell
/// gives to such an end.
///
/// # Errors
/// If the system gives no thread or no signals.
pub fn listen() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    #[expect(clippy::disallowed_methods, reason = "what destructors would do is done by then")]
    let wait = move || {
        let Some(signal) = signals.forever().next() else { return };
        // Held until the end: whoever registers something, or is done with it, waits until then.
        let mut tasks = TASKS.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, task)) = tasks.1.pop_last() {
            task();
        }
        process::exit(128 + signal);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}
