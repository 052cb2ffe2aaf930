//! The list of events with its search, one event, and its pictures.

use super::refusal::PageError;
use super::{Visitor, layout, story};
use crate::api::Shared;
use crate::cloudevents::{Kind, Level};
use crate::evidence::{MediaType, media_types};
use crate::ids::{ContentHash, DeviceId, EventId};
use crate::moment::{Moment, typed};
use crate::search::{self, Found, PAGE, PAGES_MAX, Search};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The largest trajectory that is shown.
const TRAJECTORY_BYTES_MAX: u64 = 8 << 20;

/// What the search form sends: all of it text, as people type it.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Asked {
    from: String,
    until: String,
    device: String,
    camera: String,
    level: String,
    kind: String,
    words: String,
    page: String,
}

pub(super) async fn list(
    State(server): State<Shared>,
    visitor: Visitor,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, PageError> {
    let unreadable = |_| PageError::new(StatusCode::BAD_REQUEST, "The search cannot be read.");
    let Query(asked) = asked.map_err(unreadable)?;
    let (status, wrong, mut found, page) = match asked.search() {
        Ok(search) => {
            let found = search::events(&server.database, &search).await?;
            (StatusCode::OK, None, found, search.page)
        }
        Err(sentence) => (StatusCode::BAD_REQUEST, Some(sentence), Vec::new(), 0),
    };
    let more = found.len() > PAGE && page < PAGES_MAX;
    found.truncate(PAGE);
    let content = html! {
        (asked.form())
        @if let Some(wrong) = &wrong { p class="wrong" { (wrong) } }
        @else if found.is_empty() { p { "No event matches." } }
        @else {
            table {
                tr {
                    th { "Began (UTC)" } th { "Level" } th class="number" { "p" } th { "Camera" } th { "What" }
                    th { "Device" }
                }
                @for event in &found { (row(event)) }
            }
        }
        @if page > 0 { a href=(asked.at_page(page - 1)) { "Newer" } " " }
        @if more { a href=(asked.at_page(page + 1)) { "Older" } }
    };
    Ok((status, layout::page("Events", Some(&visitor.0), content)).into_response())
}

pub(super) async fn one(
    State(server): State<Shared>,
    visitor: Visitor,
    Path((device, event)): Path<(String, String)>,
) -> Result<Html<String>, PageError> {
    let names = DeviceId::parse(&device).zip(EventId::parse(&event));
    let (device, event) = names.ok_or_else(PageError::nothing_here)?;
    let changes = search::changes(&server.database, &device, &event).await?;
    let newest = changes.first().ok_or_else(PageError::nothing_here)?;
    let trajectory = trajectory(&server, newest).await;
    let hashes = story::frames(&newest.data, &trajectory);
    let hashes: Vec<&str> = hashes.iter().map(ContentHash::as_str).collect();
    let known = media_types(&server.database, &hashes).await?;
    let is_picture = |(hash, media): &(String, MediaType)| {
        (*media == MediaType::Jpeg).then(|| ContentHash::parse(hash)).flatten()
    };
    let pictures = known.iter().filter_map(is_picture).collect();
    let content = html! {
        (story::head(newest))
        (story::told(newest, &trajectory, &pictures))
        h2 { "Changes" }
        table {
            tr { th class="number" { "Seq" } th { "Phase" } th { "Level" } th { "Recorded (UTC)" } th { "Received (UTC)" } th { "What" } }
            @for change in &changes {
                tr {
                    td class="number" { (change.seq) } td { (change.phase) } td { (layout::level(change.level)) }
                    td { (layout::time(change.recorded)) } td { (layout::time(change.received)) }
                    td { (change.sentence) }
                }
            }
        }
    };
    Ok(layout::page(&newest.label, Some(&visitor.0), content))
}

pub(super) async fn evidence(
    State(server): State<Shared>,
    _visitor: Visitor,
    Path(hash): Path<String>,
) -> Result<Response, PageError> {
    let hash = ContentHash::parse(&hash).ok_or_else(PageError::nothing_here)?;
    let known = media_types(&server.database, &[hash.as_str()]).await?;
    let (_, media) = known.first().ok_or_else(PageError::nothing_here)?;
    let (length, body) = server.evidence.body(&hash).await?.ok_or_else(PageError::nothing_here)?;
    let headers = [
        (header::CONTENT_TYPE, media.word()),
        (header::CONTENT_LENGTH, &length.to_string()),
        // What a camera sent is never a page of this server, whatever it holds.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        // It is named by its hash: it cannot change.
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    Ok((headers, body).into_response())
}

/// The steps of an event: its own, or those in the object that it refers to; null if neither is there.
async fn trajectory(server: &Shared, event: &Found) -> Value {
    let Some(hash) = &event.dataref else {
        return event.data["trajectory"].clone();
    };
    // One that cannot be read now is missing from the page, which says the rest.
    let read = server.evidence.read(hash, TRAJECTORY_BYTES_MAX).await.ok().flatten();
    match read.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) {
        // The steps alone, or the event with them.
        Some(Value::Object(mut whole)) => whole.remove("trajectory").unwrap_or_default(),
        other => other.unwrap_or_default(),
    }
}

fn row(event: &Found) -> Markup {
    html! {
        tr {
            td {
                a href={ "/events/" (event.device) "/" (event.event) } { (layout::time(event.began)) }
                @if event.clock != "ntp" { " " span class="quiet" { "clock not set" } }
            }
            td { (layout::level(event.level)) }
            td class="number" { (layout::score(event.score)) }
            td { @if let Some(camera) = &event.camera { (camera) } }
            td { strong { (event.label) } " " (event.sentence) @if event.phase != "end" { " " span class="quiet" { "(goes on)" } } }
            td { a href={ "/devices/" (event.device) } { (event.device_name.as_deref().unwrap_or(&event.device)) } }
        }
    }
}

impl Asked {
    /// What is looked for, or the sentence that says what cannot be read.
    fn search(&self) -> Result<Search, String> {
        let text = |text: &str| Some(text.trim()).filter(|t| !t.is_empty()).map(str::to_owned);
        let time = |key: &str, typed_text: &str| -> Result<Option<Moment>, String> {
            text(typed_text)
                .map(|t| {
                    typed(&t)
                        .ok_or_else(|| format!("{key} is no time: write it as 2026-11-03 12:34."))
                })
                .transpose()
        };
        let one_of = |sentence: &str| sentence.to_owned();
        Ok(Search {
            from: time("From", &self.from)?,
            until: time("Until", &self.until)?,
            device: text(&self.device)
                .map(|id| {
                    DeviceId::parse(&id).ok_or_else(|| one_of("A device is 16 of 0-9 and a-z."))
                })
                .transpose()?,
            camera: text(&self.camera),
            level_min: text(&self.level)
                .map(|l| {
                    Level::parse(&l).ok_or_else(|| one_of("A level is info, notice or alert."))
                })
                .transpose()?,
            kind: text(&self.kind)
                .map(|k| Kind::parse(&k).ok_or_else(|| one_of("A kind is incident or health.")))
                .transpose()?,
            words: text(&self.words),
            page: self.page.parse().unwrap_or(0).min(PAGES_MAX),
        })
    }

    fn form(&self) -> Markup {
        let field = |label: &str, name: &str, value: &str, example: &str| {
            html! { label { (label) input name=(name) value=(value) placeholder=(example); } }
        };
        let choice = |label: &str, name: &str, value: &str, words: &[&str]| {
            html! {
                label {
                    (label)
                    select name=(name) {
                        option value="" { "any" }
                        @for word in words { option value=(word) selected[*word == value] { (word) } }
                    }
                }
            }
        };
        html! {
            form class="search" method="get" action="/events" {
                (field("From (UTC)", "from", &self.from, "2026-11-03 12:00"))
                (field("Until (UTC)", "until", &self.until, "2026-11-04"))
                (choice("At least", "level", &self.level, &["info", "notice", "alert"]))
                (choice("Kind", "kind", &self.kind, &["incident", "health"]))
                (field("Camera", "camera", &self.camera, "front-door"))
                (field("Words", "words", &self.words, "person ladder"))
                (field("Device", "device", &self.device, ""))
                button { "Search" }
            }
        }
    }

    /// The address of another page of the same search.
    fn at_page(&self, page: u32) -> String {
        let asked = Self { page: page.to_string(), ..self.clone() };
        let fields: BTreeMap<String, String> =
            serde_json::to_value(&asked).and_then(serde_json::from_value).unwrap_or_default();
        let pairs = fields.iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> =
            pairs.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        format!("/events?{}", pairs.join("&"))
    }
}

/// A value within a query, percent-encoded but for what needs none.
fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_read_from_what_people_type() {
        let asked = Asked {
            from: "2026-11-03".into(),
            level: "notice".into(),
            words: " ladder ".into(),
            ..Asked::default()
        };
        let search = asked.search().unwrap();
        assert_eq!(search.from, Moment::parse("2026-11-03T00:00:00Z"));
        assert_eq!(
            (search.level_min, search.words.as_deref()),
            (Some(Level::Notice), Some("ladder"))
        );
        assert_eq!(Asked::default().search().unwrap(), Search::default());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (asked, word) in [
            (Asked { until: "soon".into(), ..Asked::default() }, "Until"),
            (Asked { level: "'; --".into(), ..Asked::default() }, "level"),
            (Asked { device: "<script>".into(), ..Asked::default() }, "device"),
        ] {
            assert!(asked.search().unwrap_err().contains(word));
        }
    }

    #[test]
    fn the_next_page_is_of_the_same_search() {
        let asked = Asked { words: "a&b=\"ü".into(), page: "1".into(), ..Asked::default() };
        assert_eq!(asked.at_page(2), "/events?page=2&words=a%26b%3D%22%C3%BC");
    }
}
