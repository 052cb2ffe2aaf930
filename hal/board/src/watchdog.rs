//! Whether the hardware watchdog is kicked: only while every part of the agent makes progress.
//!
//! A watchdog that a timer kicks guards the timer. This one is kicked as long as capture, store and
//! inquiry do what they are there for; which of them stands still is told before the board resets.

use crate::Millis;
use heapless::Vec;

/// Cameras that a board has at most.
pub const CAMERAS_MAX: usize = 4;

/// Parts that are watched: the cameras, the store, the inquiry.
const PARTS: usize = CAMERAS_MAX + 2;

/// A part of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Part {
    /// The thread of the camera with this number, from 0.
    Capture(u8),
    /// The writer of the frame store.
    Store,
    /// The inference worker.
    Inquiry,
}

/// What a part shows of its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is due, or there is no such part. To be said by whoever hands out the work: a part
    /// that hangs cannot say that it does not.
    Idle,
    /// Another number than before is progress. What counts is that the part answers: a capture
    /// thread counts frames and attempts to get its camera back alike.
    Count(u64),
}

/// The progress of all parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Of each camera's thread.
    pub capture: [Pace; CAMERAS_MAX],
    /// Of the frame store's writer.
    pub store: Pace,
    /// Of the inference worker.
    pub inquiry: Pace,
}

impl Default for Progress {
    /// One camera, and no part that has done anything: whoever forgets to report is not kicked for.
    fn default() -> Self {
        let mut capture = [Pace::Idle; CAMERAS_MAX];
        capture[0] = Pace::Count(0);
        Self { capture, store: Pace::Count(0), inquiry: Pace::Count(0) }
    }
}

impl Progress {
    fn parts(&self) -> impl Iterator<Item = (Part, Pace)> {
        let capture = (0..).map(Part::Capture).zip(self.capture);
        capture.chain([(Part::Store, self.store), (Part::Inquiry, self.inquiry)])
    }
}

/// How long the watchdog waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct WatchdogOptions {
    /// After the start nobody is stuck for so long, in milliseconds.
    pub grace_ms: u64,
    /// Capture may be silent for so long, in milliseconds.
    pub capture_ms: u64,
    /// The store may be silent for so long, in milliseconds.
    pub store_ms: u64,
    /// The inquiry may be silent for so long, in milliseconds.
    pub inquiry_ms: u64,
    /// Between two kicks, in milliseconds: well below the hardware's own time.
    pub kick_every_ms: u64,
}

impl Default for WatchdogOptions {
    fn default() -> Self {
        Self {
            // A store that rebuilds its index and a policy of billions of weights that is read from
            // a card take minutes.
            grace_ms: 300_000,
            // Reopening a camera takes seconds; some drivers take ten to give up.
            capture_ms: 30_000,
            // A worn card holds up a write for tens of seconds before it fails.
            store_ms: 120_000,
            // One turn of a 2B policy on a CPU takes minutes.
            inquiry_ms: 900_000,
            // Hardware waits for ten seconds or more.
            kick_every_ms: 1_000,
        }
    }
}

impl WatchdogOptions {
    fn patience_ms(&self, part: Part) -> u64 {
        match part {
            Part::Capture(_) => self.capture_ms,
            Part::Store => self.store_ms,
            Part::Inquiry => self.inquiry_ms,
        }
    }
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartChange {
    /// It has been silent beyond its patience, for so many milliseconds.
    Stuck(Part, u64),
    /// It moves again, after so many milliseconds.
    Recovered(Part, u64),
}

/// What a step counts at most, in milliseconds. Where the board itself was held up for longer, so
/// were the parts: they are not to be blamed for it.
const LONGEST_STEP_MS: u64 = 1_000;

/// Who has been silent for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    begun: Option<Millis>,
    stepped: Option<Millis>,
    kicked: Option<Millis>,
    parts: [Silence; PARTS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Silence {
    pace: Option<Pace>,
    silent_ms: u64,
    stuck: bool,
}

impl Watchdog {
    /// Takes the progress of all parts; answers whether to kick now, and who got stuck or recovered.
    pub fn step(
        &mut self,
        options: &WatchdogOptions,
        now: Millis,
        progress: &Progress,
    ) -> (bool, Vec<PartChange, PARTS>) {
        let begun = *self.begun.get_or_insert(now);
        let passed_ms = self.stepped.map_or(0, |at| now.since(at)).min(LONGEST_STEP_MS);
        let counted_ms = if now.since(begun) <= options.grace_ms { 0 } else { passed_ms };
        self.stepped = Some(now);
        let changes = self
            .parts
            .iter_mut()
            .zip(progress.parts())
            .filter_map(|(silence, (part, pace))| {
                silence.step(part, pace, counted_ms, options.patience_ms(part))
            })
            .collect();
        let due = self.kicked.is_none_or(|at| now.since(at) >= options.kick_every_ms);
        let kick = due && !self.is_stuck();
        if kick {
            self.kicked = Some(now);
        }
        (kick, changes)
    }

    /// Whether any part is stuck.
    pub fn is_stuck(&self) -> bool {
        self.parts.iter().any(|silence| silence.stuck)
    }
}

impl Silence {
    fn step(
        &mut self,
        part: Part,
        pace: Pace,
        counted_ms: u64,
        patience_ms: u64,
    ) -> Option<PartChange> {
        let before = self.pace.replace(pace);
        // A part that got stuck has to move: it is not enough that nothing more is asked of it.
        let moved = match (before, pace) {
            (Some(Pace::Count(before)), Pace::Count(now)) => now != before,
            _ => !self.stuck,
        };
        let silent_ms = self.silent_ms.saturating_add(counted_ms);
        if moved {
            self.silent_ms = 0;
            return core::mem::take(&mut self.stuck)
                .then_some(PartChange::Recovered(part, silent_ms));
        }
        self.silent_ms = silent_ms;
        if self.stuck || silent_ms < patience_ms {
            return None;
        }
        self.stuck = true;
        Some(PartChange::Stuck(part, silent_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec as List;

    const OPTIONS: WatchdogOptions = WatchdogOptions {
        grace_ms: 10_000,
        capture_ms: 5_000,
        store_ms: 8_000,
        inquiry_ms: 60_000,
        kick_every_ms: 1_000,
    };

    /// What is told, and when a kick is given; a step each 500 ms.
    fn watch(
        until_ms: u64,
        progress: impl Fn(u64) -> Progress,
    ) -> (List<(u64, PartChange)>, List<u64>) {
        let mut watchdog = Watchdog::default();
        let (mut told, mut kicks) = (List::new(), List::new());
        for ms in (0..until_ms).step_by(500) {
            let (kick, changes) = watchdog.step(&OPTIONS, Millis(ms), &progress(ms));
            told.extend(changes.into_iter().map(|change| (ms, change)));
            assert!(!(kick && watchdog.is_stuck()), "kicked for a part that is stuck at {ms} ms");
            kicks.extend(kick.then_some(ms));
        }
        (told, kicks)
    }

    /// All parts move, with two cameras.
    fn all(ms: u64) -> Progress {
        let count = Pace::Count(ms);
        Progress { capture: [count, count, Pace::Idle, Pace::Idle], store: count, inquiry: count }
    }

    /// A part that stops after 20 s, and goes on after 100 s.
    fn stops(ms: u64) -> Pace {
        Pace::Count(if ms >= 100_000 { ms } else { ms.min(20_000) })
    }

    #[test]
    fn while_all_parts_move_it_is_kicked_no_more_often_than_asked() {
        let (told, kicks) = watch(60_000, all);
        assert_eq!(told, []);
        assert_eq!(kicks, (0..60_000).step_by(1000).collect::<List<u64>>());
    }

    #[test]
    fn the_part_that_stands_still_is_named_and_ends_the_kicks_until_it_moves() {
        for (part, stuck_ms) in [
            (Part::Capture(0), 25_000),
            (Part::Capture(1), 25_000),
            (Part::Store, 28_000),
            (Part::Inquiry, 80_000),
        ] {
            let (told, kicks) = watch(120_000, |ms| {
                let mut progress = all(ms);
                match part {
                    Part::Capture(camera) => progress.capture[usize::from(camera)] = stops(ms),
                    Part::Store => progress.store = stops(ms),
                    Part::Inquiry => progress.inquiry = stops(ms),
                }
                progress
            });
            let expected = [
                (stuck_ms, PartChange::Stuck(part, stuck_ms - 20_000)),
                (100_000, PartChange::Recovered(part, 80_000)),
            ];
            assert_eq!(told, expected);
            assert!(kicks.contains(&(stuck_ms - 1000)), "{part:?}");
            assert!(!kicks.iter().any(|ms| (stuck_ms..100_000).contains(ms)), "{part:?}");
            assert!(kicks.contains(&100_000), "{part:?}");
        }
    }

    #[test]
    fn an_idle_part_is_not_waited_for_and_its_patience_begins_with_its_work() {
        let (told, _) = watch(200_000, |ms| Progress {
            inquiry: if ms < 100_000 { Pace::Idle } else { Pace::Count(0) },
            ..all(ms)
        });
        assert_eq!(told, [(160_000, PartChange::Stuck(Part::Inquiry, 60_000))]);
    }

    #[test]
    fn a_stuck_part_is_not_freed_by_being_called_idle() {
        let (told, kicks) = watch(200_000, |ms| Progress {
            inquiry: if ms < 100_000 { Pace::Count(7) } else { Pace::Idle },
            ..all(ms)
        });
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(kicks.last() < Some(&100_000));
    }

    #[test]
    fn the_grace_after_the_start_is_counted_before_any_patience() {
        let (told, kicks) = watch(20_000, |_| Progress::default());
        let expected = [
            (15_000, PartChange::Stuck(Part::Capture(0), 5_000)),
            (18_000, PartChange::Stuck(Part::Store, 8_000)),
        ];
        assert_eq!(told, expected);
        assert_eq!(kicks.last(), Some(&14_000));
    }

    #[test]
    fn parts_are_not_blamed_for_a_board_that_was_held_up() {
        let mut watchdog = Watchdog::default();
        for ms in (0..20_000).step_by(500) {
            watchdog.step(&OPTIONS, Millis(ms), &all(ms));
        }
        let frozen = all(19_500);
        let (kick, changes) = watchdog.step(&OPTIONS, Millis(3_600_000), &frozen);
        assert!(kick && changes.is_empty(), "nobody else ran either");
        // But steps that always come late do not make patience endless.
        let stuck: List<u64> = (1..100)
            .map(|i| 3_600_000 + i * 3_000)
            .filter(|&ms| !watchdog.step(&OPTIONS, Millis(ms), &frozen).1.is_empty())
            .collect();
        assert_eq!(stuck, [3_612_000, 3_621_000, 3_777_000]);
    }
}
