//! The alarm relay: a siren, a lamp or a lock, which must not chatter and must not ring for ever.

use crate::Millis;

/// An alarm that is asked for. Another number renews it; the same one again does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct AlarmRequest(pub u32);

/// Times of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct RelayOptions {
    /// Once on it stays on so long, in milliseconds, though the alarm is over.
    pub min_on_ms: u64,
    /// Once off it stays off so long, in milliseconds; what is asked for meanwhile is kept.
    pub min_off_ms: u64,
    /// It goes off so long after the alarm was last asked for or renewed, in milliseconds, whatever
    /// is still being asked for.
    pub longest_on_ms: u64,
    /// The relay is on while its line is low. Say it here or where the line is opened, not in both.
    pub active_low: bool,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            // Long enough to be heard, and to be noticed by an alarm panel that polls its zones.
            min_on_ms: 2_000,
            // A siren's supply and a relay's contacts recover.
            min_off_ms: 2_000,
            // Three minutes is the most that many places allow a siren outdoors.
            longest_on_ms: 180_000,
            active_low: false,
        }
    }
}

/// Whether the relay is on, since when, and what is asked of it.
///
/// The caller says what became of the line ([`Self::wrote`]), so that the times are those of the
/// relay and not of the wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    on: bool,
    /// Of the last change. `None` before the first step: what was before the boot is not known,
    /// so the first off time begins there.
    since: Option<Millis>,
    last: Option<Asking>,
    /// Asked for, and not rung for yet.
    kept: bool,
}

/// The newest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asking {
    request: AlarmRequest,
    /// When it came; once it rings, since when.
    at: Millis,
}

impl Relay {
    /// Whether the relay should be on now.
    pub fn wanted(
        &mut self,
        options: &RelayOptions,
        now: Millis,
        request: Option<AlarmRequest>,
    ) -> bool {
        let since = *self.since.get_or_insert(now);
        if let Some(request) = request
            && self.last.is_none_or(|last| last.request != request)
        {
            self.last = Some(Asking { request, at: now });
            self.kept = true;
        }
        let Some(Asking { at, .. }) = self.last else { return false };
        let for_ms = now.since(since);
        if self.on {
            let renewed_ms = now.since(at);
            return for_ms < options.min_on_ms
                || request.is_some() && renewed_ms < options.longest_on_ms;
        }
        // A line that cannot be written keeps a request from being rung for: not for ever.
        self.kept &= now.since(at) < options.min_off_ms.saturating_add(options.longest_on_ms);
        let asked = self.kept || request.is_some() && now.since(at) < options.longest_on_ms;
        asked && for_ms >= options.min_off_ms
    }

    /// The line was written, or found to be so.
    pub fn wrote(&mut self, now: Millis, on: bool) {
        if on != self.on {
            (self.on, self.since) = (on, Some(now));
        }
        if on && core::mem::take(&mut self.kept) {
            // What waited for the end of the off time is asked for from here on.
            self.last = self.last.map(|last| Asking { at: now, ..last });
        }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const OPTIONS: RelayOptions =
        RelayOptions { min_on_ms: 20, min_off_ms: 30, longest_on_ms: 100, active_low: false };

    /// When the relay changes, a step a millisecond, until 400; what is asked for holds until the
    /// next entry. Its line works at the times for which `works` is true.
    fn changes(asked: &[(u64, Option<u32>)], works: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
        let mut relay = Relay::default();
        let mut changes = Vec::new();
        for ms in 0..400 {
            let request = asked.iter().rev().find(|(at, _)| *at <= ms).and_then(|(_, n)| *n);
            let before = relay.is_on();
            let wanted = relay.wanted(&OPTIONS, Millis(ms), request.map(AlarmRequest));
            if works(ms) {
                relay.wrote(Millis(ms), wanted);
            }
            if relay.is_on() != before {
                changes.push((ms, relay.is_on()));
            }
        }
        changes
    }

    #[test]
    fn the_relay_keeps_its_times_whatever_is_asked() {
        for (why, asked, expected) in [
            ("nothing asked", &[][..], &[][..]),
            (
                "asked at the boot: what was before is not known",
                &[(0, Some(1)), (60, None)],
                &[(30, true), (60, false)],
            ),
            (
                "a short alarm rings its least time",
                &[(50, Some(1)), (51, None)],
                &[(50, true), (70, false)],
            ),
            ("nobody renews it", &[(50, Some(1))], &[(50, true), (150, false)]),
            ("it ends while it rings", &[(50, Some(1)), (120, None)], &[(50, true), (120, false)]),
            ("renewed", &[(50, Some(1)), (140, Some(2))], &[(50, true), (240, false)]),
            (
                "the same number again is no renewal",
                &[(50, Some(1)), (90, None), (95, Some(1))],
                &[(50, true), (90, false), (120, true), (150, false)],
            ),
            (
                "asked for in the off time, and over before it ended",
                &[(50, Some(1)), (80, None), (85, Some(2)), (90, None)],
                &[(50, true), (80, false), (110, true), (130, false)],
            ),
            (
                "what waited rings its full time",
                &[(50, Some(1)), (80, None), (85, Some(2))],
                &[(50, true), (80, false), (110, true), (210, false)],
            ),
            (
                "a new one after the limit",
                &[(50, Some(1)), (200, Some(2)), (250, None)],
                &[(50, true), (150, false), (200, true), (250, false)],
            ),
            (
                "back within the least time on",
                &[(50, Some(1)), (55, None), (60, Some(2))],
                &[(50, true), (160, false)],
            ),
        ] {
            assert_eq!(changes(asked, |_| true), expected, "{why}");
        }
    }

    #[test]
    fn a_request_waits_for_a_line_that_fails_but_not_for_ever() {
        let once = [(50, Some(1)), (51, None)];
        assert_eq!(changes(&once, |ms| ms >= 90), [(90, true), (110, false)], "rings late");
        assert_eq!(changes(&once, |ms| ms >= 300), [], "long after, nobody wants it any more");
        let held = [(50, Some(1))];
        assert_eq!(changes(&held, |ms| ms >= 300), [], "nor if it is still asked for");
        assert_eq!(
            changes(&held, |ms| !(140..200).contains(&ms)),
            [(50, true), (200, false)],
            "off as soon as the line lets it"
        );
    }

    #[test]
    fn the_first_off_time_begins_with_the_first_step_whenever_that_is() {
        let (mut relay, request) = (Relay::default(), Some(AlarmRequest(1)));
        assert!(!relay.wanted(&OPTIONS, Millis(1_000_000), request));
        assert!(!relay.wanted(&OPTIONS, Millis(1_000_029), request));
        assert!(relay.wanted(&OPTIONS, Millis(1_000_030), request));
    }

    #[test]
    fn a_board_that_was_held_up_goes_off_with_its_next_step() {
        let mut relay = Relay::default();
        let request = Some(AlarmRequest(1));
        relay.wanted(&OPTIONS, Millis(0), None);
        assert!(relay.wanted(&OPTIONS, Millis(40), request));
        relay.wrote(Millis(40), true);
        assert!(!relay.wanted(&OPTIONS, Millis(3_600_000), request));
    }
}
