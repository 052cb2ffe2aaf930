//! Areas under curves, ties grouped: equal scores are one threshold, whatever order they come in.

use std::collections::BTreeMap;

/// Area under the ROC curve, 0 to 1; `None` unless both classes occur.
///
/// The Mann-Whitney statistic: the probability that a positive scores higher than a negative, ties
/// counted half.
///
/// # Panics
/// If the lengths differ.
pub fn roc_auc(scores: &[f64], truth: &[bool]) -> Option<f64> {
    let positives = truth.iter().filter(|&&t| t).count() as f64;
    let negatives = truth.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    // From the highest threshold down: pairs won by the positives seen before, and half the ties.
    let (mut before, mut won) = (0.0, 0.0);
    for group in groups(scores, truth) {
        won += group.negatives * (before + group.positives / 2.0);
        before += group.positives;
    }
    Some(won / (positives * negatives))
}

/// [`roc_auc`] of many parts taken together, for resampling: what each part has at each score is
/// counted once, and taking parts together is adding up.
pub struct AucOfParts {
    /// Of each part: place of a score among all, from the highest, and the positives and negatives.
    parts: Vec<Vec<(usize, f64, f64)>>,
    scores: usize,
}

impl AucOfParts {
    /// Scores and truth of each part.
    ///
    /// # Panics
    /// If the lengths of a part differ.
    pub fn new(parts: &[(&[f64], Vec<bool>)]) -> Self {
        let mut scores: Vec<f64> = parts.iter().flat_map(|(scores, _)| *scores).copied().collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.dedup_by(|a, b| a.total_cmp(b).is_eq());
        let place = |score: f64| scores.partition_point(|s| s.total_cmp(&score).is_gt());
        let counted = |(of_part, truth): &(&[f64], Vec<bool>)| {
            assert_eq!(of_part.len(), truth.len(), "one truth for each score");
            let mut counts = BTreeMap::new();
            for (&score, &positive) in of_part.iter().zip(truth) {
                let (positives, negatives) = counts.entry(place(score)).or_insert((0.0, 0.0));
                *(if positive { positives } else { negatives }) += 1.0;
            }
            counts.into_iter().map(|(place, (p, n))| (place, p, n)).collect()
        };
        Self { parts: parts.iter().map(counted).collect(), scores: scores.len() }
    }

    /// Of these parts, each as often as it is named; `None` without both classes.
    pub fn of(&self, parts: &[usize]) -> Option<f64> {
        let mut groups = vec![(0.0, 0.0); self.scores];
        for &(place, positives, negatives) in parts.iter().flat_map(|&part| &self.parts[part]) {
            groups[place].0 += positives;
            groups[place].1 += negatives;
        }
        let (mut before, mut passed, mut won) = (0.0, 0.0, 0.0);
        for (positives, negatives) in groups {
            won += negatives * (before + positives / 2.0);
            before += positives;
            passed += negatives;
        }
        (before > 0.0 && passed > 0.0).then(|| won / (before * passed))
    }
}

/// The two conventions for the area under the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrArea {
    /// Steps: the sum of precision times the gain in recall, as scikit-learn's
    /// `average_precision_score`; VadCLIP reports it.
    Step,
    /// Trapezoids between the points of the curve, which begins at recall 0 with precision 1;
    /// XDVioDet, LAVAD and VERA report it.
    Trapezoid,
}

/// Average precision, 0 to 1; `None` without a positive.
///
/// # Panics
/// If the lengths differ.
pub fn average_precision(scores: &[f64], truth: &[bool], area: PrArea) -> Option<f64> {
    let positives = truth.iter().filter(|&&t| t).count() as f64;
    if positives == 0.0 {
        return None;
    }
    let (mut found, mut alarms, mut precision, mut sum) = (0.0, 0.0, 1.0, 0.0);
    for group in groups(scores, truth) {
        found += group.positives;
        alarms += group.positives + group.negatives;
        let (last, gain) = (precision, group.positives / positives);
        precision = found / alarms;
        sum += gain
            * match area {
                PrArea::Step => precision,
                PrArea::Trapezoid => (precision + last) / 2.0,
            };
    }
    Some(sum)
}

/// Samples of one score.
struct Group {
    positives: f64,
    negatives: f64,
}

/// Groups of equal scores, the highest first.
fn groups(scores: &[f64], truth: &[bool]) -> Vec<Group> {
    assert_eq!(scores.len(), truth.len(), "one label per score");
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(truth.iter().copied()).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| {
            let positives = same.iter().filter(|s| s.1).count() as f64;
            Group { positives, negatives: same.len() as f64 - positives }
        })
        .collect()
}

/// Mean over videos of the ROC-AUC within each, UBnormal's *macro*: a frame of score 0 that is
/// normal and one of score 1 that is anomalous are added to each video, so that every video has
/// both.
pub fn macro_roc_auc<'a>(videos: impl IntoIterator<Item = (&'a [f64], &'a [bool])>) -> Option<f64> {
    let of_one = |(scores, truth): (&[f64], &[bool])| {
        let scores: Vec<f64> = [&[0.0], scores, &[1.0]].concat();
        let truth: Vec<bool> = [&[false], truth, &[true]].concat();
        roc_auc(&scores, &truth)
    };
    let each: Vec<f64> = videos.into_iter().filter_map(of_one).collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
}

/// A false alarm: a stretch above the threshold that no anomaly touches. How many there are, and
/// the seconds from the beginning of each anomaly to the first frame above the threshold within it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alarms {
    /// Stretches above the threshold without an anomalous frame.
    pub false_alarms: u64,
    /// For each anomaly the seconds until it was noticed; `None` if it never was.
    pub delays_s: Vec<Option<f64>>,
}

/// The alarms of one video at a threshold; frames are `1 / fps` seconds apart.
///
/// # Panics
/// If the lengths differ.
pub fn alarms(scores: &[f64], truth: &[bool], threshold: f64, fps: f64) -> Alarms {
    assert_eq!(scores.len(), truth.len(), "one label per score");
    let above: Vec<bool> = scores.iter().map(|&s| s >= threshold).collect();
    let false_alarms = runs(&above).filter(|r| !truth[r.clone()].contains(&true)).count() as u64;
    let delays_s = runs(truth)
        .map(|r| above[r].iter().position(|&a| a).map(|frames| frames as f64 / fps))
        .collect();
    Alarms { false_alarms, delays_s }
}

/// The stretches in which `flags` is true.
fn runs(flags: &[bool]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    flags.chunk_by(|a, b| a == b).filter_map(move |run| {
        let start = at;
        at += run.len();
        run[0].then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_are_half_won() {
        assert_eq!(roc_auc(&[0.5; 4], &[true, false, true, false]), Some(0.5));
        assert_eq!(roc_auc(&[0.9, 0.5, 0.5, 0.1], &[true, true, false, false]), Some(0.875));
    }

    #[test]
    fn one_class_alone_has_no_area() {
        assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(average_precision(&[0.1], &[false], PrArea::Step), None);
        assert_eq!(roc_auc(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn parts_taken_together_are_one_whole(
            parts in prop::collection::vec(
                prop::collection::vec((0u8..6, any::<bool>()), 0..8), 1..6),
            drawn in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let score = |(s, _): &(u8, bool)| f64::from(*s) / 5.0;
            let each: Vec<(Vec<f64>, Vec<bool>)> = parts
                .iter()
                .map(|part| (part.iter().map(score).collect(), part.iter().map(|p| p.1).collect()))
                .collect();
            let parts: Vec<_> = each.iter().map(|(s, t)| (&s[..], t.clone())).collect();
            let drawn: Vec<usize> = drawn.iter().map(|i| i.index(parts.len())).collect();
            let scores: Vec<f64> = drawn.iter().flat_map(|&i| each[i].0.clone()).collect();
            let truth: Vec<bool> = drawn.iter().flat_map(|&i| each[i].1.clone()).collect();
            prop_assert_eq!(AucOfParts::new(&parts).of(&drawn), roc_auc(&scores, &truth));
        }
    }

    #[test]
    fn the_two_areas_under_precision_and_recall_differ() {
        let (scores, truth) = ([0.9, 0.8, 0.7, 0.6], [true, false, true, false]);
        let step = average_precision(&scores, &truth, PrArea::Step).unwrap();
        assert!((step - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        let trapezoid = average_precision(&scores, &truth, PrArea::Trapezoid).unwrap();
        assert!((trapezoid - (0.5 + 0.5 * (0.5 + 2.0 / 3.0) / 2.0)).abs() < 1e-12);
    }

    #[test]
    fn a_video_of_one_class_has_a_macro_area_by_its_sentinels() {
        let quiet = ([0.2, 0.4].as_slice(), [false, false].as_slice());
        assert_eq!(macro_roc_auc([quiet]), Some(1.0));
        assert_eq!(macro_roc_auc([]), None);
    }

    #[test]
    fn alarms_are_stretches_and_delays_begin_with_the_anomaly() {
        let scores = [0.9, 0.9, 0.1, 0.1, 0.1, 0.8, 0.1, 0.1];
        let truth = [false, false, false, true, true, true, false, true];
        let found = alarms(&scores, &truth, 0.5, 2.0);
        assert_eq!(found, Alarms { false_alarms: 1, delays_s: vec![Some(1.0), None] });
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_won(
            samples in prop::collection::vec((0u8..6, any::<bool>()), 1..60)
        ) {
            let scores: Vec<f64> = samples.iter().map(|s| f64::from(s.0)).collect();
            let truth: Vec<bool> = samples.iter().map(|s| s.1).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for a in samples.iter().filter(|s| s.1) {
                for b in samples.iter().filter(|s| !s.1) {
                    pairs += 1.0;
                    won += match a.0.cmp(&b.0) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
            match roc_auc(&scores, &truth) {
                Some(area) => prop_assert!((area - won / pairs).abs() < 1e-12),
                None => prop_assert_eq!(pairs, 0.0),
            }
        }
    }
}
