//! Threads that share one piece of work.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The threads of an engine. Clones share them.
///
/// Work is cut into many more pieces than there are threads, and each thread takes the next piece
/// when it is done with one: a thread whose core is taken away holds up nobody for longer than a
/// piece. Nobody spins while waiting.
#[derive(Clone)]
pub struct Threads {
    /// All but the one that calls.
    others: Option<Arc<ThreadPool>>,
    count: usize,
}

impl Threads {
    /// `count` threads, the caller's included; 0 is 1. If the system gives no more threads, the
    /// caller works alone.
    pub fn new(count: usize) -> Self {
        let others = (count > 1).then(|| {
            let name = |n| format!("kernels-{n}");
            ThreadPoolBuilder::new().num_threads(count - 1).thread_name(name).build()
        });
        let others = others.and_then(Result::ok).map(Arc::new);
        let count = if others.is_some() { count } else { 1 };
        Self { others, count }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `work` with every number below `pieces`, each once, on all threads; returns when all
    /// calls have returned.
    pub fn share(&self, pieces: usize, work: impl Fn(usize) + Sync) {
        let Some(others) = self.others.as_ref().filter(|_| pieces > 1) else {
            return (0..pieces).for_each(work);
        };
        let next = AtomicUsize::new(0);
        let take = || {
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return;
                }
                work(piece);
            }
        };
        others.in_place_scope(|scope| {
            for _ in 1..self.count.min(pieces) {
                scope.spawn(|_| take());
            }
            take();
        });
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads", self.count)
    }
}

/// Rows of a result that several threads write, each its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    whole: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a slice that could be sent; what keeps threads apart is demanded by `part`.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(whole: &'a mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), len: whole.len(), whole: std::marker::PhantomData }
    }

    /// `len` elements from `start` on.
    ///
    /// # Safety
    /// No two parts that exist at a time may overlap.
    ///
    /// # Panics
    /// If they are not there.
    pub unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len);
        // SAFETY: within the slice that this was made from, and nobody else has it, as demanded.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_piece_is_done_once_whatever_the_number_of_threads() {
        for count in [0, 1, 2, 5] {
            let threads = Threads::new(count);
            for pieces in [0, 1, 2, 100] {
                let done = Mutex::new(vec![0; pieces]);
                threads.share(pieces, |piece| done.lock().unwrap()[piece] += 1);
                assert_eq!(done.into_inner().unwrap(), vec![1; pieces]);
            }
        }
    }
}
