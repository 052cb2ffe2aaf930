//! When scores become wakes: a pure state machine.

use crate::SentinelOptions;
use hal_camera::MediaTime;

/// An inquiry is worth its cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wake {
    /// The moment to ask about.
    pub at: MediaTime,
    /// Why.
    pub reason: WakeReason,
    /// The score that woke the sentinel; on patrol, the newest one.
    pub saliency: f32,
}

/// Why the sentinel woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// The scene scored high.
    Saliency,
    /// The clock: nothing had woken it for long.
    Patrol,
}

/// What the sentinel remembers between frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Vigil {
    /// A score reached `wake_at`, and none fell below `rest_at` since.
    roused: bool,
    /// The highest score of a rousing that the refractory time kept from waking.
    put_off: Option<f32>,
    /// The newest score.
    saliency: f32,
    clock: Option<Clock>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    /// The newest frame.
    now: MediaTime,
    /// The last wake because of a score.
    last_salient: Option<MediaTime>,
    /// The last wake of any kind; before the first, the first frame.
    last_look: MediaTime,
}

impl Vigil {
    /// Takes the frame at `at` and its score, if it was scored.
    pub fn step(
        self,
        options: &SentinelOptions,
        at: MediaTime,
        score: Option<f32>,
    ) -> (Self, Option<Wake>) {
        let clock = match self.clock {
            Some(clock) if at >= clock.now => Clock { now: at, ..clock },
            // The first frame, or media time began anew: what was before has no place in it.
            _ => return Self::begin(at).step(options, at, score),
        };
        let mut next = Self { clock: Some(clock), ..self };
        if let Some(score) = score {
            next = next.rouse(options, score);
        }
        let (saliency, waiting) = (next.saliency, next.put_off);
        let rested = clock.last_salient.is_none_or(|last| at.since_s(last) >= options.refractory_s);
        if let Some(saliency) = waiting.filter(|_| rested) {
            next.put_off = None;
            next.clock = Some(Clock { last_salient: Some(at), last_look: at, ..clock });
            return (next, Some(Wake { at, reason: WakeReason::Saliency, saliency }));
        }
        if options.patrol_s.is_some_and(|patrol| at.since_s(clock.last_look) >= patrol) {
            next.clock = Some(Clock { last_look: at, ..clock });
            return (next, Some(Wake { at, reason: WakeReason::Patrol, saliency }));
        }
        (next, None)
    }

    fn begin(at: MediaTime) -> Self {
        let clock = Clock { now: at, last_salient: None, last_look: at };
        Self { clock: Some(clock), ..Self::default() }
    }

    /// Hysteresis. A rousing is noted in `put_off`; whether it may wake at once is the clock's matter.
    fn rouse(self, options: &SentinelOptions, score: f32) -> Self {
        let rises = !self.roused && score >= options.wake_at;
        let roused = if self.roused { score >= options.rest_at } else { rises };
        let put_off = match self.put_off {
            Some(highest) => Some(highest.max(score)),
            None => rises.then_some(score),
        };
        Self { roused, put_off, saliency: score, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use WakeReason::{Patrol, Saliency};

    const OPTIONS: SentinelOptions = SentinelOptions {
        gate: crate::GateKind::Background,
        every_nth: 1,
        wake_at: 0.5,
        rest_at: 0.25,
        refractory_s: 10.0,
        patrol_s: None,
    };

    /// The wakes that `scores` (at these seconds) cause.
    fn wakes(options: &SentinelOptions, scores: &[(f64, f32)]) -> Vec<(f64, WakeReason, f32)> {
        let mut vigil = Vigil::default();
        let mut wakes = Vec::new();
        for &(seconds, score) in scores {
            let (next, wake) = vigil.step(options, MediaTime::from_s(seconds), Some(score));
            vigil = next;
            wakes.extend(wake.map(|w| (w.at.as_s(), w.reason, w.saliency)));
        }
        wakes
    }

    #[test]
    fn a_score_at_the_threshold_wakes_once_until_it_has_rested() {
        for (scores, expected) in [
            (&[(0.0, 0.49), (1.0, 0.49)][..], vec![]),
            (&[(0.0, 0.0), (1.0, 0.5), (2.0, 0.9)][..], vec![(1.0, Saliency, 0.5)]),
            // Never below `rest_at`: one long rousing.
            (&[(0.0, 0.6), (20.0, 0.25), (40.0, 0.6), (60.0, 0.3)][..], vec![(0.0, Saliency, 0.6)]),
            (
                &[(0.0, 0.6), (20.0, 0.24), (40.0, 0.7)][..],
                vec![(0.0, Saliency, 0.6), (40.0, Saliency, 0.7)],
            ),
        ] {
            assert_eq!(wakes(&OPTIONS, scores), expected, "{scores:?}");
        }
    }

    #[test]
    fn a_rousing_in_the_refractory_time_wakes_when_it_is_over_with_its_highest_score() {
        let scores = [(0.0, 0.6), (2.0, 0.0), (3.0, 0.7), (4.0, 0.9), (5.0, 0.0), (9.9, 0.0)];
        assert_eq!(wakes(&OPTIONS, &scores), [(0.0, Saliency, 0.6)]);
        let later: Vec<_> = scores.into_iter().chain([(10.1, 0.0), (30.0, 0.0)]).collect();
        assert_eq!(wakes(&OPTIONS, &later), [(0.0, Saliency, 0.6), (10.1, Saliency, 0.9)]);
    }

    #[test]
    fn a_patrol_comes_when_nothing_woke_the_sentinel_for_its_time() {
        let patrolled = SentinelOptions { patrol_s: Some(60.0), ..OPTIONS };
        let quiet: Vec<_> = (0..200).map(|s| (f64::from(s), 0.1)).collect();
        let at = |s, reason, score| (f64::from(s), reason, score);
        assert_eq!(
            wakes(&patrolled, &quiet),
            [60, 120, 180].map(|s| at(s, Patrol, 0.1)),
            "every minute of a quiet scene"
        );
        let mut once = quiet;
        once[50].1 = 0.8;
        assert_eq!(
            wakes(&patrolled, &once),
            [at(50, Saliency, 0.8), at(110, Patrol, 0.1), at(170, Patrol, 0.1)],
            "counted from the last look"
        );
        once[115].1 = 0.8;
        assert!(
            wakes(&patrolled, &once).contains(&at(115, Saliency, 0.8)),
            "a patrol just before does not put off a wake"
        );
    }

    #[test]
    fn a_patrol_comes_though_no_frame_is_scored() {
        let patrolled = SentinelOptions { patrol_s: Some(5.0), ..OPTIONS };
        let (vigil, none) = Vigil::default().step(&patrolled, MediaTime(0), None);
        assert_eq!(none, None);
        let (_, wake) = vigil.step(&patrolled, MediaTime(5_000_000), None);
        assert_eq!(wake.map(|w| w.reason), Some(Patrol));
    }

    #[test]
    fn media_time_that_begins_anew_begins_the_vigil_anew() {
        let scores = [(100.0, 0.9), (101.0, 0.9), (0.0, 0.9), (1.0, 0.9)];
        assert_eq!(wakes(&OPTIONS, &scores), [(100.0, Saliency, 0.9), (0.0, Saliency, 0.9)]);
    }
}
