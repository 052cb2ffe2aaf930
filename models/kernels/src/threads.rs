//! Threads that share one piece of work.
//!
//! A token takes some hundred and forty pieces of work of a tenth of a millisecond each, with a few
//! microseconds between them. To wake a sleeping thread takes longer than that, so a thread that is
//! done looks out for the next piece for a moment before it sleeps. In all else nobody waits for a
//! thread that has no core: who comes late finds the work closed.

use std::{
    cell::UnsafeCell,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How often a thread looks for work before it sleeps: some tens of microseconds.
const LOOKS: usize = 1000;

/// The threads of an engine. Clones share them.
///
/// Work is cut into many more pieces than there are threads, and each thread takes the next piece
/// when it is done with one: a thread whose core is taken away holds up nobody for longer than a
/// piece.
#[derive(Clone)]
pub struct Threads {
    /// All but the one that calls.
    others: Option<Arc<Team>>,
    count: usize,
}

impl Threads {
    /// `count` threads, the caller's included; 0 is 1. If the system gives no more threads, the
    /// caller works with those that there are.
    pub fn new(count: usize) -> Self {
        let others = Team::new(count.saturating_sub(1));
        let count = others.members.len() + 1;
        Self { others: (count > 1).then(|| Arc::new(others)), count }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `work` with every number below `pieces`, each once, on all threads; returns when all
    /// calls have returned. While the threads work for somebody else, the caller works alone.
    ///
    /// # Panics
    /// If a call does.
    pub fn share(&self, pieces: usize, work: impl Fn(usize) + Sync) {
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
        match self.others.as_ref().filter(|_| pieces > 1) {
            Some(team) => team.post.work(&take),
            None => take(),
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads", self.count)
    }
}

/// Threads that wait for work.
struct Team {
    post: Arc<Post>,
    members: Vec<JoinHandle<()>>,
}

impl Team {
    fn new(count: usize) -> Self {
        let post = Arc::new(Post::default());
        let member = |n| {
            let post = post.clone();
            thread::Builder::new().name(format!("kernels-{n}")).spawn(move || post.serve())
        };
        let members = (0..count).map_while(|n| member(n).ok()).collect();
        Self { post, members }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.post.over.store(true, Ordering::Release);
        self.post.announce(0);
        for member in self.members.drain(..) {
            // A member catches what its work throws.
            _ = member.join();
        }
    }
}

/// In the gate: work may be entered.
const OPEN: u64 = 1 << 31;
/// In the gate: how many are inside.
const INSIDE: u64 = OPEN - 1;

/// The number of the work that the gate stands for.
fn number(gate: u64) -> u64 {
    gate >> 32
}

/// Where work is given out.
#[derive(Default)]
struct Post {
    /// Number of the newest work, whether it may be entered, and how many are inside.
    gate: AtomicU64,
    /// The newest work.
    work: UnsafeCell<Option<*const (dyn Fn() + Sync)>>,
    /// Whether somebody has work done.
    busy: AtomicBool,
    /// Whether the work of a member panicked.
    failed: AtomicBool,
    over: AtomicBool,
    /// How many members sleep.
    asleep: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: `work` is written by the one that made the post busy, while the gate is closed and nobody is
// inside; it is read by those who are inside. All else can be shared by itself.
unsafe impl Sync for Post {}
// SAFETY: the pointer in `work` is followed only while the one that put it there waits.
unsafe impl Send for Post {}

impl Post {
    /// Does `work` with every member that comes in time; returns when all of them are done.
    fn work(&self, work: &(dyn Fn() + Sync)) {
        if self.busy.swap(true, Ordering::Acquire) {
            return work();
        }
        // SAFETY: the gate is closed and nobody inside, as the last one made sure who was busy. The
        // lifetime is only forgotten: `Closing` lets nobody follow the pointer after this call.
        unsafe {
            type Anyone = dyn Fn() + Sync + 'static;
            let work = std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const Anyone>(work);
            *self.work.get() = Some(work);
        }
        self.announce(OPEN);
        let closing = Closing(self);
        work();
        drop(closing);
    }

    /// Sets the gate for work of the next number, and wakes who sleeps.
    fn announce(&self, open: u64) {
        let next = number(self.gate.load(Ordering::Relaxed)) + 1;
        self.gate.store((next & u64::from(u32::MAX)) << 32 | open, Ordering::Release);
        // Whoever goes to sleep looks at the gate with this lock in hand.
        if *self.sleepers() > 0 {
            self.wake.notify_all();
        }
    }

    fn sleepers(&self) -> MutexGuard<'_, usize> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a member does all its life.
    fn serve(&self) {
        let mut known = 0;
        loop {
            known = self.await_work_after(known);
            if self.over.load(Ordering::Acquire) {
                return;
            }
            self.help_with(known);
        }
    }

    /// The number of the newest work, once it is another than `known`.
    fn await_work_after(&self, known: u64) -> u64 {
        let newest = || number(self.gate.load(Ordering::Acquire));
        for _ in 0..LOOKS {
            if newest() != known {
                return newest();
            }
            std::hint::spin_loop();
        }
        let mut asleep = self.sleepers();
        *asleep += 1;
        while newest() == known {
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        *asleep -= 1;
        newest()
    }

    /// Does the work of that number, if it may still be entered.
    fn help_with(&self, wanted: u64) {
        let enter = |gate: u64| (number(gate) == wanted && gate & OPEN != 0).then_some(gate + 1);
        if self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_err() {
            return;
        }
        // SAFETY: this thread is inside, so the work stands as it was put there.
        let work = unsafe { *self.work.get() };
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            if let Some(work) = work {
                // SAFETY: who put it there does not return while somebody is inside.
                unsafe { (*work)() }
            }
        }));
        if done.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        self.gate.fetch_sub(1, Ordering::Release);
    }
}

/// Closes the gate when dropped, and waits for who is inside: after a panic as well.
struct Closing<'a>(&'a Post);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let Self(post) = self;
        post.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while post.gate.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            if looks < LOOKS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let failed = post.failed.swap(false, Ordering::AcqRel);
        post.busy.store(false, Ordering::Release);
        assert!(!failed || thread::panicking(), "a thread of the kernels panicked");
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

    #[test]
    fn two_callers_at_once_get_all_of_their_work_done() {
        let threads = Threads::new(3);
        std::thread::scope(|scope| {
            for caller in 0..2 {
                let threads = threads.clone();
                scope.spawn(move || {
                    for round in 0..2000 {
                        let pieces = 1 + (round * 7 + caller) % 23;
                        let sum = AtomicUsize::new(0);
                        threads
                            .share(pieces, |piece| _ = sum.fetch_add(piece + 1, Ordering::Relaxed));
                        assert_eq!(sum.into_inner(), pieces * (pieces + 1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn threads_that_fell_asleep_come_back() {
        let threads = Threads::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let done = Mutex::new(std::collections::HashSet::new());
            // So many pieces, and so slow, that the other one is awake in time.
            threads.share(200, |_| {
                std::thread::sleep(std::time::Duration::from_micros(200));
                done.lock().unwrap().insert(std::thread::current().id());
            });
            assert_eq!(done.into_inner().unwrap().len(), 2);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_live_on() {
        let threads = Threads::new(2);
        for bad in 0..40 {
            let work = |piece: usize| assert!(piece != bad, "piece {piece}");
            let done = panic::catch_unwind(AssertUnwindSafe(|| threads.share(40, work)));
            assert!(done.is_err());
        }
        let done = AtomicUsize::new(0);
        threads.share(40, |_| _ = done.fetch_add(1, Ordering::Relaxed));
        assert_eq!(done.into_inner(), 40);
    }
}
