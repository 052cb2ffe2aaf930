//! Bars over time, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 34.0;
/// Not more bars than can be told apart.
const BARS_MAX: usize = 420;

/// `values`, one for each second, as a picture with a title; drawn as the highest of each stretch where there
/// are too many.
pub fn bars(title: &str, what: &str, values: &[u32]) -> String {
    let step = values.len().div_ceil(BARS_MAX).max(1);
    let drawn: Vec<u32> =
        values.chunks(step).map(|c| c.iter().copied().max().unwrap_or(0)).collect();
    let highest = f64::from(drawn.iter().copied().max().unwrap_or(0).max(1));
    let (inner, floor) = (WIDTH - LEFT - 10.0, HEIGHT - BOTTOM);
    let width = inner / drawn.len().max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for quarter in 0..=4 {
        let y = floor - (floor - TOP) * f64::from(quarter) / 4.0;
        let value = highest * f64::from(quarter) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (n, value) in drawn.iter().enumerate() {
        let height = (floor - TOP) * f64::from(*value) / highest;
        let _ = writeln!(
            svg,
            "<rect x=\"{:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"{height:.1}\" fill=\"#2a6f97\"/>",
            LEFT + width * n as f64,
            floor - height,
            (width * 0.9).max(0.3)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.1}\">0 s</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} s</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{what}</text>\n</svg>",
        floor + 18.0,
        WIDTH - 10.0,
        floor + 18.0,
        values.len(),
        WIDTH / 2.0,
        floor + 18.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_bar_is_drawn_and_named_however_many_there_are() {
        let mut values = vec![1; 5000];
        values[4321] = 80;
        let svg = bars("requests", "a second", &values);
        assert!(svg.contains(">80</text>") && svg.contains("5000 s"));
        assert!(svg.matches("<rect").count() <= BARS_MAX + 1);
        assert!(bars("none", "", &[]).trim_end().ends_with("</svg>"));
    }
}
