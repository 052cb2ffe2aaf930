//! The AEI utility (Active Evidence Inquiry): what an inquiry was worth.
//!
//! Task success, and information gained by looking, and the quality of the interval, less what the
//! looking cost. Its terms are known from the abstract of Anom-π (Mo, Leng, Gao, 2026); formulas
//! and weights are our reconstruction.

use crate::{Outcome, Step, StepOperator, StoppedBy, Verdict};
use serde::{Deserialize, Serialize};

/// Weights and constants of the utility.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of task success.
    pub task: f64,
    /// Of information gained.
    pub information: f64,
    /// Of interval quality, where true intervals are known.
    pub interval: f64,
    /// Of cost.
    pub cost: f64,
    /// Discount of information by the number of looks before it, 0 to 1: sooner is better.
    pub discount: f64,
    /// Information of one look, at most, in nats either way: no single look decides all.
    pub gain_max: f64,
    /// Cost of an operator.
    pub per_operator: f64,
    /// Cost of the whole frame budget.
    pub frames: f64,
    /// Cost of a look at what was seen as densely before.
    pub overlap: f64,
    /// Cost of a turn that was no operator.
    pub invalid: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            task: 1.0,
            information: 0.3,
            interval: 0.5,
            cost: 0.1,
            discount: 0.9,
            gain_max: 1.0,
            per_operator: 0.05,
            frames: 0.5,
            overlap: 0.5,
            invalid: 0.2,
        }
    }
}

/// What is known of the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Whether anything anomalous happens: the weak label of a whole video.
    pub anomalous: bool,
    /// When, in seconds within the stretch; `None` if nobody has marked it.
    pub intervals: Option<Vec<(f64, f64)>>,
}

/// The terms of the utility, unweighted, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Utility {
    /// 1 for the right verdict, less the squared error of the last reading; -1 to 1.
    pub task: f64,
    /// Discounted sum of what the looks told, in nats.
    pub information: f64,
    /// Overlap of the clips with the true intervals, 0 to 1; 0 if these are not known.
    pub interval: f64,
    /// What it cost.
    pub cost: f64,
    /// The weighted sum.
    pub total: f64,
}

impl Utility {
    /// The utility of an inquiry, `U = w_t R + w_i G + w_v Q - w_c C`:
    ///
    /// - `R = 1[ŷ = y] - (p_N - y)²`;
    /// - `G = Σ_n γ^(n-1) clip(log p_n(y) - log p_(n-1)(y))`, `p_n(y)` the probability of the truth;
    /// - `Q` the length of the clips' intersection with the true intervals over their union;
    /// - `C` a price per operator, for the share `frames / frames_max`, for overlap, and for invalid
    ///   turns.
    ///
    /// `readings` are P(anomalous) after the glance and after each look that followed, from a
    /// verdict model that was not trained on this video: the policy's own would be flattery.
    ///
    /// # Panics
    /// If `readings` is empty.
    pub fn of(
        outcome: &Outcome,
        readings: &[f64],
        truth: &Truth,
        frames_max: u32,
        weights: &Weights,
    ) -> Self {
        assert!(!readings.is_empty(), "there is a reading after the glance");
        let y = f64::from(u8::from(truth.anomalous));
        let last = readings[readings.len() - 1];
        let said = outcome.verdict.map_or(last >= 0.5, |v| v == Verdict::Anomalous);
        let task = f64::from(u8::from(said == truth.anomalous)) - (last - y).powi(2);
        let of_truth = |p: f64| {
            let p_truth = if truth.anomalous { p } else { 1.0 - p };
            p_truth.clamp(1e-6, 1.0).ln()
        };
        let information = readings
            .windows(2)
            .zip(0i32..)
            .map(|(w, n)| {
                let gain = of_truth(w[1]) - of_truth(w[0]);
                weights.discount.powi(n) * gain.clamp(-weights.gain_max, weights.gain_max)
            })
            .sum();
        let clips: Vec<(f64, f64)> = outcome.clips.iter().map(|c| (c.start, c.end)).collect();
        let interval = truth.intervals.as_ref().map_or(0.0, |t| overlap_over_union(&clips, t));
        let cost = cost(outcome, frames_max, weights);
        let total =
            weights.task * task + weights.information * information + weights.interval * interval
                - weights.cost * cost;
        Self { task, information, interval, cost, total }
    }
}

fn cost(outcome: &Outcome, frames_max: u32, weights: &Weights) -> f64 {
    let steps = &outcome.trajectory;
    let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|s| wanted(s)).count() as f64;
    let operators = count(|s| {
        matches!(s.op, StepOperator::Backtrack | StepOperator::Expand | StepOperator::Sample)
    });
    // An inquiry that had to be ended is one more turn that was no verdict.
    let unfinished = f64::from(u8::from(outcome.stopped_by != StoppedBy::Final));
    let invalid = count(|s| s.op == StepOperator::Invalid) + unfinished;
    let frames = f64::from(outcome.frames_used) / f64::from(frames_max.max(1));
    let looks: Vec<Seen> = steps.iter().filter_map(Seen::of).collect();
    let repeated: f64 = looks.iter().enumerate().skip(1).map(|(n, l)| l.known(&looks[..n])).sum();
    weights.per_operator * operators
        + weights.frames * frames
        + weights.overlap * repeated
        + weights.invalid * invalid
}

/// What a look covered.
struct Seen {
    start: f64,
    end: f64,
    /// Frames per second.
    density: f64,
}

impl Seen {
    fn of(step: &Step) -> Option<Self> {
        let (first, last) = (step.frames.first()?, step.frames.last()?);
        let (start, end) = (first.t_s, last.t_s);
        (end > start).then(|| Self {
            start,
            end,
            density: step.frames.len() as f64 / (end - start),
        })
    }

    /// The share of this look that one of the `earlier` covered at least as densely, 0 to 1.
    fn known(&self, earlier: &[Seen]) -> f64 {
        let denser = earlier.iter().filter(|e| e.density >= self.density);
        let covered: Vec<(f64, f64)> = denser.map(|e| (e.start, e.end)).collect();
        let own = [(self.start, self.end)];
        length(&intersection(&own, &covered)) / (self.end - self.start)
    }
}

/// Length of the intersection of two sets of intervals over that of their union, 0 to 1; 0 if both
/// are empty.
pub fn overlap_over_union(a: &[(f64, f64)], b: &[(f64, f64)]) -> f64 {
    let both = length(&intersection(a, b));
    let union = length(&merged(a)) + length(&merged(b)) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

/// The union of the intervals, as disjoint ones in order.
fn merged(intervals: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = intervals.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut disjoint: Vec<(f64, f64)> = vec![];
    for (start, end) in sorted {
        match disjoint.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => disjoint.push((start, end)),
        }
    }
    disjoint
}

fn intersection(a: &[(f64, f64)], b: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (a, b) = (merged(a), merged(b));
    a.iter()
        .flat_map(|x| b.iter().map(move |y| (x.0.max(y.0), x.1.min(y.1))))
        .filter(|(start, end)| end > start)
        .collect()
}

fn length(disjoint: &[(f64, f64)]) -> f64 {
    disjoint.iter().map(|(start, end)| end - start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FinalClip, SeenFrame};

    fn step(op: StepOperator, times: &[f64]) -> Step {
        let seen = |&t_s: &f64| SeenFrame { id: String::new(), t_s, hash: String::new() };
        Step {
            step: 0,
            op,
            args: serde_json::Value::Null,
            frames: times.iter().map(seen).collect(),
            thought: String::new(),
            hypothesis: None,
            p: 0.5,
            tokens: vec![],
        }
    }

    fn outcome(verdict: Verdict, clips: &[(f64, f64)], trajectory: Vec<Step>) -> Outcome {
        let clip = |&(start, end): &(f64, f64)| FinalClip {
            start,
            end,
            label: "fall".into(),
            score: None,
            evidence: vec![],
        };
        Outcome {
            p: 0.5,
            clips: clips.iter().map(clip).collect(),
            verdict: Some(verdict),
            explanation: String::new(),
            stopped_by: StoppedBy::Final,
            frames_used: trajectory.iter().map(|s| s.frames.len() as u32).sum(),
            trajectory,
            tokens_used: 0,
        }
    }

    fn weak(anomalous: bool) -> Truth {
        Truth { anomalous, intervals: None }
    }

    #[test]
    fn the_terms_are_those_of_the_formula() {
        let looks = vec![
            step(StepOperator::Glance, &[0.0, 40.0, 80.0, 120.0]),
            step(StepOperator::Backtrack, &[10.0, 11.0, 12.0, 18.0]),
            step(StepOperator::Final, &[]),
        ];
        let it = outcome(Verdict::Anomalous, &[(10.0, 30.0)], looks);
        let truth = Truth { anomalous: true, intervals: Some(vec![(20.0, 40.0)]) };
        let weights = Weights::default();
        let u = Utility::of(&it, &[0.4, 0.8], &truth, 16, &weights);
        assert!((u.task - (1.0 - 0.04)).abs() < 1e-12);
        assert!((u.information - (0.8f64 / 0.4).ln()).abs() < 1e-12);
        assert!((u.interval - 10.0 / 30.0).abs() < 1e-12);
        // One operator, 8 of 16 frames, nothing seen twice: the glance was far less dense.
        assert!((u.cost - (0.05 + 0.5 * 0.5)).abs() < 1e-12);
        let total = u.task + 0.3 * u.information + 0.5 * u.interval - 0.1 * u.cost;
        assert!((u.total - total).abs() < 1e-12);
    }

    #[test]
    fn a_gain_towards_the_truth_counts_for_a_harmless_video_too() {
        let it = outcome(Verdict::Normal, &[], vec![]);
        let w = Weights::default();
        let gain = |readings: &[f64]| Utility::of(&it, readings, &weak(false), 16, &w).information;
        assert!(gain(&[0.6, 0.2]) > 0.0);
        assert!(gain(&[0.2, 0.6]) < 0.0);
        assert_eq!(gain(&[1.0, 0.0]), w.gain_max, "no look decides all");
        assert!(gain(&[0.5, 0.2, 0.2]) > gain(&[0.5, 0.5, 0.2]), "sooner is better");
    }

    #[test]
    fn of_two_right_inquiries_the_cheaper_is_worth_more() {
        let glance = || step(StepOperator::Glance, &[0.0, 40.0, 80.0, 120.0]);
        let look = || step(StepOperator::Sample, &[10.0, 11.0, 12.0, 13.0]);
        let u = |steps: Vec<Step>| {
            let it = outcome(Verdict::Normal, &[], steps);
            Utility::of(&it, &[0.1, 0.1], &weak(false), 64, &Weights::default())
        };
        let (once, twice) = (u(vec![glance(), look()]), u(vec![glance(), look(), look()]));
        assert!(once.total > twice.total);
        // The second look saw nothing that the first had not: all of its overlap is paid for.
        let frames_and_operator = 0.5 * 4.0 / 64.0 + 0.05;
        assert!((twice.cost - once.cost - frames_and_operator - 0.5).abs() < 1e-12);
    }

    #[test]
    fn an_inquiry_that_had_to_be_ended_or_said_nonsense_pays() {
        let sound = outcome(Verdict::Normal, &[], vec![]);
        let mut ended = sound.clone();
        ended.stopped_by = StoppedBy::Turns;
        let mut nonsense = sound.clone();
        nonsense.trajectory.push(step(StepOperator::Invalid, &[]));
        let total =
            |o: &Outcome| Utility::of(o, &[0.1], &weak(false), 64, &Weights::default()).total;
        assert!(total(&sound) > total(&ended));
        assert!(total(&sound) > total(&nonsense));
    }

    #[test]
    fn overlap_over_union_merges_before_it_measures() {
        let ratio = overlap_over_union(&[(0.0, 10.0), (5.0, 15.0)], &[(10.0, 20.0)]);
        assert!((ratio - 5.0 / 20.0).abs() < 1e-12);
        assert_eq!(overlap_over_union(&[], &[]), 0.0);
        assert_eq!(overlap_over_union(&[(1.0, 2.0)], &[]), 0.0);
    }
}
