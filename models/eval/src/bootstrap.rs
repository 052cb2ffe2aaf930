//! Confidence intervals by resampling videos.

use serde::{Deserialize, Serialize};

/// A statistic with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// On all videos.
    pub value: f64,
    /// 2.5th percentile of the resamples.
    pub lo: f64,
    /// 97.5th percentile of the resamples.
    pub hi: f64,
}

/// How many resamples.
const RESAMPLES: usize = 1000;

/// `statistic` of the rows `0..n`, with its percentile interval from 1,000 resamples with
/// replacement. Always the same for the same input. Resamples without a value (one class alone)
/// are left out; `None` if all rows together have none.
///
/// Resample what is independent: videos, not their frames. For a difference of two methods, one
/// statistic that computes both on the same rows.
pub fn bootstrap(n: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let value = statistic(&(0..n).collect::<Vec<_>>())?;
    let mut state = 0x243F_6A88_85A3_08D3u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % n
    };
    let mut samples: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| statistic(&(0..n).map(|_| draw()).collect::<Vec<_>>()))
        .collect();
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| match samples.len() {
        0 => value,
        count => samples[((count - 1) as f64 * share).round() as usize],
    };
    Some(Estimate { value, lo: at(0.025), hi: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors_wide() {
        let rows: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let mean = |at: &[usize]| Some(at.iter().map(|&i| rows[i]).sum::<f64>() / at.len() as f64);
        let found = bootstrap(rows.len(), mean).unwrap();
        assert_eq!(found.value, 0.5);
        let error = 0.5 / 20.0;
        assert!((found.hi - found.lo - 2.0 * 1.96 * error).abs() < 0.015, "{found:?}");
        assert_eq!(bootstrap(rows.len(), mean), Some(found), "the same again");
    }

    #[test]
    fn without_a_value_there_is_no_interval() {
        assert_eq!(bootstrap(0, |_| None), None);
        let only_all = |rows: &[usize]| rows.is_sorted().then_some(1.0);
        assert_eq!(bootstrap(50, only_all), Some(Estimate { value: 1.0, lo: 1.0, hi: 1.0 }));
    }
}
