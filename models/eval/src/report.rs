//! A page that shows score curves beside the truth: one HTML file with drawings in it, no script.

use crate::{Record, curve::STEP_S};
use std::{collections::BTreeMap, fmt::Write};

/// Colours of the methods, in order of appearance; told apart by people who see red and green alike
/// (Okabe and Ito).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 34.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

/// The page for `records`: at most `most` videos, each with a curve for every method and budget.
pub fn html(records: &[Record], most: usize) -> String {
    let mut videos: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        videos.entry(&record.video.name).or_default().push(record);
    }
    let methods = methods(records);
    let shown = videos.len().min(most);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <title>Score curves</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>Score curves</h1>\n<p>{shown} of {} videos. The shaded part of a drawing is where \
         something is truly wrong; a curve is what a method says of each moment, and the number \
         beside its name what it says of the whole video.</p>\n",
        videos.len()
    );
    for records in videos.into_values().take(most) {
        panel(&mut page, &records, &methods);
    }
    page.push_str("</body></html>\n");
    page
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;\
    padding:0 1rem;color:#1c2126}h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .2rem}\
    svg{width:100%;height:auto}.of{margin:.1rem 0;color:#56606a;font-size:.9rem}\
    .of b{font-weight:600}text{font:11px system-ui,sans-serif;fill:#56606a}";

/// A method with its budget, in order of appearance.
fn methods(records: &[Record]) -> Vec<(String, u32)> {
    let mut found: Vec<(String, u32)> = vec![];
    for record in records {
        let key = (record.method.clone(), record.frames);
        if !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

fn panel(page: &mut String, records: &[&Record], methods: &[(String, u32)]) {
    let truth = &records[0].video;
    let labels = match truth.labels.is_empty() {
        true if truth.intervals.is_empty() => "nothing wrong".to_owned(),
        true => "anomalous".to_owned(),
        false => truth.labels.join(", "),
    };
    let _ = writeln!(page, "<h2>{}: {}</h2>", escaped(&truth.name), escaped(&labels));
    let _ = writeln!(page, "<p class=\"of\">{}</p>", legend(records, methods));
    let x = |t: f64| LEFT + t / truth.length_s.max(STEP_S) * (WIDTH - LEFT);
    let y = |score: f64| TOP + (1.0 - score.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM);
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"scores of {}\">",
        escaped(&truth.name)
    );
    for &(start, end) in &truth.intervals {
        let (from, to) = (x(start), x(end.min(truth.length_s)));
        let _ = writeln!(
            page,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#f3c4b8\"/>",
            (to - from).max(1.0),
            HEIGHT - TOP - BOTTOM
        );
    }
    for score in [0.0, 0.5, 1.0] {
        let at = y(score);
        let _ = writeln!(
            page,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{WIDTH}\" y2=\"{at:.1}\" stroke=\"#d5dade\"/>\
             <text x=\"4\" y=\"{:.1}\">{score:.1}</text>",
            at + 4.0
        );
    }
    for tick in ticks(truth.length_s) {
        let _ = writeln!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.0} s</text>",
            x(tick).clamp(LEFT + 10.0, WIDTH - 14.0),
            HEIGHT - 6.0
        );
    }
    for record in records {
        let points: Vec<String> = record
            .watched
            .curve
            .iter()
            .enumerate()
            .flat_map(|(i, &score)| [(i, score), (i + 1, score)])
            .map(|(i, score)| format!("{:.1},{:.1}", x(i as f64 * STEP_S).min(WIDTH), y(score)))
            .collect();
        let _ = writeln!(
            page,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" points=\"{}\"/>",
            colour(record, methods),
            points.join(" ")
        );
    }
    page.push_str("</svg>\n");
}

fn legend(records: &[&Record], methods: &[(String, u32)]) -> String {
    let one = |record: &&Record| {
        format!(
            "<b style=\"color:{}\">{} {}</b> {:.2}",
            colour(record, methods),
            escaped(&record.method),
            record.frames,
            record.watched.p
        )
    };
    records.iter().map(one).collect::<Vec<_>>().join(" &nbsp; ")
}

fn colour(record: &Record, methods: &[(String, u32)]) -> &'static str {
    let at = methods.iter().position(|m| m.0 == record.method && m.1 == record.frames);
    COLOURS[at.unwrap_or(0) % COLOURS.len()]
}

/// About six round numbers of seconds.
fn ticks(length_s: f64) -> impl Iterator<Item = f64> {
    let rough = (length_s / 6.0).max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough);
    let step = step.unwrap_or(rough);
    (0..).map(move |i| f64::from(i) * step).take_while(move |t| *t <= length_s)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Watched, table::Truth};

    fn record(name: &str, method: &str, p: f64) -> Record {
        Record {
            video: Truth {
                name: name.into(),
                length_s: 4.0,
                intervals: vec![(1.0, 2.0)],
                labels: vec!["fall".into()],
            },
            method: method.into(),
            train_seed: 0,
            frames: 16,
            bundle: "nano".into(),
            watched: Watched { p, curve: vec![p; 8], frames: 16, label: None, utility: None },
        }
    }

    #[test]
    fn each_video_is_a_drawing_with_a_line_for_each_method() {
        let page = html(
            &[record("a", "active", 0.9), record("a", "fixed", 0.2), record("b", "fixed", 0.1)],
            9,
        );
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<polyline").count(), 3);
        assert_eq!(page.matches("#f3c4b8").count(), 2, "the truth is shaded");
        assert!(page.contains("active 16</b> 0.90"));
    }

    #[test]
    fn a_name_cannot_break_out_of_the_page() {
        let page = html(&[record("<script>x</script>", "active", 0.9)], 1);
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn no_more_videos_are_drawn_than_asked_for() {
        let many: Vec<Record> = (0..5).map(|i| record(&i.to_string(), "active", 0.5)).collect();
        assert_eq!(html(&many, 2).matches("<svg").count(), 2);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(122.0).collect::<Vec<_>>(), [0.0, 50.0, 100.0]);
        assert!(ticks(3600.0).count() <= 8);
    }
}
