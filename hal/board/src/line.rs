//! A line that may fail: tried again with a pause, told once, counted.

use crate::Millis;
use embedded_hal::digital::InputPin;

/// Pause after the first failure, in milliseconds; it doubles with each further one in a row.
const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause, in milliseconds: a relay that must go off does not wait longer.
const LONGEST_PAUSE_MS: u64 = 5_000;
/// A line that worked for so long without a failure is told to work, in milliseconds. One that fails
/// now and then is told of once.
const CALM_MS: u64 = 10_000;

/// What is to be told of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineChange {
    /// It failed.
    Failed,
    /// It works again, after so many failures.
    Works(u32),
}

/// How a line does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Since the start.
    pub failures: u32,
    in_a_row: u32,
    last: Millis,
    /// Failures since it was told to fail.
    told: Option<u32>,
}

impl Health {
    /// Whether it may be tried now.
    pub fn may_try(&self, now: Millis) -> bool {
        let doubled = FIRST_PAUSE_MS << self.in_a_row.saturating_sub(1).min(16);
        self.in_a_row == 0 || now.since(self.last) >= doubled.min(LONGEST_PAUSE_MS)
    }

    /// It was tried; what is to be told of that.
    pub fn tried(&mut self, now: Millis, works: bool) -> Option<LineChange> {
        if works {
            self.in_a_row = 0;
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = now;
        let first = self.told.is_none();
        self.told = Some(self.told.unwrap_or(0).saturating_add(1));
        first.then_some(LineChange::Failed)
    }

    /// What is to be told when it has worked for a while.
    pub fn calmed(&mut self, now: Millis) -> Option<LineChange> {
        if self.in_a_row > 0 || now.since(self.last) < CALM_MS {
            return None;
        }
        self.told.take().map(LineChange::Works)
    }
}

/// A line that is written, and what was written last.
#[derive(Debug)]
pub(crate) struct Output<P, V> {
    pin: P,
    /// `None`: what it is cannot be known.
    written: Option<V>,
    pub health: Health,
}

impl<P, V: Copy + PartialEq> Output<P, V> {
    pub fn new(pin: P) -> Self {
        Self { pin, written: None, health: Health::default() }
    }

    /// Writes the value if it is not there yet. Answers whether it is now, and what to tell.
    pub fn set<E>(
        &mut self,
        now: Millis,
        value: V,
        write: impl FnOnce(&mut P, V) -> Result<(), E>,
    ) -> (bool, Option<LineChange>) {
        if self.written == Some(value) {
            return (true, self.health.calmed(now));
        }
        if !self.health.may_try(now) {
            return (false, None);
        }
        let works = write(&mut self.pin, value).is_ok();
        self.written = works.then_some(value);
        (works, self.health.tried(now, works))
    }

    /// Writes the value whatever was written and whatever failed. Answers whether it failed.
    pub fn force<E>(
        &mut self,
        now: Millis,
        value: V,
        write: impl FnOnce(&mut P) -> Result<(), E>,
    ) -> bool {
        let works = write(&mut self.pin).is_ok();
        self.written = works.then_some(value);
        // Its caller tells of every failure, known or not.
        let _ = self.health.tried(now, works);
        !works
    }
}

/// A line that is read.
#[derive(Debug)]
pub(crate) struct Input<P> {
    pin: P,
    pub health: Health,
}

impl<P: InputPin> Input<P> {
    pub fn new(pin: P) -> Self {
        Self { pin, health: Health::default() }
    }

    /// Whether it is high, if that can be known, and what to tell.
    pub fn read(&mut self, now: Millis) -> (Option<bool>, Option<LineChange>) {
        if !self.health.may_try(now) {
            return (None, None);
        }
        let level = self.pin.is_high().ok();
        let change = self.health.tried(now, level.is_some());
        (level, change.or_else(|| self.health.calmed(now)))
    }
}
