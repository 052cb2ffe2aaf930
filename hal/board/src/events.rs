//! What happened on the board, in a queue of bounded size that says what it dropped (I7).

use crate::{Millis, Part, ThrottleLevel};
use core::fmt;
use heapless::Vec;

/// An input that opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Contact {
    /// The housing's tamper switch.
    Tamper,
    /// The door's.
    Door,
}

/// A line of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Line {
    /// To the status light.
    Light,
    /// To the alarm relay.
    Relay,
    /// To the infrared illuminator.
    Infrared,
    /// From the tamper switch.
    Tamper,
    /// From the door.
    Door,
}

/// Why the relay went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum RelayOffReason {
    /// The alarm is over.
    Released,
    /// It was still asked for, but had not been renewed for the longest time.
    LimitReached,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BoardEvent {
    /// When.
    #[cfg_attr(feature = "serde", serde(rename = "at_ms"))]
    pub at: Millis,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "kind", rename_all = "snake_case"))]
pub enum What {
    /// A contact opened.
    Opened {
        /// Which.
        contact: Contact,
    },
    /// A contact closed.
    Closed {
        /// Which.
        contact: Contact,
    },
    /// A contact bounces more than it should.
    Chatters {
        /// Which.
        contact: Contact,
        /// So often within the hour.
        bounces: u32,
    },
    /// Another throttle level.
    Throttle {
        /// Before.
        from: ThrottleLevel,
        /// Now.
        to: ThrottleLevel,
        /// At this temperature, in thousandths of a degree Celsius.
        at_mc: i32,
    },
    /// The temperature has not been known for long.
    TemperatureLost {
        /// Readings that failed or were implausible.
        invalid: u32,
    },
    /// The temperature is known again.
    TemperatureFound {
        /// Readings that had failed or were implausible.
        invalid: u32,
    },
    /// It is night; the illuminator goes on, if the heat lets it.
    NightFell,
    /// It is day.
    DayBroke,
    /// The relay went on.
    RelayOn,
    /// The relay went off.
    RelayOff {
        /// Why.
        reason: RelayOffReason,
    },
    /// A part of the agent makes no progress: the watchdog is not kicked any more.
    PartStuck {
        /// Which.
        part: Part,
        /// Silent for so long, in milliseconds.
        silent_ms: u64,
    },
    /// A part makes progress again.
    PartRecovered {
        /// Which.
        part: Part,
        /// It was silent for so long, in milliseconds.
        silent_ms: u64,
    },
    /// A line could not be read or written; it is being tried again.
    LineFailed {
        /// Which.
        line: Line,
    },
    /// A line has worked again for a while.
    LineWorks {
        /// Which.
        line: Line,
        /// Failures meanwhile.
        failures: u32,
    },
    /// The queue was full: older events were dropped.
    Dropped {
        /// So many.
        events: u32,
    },
}

impl What {
    /// Whether it has to be known before the rest: it stays where something must be dropped.
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Opened { contact } => *contact == Contact::Tamper,
            Self::Throttle { to, .. } => *to == ThrottleLevel::Critical,
            Self::RelayOn | Self::PartStuck { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { contact } => write!(f, "the {contact} was opened"),
            Self::Closed { contact } => write!(f, "the {contact} was closed"),
            Self::Chatters { contact, bounces } => {
                write!(
                    f,
                    "the contact of the {contact} bounced {bounces} times within an hour: is its wiring loose?"
                )
            }
            Self::Throttle { from, to, at_mc } => {
                write!(f, "throttle level {to} after {from}, at {} °C", at_mc / 1000)
            }
            Self::TemperatureLost { invalid } => {
                write!(
                    f,
                    "the temperature is not known: {invalid} readings failed or were implausible"
                )
            }
            Self::TemperatureFound { invalid } => {
                write!(f, "the temperature is known again, after {invalid} invalid readings")
            }
            Self::NightFell => f.write_str("it is night"),
            Self::DayBroke => f.write_str("it is day"),
            Self::RelayOn => f.write_str("the alarm relay went on"),
            Self::RelayOff { reason: RelayOffReason::Released } => {
                f.write_str("the alarm relay went off")
            }
            Self::RelayOff { reason: RelayOffReason::LimitReached } => f.write_str(
                "the alarm relay went off: its longest time was over, and nobody renewed it",
            ),
            Self::PartStuck { part, silent_ms } => {
                let seconds = silent_ms / 1000;
                write!(
                    f,
                    "{part} has made no progress for {seconds} s: the watchdog will reset the board"
                )
            }
            Self::PartRecovered { part, silent_ms } => {
                write!(f, "{part} makes progress again, after {} s", silent_ms / 1000)
            }
            Self::LineFailed { line } => {
                write!(f, "the line of the {line} cannot be used: tried again until it can")
            }
            Self::LineWorks { line, failures } => {
                write!(f, "the line of the {line} works again, after {failures} failures")
            }
            Self::Dropped { events } => {
                write!(
                    f,
                    "{events} events of the board were dropped: they were not fetched in time"
                )
            }
        }
    }
}

/// Words for people.
macro_rules! words {
    ($type:ty { $($pattern:pat => $word:literal),* $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($pattern => $word),* })
            }
        }
    };
}

words!(Contact { Self::Tamper => "housing", Self::Door => "door" });
words!(Line {
    Self::Light => "status light",
    Self::Relay => "alarm relay",
    Self::Infrared => "illuminator",
    Self::Tamper => "tamper contact",
    Self::Door => "door contact",
});
words!(ThrottleLevel {
    Self::Normal => "normal",
    Self::Warm => "warm",
    Self::Hot => "hot",
    Self::Critical => "critical",
});

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture(camera) => write!(f, "the capture of camera {}", camera + 1),
            Self::Store => f.write_str("the frame store"),
            Self::Inquiry => f.write_str("the inquiry"),
        }
    }
}

/// Events that wait to be fetched at most. A step makes a handful; whoever fetches after each step
/// never fills it, and one that is held up for minutes on a quiet board does not either.
pub const EVENTS_MAX: usize = 64;

/// Events in the order in which they happened. Where it is full the oldest goes, the oldest urgent
/// one only if all are; how many went is told first, as an event of its own.
#[derive(Clone, Debug, Default)]
pub struct EventQueue {
    waiting: Vec<BoardEvent, EVENTS_MAX>,
    dropped: u32,
    dropped_at: Millis,
}

impl EventQueue {
    /// Puts an event at the end.
    pub fn put(&mut self, event: BoardEvent) {
        if self.waiting.is_full() {
            let oldest = self.waiting.iter().position(|waiting| !waiting.what.is_urgent());
            let gone = self.waiting.remove(oldest.unwrap_or(0));
            self.dropped = self.dropped.saturating_add(1);
            self.dropped_at = gone.at;
        }
        // There is room: one just went.
        let _ = self.waiting.push(event);
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Option<BoardEvent> {
        if self.dropped > 0 {
            let what = What::Dropped { events: core::mem::take(&mut self.dropped) };
            return Some(BoardEvent { at: self.dropped_at, what });
        }
        (!self.waiting.is_empty()).then(|| self.waiting.remove(0))
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is to be fetched.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.dropped == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::ToString, vec::Vec};

    fn take_all(queue: &mut EventQueue) -> Vec<(u64, What)> {
        core::iter::from_fn(|| queue.take()).map(|event| (event.at.0, event.what)).collect()
    }

    fn filled(count: usize, what: impl Fn(u64) -> What) -> EventQueue {
        let mut queue = EventQueue::default();
        for at in 0..count as u64 {
            queue.put(BoardEvent { at: Millis(at), what: what(at) });
            assert!(queue.len() <= EVENTS_MAX);
        }
        queue
    }

    #[test]
    fn events_come_in_the_order_in_which_they_happened() {
        let mut queue = filled(EVENTS_MAX, |_| What::NightFell);
        let expected: Vec<_> = (0..EVENTS_MAX as u64).map(|at| (at, What::NightFell)).collect();
        assert_eq!(take_all(&mut queue), expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_says_how_many() {
        let mut queue = filled(EVENTS_MAX + 10, |_| What::DayBroke);
        let told = take_all(&mut queue);
        assert_eq!(told[0], (9, What::Dropped { events: 10 }));
        assert_eq!(told[1], (10, What::DayBroke));
        assert_eq!(told.len(), EVENTS_MAX + 1);
        assert_eq!(take_all(&mut queue), [], "told once");
    }

    #[test]
    fn what_is_urgent_stays_where_something_must_be_dropped() {
        let opened = What::Opened { contact: Contact::Tamper };
        let closed = What::Closed { contact: Contact::Door };
        let mut queue = filled(1000, |at| if at % 100 == 7 { opened } else { closed });
        let told = take_all(&mut queue);
        let kept: Vec<u64> =
            told.iter().filter(|told| told.1 == opened).map(|told| told.0).collect();
        assert_eq!(kept, [7, 107, 207, 307, 407, 507, 607, 707, 807, 907]);
        assert_eq!(told[0].1, What::Dropped { events: (1000 - EVENTS_MAX) as u32 });
        // Where all are urgent, the oldest goes.
        let told = take_all(&mut filled(EVENTS_MAX + 1, |_| opened));
        assert_eq!(told[..2], [(0, What::Dropped { events: 1 }), (1, opened)]);
    }

    #[test]
    fn an_event_reads_as_a_sentence() {
        let warm = ThrottleLevel::Warm;
        for (what, expected) in [
            (What::Opened { contact: Contact::Tamper }, "the housing was opened"),
            (
                What::Throttle { from: ThrottleLevel::Normal, to: warm, at_mc: 75_400 },
                "throttle level warm after normal, at 75 °C",
            ),
            (
                What::PartStuck { part: Part::Capture(0), silent_ms: 30_050 },
                "the capture of camera 1 has made no progress for 30 s: the watchdog will reset the board",
            ),
            (
                What::LineWorks { line: Line::Relay, failures: 3 },
                "the line of the alarm relay works again, after 3 failures",
            ),
        ] {
            assert_eq!(what.to_string(), expected);
        }
    }

    #[test]
    fn an_event_is_written_with_its_kind_and_its_unit() {
        let what = What::PartStuck { part: Part::Capture(1), silent_ms: 30_050 };
        let json = serde_json::to_string(&BoardEvent { at: Millis(7), what }).unwrap();
        assert_eq!(
            json,
            r#"{"at_ms":7,"what":{"kind":"part_stuck","part":{"capture":1},"silent_ms":30050}}"#
        );
    }
}
