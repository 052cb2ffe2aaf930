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
