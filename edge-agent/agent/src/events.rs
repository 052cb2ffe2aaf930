//! `lookback events` and `lookback show`: what was seen, and why it was called that.
//!
//! Both write to the `out` they are given. Words of the policy are cleaned of control characters
//! before they reach a terminal: they are a model's words.

mod story;
mod table;
#[cfg(test)]
mod tests;
mod when;

use crate::config::Config;
use crate::draw::{InquiryPicture, PictureError, event_steps, inquiry_svg};
use crate::parts;
use event_log::{EventId, EventRow, Kinds, Level, LogError, LogReader, Query};
use frame_store::{PinId, RealFs, read_pinned_in};
use hal_camera::WallTime;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
pub use when::Since;

/// List recorded events.
#[derive(Clone, Debug, clap::Args)]
pub struct EventsArguments {
    /// Only events of at least this level: info, notice or alert
    #[arg(long, value_parser = level)]
    pub level: Option<Level>,
    /// Only events of the camera of this name
    #[arg(long, value_name = "NAME")]
    pub camera: Option<String>,
    /// Only events that ended since: an age (90s, 30m, 12h, 7d) or a time in UTC (2026-11-03,
    /// 2026-11-03T12:34)
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Only the newest so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// incidents (what cameras saw), health (what happened to the device) or all
    #[arg(long, default_value = "all", value_parser = kinds)]
    pub kind: Kinds,
    /// One JSON object a line, with everything
    #[arg(long)]
    pub json: bool,
}

/// Show what an event rests on, step by step.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArguments {
    /// The event's id, or the beginning of it
    pub event: String,
    /// Draw the inquiry into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// The event as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Why there is nothing to see. Each is one sentence with the remedy; the exit code is 1.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No event of that id.
    #[error("there is no event '{asked}': {}", suggestion(nearest))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The ids most like it.
        nearest: Vec<EventId>,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is nothing to draw.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The picture cannot be written.
    #[error("the picture cannot be written to '{}': {source}", path.display())]
    Svg {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Lists the events of the configured device.
///
/// # Errors
/// [`CommandError::Log`], [`CommandError::Output`].
pub fn list(
    config: &Config,
    arguments: &EventsArguments,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let reader = LogReader::open(&parts::log_path(&config.device.data_dir))?;
    list_events(arguments, &reader, parts::now(), out)
}

/// Tells the story of an event of the configured device, and draws it if asked to.
///
/// # Errors
/// [`CommandError`].
pub fn show(
    config: &Config,
    arguments: &ShowArguments,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let reader = LogReader::open(&parts::log_path(&config.device.data_dir))?;
    let store_dir = parts::store_dir(&config.device.data_dir);
    show_event(arguments, &reader, &|row| pinned_jpegs(row, &store_dir), out)
}

/// The pinned frames of an event by their id; none if they cannot be read, which `replay` and
/// `doctor` say.
fn pinned_jpegs(row: &EventRow, store_dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let frames = row.pin.and_then(|pin| read_pinned_in(store_dir, PinId(pin), &RealFs).ok());
    let frames = frames.into_iter().flatten();
    frames.map(|stored| (stored.id.to_string(), stored.frame.bytes)).collect()
}

/// Lists events, the newest last.
fn list_events(
    arguments: &EventsArguments,
    reader: &LogReader,
    now: WallTime,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let rows = reader.events(&Query {
        camera: arguments.camera.clone(),
        level_min: arguments.level,
        since_us: arguments.since.map(|since| since.unix_us(now)),
        kinds: arguments.kind,
        limit: arguments.limit,
        ..Query::default()
    })?;
    unless_nobody_reads(match arguments.json {
        true => rows.iter().try_for_each(|row| json_line(row, out)),
        false => table::write(&rows, out),
    })
}

/// Tells the story of one event. `evidence` gives the JPEG bytes of its pinned frames by frame id,
/// for the picture; what is missing is left out of it.
fn show_event(
    arguments: &ShowArguments,
    reader: &LogReader,
    evidence: &dyn Fn(&EventRow) -> BTreeMap<String, Vec<u8>>,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let row = find(&arguments.event, reader)?;
    if let Some(path) = &arguments.svg {
        draw(&row, path, &evidence(&row))?;
    }
    unless_nobody_reads(match arguments.json {
        true => json_line(&row, out),
        false => story::write(&row, out),
    })?;
    match &arguments.svg {
        Some(path) if !arguments.json => {
            unless_nobody_reads(writeln!(out, "\ndrawn in {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The event whose id is, or alone begins with, `asked`.
///
/// # Errors
/// [`CommandError::Unknown`] names the nearest; [`CommandError::Log`] if several begin so.
pub fn find(asked: &str, reader: &LogReader) -> Result<EventRow, CommandError> {
    match reader.event(asked) {
        Ok(Some(row)) => Ok(row),
        Ok(None) | Err(LogError::Id(_)) => {
            Err(CommandError::Unknown { asked: plain(asked), nearest: nearest(asked, reader)? })
        }
        Err(other) => Err(other.into()),
    }
}

fn draw(
    row: &EventRow,
    path: &Path,
    evidence: &BTreeMap<String, Vec<u8>>,
) -> Result<(), CommandError> {
    let event = serde_json::to_value(row).map_err(io::Error::from)?;
    let mut picture = InquiryPicture::from_event(&event)?;
    picture.show_frames(&event_steps(&event)?, evidence);
    std::fs::write(path, inquiry_svg(&picture))
        .map_err(|source| CommandError::Svg { path: path.into(), source })
}

/// The ids most like what was asked for, the most alike first, the newer of equals first.
fn nearest(asked: &str, reader: &LogReader) -> Result<Vec<EventId>, LogError> {
    const SEARCHED: usize = 1000;
    const SHOWN: usize = 3;
    let asked = asked.to_lowercase();
    let length = asked.chars().count();
    let rows = reader.events(&Query { limit: SEARCHED, ..Query::default() })?;
    let mut ids: Vec<(usize, EventId)> = rows
        .into_iter()
        .rev()
        .map(|row| {
            let beginning: String = row.id.as_str().chars().take(length).collect();
            (strsim::levenshtein(&asked, &beginning), row.id)
        })
        .collect();
    ids.sort_by_key(|(distance, _)| *distance);
    Ok(ids.into_iter().take(SHOWN).map(|(_, id)| id).collect())
}

fn suggestion(nearest: &[EventId]) -> String {
    match nearest {
        [] => "nothing was recorded yet".into(),
        [only] => format!("the only one is {only}"),
        several => {
            let ids: Vec<&str> = several.iter().map(EventId::as_str).collect();
            format!("the nearest are {}; `lookback events` lists all", ids.join(", "))
        }
    }
}

fn json_line(row: &EventRow, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    writeln!(out)
}

/// `lookback events | head` ends well.
fn unless_nobody_reads(written: io::Result<()>) -> Result<(), CommandError> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `text` without anything that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn level(text: &str) -> Result<Level, String> {
    [Level::Info, Level::Notice, Level::Alert]
        .into_iter()
        .find(|level| level.name() == text)
        .ok_or_else(|| "levels are info, notice and alert".into())
}

fn kinds(text: &str) -> Result<Kinds, String> {
    match text {
        "incidents" => Ok(Kinds::Incidents),
        "health" => Ok(Kinds::Health),
        "all" => Ok(Kinds::All),
        _ => Err("kinds are incidents, health and all".into()),
    }
}
