//! Finding events. Every word that an operator types is a bound parameter.

use crate::cloudevents::{Kind, Level};
use crate::database::{Database, DatabaseError};
use crate::ids::{ContentHash, DeviceId, EventId};
use crate::moment::Moment;
use serde_json::Value;
use std::time::SystemTime;
use tokio_postgres::Row;

/// How many events a page of results has.
pub const PAGE: usize = 100;
/// The last page that is shown: whoever is there should search more narrowly.
pub const PAGES_MAX: u32 = 100;

/// What is looked for. The default is everything, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    /// Began at or after this moment.
    pub from: Option<Moment>,
    /// Began before this moment.
    pub until: Option<Moment>,
    /// Of this device.
    pub device: Option<DeviceId>,
    /// Of the cameras of this name.
    pub camera: Option<String>,
    /// At least of this level.
    pub level_min: Option<Level>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Words of the label, the sentence or the camera, as people type them into a search engine.
    pub words: Option<String>,
    /// Which page, from 0.
    pub page: u32,
}

/// A change of an event as it is stored; in a list, the newest of its event.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its device.
    pub device: String,
    /// What people call that.
    pub device_name: Option<String>,
    /// Its epoch.
    pub epoch: String,
    /// Its number within that.
    pub seq: i64,
    /// Its event.
    pub event: String,
    /// What it is about.
    pub kind: String,
    /// What it brought the event to.
    pub phase: String,
    /// How much it asks of people.
    pub level: Level,
    /// The camera.
    pub camera: Option<String>,
    /// What it is.
    pub label: String,
    /// How probable.
    pub score: Option<f32>,
    /// What happened.
    pub sentence: String,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// How far those can be trusted.
    pub clock: String,
    /// When the camera recorded it.
    pub recorded: SystemTime,
    /// When the server received it.
    pub received: SystemTime,
    /// The event as the camera prints it; null in a list.
    pub data: Value,
    /// The object that holds what `data` lacks.
    pub dataref: Option<ContentHash>,
}

const COLUMNS: &str = "event.device, device.name, event.epoch, event.seq, event.event, event.kind, \
     event.phase, event.level, event.camera, event.label, event.score, event.sentence, event.began, \
     event.ended, event.clock, event.recorded, event.received, event.dataref";

/// The events that match, the newest first, each as its newest change; one more than [`PAGE`] if there
/// is a further page.
///
/// # Errors
/// [`DatabaseError`]
pub async fn events(database: &Database, search: &Search) -> Result<Vec<Found>, DatabaseError> {
    let client = database.client().await?;
    let select = format!(
        "SELECT {COLUMNS}, 'null'::jsonb FROM event JOIN device ON device.id = event.device
         WHERE ($1::timestamptz IS NULL OR event.began >= $1)
           AND ($2::timestamptz IS NULL OR event.began < $2)
           AND ($3::text IS NULL OR event.device = $3)
           AND ($4::text IS NULL OR event.camera = $4)
           AND ($5::smallint IS NULL OR event.level >= $5)
           AND ($6::text IS NULL OR event.kind = $6)
           AND ($7::text IS NULL OR
                to_tsvector('simple', event.label || ' ' || event.sentence || ' ' || coalesce(event.camera, ''))
                @@ websearch_to_tsquery('simple', $7))
           AND NOT EXISTS (
               SELECT FROM event later WHERE later.device = event.device AND later.event = event.event
               AND later.epoch = event.epoch AND later.seq > event.seq)
         ORDER BY event.began DESC, event.device, event.seq DESC LIMIT $8 OFFSET $9"
    );
    let no_nul = |text: &Option<String>| text.as_ref().map(|t| t.replace('\0', "\u{fffd}"));
    let rows = client
        .query(
            &select,
            &[
                &search.from.map(SystemTime::from),
                &search.until.map(SystemTime::from),
                &search.device.as_ref().map(DeviceId::as_str),
                &no_nul(&search.camera),
                &search.level_min.map(|level| level as i16),
                &search.kind.map(Kind::word),
                &no_nul(&search.words),
                &(PAGE as i64 + 1),
                &(i64::from(search.page.min(PAGES_MAX)) * PAGE as i64),
            ],
        )
        .await?;
    Ok(rows.iter().map(found).collect())
}

/// Every change of one event, the newest first; at most 200.
///
/// # Errors
/// [`DatabaseError`]
pub async fn changes(
    database: &Database,
    device: &DeviceId,
    event: &EventId,
) -> Result<Vec<Found>, DatabaseError> {
    let client = database.client().await?;
    let select = format!(
        "SELECT {COLUMNS}, event.data FROM event JOIN device ON device.id = event.device
         WHERE event.device = $1 AND event.event = $2 ORDER BY event.seq DESC LIMIT 200"
    );
    let rows = client.query(&select, &[&device.as_str(), &event.as_str()]).await?;
    Ok(rows.iter().map(found).collect())
}

fn found(row: &Row) -> Found {
    Found {
        device: row.get(0),
        device_name: row.get(1),
        epoch: row.get(2),
        seq: row.get(3),
        event: row.get(4),
        kind: row.get(5),
        phase: row.get(6),
        level: match row.get::<_, i16>(7) {
            0 => Level::Info,
            1 => Level::Notice,
            _ => Level::Alert,
        },
        camera: row.get(8),
        label: row.get(9),
        score: row.get(10),
        sentence: row.get(11),
        began: row.get(12),
        ended: row.get(13),
        clock: row.get(14),
        recorded: row.get(15),
        received: row.get(16),
        dataref: row.get::<_, Option<&str>>(17).and_then(ContentHash::parse),
        data: row.get(18),
    }
}
