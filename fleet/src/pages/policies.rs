//! How policies are rolled out, wave by wave, and the button that halts one.

use super::login::unreadable;
use super::refusal::PageError;
use super::{Visitor, layout};
use crate::api::Shared;
use crate::rollouts::{self, Rollout, Wave};
use crate::users::{Role, Session};
use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{Html, Redirect};
use maud::{Markup, html};
use release::is_label;
use serde::Deserialize;

/// How many rollouts the page lists.
const PAGE: i64 = 50;

/// What a button of the page brings along.
#[derive(Deserialize)]
pub(super) struct Which {
    form_token: String,
    channel: String,
    number: i64,
}

pub(super) async fn list(
    State(server): State<Shared>,
    visitor: Visitor,
) -> Result<Html<String>, PageError> {
    let found = rollouts::list(&server.database, PAGE).await?;
    let content = html! {
        @if found.is_empty() {
            p { "No camera has told of a new policy yet: `lookback-fleet repo add` begins one." }
        }
        @for rollout in &found { (section(rollout, &visitor.0)) }
    };
    Ok(layout::page("Policies", Some(&visitor.0), content))
}

pub(super) async fn halt(
    State(server): State<Shared>,
    visitor: Visitor,
    form: Result<Form<Which>, FormRejection>,
) -> Result<Redirect, PageError> {
    let which = allowed(&visitor, form)?;
    let person = &visitor.0.person;
    let why = "by hand, on the page of policies";
    rollouts::halt(&server.database, (&which.channel, which.number), person, why).await?;
    Ok(Redirect::to("/policies"))
}

pub(super) async fn resume(
    State(server): State<Shared>,
    visitor: Visitor,
    form: Result<Form<Which>, FormRejection>,
) -> Result<Redirect, PageError> {
    let which = allowed(&visitor, form)?;
    let rollout = (which.channel.as_str(), which.number);
    rollouts::resume(&server.database, rollout, &visitor.0.person).await?;
    Ok(Redirect::to("/policies"))
}

fn allowed(
    visitor: &Visitor,
    form: Result<Form<Which>, FormRejection>,
) -> Result<Which, PageError> {
    let Form(which) = form.map_err(unreadable)?;
    visitor.may_change(&which.form_token)?;
    if !is_label(&which.channel) || which.number < 0 {
        return Err(PageError::new(StatusCode::BAD_REQUEST, "There is no such rollout."));
    }
    Ok(which)
}

fn section(rollout: &Rollout, session: &Session) -> Markup {
    html! {
        h2 { "Channel " (rollout.channel) ", number " (rollout.number) ": " code { (rollout.bundle) } }
        @if let Some(halt) = &rollout.halt {
            p {
                span class="wrong" { "Halted " (layout::time(halt.at)) } " by " (halt.person) ": " (halt.why)
                ". No camera begins it that has not, and one on the way waits once it asks again."
            }
        }
        table {
            tr {
                th { "Wave" } th class="number" { "Begun" } th class="number" { "Under way" }
                th class="number" { "Waiting" } th class="number" { "Kept" } th class="number" { "Not kept" }
            }
            @for wave in &rollout.waves { (row(wave)) }
        }
        @for (why, devices) in &rollout.reasons {
            p class="quiet" { (devices) " did not keep it: " (why) }
        }
        p class="quiet" { "Last heard of " (layout::time(rollout.changed)) }
        @if session.role == Role::Operator { (button(rollout, session)) }
    }
}

fn row(wave: &Wave) -> Markup {
    html! {
        tr {
            td { @if wave.wave == 0 { "not said" } @else { (wave.wave) } }
            td class="number" { (wave.begun()) }
            td class="number" { (wave.underway) }
            td class="number" { (wave.waiting) }
            td class="number" { (wave.committed) }
            td class="number" {
                @if wave.rolled_back > 0 { span class="wrong" { (wave.rolled_back) } } @else { "0" }
            }
        }
    }
}

fn button(rollout: &Rollout, session: &Session) -> Markup {
    let (action, label) = match rollout.halt {
        Some(_) => ("/policies/resume", "Let it go on"),
        None => ("/policies/halt", "Halt this rollout"),
    };
    html! {
        form method="post" action=(action) {
            input type="hidden" name="form_token" value=(session.form_token);
            input type="hidden" name="channel" value=(rollout.channel);
            input type="hidden" name="number" value=(rollout.number);
            button { (label) }
        }
    }
}
