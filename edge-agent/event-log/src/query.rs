//! Reading the log: which events, and what each looks like to people and programs.

use crate::id::normal_prefix;
use crate::{EventId, EvidenceItem, Level, LogError, Phase, rfc3339};
use hal_camera::{CameraId, ClockQuality, MediaTime, WallTime};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Which events are asked for. The default is the newest hundred of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only incidents of the camera of this name.
    pub camera: Option<String>,
    /// Only events of at least this level.
    pub level_min: Option<Level>,
    /// Only events that ended at or after this wall time, µs since 1970 UTC.
    pub since_us: Option<i64>,
    /// Only events that began before this wall time, µs since 1970 UTC.
    pub until_us: Option<i64>,
    /// Incidents, the device's own events, or both.
    pub kinds: Kinds,
    /// At most so many, the newest.
    pub limit: usize,
}

/// Which kinds of events are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kinds {
    /// Only incidents.
    Incidents,
    /// Only the device's own events.
    Health,
    /// Both.
    #[default]
    All,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            camera: None,
            level_min: None,
            since_us: None,
            until_us: None,
            kinds: Kinds::All,
            limit: 100,
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Something that a camera saw.
    Incident,
    /// Something that happened to the device.
    Health,
}

/// An event as it stands in the log. Its JSON is what `lookback events` prints: wall times as
/// RFC 3339 text in UTC, media times in seconds; what a health event has not is null, its `label` is
/// its kind and its `sentence` its text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventRow {
    /// Its name.
    pub id: EventId,
    /// The number of its latest change.
    pub seq: u64,
    /// Incident or health.
    pub kind: EventKind,
    /// Where it stands.
    pub phase: Phase,
    /// The camera's name.
    pub camera: Option<String>,
    /// The camera's number when it was recorded.
    pub camera_id: Option<CameraId>,
    /// Start on the media clock.
    #[serde(serialize_with = "seconds")]
    pub start_s: Option<MediaTime>,
    /// End on the media clock.
    #[serde(serialize_with = "seconds")]
    pub end_s: Option<MediaTime>,
    /// Start on the wall clock.
    #[serde(serialize_with = "moment")]
    pub start: WallTime,
    /// End on the wall clock.
    #[serde(serialize_with = "moment")]
    pub end: WallTime,
    /// How far `start` and `end` can be trusted.
    pub clock: ClockQuality,
    /// When it was first committed; as far to be trusted as the clock was then.
    #[serde(serialize_with = "moment_us")]
    pub committed: i64,
    /// How much it asks of people.
    pub level: Level,
    /// What it is, in a word or two.
    pub label: String,
    /// How probable, 0 to 1.
    #[serde(serialize_with = "score")]
    pub score: Option<f32>,
    /// What happened.
    pub sentence: String,
    /// The clips of the final verdict.
    pub clips: Value,
    /// The steps that led to it.
    pub trajectory: Value,
    /// How many frames the inquiry looked at.
    pub frames_used: Option<u32>,
    /// The frames it rests on.
    pub evidence: Vec<EvidenceItem>,
    /// The bundle that decided.
    pub bundle: Option<String>,
    /// The engine that ran it.
    pub engine: Option<String>,
    /// What ended the inquiry.
    pub stopped_by: Option<String>,
    /// The frame store's pin that holds the evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<u64>,
    /// The facts of a health event.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub fields: Value,
}

/// A change of an event that the server has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outgoing {
    /// Its number.
    pub seq: u64,
    /// The event that changed.
    pub event: EventId,
    /// The phase that this change brought it to.
    pub phase: Phase,
    /// Its level then: alerts go first.
    pub level: Level,
}

pub(crate) fn events(conn: &Connection, query: &Query) -> rusqlite::Result<Vec<EventRow>> {
    let kind = match query.kinds {
        Kinds::Incidents => Some("incident"),
        Kinds::Health => Some("health"),
        Kinds::All => None,
    };
    // The evidence is read while the statement for the rows is under way: one snapshot for both,
    // though the writer goes on.
    let mut rows = conn
        .prepare_cached(
            "SELECT * FROM event
             WHERE (:camera IS NULL OR camera_name = :camera)
               AND (:level IS NULL OR level >= :level)
               AND (:since IS NULL OR end_us >= :since)
               AND (:until IS NULL OR start_us < :until)
               AND (:kind IS NULL OR kind = :kind)
             ORDER BY number DESC LIMIT :limit",
        )?
        .query_map(
            named_params! {
                ":camera": query.camera,
                ":level": query.level_min.map(|level| level as u8),
                ":since": query.since_us,
                ":until": query.until_us,
                ":kind": kind,
                ":limit": i64::try_from(query.limit).unwrap_or(i64::MAX),
            },
            |row| event_row(conn, row),
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows.reverse();
    Ok(rows)
}

pub(crate) fn event(
    conn: &Connection,
    path: &Path,
    text: &str,
) -> Result<Option<EventRow>, LogError> {
    let prefix = normal_prefix(text)?;
    let read = || {
        // '~' sorts after every character of an id.
        let candidates = conn
            .prepare("SELECT id FROM event WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id LIMIT 9")?
            .query_map([&prefix], |row| event_id(row, 0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let found = match candidates.as_slice() {
            [only] => conn
                .query_row("SELECT * FROM event WHERE id = ?", [only.as_str()], |row| {
                    event_row(conn, row)
                })
                .optional()?,
            _ => None,
        };
        Ok((candidates, found))
    };
    let (candidates, found) =
        read().map_err(|e| LogError::from_sqlite(path, "read an event", e))?;
    match candidates.len() {
        0 | 1 => Ok(found),
        _ => Err(LogError::Ambiguous { prefix, candidates }),
    }
}

pub(crate) fn pins(conn: &Connection) -> rusqlite::Result<BTreeSet<u64>> {
    conn.prepare("SELECT pin FROM event WHERE pin IS NOT NULL")?
        .query_map([], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))?
        .collect()
}

pub(crate) fn outbox(
    conn: &Connection,
    after: u64,
    limit: usize,
    level_min: Level,
) -> rusqlite::Result<Vec<Outgoing>> {
    conn.prepare_cached(
        "SELECT outbox.seq, event.id, outbox.phase, outbox.level
         FROM outbox JOIN event ON event.number = outbox.event
         WHERE outbox.seq > ?1 AND outbox.level >= ?3 ORDER BY outbox.seq LIMIT ?2",
    )?
    .query_map(
        [after, limit as u64, level_min as u64].map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        |row| {
            Ok(Outgoing {
                seq: row.get(0)?,
                event: event_id(row, 1)?,
                phase: phase(row, 2)?,
                level: level(row, 3)?,
            })
        },
    )?
    .collect()
}

pub(crate) fn incident_after(conn: &Connection, id: &str) -> rusqlite::Result<Option<EventRow>> {
    conn.query_row(
        "SELECT * FROM event WHERE kind = 'incident' AND id > ? ORDER BY id LIMIT 1",
        [id],
        |row| event_row(conn, row),
    )
    .optional()
}

/// The event with the lowest seq above `after`; up to seq `floor` only one that is not over.
pub(crate) fn changed_after(
    conn: &Connection,
    after: u64,
    floor: u64,
) -> rusqlite::Result<Option<EventRow>> {
    let [after, floor] = [after, floor].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    conn.prepare_cached(
        "SELECT * FROM event
         WHERE seq > ?1 AND (seq > ?2 OR (kind = 'incident' AND phase <> 'end'))
         ORDER BY seq LIMIT 1",
    )?
    .query_row([after, floor], |row| event_row(conn, row))
    .optional()
}

/// How many events are over, or of the device itself, and have a seq above `after`, up to `until`.
pub(crate) fn over_between(conn: &Connection, after: u64, until: u64) -> rusqlite::Result<u64> {
    let between = [after, until].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    conn.query_row(
        "SELECT count(*) FROM event
         WHERE seq > ?1 AND seq <= ?2 AND (kind = 'health' OR phase = 'end')",
        between,
        |row| row.get(0),
    )
}

/// The seq up to which all events reach but the `newest` that changed last; 0 if there are no others.
pub(crate) fn floor(conn: &Connection, newest: u64) -> rusqlite::Result<u64> {
    let newest = i64::try_from(newest).unwrap_or(i64::MAX);
    conn.prepare_cached("SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?")?
        .query_row([newest], |row| row.get(0))
        .optional()
        .map(|seq| seq.unwrap_or(0))
}

pub(crate) fn state(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT value FROM state WHERE key = ?", [key], |row| row.get(0)).optional()
}

/// The log's own name, its newest seq, and the newest that the server has acknowledged.
pub(crate) fn names(conn: &Connection) -> rusqlite::Result<(String, u64, u64)> {
    conn.query_row("SELECT log_id, last_seq, acknowledged_seq FROM log", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

pub(crate) fn check(conn: &Connection, path: &Path) -> Result<Vec<String>, LogError> {
    let findings = || {
        let mut found = conn
            .prepare("PRAGMA integrity_check(20)")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        found.retain(|line| line != "ok");
        if conn.prepare("PRAGMA foreign_key_check")?.exists([])? {
            found.push("rows refer to rows that are gone".to_owned());
        }
        Ok(found)
    };
    match findings().map_err(|e| LogError::from_sqlite(path, "check it", e)) {
        Err(LogError::Damaged { detail, .. }) => Ok(vec![detail]),
        other => other,
    }
}

fn event_row(conn: &Connection, row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let clock = match row.get_ref("clock")?.as_str()? {
        "ntp" => ClockQuality::Ntp,
        _ => ClockQuality::Unsynced,
    };
    let wall = |column| row.get(column).map(|unix_us| WallTime { unix_us, quality: clock });
    let media = |column| row.get(column).map(|us: Option<i64>| us.map(MediaTime));
    Ok(EventRow {
        id: event_id(row, "id")?,
        seq: row.get("seq")?,
        kind: match row.get_ref("kind")?.as_str()? {
            "incident" => EventKind::Incident,
            _ => EventKind::Health,
        },
        phase: phase(row, "phase")?,
        camera: row.get("camera_name")?,
        camera_id: row.get::<_, Option<u16>>("camera")?.map(CameraId),
        start_s: media("start_media_us")?,
        end_s: media("end_media_us")?,
        start: wall("start_us")?,
        end: wall("end_us")?,
        clock,
        committed: row.get("committed_us")?,
        level: level(row, "level")?,
        label: row.get("label")?,
        score: row.get("score")?,
        sentence: row.get("sentence")?,
        clips: json(row, "clips")?,
        trajectory: json(row, "trajectory")?,
        frames_used: row.get("frames_used")?,
        evidence: evidence(conn, row.get("number")?)?,
        bundle: row.get("bundle")?,
        engine: row.get("engine")?,
        stopped_by: row.get("stopped_by")?,
        pin: row.get::<_, Option<i64>>("pin")?.map(i64::cast_unsigned),
        fields: json(row, "fields")?,
    })
}

fn evidence(conn: &Connection, number: i64) -> rusqlite::Result<Vec<EvidenceItem>> {
    conn.prepare_cached(
        "SELECT frame, media_us, hash FROM evidence WHERE event = ? ORDER BY position",
    )?
    .query_map([number], |row| {
        Ok(EvidenceItem {
            frame_id: row.get(0)?,
            media_time: MediaTime(row.get(1)?),
            hash: row.get(2)?,
        })
    })?
    .collect()
}

/// The JSON in a column. Text that is none is handed on as text: one spoilt row must not hide the
/// others.
fn json(row: &Row<'_>, column: &str) -> rusqlite::Result<Value> {
    let text: Option<String> = row.get(column)?;
    Ok(text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn event_id<I: rusqlite::RowIndex + Copy>(row: &Row<'_>, column: I) -> rusqlite::Result<EventId> {
    row.get::<_, String>(column)?
        .parse()
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(e)))
}

/// The names and numbers are among the known ones: the table's CHECKs say so.
pub(crate) fn phase<I: rusqlite::RowIndex>(row: &Row<'_>, column: I) -> rusqlite::Result<Phase> {
    Ok(match row.get_ref(column)?.as_str()? {
        "new" => Phase::New,
        "update" => Phase::Update,
        _ => Phase::End,
    })
}

pub(crate) fn level<I: rusqlite::RowIndex>(row: &Row<'_>, column: I) -> rusqlite::Result<Level> {
    Ok(match row.get::<_, i64>(column)? {
        0 => Level::Info,
        1 => Level::Notice,
        _ => Level::Alert,
    })
}

pub(crate) fn clock_name(clock: ClockQuality) -> &'static str {
    match clock {
        ClockQuality::Unsynced => "unsynced",
        ClockQuality::Ntp => "ntp",
    }
}

fn seconds<S: Serializer>(time: &Option<MediaTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(MediaTime::as_s).serialize(serializer)
}

/// As the decimal number that people expect: 0.8, where the nearest f32 is 0.800000011920929.
fn score<S: Serializer>(score: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    score.map(shortest).serialize(serializer)
}

/// The f64 that is written with the same few digits as `number`.
pub(crate) fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn moment<S: Serializer>(time: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
    moment_us(&time.unix_us, serializer)
}

fn moment_us<S: Serializer>(unix_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*unix_us))
}
