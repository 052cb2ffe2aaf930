//! The preference loss over whole inquiries (iDPO), for reference: the trainer's is held to the same
//! numbers.

/// Weights of the turns of an inquiry of `turns` turns, first to last:
/// `φ(t, T) = γ^t (1 - γ^(T-t)) / (1 - γ^T)`, and `(T - t) / T` for `γ = 1` (Shi et al. 2024, DMPO).
///
/// Plain DPO adds up all turns: inquiries of different length are then compared by their length.
pub fn turn_weights(turns: u32, gamma: f64) -> Vec<f64> {
    let n = f64::from(turns);
    let weight = |t: u32| {
        let t = f64::from(t);
        if gamma == 1.0 {
            (n - t) / n
        } else {
            gamma.powf(t) * (1.0 - gamma.powf(n - t)) / (1.0 - gamma.powf(n))
        }
    };
    (0..turns).map(weight).collect()
}

/// `-log σ(β (Σ φ_t Δ_t of the chosen - Σ φ_t Δ_t of the rejected) - margin)`, where `Δ_t` is the log
/// ratio of policy to reference of all tokens that the policy wrote in turn `t`; observations do not
/// count.
pub fn preference_loss(
    chosen: &[f64],
    rejected: &[f64],
    beta: f64,
    gamma: f64,
    margin: f64,
) -> f64 {
    let weighted = |ratios: &[f64]| -> f64 {
        let weights = turn_weights(ratios.len() as u32, gamma);
        ratios.iter().zip(weights).map(|(ratio, weight)| ratio * weight).sum()
    };
    let x = beta * (weighted(chosen) - weighted(rejected)) - margin;
    // log(1 + e^-x) without overflow.
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by hand: the trainer's tests read the same file.
    const VECTORS: &str = include_str!("../../train/tests/idpo_vectors.json");

    #[test]
    fn the_loss_is_that_of_the_shared_vectors() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(VECTORS).unwrap();
        assert!(cases.len() >= 5);
        for case in &cases {
            let number = |key: &str| case[key].as_f64().unwrap();
            let list = |key: &str| -> Vec<f64> {
                case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            let (beta, gamma, margin) = (number("beta"), number("gamma"), number("margin"));
            let loss = preference_loss(&list("chosen"), &list("rejected"), beta, gamma, margin);
            assert!((loss - number("loss")).abs() < 1e-6, "{}: {loss}", case["what"]);
        }
    }

    #[test]
    fn later_turns_weigh_less() {
        for gamma in [0.7, 1.0] {
            let weights = turn_weights(4, gamma);
            assert_eq!(weights[0], 1.0);
            assert!(weights.windows(2).all(|w| w[1] < w[0]), "{weights:?}");
        }
    }
}
