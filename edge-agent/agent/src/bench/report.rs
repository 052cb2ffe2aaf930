//! What was measured, as a table and as JSON; and the statistics of it.

use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// One measured quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// Its name.
    pub what: &'static str,
    /// The value, in `unit`.
    pub value: f64,
    /// The unit.
    pub unit: &'static str,
    /// What it must stay under; `None` if it only explains others.
    pub target: Option<f64>,
    /// Whether it does.
    pub met: Option<bool>,
}

impl Row {
    /// A quantity that must stay under `target`. What could not be measured does not.
    pub fn under(what: &'static str, value: f64, unit: &'static str, target: f64) -> Self {
        Self { what, value, unit, target: Some(target), met: Some(value < target) }
    }

    /// A quantity without a target.
    pub fn told(what: &'static str, value: f64, unit: &'static str) -> Self {
        Self { what, value, unit, target: None, met: None }
    }
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The policy's id.
    pub bundle: String,
    /// The engine's id.
    pub engine: String,
    /// In the order in which it was measured.
    pub rows: Vec<Row>,
}

impl Report {
    /// As one JSON object.
    pub fn json(&self, out: &mut impl Write) -> Result<()> {
        Ok(writeln!(out, "{}", serde_json::to_string(self)?)?)
    }

    /// As a table.
    pub fn readable(&self, out: &mut impl Write) -> Result<()> {
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        writeln!(out, "{:width$}  {:>8}  {:<7}  {:<11}  met", "what", "value", "unit", "target")?;
        for Row { what, value, unit, target, met } in &self.rows {
            let target = target.map_or_else(none, |most| format!("under {}", shown(most)));
            let met = met.map_or_else(none, |met| if met { "yes".into() } else { "NO".into() });
            let value = shown(*value);
            writeln!(out, "{what:width$}  {value:>8}  {unit:<7}  {target:<11}  {met}")?;
        }
        Ok(writeln!(out, "policy {} on {}", self.bundle, self.engine)?)
    }
}

/// The smallest of `values` that at least `share` (0 to 1) of them do not exceed (nearest rank);
/// not a number if there are none.
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The median of what remains of each pair's first when its second is taken away. Pairs that were
/// measured one after the other share the machine's mood, so their differences spread less than
/// the difference of two medians.
pub(super) fn median_difference(pairs: &[(f64, f64)]) -> f64 {
    let differences: Vec<f64> = pairs.iter().map(|(whole, part)| whole - part).collect();
    percentile(&differences, 0.5)
}

/// As many digits as a person compares.
fn shown(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn none() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_percentile_is_the_value_at_its_nearest_rank_in_any_order() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        let of = |share| percentile(&values, share);
        assert_eq!([of(0.0), of(0.2), of(0.21), of(0.5), of(0.99)], [1.0, 1.0, 2.0, 3.0, 5.0]);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([percentile(&hundred, 0.95), percentile(&hundred, 1.0)], [95.0, 100.0]);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn rendering_is_taken_away_pair_by_pair_and_one_disturbed_pair_changes_nothing() {
        let quiet = [(5.0, 2.0), (6.0, 2.5), (5.5, 2.5), (7.0, 4.0), (5.0, 1.9)];
        assert_eq!(median_difference(&quiet), 3.0);
        let mut disturbed = quiet;
        disturbed[4] = (50.0, 1.9);
        assert_eq!(median_difference(&disturbed), 3.0);
        assert_eq!(median_difference(&[(1.0, 1.5)]), -0.5, "noise is not hidden");
    }

    #[test]
    fn a_target_is_met_only_by_a_value_under_it() {
        let met = |value| Row::under("x", value, "ms", 5.0).met;
        assert_eq!([met(4.99), met(5.0), met(f64::NAN)], [Some(true), Some(false), Some(false)]);
    }

    #[test]
    fn the_report_tells_every_value_with_its_target() {
        let report = Report {
            bundle: "nano@1".into(),
            engine: "tract-cpu".into(),
            rows: vec![
                Row::under("short", 0.12345, "ms", 5.0),
                Row::under("much_longer_name", 151.4, "MB", 150.0),
                Row::told("counted", 24.0, "frames"),
            ],
        };
        let (mut table, mut json) = (vec![], vec![]);
        report.readable(&mut table).unwrap();
        report.json(&mut json).unwrap();
        expect![[r#"
            what                 value  unit     target       met
            short                0.123  ms       under 5      yes
            much_longer_name       151  MB       under 150    NO
            counted                 24  frames   –            –
            policy nano@1 on tract-cpu
        "#]]
        .assert_eq(&String::from_utf8(table).unwrap());
        expect![[r#"
            {"bundle":"nano@1","engine":"tract-cpu","rows":[{"what":"short","value":0.12345,"unit":"ms","target":5.0,"met":true},{"what":"much_longer_name","value":151.4,"unit":"MB","target":150.0,"met":false},{"what":"counted","value":24.0,"unit":"frames","target":null,"met":null}]}
        "#]]
        .assert_eq(&String::from_utf8(json).unwrap());
    }
}
