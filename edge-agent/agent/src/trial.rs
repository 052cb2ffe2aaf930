//! A trial on live footage: a new policy is asked what the one that watches was asked, after it, and only when nothing
//! waits; or once all the same, if something always waits. What it answers is counted and told to nobody.

use inquiry::{Footage, Inquirer, Report, Request};
use policy::StoppedBy;
use serde_json::{Value, json};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Where the policy that is tried waits for its turn.
#[derive(Default)]
pub struct Shadow(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    candidate: Option<Inquirer>,
    /// When it has waited long enough for a moment in which nothing else does.
    patient_until: Option<Instant>,
    seen: Seen,
}

impl Inner {
    /// Whether it is to be asked though something waits: its time is over, and it was never asked. A device that
    /// cannot keep up would else never take a policy, and it is the one that most needs another.
    fn has_waited(&self, now: Instant) -> bool {
        self.seen.inquiries == 0 && self.patient_until.is_some_and(|until| now >= until)
    }
}

/// What was seen in a trial.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Inquiries that it made.
    pub inquiries: u64,
    /// Why it has failed, if it has.
    failed: Option<String>,
    /// Inquiries that ran out of time.
    late: u64,
    /// Time that it took, and that the one that watches took for the same.
    took: [Duration; 2],
    /// Sums of the probabilities that something is wrong, of both.
    p: [f64; 2],
}

impl Seen {
    /// Why it has failed, if it has; `over`: it lasts no longer.
    pub fn failure(&self, over: bool) -> Option<String> {
        let late = (over && self.late * 2 > self.inquiries).then(|| {
            format!("{} of {} inquiries of its trial ran out of time", self.late, self.inquiries)
        });
        self.failed.clone().or(late)
    }

    /// For the event that tells how it ended.
    pub fn told(&self) -> Value {
        let each = |sum: f64| (sum / self.inquiries.max(1) as f64 * 1e3).round() / 1e3;
        let ([took, beside], [p, p_beside]) = (self.took.map(|t| t.as_secs_f64()), self.p);
        json!({
            "inquiries": self.inquiries,
            "seconds_each": each(took),
            "seconds_each_of_the_old": each(beside),
            "p_mean": each(p),
            "p_mean_of_the_old": each(p_beside),
        })
    }
}

impl Shadow {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins; for so long it waits for a moment in which nothing else does.
    pub fn begin(&self, candidate: Inquirer, patience: Duration) {
        let patient_until = Instant::now().checked_add(patience);
        *self.lock() = Inner { candidate: Some(candidate), patient_until, seen: Seen::default() };
    }

    /// Whether one is going on.
    pub fn is_on(&self) -> bool {
        self.lock().candidate.is_some()
    }

    /// Whether it has waited long enough for its turn.
    pub fn has_waited(&self) -> bool {
        self.lock().has_waited(Instant::now())
    }

    /// Ends it, and gives the memory back.
    pub fn end(&self) {
        self.lock().candidate = None;
    }

    /// How it goes.
    pub fn seen(&self) -> Seen {
        let inner = self.lock();
        let mut seen = inner.seen.clone();
        // An accelerator that passed its canary may have failed since, in an inquiry that the processor then ended.
        let quarantined = inner.candidate.as_ref().and_then(|it| it.engine().quarantined().next());
        seen.failed = seen.failed.or_else(|| quarantined.map(|why| format!("in its trial {why}")));
        seen
    }

    /// Asks the policy that is tried, if one is, what was just answered with `report` in the time `took`.
    pub fn ask(&self, footage: &dyn Footage, request: &Request, report: &Report, took: Duration) {
        let mut inner = self.lock();
        let Some(candidate) = inner.candidate.as_mut() else { return };
        let begun = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| candidate.inquire(footage, request)));
        let its_own = begun.elapsed();
        let failed = match answer {
            Ok(Ok(answer)) => match &answer.outcome.stopped_by {
                // What breaks for both, as a disk does, says nothing about one.
                StoppedBy::Failure(why)
                    if !matches!(report.outcome.stopped_by, StoppedBy::Failure(_)) =>
                {
                    format!("an inquiry of its trial broke: {why}")
                }
                stopped_by => {
                    let seen = &mut inner.seen;
                    seen.inquiries += 1;
                    seen.late += u64::from(*stopped_by == StoppedBy::Time);
                    seen.took = [seen.took[0] + its_own, seen.took[1] + took];
                    let both = [answer.outcome.p, report.outcome.p].map(f64::from);
                    seen.p = [seen.p[0] + both[0], seen.p[1] + both[1]];
                    return;
                }
            },
            Ok(Err(error)) => format!("an inquiry of its trial failed: {error}"),
            Err(_) => "an inquiry of its trial panicked".to_owned(),
        };
        inner.seen.failed = Some(failed);
        inner.candidate = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundle::Bundle;
    use engine::{Engine, EngineOptions};

    #[test]
    fn a_policy_fails_by_what_breaks_at_once_and_by_being_late_in_the_end() {
        let seen = |inquiries, late, failed: Option<&str>| Seen {
            inquiries,
            late,
            failed: failed.map(str::to_owned),
            ..Seen::default()
        };
        assert_eq!(seen(0, 0, Some("it broke")).failure(false).as_deref(), Some("it broke"));
        assert_eq!(seen(4, 3, None).failure(false), None);
        assert!(seen(4, 3, None).failure(true).is_some_and(|why| why.starts_with("3 of 4")));
        assert_eq!(seen(4, 2, None).failure(true), None);
    }

    #[test]
    fn a_policy_fails_whose_accelerator_fails_on_live_footage() {
        let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano");
        let bundle = Bundle::open(nano).unwrap();
        let candidate = |accelerator| {
            let options = EngineOptions { accelerator, ..EngineOptions::default() };
            Inquirer::new(&bundle, Engine::load(&bundle, options).unwrap()).unwrap()
        };
        let shadow = Shadow::default();
        shadow.begin(candidate(None), Duration::ZERO);
        assert_eq!(shadow.seen().failure(false), None);
        shadow.begin(candidate(Some(Err("it is quarantined".into()))), Duration::ZERO);
        assert_eq!(shadow.seen().failure(false).unwrap(), "in its trial it is quarantined");
    }

    #[test]
    fn a_policy_that_never_gets_a_turn_takes_one_when_its_time_is_over() {
        let begun = Instant::now();
        let over = begun + Duration::from_secs(60);
        let waits = |inquiries| Inner {
            candidate: None,
            patient_until: Some(over),
            seen: Seen { inquiries, ..Seen::default() },
        };
        assert!(!waits(0).has_waited(begun));
        assert!(waits(0).has_waited(over));
        assert!(!waits(1).has_waited(over), "one is enough to judge by");
        assert!(!Inner::default().has_waited(over));
    }

    #[test]
    fn what_was_seen_is_told_as_means() {
        let seen = Seen {
            inquiries: 4,
            took: [Duration::from_secs(8), Duration::from_secs(2)],
            p: [1.0, 3.0],
            ..Seen::default()
        };
        let told = seen.told();
        assert_eq!(told["seconds_each"], 2.0);
        assert_eq!(told["seconds_each_of_the_old"], 0.5);
        assert_eq!([&told["p_mean"], &told["p_mean_of_the_old"]], [0.25, 0.75]);
    }
}
