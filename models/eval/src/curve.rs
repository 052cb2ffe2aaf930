//! Score curves: one score per moment of a video, on a grid of [`STEP_S`].

/// Seconds between two scores of a curve.
pub const STEP_S: f64 = 0.5;

/// The number of scores of a video of `length_s` seconds; at least one.
pub fn steps(length_s: f64) -> usize {
    ((length_s / STEP_S).round() as usize).max(1)
}

/// A curve that is `outside` everywhere but in the `intervals` (start and end in seconds, and their
/// score), where the highest counts.
pub fn from_intervals(length_s: f64, outside: f64, intervals: &[(f64, f64, f64)]) -> Vec<f64> {
    let mut curve = vec![outside; steps(length_s)];
    let last = curve.len();
    for &(start, end, score) in intervals {
        let from = ((start / STEP_S).floor().max(0.0) as usize).min(last);
        let to = ((end / STEP_S).ceil().max(0.0) as usize).min(last);
        for value in curve.get_mut(from..to).unwrap_or_default() {
            *value = value.max(score);
        }
    }
    curve
}

/// The truth on the grid: a step is anomalous if its middle lies in an interval.
pub fn truth(length_s: f64, intervals: &[(f64, f64)]) -> Vec<bool> {
    let middle = |i: usize| (i as f64 + 0.5) * STEP_S;
    let within = |t: f64| intervals.iter().any(|&(start, end)| t >= start && t < end);
    (0..steps(length_s)).map(|i| within(middle(i))).collect()
}

/// The scores of equal `parts` of a video, one after another, as a curve.
pub fn from_parts(length_s: f64, parts: &[f64]) -> Vec<f64> {
    let n = steps(length_s);
    match parts {
        [] => vec![0.0; n],
        _ => (0..n).map(|i| parts[i * parts.len() / n]).collect(),
    }
}

/// Each score by its like: the mean of the `nearest` most similar ones (itself among them), weighted
/// by the softmax of cosine similarity over `temperature`. LAVAD and VADTree refine so, with 10.
///
/// # Panics
/// If there is not one feature per score.
pub fn refined_by_likeness(
    scores: &[f64],
    features: &[Vec<f32>],
    nearest: usize,
    temperature: f64,
) -> Vec<f64> {
    assert_eq!(scores.len(), features.len(), "one feature per score");
    let refined = |own: &Vec<f32>| {
        let mut like: Vec<(f64, f64)> =
            features.iter().zip(scores).map(|(f, &s)| (cosine(own, f), s)).collect();
        like.sort_by(|a, b| b.0.total_cmp(&a.0));
        like.truncate(nearest.max(1));
        let top = like[0].0;
        let weigh = |similarity: f64| ((similarity - top) / temperature).exp();
        let (sum, weight) = like.iter().fold((0.0, 0.0), |(sum, weight), &(similarity, score)| {
            (sum + weigh(similarity) * score, weight + weigh(similarity))
        });
        sum / weight
    };
    features.iter().map(refined).collect()
}

/// Smoothed with a Gaussian of `sigma` samples, cut off after `width / 2` to both sides; at the ends
/// the weights that remain are made to sum to one. VERA smooths so, with 15 and 10.
pub fn smoothed(scores: &[f64], width: usize, sigma: f64) -> Vec<f64> {
    let reach = width / 2;
    (0..scores.len())
        .map(|i| {
            let around = i.saturating_sub(reach)..(i + reach + 1).min(scores.len());
            let weigh = |j: usize| (-((j as f64 - i as f64) / sigma).powi(2) / 2.0).exp();
            let weight: f64 = around.clone().map(weigh).sum();
            around.map(|j| weigh(j) * scores[j]).sum::<f64>() / weight
        })
        .collect()
}

/// Cosine of the angle between two features; 0 if one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_cover_every_step_that_they_touch_and_the_highest_counts() {
        let curve = from_intervals(3.0, 0.1, &[(0.6, 1.4, 0.5), (1.0, 9.0, 0.3), (8.0, 9.0, 1.0)]);
        assert_eq!(curve, [0.1, 0.5, 0.5, 0.3, 0.3, 0.3]);
        assert_eq!(
            from_intervals(1.0, 0.0, &[(0.9, 0.2, 1.0)]),
            [0.0, 0.0],
            "backwards is nothing"
        );
    }

    #[test]
    fn truth_and_parts_lie_on_the_same_grid() {
        assert_eq!(truth(2.0, &[(0.5, 1.5)]), [false, true, true, false]);
        assert_eq!(from_parts(2.0, &[0.2, 0.8]), [0.2, 0.2, 0.8, 0.8]);
        assert_eq!(from_parts(1.0, &[]), [0.0, 0.0]);
    }

    #[test]
    fn likeness_pulls_a_score_to_those_that_look_the_same() {
        let (one, other) = (vec![1.0, 0.0], vec![0.0, 1.0]);
        let features = [one.clone(), one.clone(), one, other];
        let refined = refined_by_likeness(&[0.9, 0.9, 0.0, 0.1], &features, 3, 0.1);
        assert!((refined[2] - 0.6).abs() < 1e-9);
        assert!((refined[3] - 0.1).abs() < 1e-3, "nothing is like it: {refined:?}");
    }

    #[test]
    fn smoothing_keeps_a_constant_and_spreads_a_peak() {
        assert!(smoothed(&[0.4; 9], 15, 10.0).iter().all(|s| (s - 0.4).abs() < 1e-12));
        let peak = smoothed(&[0.0, 0.0, 1.0, 0.0, 0.0], 3, 1.0);
        assert!(peak[2] > peak[1] && peak[1] > 0.0 && peak[0] == 0.0);
    }
}
