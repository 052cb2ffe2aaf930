//! One event, told step by step.

use super::{plain, when};
use crate::draw::{event_steps, looked_at};
use event_log::{EventKind, EventRow};
use policy::{Final, Hypothesis, Step, StepOperator, Verdict};
use std::io::{self, Write};

/// Writes the story of `row`.
pub(super) fn write(row: &EventRow, out: &mut dyn Write) -> io::Result<()> {
    head(row, out)?;
    match row.kind {
        EventKind::Health => facts(row, out),
        EventKind::Incident => {
            let event = serde_json::to_value(row)?;
            match event_steps(&event) {
                Ok(steps) => steps_told(&steps, out)?,
                // The rest of the event is still worth reading.
                Err(error) => writeln!(out, "\n{error}")?,
            }
            evidence(row, out)
        }
    }
}

fn head(row: &EventRow, out: &mut dyn Write) -> io::Result<()> {
    let score = row.score.map_or(String::new(), |score| format!(" {score:.2}"));
    writeln!(out, "{}{score}, {}: {}", plain(&row.label), row.level.name(), plain(&row.sentence))?;
    writeln!(out)?;
    writeln!(out, "event     {}, {}, change {}", row.id, row.phase.name(), row.seq)?;
    if let Some(camera) = &row.camera {
        writeln!(out, "camera    {}", plain(camera))?;
    }
    writeln!(out, "time      {} UTC", when::span(row.start, row.end))?;
    if let Some((start, end)) = row.start_s.zip(row.end_s) {
        writeln!(out, "media     {:.3} – {:.3} s", start.as_s(), end.as_s())?;
    }
    if let Some((bundle, engine)) = row.bundle.as_ref().zip(row.engine.as_ref()) {
        writeln!(out, "decided   by {} on {}", plain(bundle), plain(engine))?;
    }
    if let Some(stopped_by) = &row.stopped_by {
        let frames = counted(row.frames_used.unwrap_or(0) as usize, "frame");
        writeln!(out, "ended     by {}, after {frames}", plain(stopped_by))?;
    }
    Ok(())
}

fn facts(row: &EventRow, out: &mut dyn Write) -> io::Result<()> {
    let Some(fields) = row.fields.as_object().filter(|fields| !fields.is_empty()) else {
        return Ok(());
    };
    writeln!(out)?;
    let width = fields.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    for (key, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{:<width$}  {}", plain(key), plain(&value))?;
    }
    Ok(())
}

fn steps_told(steps: &[Step], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "\nsteps     (p: how probable it then was; seconds count from the beginning of the stretch)"
    )?;
    let held = steps.first().map(|first| &first.args["held"]);
    let held = held.and_then(|held| held[0].as_f64().zip(held[1].as_f64()));
    for step in steps {
        if !step.thought.is_empty() {
            writeln!(out, "             “{}”", plain(&step.thought))?;
        }
        if let Some(hypothesis) = &step.hypothesis {
            suspicion(hypothesis, out)?;
        }
        let what = match step.op {
            StepOperator::Glance => "glance at",
            StepOperator::Backtrack => "backtrack to",
            StepOperator::Expand => "expand to",
            StepOperator::Sample => "sample",
            StepOperator::Final => "final:",
            StepOperator::Invalid => "refused:",
        };
        let seen = match step.op {
            StepOperator::Final => verdict(step),
            StepOperator::Invalid => plain(step.args["error"].as_str().unwrap_or("no operator")),
            _ => look(step, held.unwrap_or((f64::MIN, f64::MAX))),
        };
        writeln!(out, "{:>3}  p {:.2}  {what} {seen}", step.step, step.p)?;
    }
    Ok(())
}

/// What was looked at and when the frames were taken.
fn look(step: &Step, held: (f64, f64)) -> String {
    let span = looked_at(step, held)
        .map_or_else(|| "nowhere".into(), |(start, end)| format!("{start:.1} – {end:.1} s"));
    match step.frames.as_slice() {
        [] => format!("{span}: no frames are stored there"),
        frames => {
            let times: Vec<String> = frames.iter().map(|f| format!("{:.1}", f.t_s)).collect();
            format!("{span}: {} at {}", counted(frames.len(), "frame"), times.join(" "))
        }
    }
}

fn suspicion(hypothesis: &Hypothesis, out: &mut dyn Write) -> io::Result<()> {
    for clip in &hypothesis.clips {
        let [start, end] = clip.span;
        let missing = match clip.missing.as_str() {
            "" => String::new(),
            missing => format!(", still to see: {}", plain(missing)),
        };
        writeln!(
            out,
            "             suspects {} at {start:.1} – {end:.1} s{missing}",
            plain(&clip.label)
        )?;
    }
    Ok(())
}

fn verdict(step: &Step) -> String {
    let Ok(last) = serde_json::from_value::<Final>(step.args.clone()) else {
        return "a verdict that cannot be read".into();
    };
    let word = match last.verdict {
        Verdict::Anomalous => "anomalous",
        Verdict::Normal => "normal",
    };
    let clips: Vec<String> = last
        .clips
        .iter()
        .map(|clip| {
            let shown: Vec<String> = clip.evidence.iter().map(u32::to_string).collect();
            let shown = match shown.len() {
                0 => String::new(),
                _ => format!(" (seen in {})", shown.join(", ")),
            };
            format!("; {} at {:.1} – {:.1} s{shown}", plain(&clip.label), clip.start, clip.end)
        })
        .collect();
    format!("{word}{}", clips.concat())
}

fn evidence(row: &EventRow, out: &mut dyn Write) -> io::Result<()> {
    if row.evidence.is_empty() {
        return writeln!(out, "\nevidence  none is kept");
    }
    let pin = row.pin.map_or(String::new(), |pin| format!(", pin {pin}"));
    writeln!(out, "\nevidence  {}{pin}", counted(row.evidence.len(), "frame"))?;
    for item in &row.evidence {
        let (id, hash) = (plain(&item.frame_id), plain(&item.hash));
        writeln!(out, "     {id}  {:>10.3} s  {hash}", item.media_time.as_s())?;
    }
    Ok(())
}

fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
