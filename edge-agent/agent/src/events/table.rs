//! Events as a table.

use super::{plain, when};
use event_log::EventRow;
use std::io::{self, Write};

const HEADINGS: [&str; COLUMNS] =
    ["event", "phase", "level", "camera", "time (UTC)", "media s", "label", "score", "what"];
const COLUMNS: usize = 9;
/// Columns of numbers, which are flush right.
const RIGHT: [usize; 2] = [5, 7];

/// This many characters of an id tell its event from every other in the log: they are its time,
/// which the log never gives out twice.
pub(super) const SHORT_ID: usize = 9;

pub(super) fn write(rows: &[EventRow], out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "no such events were recorded");
    }
    let cells: Vec<[String; COLUMNS]> = rows.iter().map(cells).collect();
    let width = |i: usize| {
        let longest = cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        longest.max(HEADINGS[i].chars().count())
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    line(&HEADINGS.map(str::to_owned), &widths, out)?;
    for row in &cells {
        line(row, &widths, out)?;
    }
    if rows.iter().any(|row| row.start.quality == hal_camera::ClockQuality::Unsynced) {
        writeln!(out, "? the clock was not set when this was recorded")?;
    }
    Ok(())
}

fn cells(row: &EventRow) -> [String; COLUMNS] {
    let none = || "–".to_owned();
    let media = row.start_s.zip(row.end_s);
    [
        row.id.as_str().chars().take(SHORT_ID).collect(),
        row.phase.name().into(),
        row.level.name().into(),
        row.camera.as_deref().map_or_else(none, plain),
        when::span(row.start, row.end),
        media.map_or_else(none, |(start, end)| format!("{:.1}–{:.1}", start.as_s(), end.as_s())),
        plain(&row.label),
        row.score.map_or_else(none, |score| format!("{score:.2}")),
        plain(&row.sentence),
    ]
}

fn line(
    cells: &[String; COLUMNS],
    widths: &[usize; COLUMNS],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = String::new();
    for (i, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        match RIGHT.contains(&i) {
            true => text.push_str(&format!("{cell:>width$}  ")),
            false => text.push_str(&format!("{cell:<width$}  ")),
        }
    }
    writeln!(out, "{}", text.trim_end())
}
