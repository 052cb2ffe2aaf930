//! Many cameras on few threads.
//!
//! The uplink blocks while it talks, and a camera that has nothing to say waits: a thread for each of
//! thousands would mostly sleep, and a runtime of tasks would need another uplink than the one that is to be
//! tested. So a bounded number of workers takes whichever camera is due next; a worker that hangs on a stalled
//! line costs a stack and nothing else. Files are open only for cameras whose turn it is, or is soon.

use crate::camera::{Camera, Turn};
use anyhow::{Result, anyhow};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What a worker needs: SQLite, JSON and TLS, none of it deep.
const STACK_BYTES: usize = 512 << 10;

struct Queue {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Cameras that are in the queue or have their turn.
    left: usize,
    failed: Option<anyhow::Error>,
}

/// Gives every camera its turns, `workers` of them at a time, until each is done or `end` has come. `first`
/// says when each is due first. Returns how many were not done.
///
/// # Errors
/// The first that a camera had.
pub fn run(
    cameras: &[Mutex<Camera>],
    workers: usize,
    first: &[Duration],
    end: Instant,
    turn: impl Fn(&mut Camera, Duration) -> Result<Turn> + Sync,
) -> Result<usize> {
    let begun = Instant::now();
    let due = first.iter().enumerate().map(|(n, after)| Reverse((begun + *after, n))).collect();
    let queue = Mutex::new(Queue { due, left: cameras.len(), failed: None });
    let news = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(|e| e.into_inner());
    let next = || {
        let mut queue = lock();
        loop {
            let now = Instant::now();
            if queue.left == 0 || now >= end || queue.failed.is_some() {
                return None;
            }
            let wait = match queue.due.peek() {
                Some(Reverse((at, n))) if *at <= now => {
                    let n = *n;
                    queue.due.pop();
                    return Some(n);
                }
                Some(Reverse((at, _))) => *at - now,
                None => Duration::from_secs(1),
            };
            let wait = wait.min(end - now).min(Duration::from_secs(1));
            queue = news.wait_timeout(queue, wait).unwrap_or_else(|e| e.into_inner()).0;
        }
    };
    let work = || {
        while let Some(n) = next() {
            let mut camera = cameras[n].lock().unwrap_or_else(|e| e.into_inner());
            let turned = turn(&mut camera, begun.elapsed());
            drop(camera);
            let mut queue = lock();
            match turned {
                Ok(Turn::Again(wait)) => queue.due.push(Reverse((Instant::now() + wait, n))),
                Ok(Turn::Done) => queue.left -= 1,
                Err(error) => queue.failed = Some(error.context(format!("camera {n}"))),
            }
            drop(queue);
            news.notify_one();
        }
        news.notify_all();
    };
    thread::scope(|scope| {
        let named = || thread::Builder::new().name("cameras".to_owned()).stack_size(STACK_BYTES);
        let threads: Vec<_> =
            (0..workers).filter_map(|_| named().spawn_scoped(scope, work).ok()).collect();
        let began = !threads.is_empty();
        began.then_some(()).ok_or_else(|| anyhow!("the system gives no threads"))
    })?;
    let mut queue = lock();
    match queue.failed.take() {
        Some(error) => Err(error),
        None => Ok(queue.left),
    }
}
