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
            let renewed_ms = now.since(at.max(since));
            return for_ms < options.min_on_ms
                || request.is_some() && renewed_ms < options.longest_on_ms;
        }
        // A line that cannot be written keeps a request from being rung for: not for ever.
        self.kept &= now.since(at) < options.min_off_ms + options.longest_on_ms;
        let asked = self.kept || request.is_some() && now.since(at) < options.longest_on_ms;
        asked && for_ms >= options.min_off_ms
    }

    /// The line was written, or found to be so.
    pub fn wrote(&mut self, now: Millis, on: bool) {
        if on != self.on {
            (self.on, self.since) = (on, Some(now));
        }
        self.kept &= !on;
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on
    }
}
