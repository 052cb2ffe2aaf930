//! An inquiry as one picture (SVG): what was looked at, what was believed, what was decided.
//!
//! ```text
//!  title, sentence                                         place
//!             ┌ labels of the clips ──────┐
//!  score      │ score over time           │
//!  glance     │ ▭▭▭ span and frames ▭▭▭▭▭ │  ·belief  thought
//!  backtrack  │        ▭▭▭▭▭              │ ·         thought
//!             └ seconds ──────────────────┘
//!  evidence frames
//!  small print
//! ```
//! The picture needs nothing but itself, has its own ground, and follows the reader's choice of
//! light or dark where the viewer knows it.

mod picture;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use picture::{InquiryPicture, PictureError, PictureStep, event_steps, looked_at};

use picture::MOST_THUMBNAILS;
use policy::StepOperator;
use std::fmt::Write;
use text::{base64, escaped, shortened, ticks, wrapped};

const WIDTH: f64 = 1120.0;
const MARGIN: f64 = 28.0;
/// The time axis.
const PLOT: (f64, f64) = (136.0, 668.0);
/// The column of the belief.
const BELIEF: (f64, f64) = (700.0, 776.0);
/// Where thoughts begin.
const THOUGHT: f64 = 828.0;
const SCORE_HEIGHT: f64 = 64.0;
const LANE_HEIGHT: f64 = 56.0;
const CHIP_HEIGHT: f64 = 20.0;

/// What is drawn at most: a picture is for people, and a trajectory is a model's work.
const MOST_STEPS: usize = 24;
const MOST_CLIPS: usize = 16;

/// Colours of light and dark ground. Both inks keep a contrast of 4.5 to their ground.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}\
.paper{fill:#ffffff}.ink{fill:#17202c}.soft{fill:#5c6675}.lane{fill:#f3f5f8}.edge{stroke:#dde2e9}\
.thread{stroke:#17202c}.dot{fill:#17202c;stroke:#ffffff}.red{fill:#c81e3a}.redline{stroke:#c81e3a}\
.title{font-size:21px;font-weight:650}.sentence{font-size:14px}.small{font-size:11px}\
.onchip{fill:#ffffff;font-weight:600}.onink{fill:#ffffff}.op{font-size:13px;font-weight:600}.num{font-variant-numeric:tabular-nums}\
@media (prefers-color-scheme:dark){\
.paper{fill:#12161c}.ink{fill:#e7ebf0}.soft{fill:#98a3b3}.lane{fill:#1a2028}.edge{stroke:#2c343f}\
.thread{stroke:#e7ebf0}.dot{fill:#e7ebf0;stroke:#12161c}.red{fill:#f2596f}.redline{stroke:#f2596f}\
.onchip,.onink{fill:#12161c}}";

/// The picture of an inquiry, a whole SVG document.
pub fn inquiry_svg(picture: &InquiryPicture) -> String {
    let time = TimeAxis::of(picture);
    let steps = &picture.steps[..picture.steps.len().min(MOST_STEPS)];
    let mut svg = String::new();
    let header_end = header(&mut svg, picture);
    let chips = chips(picture, &time);
    let rows = chips.iter().map(|chip| chip.row + 1).max().unwrap_or(0) as f64;
    let score_top = header_end + rows * (CHIP_HEIGHT + 3.0) + 8.0;
    let lanes_top = score_top + SCORE_HEIGHT + 24.0;
    let lanes_end = lanes_top + LANE_HEIGHT * steps.len() as f64;
    lanes(&mut svg, steps, lanes_top);
    axis(&mut svg, &time, score_top, lanes_end);
    score(&mut svg, picture, &time, score_top);
    clips(&mut svg, &chips, header_end + 4.0, score_top, lanes_end);
    truth(&mut svg, picture, &time, score_top);
    wake(&mut svg, picture, &time, score_top, lanes_end);
    looks(&mut svg, picture, steps, &time, lanes_top);
    belief(&mut svg, steps, score_top, lanes_top);
    thoughts(&mut svg, steps, lanes_top);
    let mut y = lanes_end + 36.0;
    if let Some(left_out) = picture.steps.len().checked_sub(MOST_STEPS + 1) {
        line(&mut svg, MARGIN, y + 8.0, "soft small", &format!("and {} more steps", left_out + 1));
        y += 20.0;
    }
    y = thumbnails(&mut svg, picture, &time, lanes_end, y);
    if !picture.footer.is_empty() {
        line(&mut svg, MARGIN, y + 8.0, "soft small", &shortened(&picture.footer, 170));
        y += 18.0;
    }
    document(picture, &svg, y + 8.0)
}

fn document(picture: &InquiryPicture, body: &str, height: f64) -> String {
    let (title, sentence) = (escaped(&picture.title), escaped(&picture.sentence));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n\
         <desc>{sentence}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\" rx=\"12\"/>\n{body}</svg>\n"
    )
}

/// Seconds to pixels.
struct TimeAxis {
    from_s: f64,
    to_s: f64,
}

impl TimeAxis {
    /// An axis on which everything that the picture has finds room.
    fn of(picture: &InquiryPicture) -> Self {
        let looks = picture.steps.iter().filter_map(|step| step.span_s);
        let clips = picture.clips.iter().map(|clip| clip.span_s);
        let (mut from_s, mut to_s) = (f64::MAX, f64::MIN);
        for (start, end) in
            looks.chain(clips).chain(picture.truth_s.iter().copied()).chain([picture.window_s])
        {
            // A time that is no time must not stretch the axis until nothing can be seen on it.
            if [start, end].iter().all(|t| t.is_finite() && t.abs() < 1e7) {
                (from_s, to_s) = (from_s.min(start), to_s.max(end));
            }
        }
        if from_s > to_s {
            (from_s, to_s) = (0.0, 1.0);
        }
        Self { from_s, to_s: to_s.max(from_s + 0.1) }
    }

    fn x(&self, t_s: f64) -> f64 {
        let part = (t_s - self.from_s) / (self.to_s - self.from_s);
        let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        PLOT.0 + (PLOT.1 - PLOT.0) * part
    }

    /// Left edge and width of a span, never too narrow to be seen.
    fn bar(&self, (start, end): (f64, f64), narrowest: f64) -> (f64, f64) {
        let (x0, x1) = (self.x(start), self.x(end));
        let width = (x1 - x0).max(narrowest);
        (((x0 + x1 - width) / 2.0).clamp(PLOT.0, PLOT.1 - width), width)
    }
}

/// Returns where it ends.
fn header(svg: &mut String, picture: &InquiryPicture) -> f64 {
    let mut title = format!("<tspan>{}</tspan>", escaped(&shortened(&picture.title, 48)));
    if let Some(score) = picture.score {
        let _ = write!(title, "<tspan class=\"red num\" dx=\"12\">{:.2}</tspan>", unit(score));
    }
    if !picture.level.is_empty() {
        let level = escaped(&picture.level);
        let _ = write!(title, "<tspan class=\"soft\" dx=\"12\" font-size=\"14\">{level}</tspan>");
    }
    let _ = writeln!(svg, "<text class=\"title ink\" x=\"{MARGIN}\" y=\"46\">{title}</text>");
    let _ = writeln!(
        svg,
        "<text class=\"soft\" x=\"{}\" y=\"46\" text-anchor=\"end\">{}</text>",
        WIDTH - MARGIN,
        escaped(&shortened(&picture.place, 64))
    );
    let mut y = 48.0;
    for sentence in wrapped(&picture.sentence, 140, 2) {
        y += 22.0;
        line(svg, MARGIN, y, "sentence ink", &sentence);
    }
    y + 22.0
}

/// The grounds of the lanes and the names of the operators.
fn lanes(svg: &mut String, steps: &[PictureStep], top: f64) {
    for (i, step) in steps.iter().enumerate() {
        let y = top + LANE_HEIGHT * i as f64;
        if i % 2 == 0 {
            let _ = writeln!(
                svg,
                "<rect class=\"lane\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
                 height=\"{LANE_HEIGHT}\" rx=\"6\"/>",
                MARGIN - 12.0,
                WIDTH - 2.0 * MARGIN + 24.0
            );
        }
        let (name, colour) = look_of(step.operator);
        let frames = match (step.times_s.len(), step.span_s) {
            (0, None) => String::new(),
            (0, Some(_)) => "nothing stored".into(),
            (n, Some((start, end))) => format!("{n} in {} s", seconds(end - start)),
            (n, None) => format!("{n} frames"),
        };
        let middle = y + LANE_HEIGHT / 2.0;
        let _ = writeln!(
            svg,
            "<text class=\"op\" x=\"{MARGIN}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            if frames.is_empty() { middle + 4.5 } else { middle - 1.0 }
        );
        line(svg, MARGIN, middle + 15.0, "soft small num", &frames);
    }
}

/// Name and colour of an operator. The colours are of like lightness, differ for the colour-blind,
/// and stand on light ground as on dark.
fn look_of(operator: StepOperator) -> (&'static str, &'static str) {
    match operator {
        StepOperator::Glance => ("glance", "#7a8699"),
        StepOperator::Backtrack => ("backtrack", "#3b82f6"),
        StepOperator::Expand => ("expand", "#12a594"),
        StepOperator::Sample => ("sample", "#d9820f"),
        StepOperator::Final => ("final", "#e0405a"),
        StepOperator::Invalid => ("refused", "#7a8699"),
    }
}

fn axis(svg: &mut String, time: &TimeAxis, top: f64, bottom: f64) {
    let (marks, decimals) = ticks(time.from_s, time.to_s, 7.0);
    for mark in marks {
        let x = time.x(mark);
        let _ = writeln!(
            svg,
            "<line class=\"edge\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\
             <text class=\"soft small num\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">\
             {mark:.decimals$}</text>",
            bottom + 4.0,
            bottom + 18.0
        );
    }
    line(svg, MARGIN, bottom + 18.0, "soft small", "seconds");
}

/// The score of every second: the clips' scores over the floor.
fn score(svg: &mut String, picture: &InquiryPicture, time: &TimeAxis, top: f64) {
    let bottom = top + SCORE_HEIGHT;
    let y = |score: f32| bottom - SCORE_HEIGHT * f64::from(unit(score));
    line(svg, MARGIN, top + 12.0, "op ink", "score");
    for (level, name) in [(1.0, "1"), (0.5, "½"), (0.0, "0")] {
        let _ = writeln!(
            svg,
            "<line class=\"edge\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            PLOT.0,
            PLOT.1,
            PLOT.0 - 8.0,
            y(level) + 4.0,
            y = y(level),
        );
    }
    let mut edge = format!("M{:.1} {:.1}", PLOT.0, y(picture.floor));
    for (x, score) in score_steps(picture, time) {
        let _ = write!(edge, "H{x:.1}V{:.1}", y(score));
    }
    let _ = write!(edge, "H{:.1}", PLOT.1);
    let _ = writeln!(
        svg,
        "<path class=\"red\" fill-opacity=\"0.16\" d=\"{edge}V{bottom:.1}H{:.1}Z\"/>\
         <path class=\"redline\" fill=\"none\" stroke-width=\"1.6\" stroke-linejoin=\"round\" \
         d=\"{edge}\"/>",
        PLOT.0
    );
}

/// Where the score curve changes, as x and the score from there: the highest of the clips there.
fn score_steps(picture: &InquiryPicture, time: &TimeAxis) -> Vec<(f64, f32)> {
    let bars: Vec<(f64, f64, f32)> = picture
        .clips
        .iter()
        .take(MOST_CLIPS)
        .map(|clip| {
            let (x, width) = time.bar(clip.span_s, 3.0);
            (x, x + width, clip.score)
        })
        .collect();
    let mut edges: Vec<f64> = bars.iter().flat_map(|&(from, to, _)| [from, to]).collect();
    edges.sort_by(f64::total_cmp);
    let score_at = |x: f64| {
        let here = bars.iter().filter(|&&(from, to, _)| from <= x && x < to);
        here.map(|bar| bar.2).fold(picture.floor, f32::max)
    };
    edges.into_iter().map(|x| (x, score_at(x))).collect()
}

/// A clip and where its label has room.
struct Chip {
    bar: (f64, f64),
    row: usize,
    x: f64,
    width: f64,
    text: String,
}

fn chips(picture: &InquiryPicture, time: &TimeAxis) -> Vec<Chip> {
    let mut ends: Vec<f64> = Vec::new();
    let mut clips: Vec<_> = picture.clips.iter().take(MOST_CLIPS).collect();
    clips.sort_by(|a, b| a.span_s.0.total_cmp(&b.span_s.0));
    clips
        .into_iter()
        .map(|clip| {
            let text = format!("{} {:.2}", shortened(&clip.label, 28), unit(clip.score));
            let width = 7.7 * text.chars().count() as f64 + 14.0;
            let bar = time.bar(clip.span_s, 3.0);
            let x = (bar.0 + bar.1 / 2.0 - width / 2.0).clamp(PLOT.0, PLOT.1 - width);
            let row = ends.iter().position(|end| end + 6.0 <= x).unwrap_or(ends.len());
            if row == ends.len() {
                ends.push(0.0);
            }
            ends[row] = x + width;
            Chip { bar, row, x, width, text }
        })
        .collect()
}

/// The clips of the verdict, over everything that was looked at.
fn clips(svg: &mut String, chips: &[Chip], top: f64, score_top: f64, bottom: f64) {
    for chip in chips {
        let (x, width) = chip.bar;
        let y = top + (CHIP_HEIGHT + 3.0) * chip.row as f64;
        let middle = x + width / 2.0;
        let _ = writeln!(
            svg,
            "<rect class=\"red\" fill-opacity=\"0.09\" x=\"{x:.1}\" y=\"{score_top:.1}\" \
             width=\"{width:.1}\" height=\"{:.1}\"/>\
             <line class=\"redline\" x1=\"{middle:.1}\" y1=\"{:.1}\" x2=\"{middle:.1}\" \
             y2=\"{score_top:.1}\"/>\
             <rect class=\"red\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
             height=\"{CHIP_HEIGHT}\" rx=\"10\"/>\
             <text class=\"onchip num\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom - score_top,
            y + CHIP_HEIGHT,
            chip.x,
            chip.width,
            chip.x + chip.width / 2.0,
            y + 14.0,
            escaped(&chip.text)
        );
    }
}

/// Where the incident really was: a green bar on top of the score.
fn truth(svg: &mut String, picture: &InquiryPicture, time: &TimeAxis, score_top: f64) {
    if picture.truth_s.is_empty() {
        return;
    }
    for &span in picture.truth_s.iter().take(MOST_CLIPS) {
        let (x, width) = time.bar(span, 3.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"5\" rx=\"2.5\" \
             fill=\"#1f9d55\"/>",
            score_top - 2.5
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" fill=\"#1f9d55\" x=\"{MARGIN}\" y=\"{:.1}\">truth</text>",
        score_top + 28.0
    );
}

/// When the sentinel woke: a dashed line, named between score and lanes.
fn wake(svg: &mut String, picture: &InquiryPicture, time: &TimeAxis, top: f64, bottom: f64) {
    let Some(woken) = picture.woken_at_s.filter(|t| t.is_finite()) else { return };
    let (x, y) = (time.x(woken), top + SCORE_HEIGHT + 4.0);
    let text = format!("woken {}", seconds(woken));
    let width = 6.8 * text.chars().count() as f64 + 12.0;
    let left = (x - width / 2.0).clamp(PLOT.0, PLOT.1 - width);
    let _ = writeln!(
        svg,
        "<line class=\"thread\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
         stroke-dasharray=\"2 4\" stroke-opacity=\"0.7\"/>\
         <rect class=\"ink\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"16\" rx=\"8\"/>\
         <text class=\"onink small num\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
        left + width / 2.0,
        y + 12.0
    );
}

/// The spans looked at, with a tick for each frame; for the verdict, its clips.
fn looks(
    svg: &mut String,
    picture: &InquiryPicture,
    steps: &[PictureStep],
    time: &TimeAxis,
    top: f64,
) {
    const HEIGHT: f64 = 22.0;
    for (i, step) in steps.iter().enumerate() {
        let verdict = step.operator == StepOperator::Final;
        for clip in picture.clips.iter().take(MOST_CLIPS).filter(|_| verdict) {
            let (x, width) = time.bar(clip.span_s, 5.0);
            let _ = writeln!(
                svg,
                "<rect class=\"red\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
                 height=\"{HEIGHT}\" rx=\"4\"/>",
                top + LANE_HEIGHT * (i as f64 + 0.5) - HEIGHT / 2.0
            );
        }
        let Some(span) = step.span_s else { continue };
        let (_, colour) = look_of(step.operator);
        let (x, width) = time.bar(span, 5.0);
        let y = top + LANE_HEIGHT * (i as f64 + 0.5) - HEIGHT / 2.0;
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" rx=\"4\" \
             fill=\"{colour}\" fill-opacity=\"0.22\" stroke=\"{colour}\" stroke-opacity=\"0.75\"/>\
             <path stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linecap=\"round\" d=\""
        );
        for t in &step.times_s {
            let _ = write!(svg, "M{:.1} {:.1}v{:.1}", time.x(*t), y + 5.0, HEIGHT - 10.0);
        }
        svg.push_str("\"/>\n");
    }
}

/// P(anomalous) after each step, read downwards.
fn belief(svg: &mut String, steps: &[PictureStep], score_top: f64, lanes_top: f64) {
    let x = |p: f32| BELIEF.0 + (BELIEF.1 - BELIEF.0) * f64::from(unit(p));
    let y = |i: usize| lanes_top + LANE_HEIGHT * (i as f64 + 0.5);
    let bottom = lanes_top + LANE_HEIGHT * steps.len() as f64;
    let middle = (BELIEF.0 + BELIEF.1) / 2.0;
    for (dy, words) in [(12.0, "p(anomalous)"), (27.0, "after each step")] {
        let _ = writeln!(
            svg,
            "<text class=\"soft small\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">\
             {words}</text>",
            score_top + dy
        );
    }
    for (p, name) in [(0.0, "0"), (0.5, "½"), (1.0, "1")] {
        let _ = writeln!(
            svg,
            "<line class=\"edge\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"soft small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            lanes_top - 8.0,
            lanes_top - 13.0,
            x = x(p),
        );
    }
    let points: Vec<String> =
        steps.iter().enumerate().map(|(i, s)| format!("{:.1},{:.1}", x(s.p), y(i))).collect();
    let _ = writeln!(
        svg,
        "<polyline class=\"thread\" fill=\"none\" stroke-width=\"1.6\" stroke-linejoin=\"round\" \
         points=\"{}\"/>",
        points.join(" ")
    );
    for (i, step) in steps.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<circle class=\"dot\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\" stroke-width=\"2\"/>\
             <text class=\"ink small num\" x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            BELIEF.1 + 12.0,
            y(i) + 4.0,
            unit(step.p),
            cx = x(step.p),
            cy = y(i),
        );
    }
}

fn thoughts(svg: &mut String, steps: &[PictureStep], top: f64) {
    for (i, step) in steps.iter().enumerate() {
        let lines = wrapped(&step.thought, 44, 3);
        let middle = top + LANE_HEIGHT * (i as f64 + 0.5);
        let first = middle + 4.0 - 7.5 * lines.len().saturating_sub(1) as f64;
        let class = if step.operator == StepOperator::Invalid { "soft small" } else { "ink small" };
        for (k, words) in lines.iter().enumerate() {
            line(svg, THOUGHT, first + 15.0 * k as f64, class, words);
        }
    }
}

/// The frames, each joined to its moment. Returns where they end.
fn thumbnails(
    svg: &mut String,
    picture: &InquiryPicture,
    time: &TimeAxis,
    axis_y: f64,
    top: f64,
) -> f64 {
    const GAP: f64 = 12.0;
    const WIDEST: f64 = 168.0;
    let shown = &picture.thumbnails[..picture.thumbnails.len().min(MOST_THUMBNAILS)];
    if shown.is_empty() {
        return top;
    }
    let room = WIDTH - 2.0 * MARGIN + GAP;
    let width = (room / shown.len() as f64 - GAP).min(WIDEST);
    let height = width * 2.0 / 3.0;
    let y = top + 28.0;
    for (i, thumbnail) in shown.iter().enumerate() {
        let x = MARGIN + (width + GAP) * i as f64;
        let middle = x + width / 2.0;
        let _ = writeln!(
            svg,
            "<path class=\"edge\" fill=\"none\" stroke-width=\"1.5\" d=\"M{from:.1} {:.1}\
             C{from:.1} {bend:.1} {middle:.1} {bend:.1} {middle:.1} {y:.1}\"/>\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"4\" \
             fill=\"#0b0e12\"/>\
             <image x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             preserveAspectRatio=\"xMidYMid meet\" href=\"data:image/jpeg;base64,{}\"/>\
             <text class=\"soft small num\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">\
             {} s</text>",
            axis_y + 22.0,
            base64(&thumbnail.jpeg),
            y + height + 16.0,
            seconds(thumbnail.t_s),
            from = time.x(thumbnail.t_s),
            bend = y - 12.0,
        );
    }
    y + height + 34.0
}

fn line(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

/// Seconds with a decimal where it says something.
fn seconds(seconds: f64) -> String {
    match format!("{seconds:.1}") {
        text if text.ends_with(".0") => text[..text.len() - 2].to_owned(),
        text => text,
    }
}

/// A probability; what is none becomes 0.
fn unit(p: f32) -> f32 {
    if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) }
}
