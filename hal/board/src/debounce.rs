//! A contact: the housing's tamper switch, the door. What bounces is counted; what stays is told.

use crate::Millis;

/// How a contact is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct DebounceOptions {
    /// A level counts when it stayed so long, in milliseconds. Two readings at least: where they
    /// are further apart than this, the second one decides.
    pub stable_ms: u64,
    /// The contact is open while the line is low. Say it here or where the line is opened, not in
    /// both.
    pub active_low: bool,
    /// So many bounces within an hour are told, once an hour: a worn switch, a loose wire, or a
    /// hand that tries.
    pub chatter: u32,
}

impl Default for DebounceOptions {
    fn default() -> Self {
        Self {
            // Switches bounce for 5 to 20 ms; a lid that is opened stays open far longer.
            stable_ms: 100,
            active_low: false,
            // A door that is used once a minute bounces about so often.
            chatter: 60,
        }
    }
}

/// A contact changed, and stayed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It is open now.
    Opened,
    /// It is closed now.
    Closed,
}

/// Over which bounces are counted, in milliseconds: one hour.
const CHATTER_WINDOW_MS: u64 = 3_600_000;

/// What is known of a contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debounce {
    /// What counts.
    open: Option<bool>,
    /// The newest reading, and since when it is so.
    reading: Option<(bool, Millis)>,
    bounces: u32,
    window: Option<Millis>,
    told: bool,
}

impl Debounce {
    /// Takes a reading of the line. The first level that stays is a state and not an edge.
    pub fn step(&mut self, options: &DebounceOptions, now: Millis, high: bool) -> Option<Edge> {
        let open = high != options.active_low;
        let since = match self.reading {
            Some((reading, since)) if reading == open => since,
            before => {
                // Back before it counted.
                if before.is_some() && self.open != before.map(|(reading, _)| reading) {
                    self.bounces = self.bounces.saturating_add(1);
                }
                self.reading = Some((open, now));
                return None;
            }
        };
        if self.open == Some(open) || now.since(since) < options.stable_ms {
            return None;
        }
        let edge = self.open.map(|_| if open { Edge::Opened } else { Edge::Closed });
        self.open = Some(open);
        edge
    }

    /// The line could not be read: what is read next has to stay anew.
    pub fn unread(&mut self) {
        self.reading = None;
    }

    /// How often it bounced in this hour, if that is to be told now.
    pub fn chatter(&mut self, options: &DebounceOptions, now: Millis) -> Option<u32> {
        let begun = *self.window.get_or_insert(now);
        if now.since(begun) >= CHATTER_WINDOW_MS {
            (self.window, self.bounces, self.told) = (Some(now), 0, false);
        }
        if self.told || self.bounces < options.chatter {
            return None;
        }
        self.told = true;
        Some(self.bounces)
    }

    /// Whether it is open; `None` until a level has stayed.
    pub fn is_open(&self) -> Option<bool> {
        self.open
    }
}
