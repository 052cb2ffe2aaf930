//! The devices, one device with its gaps, and the audit log.

use super::login::{Ours, unreadable};
use super::refusal::PageError;
use super::{Visitor, layout};
use crate::api::Shared;
use crate::devices::{self, Device, EpochState};
use crate::ids::DeviceId;
use crate::users::{self, Role};
use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use maud::{Markup, html};
use serde::Deserialize;

/// How many devices a page lists.
const PAGE: usize = 200;
/// How many gaps of an epoch are told one by one.
const GAPS_SHOWN: usize = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct After {
    after: String,
}

pub(super) async fn list(
    State(server): State<Shared>,
    visitor: Visitor,
    after: Result<Query<After>, QueryRejection>,
) -> Result<Html<String>, PageError> {
    let Query(After { after }) = after.unwrap_or_default();
    let after = DeviceId::parse(&after);
    let after = after.as_ref().map_or("", DeviceId::as_str);
    let mut found = devices::list(&server.database, after, PAGE as i64 + 1).await?;
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let content = html! {
        table {
            tr {
                th { "Device" } th { "Last seen (UTC)" } th class="number" { "Changes" }
                th class="number" { "Missing" } th class="number" { "Dropped" } th { "Version" } th { "Health" }
            }
            @for device in &found { (row(device)) }
        }
        @if found.is_empty() {
            p { "No camera has been enrolled yet: `lookback-fleet enrol` makes a token for one." }
        }
        @if more {
            @if let Some(last) = found.last() { p { a href={ "/devices?after=" (last.id) } { "More" } } }
        }
    };
    Ok(layout::page("Devices", Some(&visitor.0), content))
}

pub(super) async fn one(
    State(server): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let id = DeviceId::parse(&id).ok_or_else(PageError::nothing_here)?;
    let found = devices::one(&server.database, &id).await?;
    let (device, epochs) = found.ok_or_else(PageError::nothing_here)?;
    let content = html! {
        p { "Device " code { (device.id) } ", version " (device.agent) ", enrolled " (layout::time(device.enrolled)) }
        p { (state(&device)) }
        @if let Some(health) = &device.health { p { "It last said of itself: " (health) } }
        p { a href={ "/events?device=" (device.id) } { "Its events" } }
        h2 { "What has come" }
        @if epochs.is_empty() { p { "Nothing yet." } }
        @for epoch in &epochs { (of_epoch(epoch)) }
        @if visitor.0.role == Role::Operator && device.revoked.is_none() {
            h2 { "Revoke" }
            p { "It is shut out at once. To let it in again, enrol it with a new token." }
            form method="post" action={ "/devices/" (device.id) "/revoke" } {
                input type="hidden" name="form_token" value=(visitor.0.form_token);
                button { "Revoke this device" }
            }
        }
    };
    let title = device.name.as_deref().unwrap_or("A device without a name");
    Ok(layout::page(title, Some(&visitor.0), content))
}

pub(super) async fn revoke(
    State(server): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
    form: Result<Form<Ours>, FormRejection>,
) -> Result<Redirect, PageError> {
    let Form(form) = form.map_err(unreadable)?;
    visitor.may_change(&form.form_token)?;
    let id = DeviceId::parse(&id).ok_or_else(PageError::nothing_here)?;
    match devices::revoke(&server.database, &id, &visitor.0.person).await? {
        true => {
            tracing::info!(device = %id, person = visitor.0.person, "device revoked");
            Ok(Redirect::to(&format!("/devices/{id}")))
        }
        false => Err(PageError::new(StatusCode::NOT_FOUND, "There is no such device.")),
    }
}

pub(super) async fn audit(
    State(server): State<Shared>,
    visitor: Visitor,
) -> Result<Html<String>, PageError> {
    let lines = users::audit_lines(&server.database).await?;
    let content = html! {
        table {
            tr { th { "When (UTC)" } th { "Who" } th { "Did" } th { "To" } }
            @for line in &lines {
                tr {
                    td { (layout::time(line.at)) } td { (line.person) } td { (line.action) } td { (line.subject) }
                }
            }
        }
    };
    Ok(layout::page("Audit log", Some(&visitor.0), content))
}

fn row(device: &Device) -> Markup {
    html! {
        tr {
            td {
                a href={ "/devices/" (device.id) } { (device.name.as_deref().unwrap_or(&device.id)) }
                @if device.revoked.is_some() { " " span class="wrong" { "revoked" } }
            }
            td { @if let Some(seen) = device.seen { (layout::time(seen)) } @else { "never" } }
            td class="number" { (device.events) }
            td class="number" { @if device.missing > 0 { span class="wrong" { (device.missing) } } @else { "0" } }
            td class="number" { (device.dropped) }
            td { (device.agent) }
            td { @if let Some(health) = &device.health { (health) } }
        }
    }
}

fn state(device: &Device) -> Markup {
    html! {
        @if let Some(revoked) = device.revoked {
            span class="wrong" { "Revoked " (layout::time(revoked)) ". " }
        }
        @match device.seen {
            Some(seen) => { "Last seen " (layout::time(seen)) ", " (device.events) " changes of events. " }
            None => "Never seen since.",
        }
    }
}

fn of_epoch(epoch: &EpochState) -> Markup {
    html! {
        p {
            "Epoch " code { (epoch.epoch) } ", last seen " (layout::time(epoch.seen)) ": whole up to seq "
            (epoch.committed) ", " (epoch.dropped) " dropped by the camera, "
            (epoch.gaps.len()) " gaps" @if epoch.gaps.is_empty() { "." } @else { ":" }
        }
        @if !epoch.gaps.is_empty() {
            p {
                @for (first, last) in epoch.gaps.iter().take(GAPS_SHOWN) {
                    code { (first) @if first != last { "–" (last) } } " "
                }
                @if epoch.gaps.len() > GAPS_SHOWN { "and more" }
            }
        }
    }
}
