//! Times and spans of time.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// A moment on a camera's media clock, in µs since the boot epoch began. Monotonic within an epoch;
/// says nothing about the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaTime(pub i64);

impl MediaTime {
    /// From seconds; rounds to the nearest µs.
    pub fn from_s(seconds: f64) -> Self {
        Self((seconds * 1e6).round() as i64)
    }

    /// In seconds.
    pub fn as_s(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This moment moved by `seconds` (negative: earlier).
    pub fn plus_s(self, seconds: f64) -> Self {
        Self(self.0 + (seconds * 1e6).round() as i64)
    }

    /// Seconds from `earlier` to this moment (negative if `earlier` is later).
    pub fn since_s(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.as_s())
    }
}

/// A half-open span `[start, end)` of media time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// First moment inside.
    pub start: MediaTime,
    /// First moment after.
    pub end: MediaTime,
}

impl Span {
    /// The span `[start, end)`; an `end` before `start` gives the empty span at `start`.
    pub fn new(start: MediaTime, end: MediaTime) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Length in seconds, never negative.
    pub fn len_s(self) -> f64 {
        self.end.since_s(self.start)
    }

    /// Whether `t` lies inside.
    pub fn contains(self, t: MediaTime) -> bool {
        self.start <= t && t < self.end
    }

    /// The part of this span inside `other`, or `None` if they do not touch.
    pub fn clamp_to(self, other: Span) -> Option<Span> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Span { start, end })
    }
}

/// How far a wall-clock time can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockQuality {
    /// The clock was not set since power-on: order is right, the date may not be.
    Unsynced,
    /// Disciplined by a time server.
    Ntp,
}

/// A wall-clock time with its quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WallTime {
    /// µs since 1970-01-01 UTC.
    pub unix_us: i64,
    /// How far to trust it.
    pub quality: ClockQuality,
}

impl From<WallTime> for SystemTime {
    /// The same time, for libraries that take no other; before 1970 counts as 1970.
    fn from(time: WallTime) -> Self {
        Self::UNIX_EPOCH + Duration::from_micros(time.unix_us.max(0).unsigned_abs())
    }
}
