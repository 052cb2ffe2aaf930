//! What of one epoch has been received: pure, `fn(state, seqs) -> (state, what is new)`.

/// The most separate stretches that may wait above the mark. A camera that sends its alerts first
/// leaves a hole between any two of them; this is as many as weeks without a link can leave, and the
/// row that holds them stays below 4 MB.
pub const STRETCHES_MAX: usize = 200_000;

/// The highest seq there can be: what PostgreSQL's `bigint` holds.
pub const SEQ_MAX: u64 = i64::MAX as u64;

/// The receipts of one epoch of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Every seq from 1 to this one is committed or dropped.
    committed: u64,
    /// What is there beyond: ascending stretches, both ends included, that neither touch each other nor
    /// the mark.
    ahead: Vec<(u64, u64)>,
    /// How many seqs were told to be dropped and had not been received.
    dropped: u64,
}

/// The camera has left too many holes open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this epoch has more than {STRETCHES_MAX} separate stretches above seq {committed}: send the \
     missing seqs from {} on first",
    committed + 1
)]
pub struct TooManyStretches {
    /// The mark.
    pub committed: u64,
}

impl Ledger {
    /// The ledger as it was stored.
    pub fn stored(committed: u64, ahead: Vec<(u64, u64)>, dropped: u64) -> Self {
        Self { committed, ahead, dropped }
    }

    /// The highest seq S such that every seq 1..=S is committed or dropped.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The stretches above the mark.
    pub fn ahead(&self) -> &[(u64, u64)] {
        &self.ahead
    }

    /// How many seqs will never come.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes in `seq`; whether it is new.
    pub fn receive(&mut self, seq: u64) -> bool {
        self.cover(seq, seq) == 1
    }

    /// Takes in that the seqs `first..=last` will never be sent.
    pub fn drop_span(&mut self, first: u64, last: u64) {
        let new = self.cover(first, last);
        self.dropped = self.dropped.saturating_add(new).min(SEQ_MAX);
    }

    /// # Errors
    /// [`TooManyStretches`] if it has grown beyond what is kept.
    pub fn check(&self) -> Result<(), TooManyStretches> {
        match self.ahead.len() <= STRETCHES_MAX {
            true => Ok(()),
            false => Err(TooManyStretches { committed: self.committed }),
        }
    }

    /// The stretches that are missing below the highest that is there, ascending.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut next = self.committed + 1;
        let mut gaps = Vec::with_capacity(self.ahead.len());
        for &(first, last) in &self.ahead {
            gaps.push((next, first - 1));
            next = last + 1;
        }
        gaps
    }

    /// Marks a stretch as there; how many of its seqs were not.
    fn cover(&mut self, first: u64, last: u64) -> u64 {
        let first = first.max(self.committed + 1);
        let last = last.min(SEQ_MAX);
        if first > last {
            return 0;
        }
        // The stretches that overlap or touch [first, last] become one with it.
        let from = self.ahead.partition_point(|&(_, end)| end + 1 < first);
        let to = self.ahead.partition_point(|&(begin, _)| begin <= last + 1);
        let held: u64 = self.ahead[from..to]
            .iter()
            .map(|&(a, b)| (b.min(last) + 1).saturating_sub(a.max(first)))
            .sum();
        let joined = match from < to {
            true => (first.min(self.ahead[from].0), last.max(self.ahead[to - 1].1)),
            false => (first, last),
        };
        self.ahead.splice(from..to, [joined]);
        if self.ahead[0].0 == self.committed + 1 {
            self.committed = self.ahead.remove(0).1;
        }
        last - first + 1 - held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_mark_stops_before_the_first_gap_and_passes_it_once_filled() {
        let mut ledger = Ledger::default();
        assert!([1, 2, 4, 5].map(|seq| ledger.receive(seq)).iter().all(|new| *new));
        assert_eq!((ledger.committed(), ledger.gaps()), (2, vec![(3, 3)]));
        assert!(!ledger.receive(4) && !ledger.receive(1));
        assert!(ledger.receive(3));
        assert_eq!((ledger.committed(), ledger.ahead()), (5, &[][..]));
    }

    #[test]
    fn dropped_seqs_count_as_received() {
        let mut ledger = Ledger::default();
        ledger.receive(9);
        ledger.drop_span(1, 8);
        assert_eq!((ledger.committed(), ledger.dropped()), (9, 8));
        assert!(!ledger.receive(5), "what was dropped is not taken in later");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut ledger = Ledger::default();
        assert!(ledger.receive(SEQ_MAX));
        ledger.drop_span(0, u64::MAX);
        assert_eq!(ledger.committed(), SEQ_MAX);
        assert!(!ledger.receive(SEQ_MAX));
        assert!(ledger.gaps().is_empty());
    }

    proptest! {
        #[test]
        fn a_ledger_is_a_set_of_seqs(steps in prop::collection::vec((1u64..60, 0u64..6, any::<bool>()), 0..60)) {
            let (mut ledger, mut set, mut dropped) = (Ledger::default(), BTreeSet::new(), 0);
            for (first, more, drop) in steps {
                if drop {
                    ledger.drop_span(first, first + more);
                    dropped += (first..=first + more).filter(|seq| set.insert(*seq)).count() as u64;
                } else {
                    prop_assert_eq!(ledger.receive(first), set.insert(first));
                }
                let mark = (1..).take_while(|seq| set.contains(seq)).last().unwrap_or(0);
                prop_assert_eq!(ledger.committed(), mark);
                prop_assert_eq!(ledger.dropped(), dropped);
                let ahead: BTreeSet<u64> = ledger.ahead().iter().flat_map(|&(a, b)| a..=b).collect();
                prop_assert_eq!(&ahead, &set.range(mark + 1..).copied().collect());
                let missing: Vec<u64> = ledger.gaps().iter().flat_map(|&(a, b)| a..=b).collect();
                let top = set.last().copied().unwrap_or(0);
                prop_assert_eq!(missing, (mark + 1..=top).filter(|s| !set.contains(s)).collect::<Vec<_>>());
                prop_assert!(ledger.ahead().windows(2).all(|w| w[0].1 + 1 < w[1].0));
            }
        }
    }
}
