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
            // Read once a step, a sound switch is hardly ever caught bouncing.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const OPTIONS: DebounceOptions =
        DebounceOptions { stable_ms: 30, active_low: false, chatter: 4 };

    /// What is told of readings 10 ms apart: `1` high, `0` low, `x` failed.
    fn edges(options: &DebounceOptions, readings: &str) -> Vec<(u64, Edge)> {
        let mut contact = Debounce::default();
        let mut edges = Vec::new();
        for (at, reading) in (0..).step_by(10).zip(readings.chars()) {
            match reading {
                'x' => contact.unread(),
                level => {
                    let edge = contact.step(options, Millis(at), level == '1');
                    edges.extend(edge.map(|edge| (at, edge)));
                }
            }
        }
        edges
    }

    #[test]
    fn an_edge_counts_when_its_level_has_stayed() {
        use Edge::{Closed, Opened};
        for (why, readings, expected) in [
            ("never changes", "0000000000", &[][..]),
            ("the first state is no edge, open as it may be", "1111111111", &[]),
            ("opens", "00000111111", &[(80, Opened)]),
            ("opens and closes", "0000011110000", &[(80, Opened), (120, Closed)]),
            ("a moment too short", "0000011100000", &[]),
            ("bounces, then stays", "00000101011111", &[(120, Opened)]),
            ("bounces from the start, and stays closed", "1010000000", &[]),
            ("bounces for ever", "0000010101010101", &[]),
            ("a failed reading begins anew", "0000011x1111", &[(110, Opened)]),
            ("failed readings are no edge", "00000xxxx00000", &[]),
        ] {
            assert_eq!(edges(&OPTIONS, readings), expected, "{why}: {readings}");
        }
        let low = DebounceOptions { active_low: true, ..OPTIONS };
        assert_eq!(edges(&low, "00000111111"), [(80, Closed)], "active low");
        let eager = DebounceOptions { stable_ms: 0, ..OPTIONS };
        assert_eq!(edges(&eager, "001111"), [(30, Opened)], "two readings at least");
    }

    #[test]
    fn a_state_is_known_only_once_it_has_stayed() {
        let mut contact = Debounce::default();
        for (at, expected) in [(0, None), (20, None), (30, Some(true)), (40, Some(true))] {
            assert_eq!(contact.step(&OPTIONS, Millis(at), true), None);
            assert_eq!(contact.is_open(), expected, "at {at} ms");
        }
    }

    #[test]
    fn bounces_are_counted_and_told_once_an_hour() {
        let mut contact = Debounce::default();
        let mut told = Vec::new();
        // Closed; then, every minute, it is open for a single reading.
        for minute in 0..150_u64 {
            let at = minute * 60_000;
            for (late, high) in [(0, false), (100, false), (200, true), (210, false)] {
                let now = Millis(at + late);
                assert_eq!(contact.step(&OPTIONS, now, high), None);
                told.extend(contact.chatter(&OPTIONS, now).map(|bounces| (minute, bounces)));
            }
        }
        assert_eq!(told, [(3, 4), (63, 4), (123, 4)]);
    }

    #[test]
    fn a_door_in_use_does_not_bounce() {
        let mut contact = Debounce::default();
        for (at, high) in (0..).step_by(20).zip((0..200).map(|i| i / 5 % 2 == 0)) {
            contact.step(&OPTIONS, Millis(at), high);
            assert_eq!(contact.chatter(&OPTIONS, Millis(at)), None);
        }
        assert_eq!(contact.bounces, 0);
    }
}
