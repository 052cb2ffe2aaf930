//! What to send next, and how far to believe the server: pure.
//!
//! Changes go in the order of their seq, but alerts overtake. The server answers the highest seq up to
//! which it has all; only what this camera has sent by itself is taken for acknowledged, so a server
//! that claims more than it was sent makes nothing disappear.

use event_log::Outgoing;
use std::collections::BTreeSet;

/// What this life of the uplink has delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The highest seq that may leave the outbox.
    acknowledged: u64,
    /// Whatever waits up to this seq was delivered; at or above `acknowledged`.
    cursor: u64,
    /// Seqs above the cursor that were delivered: they overtook.
    ahead: BTreeSet<u64>,
    /// Up to where the server last said that it has all.
    committed: u64,
    /// What had been acknowledged when the server was last found to have lost some of it.
    lost_at: Option<u64>,
}

/// What waits, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The oldest changes after the plan's cursor, ascending.
    pub oldest: Vec<Outgoing>,
    /// The oldest alerts after it, ascending; they may stand in `oldest`, too.
    pub alerts: Vec<Outgoing>,
    /// The newest seq that the log gave out.
    pub newest: u64,
}

/// What an answer of the server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything up to this seq may leave the outbox.
    Acknowledged(u64),
    /// It has less than it had acknowledged before: it lost what it had. Said once; what comes after
    /// goes on. Until the server hears that the seqs between are not coming again, it has a gap.
    Lost {
        /// What it says it has.
        says: u64,
        /// What it had acknowledged.
        had: u64,
    },
    /// It says it has what the log never gave out.
    NeverSent {
        /// What it says it has.
        says: u64,
        /// The newest seq that there is.
        newest: u64,
    },
}

impl Plan {
    /// Of a log whose server had acknowledged everything up to `acknowledged`.
    pub fn new(acknowledged: u64) -> Self {
        Self { acknowledged, cursor: acknowledged, ..Self::default() }
    }

    /// Whatever waits up to this seq was delivered; what is [`Waiting`] begins after it.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// What goes into the next batch, ascending by seq, at most `limit`: alerts that have not gone
    /// yet if there are any, else the oldest.
    pub fn next<'a>(&self, waiting: &'a Waiting, limit: usize) -> Vec<&'a Outgoing> {
        let some = |of: &'a [Outgoing]| -> Vec<&'a Outgoing> {
            of.iter().filter(|o| !self.ahead.contains(&o.seq)).take(limit).collect()
        };
        let alerts = some(&waiting.alerts);
        if alerts.is_empty() { some(&waiting.oldest) } else { alerts }
    }

    /// Takes the server's answer to a batch of `sent` seqs: it has everything up to `committed`.
    /// `waiting` is what the batch was chosen from.
    pub fn answered(self, sent: &[u64], committed: u64, waiting: &Waiting) -> (Self, Answer) {
        let newest = waiting.newest;
        if committed > newest {
            return (self, Answer::NeverSent { says: committed, newest });
        }
        let mut next = self;
        next.ahead.extend(sent);
        next.committed = committed;
        let had = next.acknowledged;
        let (mut next, acknowledged) = next.settled(waiting);
        if committed < had && next.lost_at != Some(had) {
            next.lost_at = Some(had);
            return (next, Answer::Lost { says: committed, had });
        }
        (next, Answer::Acknowledged(acknowledged))
    }

    /// Passes over what waits and has overtaken already; returns up to where everything may leave the
    /// outbox.
    pub fn settled(self, waiting: &Waiting) -> (Self, u64) {
        let mut next = self;
        let delivered = waiting.oldest.iter().map(|o| o.seq).take_while(|s| next.ahead.contains(s));
        next.cursor = delivered.last().unwrap_or(next.cursor);
        next.ahead = next.ahead.split_off(&(next.cursor + 1));
        // It may well have more, from before a restart; that is sent again and ignored there.
        next.acknowledged = next.acknowledged.max(next.committed.min(next.cursor));
        let acknowledged = next.acknowledged;
        (next, acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_log::{Level, Phase};
    use proptest::prelude::*;

    fn outgoing(seq: u64, level: Level) -> Outgoing {
        let event = "0123456789abcdef".parse().unwrap();
        Outgoing { seq, event, phase: Phase::New, level }
    }

    /// What is read of `outbox` after the plan's cursor, `limit` of each.
    fn read(outbox: &[Outgoing], plan: &Plan, limit: usize, newest: u64) -> Waiting {
        let after = || outbox.iter().filter(|o| o.seq > plan.cursor()).cloned();
        Waiting {
            oldest: after().take(limit).collect(),
            alerts: after().filter(|o| o.level == Level::Alert).take(limit).collect(),
            newest,
        }
    }

    fn seqs(chosen: &[&Outgoing]) -> Vec<u64> {
        chosen.iter().map(|o| o.seq).collect()
    }

    #[test]
    fn alerts_overtake_and_the_rest_goes_in_order() {
        use Level::{Alert, Info, Notice};
        // 8 was dropped; the server will hear so from a later event.
        let outbox = [(4, Info), (5, Notice), (6, Alert), (7, Info), (9, Alert)]
            .map(|(s, l)| outgoing(s, l));
        let (mut plan, mut sent, mut acknowledged) = (Plan::new(3), vec![], vec![]);
        for committed in [3, 6, 9] {
            let waiting = read(&outbox, &plan, 2, 9);
            let batch = seqs(&plan.next(&waiting, 2));
            let answer;
            (plan, answer) = plan.answered(&batch, committed, &waiting);
            sent.push(batch);
            acknowledged.push(answer);
        }
        assert_eq!(sent, [vec![6, 9], vec![4, 5], vec![7]]);
        assert_eq!(acknowledged, [3, 5, 7].map(Answer::Acknowledged));
        // What overtook is all that is left: nothing is sent, and nothing is kept waiting.
        let waiting = read(&outbox, &plan, 2, 9);
        assert!(plan.next(&waiting, 2).is_empty());
        let (plan, acknowledged) = plan.settled(&waiting);
        assert_eq!((acknowledged, plan.cursor(), plan.ahead.len()), (9, 9, 0));
    }

    #[test]
    fn what_was_dropped_before_the_server_heard_of_it_holds_nothing_up() {
        // 1 to 100 were dropped, which 150 tells: until then the server has nothing without a gap.
        let outbox: Vec<Outgoing> = (101..=150).map(|seq| outgoing(seq, Level::Info)).collect();
        let mut plan = Plan::new(0);
        for first in (101..=150).step_by(10) {
            let waiting = read(&outbox, &plan, 10, 150);
            let batch = seqs(&plan.next(&waiting, 10));
            assert_eq!(batch[0], first);
            let committed = if first == 141 { 150 } else { 0 };
            let (next, answer) = plan.answered(&batch, committed, &waiting);
            assert_eq!(answer, Answer::Acknowledged(committed));
            plan = next;
        }
    }

    #[test]
    fn a_server_is_believed_only_as_far_as_it_was_sent_something() {
        let outbox: Vec<Outgoing> = (1..=3).map(|seq| outgoing(seq, Level::Info)).collect();
        let waiting = read(&outbox, &Plan::new(0), 9, 3);
        let (plan, answer) = Plan::new(0).answered(&[1], 3, &waiting);
        assert_eq!(answer, Answer::Acknowledged(1), "it may have them from before a restart");
        let (plan, answer) = plan.answered(&[2], 1 << 60, &waiting);
        assert_eq!(answer, Answer::NeverSent { says: 1 << 60, newest: 3 });
        assert_eq!(seqs(&plan.next(&read(&outbox, &plan, 9, 3), 9)), [2, 3], "it is not believed");
    }

    #[test]
    fn a_server_that_lost_what_it_had_is_told_of_once_and_gets_the_rest() {
        let outbox: Vec<Outgoing> = (3..=6).map(|seq| outgoing(seq, Level::Info)).collect();
        let mut plan = Plan::new(2);
        let mut answers = vec![];
        // 6 tells it that 2 is not coming again.
        for (batch, committed) in [(3, 1), (4, 1), (5, 1), (6, 6)] {
            let waiting = read(&outbox, &plan, 1, 6);
            assert_eq!(seqs(&plan.next(&waiting, 1)), [batch]);
            let answer;
            (plan, answer) = plan.answered(&[batch], committed, &waiting);
            answers.push(answer);
        }
        let unchanged = Answer::Acknowledged(2);
        let lost = Answer::Lost { says: 1, had: 2 };
        assert_eq!(answers, [lost, unchanged, unchanged, Answer::Acknowledged(6)]);
    }

    proptest! {
        /// Whatever a server answers, a seq leaves the outbox only after it was sent, and an honest
        /// one ends up with all of it.
        #[test]
        fn nothing_leaves_the_outbox_that_was_not_sent(
            levels in prop::collection::vec(0u8..3, 1..40),
            answers in prop::collection::vec((1usize..6, 0u64..60), 1..60),
        ) {
            let level = |n: &u8| [Level::Info, Level::Notice, Level::Alert][usize::from(*n)];
            let all: Vec<Outgoing> =
                (1..).zip(&levels).map(|(s, l)| outgoing(s, level(l))).collect();
            let newest = all.len() as u64;
            let (mut plan, mut sent) = (Plan::new(0), BTreeSet::new());
            let mut exchange = |limit: usize, says: &dyn Fn(&BTreeSet<u64>) -> u64| {
                let waiting = read(&all, &plan, limit, newest);
                let batch = seqs(&plan.next(&waiting, limit));
                sent.extend(batch.iter().copied());
                let committed = says(&sent);
                plan = std::mem::take(&mut plan).answered(&batch, committed, &waiting).0;
                (plan.acknowledged, sent.clone())
            };
            for (limit, committed) in answers {
                let (acknowledged, sent) = exchange(limit, &|_| committed);
                prop_assert!((1..=acknowledged).all(|seq| sent.contains(&seq)));
            }
            let honest = |sent: &BTreeSet<u64>| (1..).take_while(|s| sent.contains(s)).count() as u64;
            let mut last = 0;
            for _ in 0..=newest {
                last = exchange(3, &honest).0;
            }
            prop_assert_eq!(last, newest);
        }
    }
}
