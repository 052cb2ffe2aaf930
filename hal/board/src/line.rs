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

    /// Writes the value whatever was written and whatever failed. Answers whether it is now.
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
        works
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// When a line that works at the times for which `works` is true is tried and told of, a step
    /// each 50 ms.
    fn tries(until_ms: u64, works: impl Fn(u64) -> bool) -> (Vec<u64>, Vec<(u64, LineChange)>) {
        let mut health = Health::default();
        let (mut tries, mut told) = (Vec::new(), Vec::new());
        for ms in (0..until_ms).step_by(50) {
            let now = Millis(ms);
            if health.may_try(now) {
                tries.push(ms);
                let change = health.tried(now, works(ms));
                told.extend(change.or_else(|| health.calmed(now)).map(|change| (ms, change)));
            }
        }
        (tries, told)
    }

    #[test]
    fn a_line_that_fails_is_tried_again_with_growing_pauses_and_told_once() {
        let (tries, told) = tries(30_000, |_| false);
        let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..7], [100, 200, 400, 800, 1600, 3200, 5000]);
        assert!(pauses[7..].iter().all(|&pause| pause == 5000));
        assert_eq!(told, [(0, LineChange::Failed)]);
    }

    #[test]
    fn a_line_that_fails_for_years_is_still_tried() {
        let mut health = Health { in_a_row: u32::MAX, failures: u32::MAX, ..Health::default() };
        assert!(!health.may_try(Millis(4_999)));
        assert!(health.may_try(Millis(5_000)));
        health.tried(Millis(5_000), false);
        assert!(health.may_try(Millis(10_000)));
    }

    #[test]
    fn a_line_works_again_when_it_has_for_a_while() {
        let (_, told) = tries(60_000, |ms| !(1_000..2_000).contains(&ms));
        // Tried at 1000, 1100, 1300, 1700 and 2500.
        assert_eq!(told, [(1_000, LineChange::Failed), (11_700, LineChange::Works(4))]);
    }

    #[test]
    fn a_line_that_fails_now_and_then_is_told_of_once() {
        let (_, told) = tries(60_000, |ms| ms % 1_000 != 0);
        assert_eq!(told, [(0, LineChange::Failed)]);
    }

    #[test]
    fn an_output_is_written_when_it_changes_and_when_it_failed() {
        let mut output = Output::new(Vec::new());
        let mut fails = false;
        for (ms, value, fail) in [
            (0, false, false),
            (50, false, false),
            (100, true, true),
            (150, true, false),
            (200, true, false),
            (250, true, false),
            (300, false, true),
            (400, true, false),
            (450, true, false),
        ] {
            fails = fail;
            output.set(Millis(ms), value, |writes, value| {
                writes.push((ms, value));
                if fails { Err(()) } else { Ok(()) }
            });
        }
        assert!(!fails);
        let expected = [(0, false), (100, true), (200, true), (300, false), (400, true)];
        assert_eq!(output.pin, expected, "after a failure nobody knows what the line is");
    }
}
