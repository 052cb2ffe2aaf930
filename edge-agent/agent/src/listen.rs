//! What people and programs see while the agent runs.

use crate::{conclude::Listener, incidents::phase_word};
use event_log::{EventRow, Phase};
use hal_camera::Span;
use inquiry::{Report, Turn};
use policy::{Step, StepOperator};
use std::io::{self, Write};

/// For people: one line per look, a few per event.
pub struct Readable<W>(pub W);

/// For programs: one JSON object per line and event, on its `new`; with `updates` also on `update`
/// and `end`.
pub struct Lines<W> {
    /// Where to.
    pub out: W,
    /// Whether changes of an event are lines too.
    pub updates: bool,
}

impl<W: Write> Listener for Readable<W> {
    fn looked(&mut self, camera: &str, window: Span, report: &Report) {
        let outcome = &report.outcome;
        let line = format!(
            "{} {camera}: {} → p {:.2}, {} frames, {:.0} ms",
            clock(window.end.as_s()),
            path(&outcome.trajectory),
            outcome.p,
            outcome.frames_used,
            report.timing.total_ms,
        );
        self.say(&line);
        for (number, turn) in report.turns.iter().enumerate() {
            self.say(&format!("        turn {}: {}", number + 1, spent(turn)));
        }
    }

    fn event(&mut self, row: &EventRow, phase: Phase) {
        let score = row.score.unwrap_or(0.0);
        let (start, end) = (seconds(row.start_s), seconds(row.end_s));
        let level = row.level.name().to_uppercase();
        let id = row.id.as_str();
        self.say(&format!(
            "{} {level} {} {score:.2} from {} to {} ({id})",
            phase_word(phase),
            row.label,
            clock(start),
            clock(end),
        ));
        if phase == Phase::New {
            self.say(&format!("    {}", row.sentence));
            let steps: Vec<Step> =
                serde_json::from_value(row.trajectory.clone()).unwrap_or_default();
            for step in &steps {
                self.say(&format!("    {}", told(step)));
            }
            self.say(&format!("    evidence: {} frames kept", row.evidence.len()));
        }
    }

    fn trouble(&mut self, sentence: &str) {
        self.say(&format!("note: {sentence}"));
    }
}

impl<W: Write> Readable<W> {
    fn say(&mut self, line: &str) {
        // Nobody reads any more: watching goes on.
        let _ = writeln!(self.0, "{line}").and_then(|()| self.0.flush());
    }
}

impl<W: Write> Listener for Lines<W> {
    fn looked(&mut self, camera: &str, _: Span, report: &Report) {
        for (number, turn) in report.turns.iter().enumerate() {
            tracing::info!("{camera}: turn {}: {}", number + 1, spent(turn));
        }
    }

    fn event(&mut self, row: &EventRow, phase: Phase) {
        if phase == Phase::New || self.updates {
            let line = serde_json::to_string(row).unwrap_or_default();
            let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }

    fn trouble(&mut self, sentence: &str) {
        let _ = writeln!(io::stderr(), "note: {sentence}");
    }
}

/// What a turn took, as a line.
fn spent(turn: &Turn) -> String {
    let Turn { pairs_encoded: new, pairs_cached: known, .. } = turn;
    format!(
        "vision {:.0} ms, {new} pairs, {known} more from the cache; read {} at {:.0} tokens/s; wrote {} at \
         {:.1} tokens/s",
        turn.vision_ms, turn.read, turn.read_per_s, turn.written, turn.written_per_s
    )
}

/// The operators of a trajectory in a line.
pub fn path(steps: &[Step]) -> String {
    let names: Vec<&str> = steps.iter().map(|s| operator(s.op)).collect();
    names.join(" → ")
}

/// An operator's name.
pub fn operator(op: StepOperator) -> &'static str {
    match op {
        StepOperator::Glance => "glance",
        StepOperator::Backtrack => "backtrack",
        StepOperator::Expand => "expand",
        StepOperator::Sample => "sample",
        StepOperator::Final => "final",
        StepOperator::Invalid => "invalid",
    }
}

/// A step as a line: what was thought, what was looked at, what it made of p.
pub fn told(step: &Step) -> String {
    let looked = match (step.frames.first(), step.frames.last()) {
        (Some(first), Some(last)) => {
            format!("{} frames {:.1}–{:.1} s", step.frames.len(), first.t_s, last.t_s)
        }
        _ => String::new(),
    };
    let thought = if step.thought.is_empty() {
        String::new()
    } else {
        format!(" — “{}”", step.thought)
    };
    format!("{:<9} {looked:<26} p {:.2}{thought}", operator(step.op), step.p)
}

fn seconds(t: Option<hal_camera::MediaTime>) -> f64 {
    t.map_or(0.0, hal_camera::MediaTime::as_s)
}

/// Seconds as h:mm:ss.
fn clock(s: f64) -> String {
    let s = s.max(0.0) as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}
