//! The metrics are those of scikit-learn, on scores with every kind of tie.

use eval::metrics::{PrArea, average_precision, roc_auc};
use serde_json::Value;

#[test]
fn areas_are_those_of_scikit_learn() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("metrics.json")).unwrap();
    assert!(!cases.is_empty());
    for case in &cases {
        let list = |key: &str| case[key].as_array().unwrap().iter();
        let scores: Vec<f64> = list("scores").map(|v| v.as_f64().unwrap()).collect();
        let truth: Vec<bool> = list("truth").map(|v| v.as_bool().unwrap()).collect();
        let found = [
            ("roc_auc", roc_auc(&scores, &truth)),
            ("ap_step", average_precision(&scores, &truth, PrArea::Step)),
            ("ap_trapezoid", average_precision(&scores, &truth, PrArea::Trapezoid)),
        ];
        for (metric, value) in found {
            let (value, theirs) = (value.unwrap(), case[metric].as_f64().unwrap());
            assert!(
                (value - theirs).abs() < 1e-9,
                "{}: {metric} {value}, not {theirs}",
                case["name"]
            );
        }
    }
}
