//! What all pages have in common.

use crate::cloudevents::Level;
use crate::moment::shown;
use crate::users::Session;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use std::time::SystemTime;

/// A page; with the way around it if somebody is logged in.
pub(super) fn page(title: &str, session: Option<&Session>, content: Markup) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – Lookback" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                @if let Some(session) = session {
                    header {
                        strong { "Lookback" }
                        nav {
                            a href="/events" { "Events" } " "
                            a href="/devices" { "Devices" } " "
                            a href="/policies" { "Policies" } " "
                            a href="/audit" { "Audit log" }
                        }
                        form method="post" action="/logout" {
                            input type="hidden" name="form_token" value=(session.form_token);
                            span { (session.person) ", " (session.role.word()) " " }
                            button { "Log out" }
                        }
                    }
                }
                main { h1 { (title) } (content) }
            }
        }
    };
    Html(page.into_string())
}

/// A moment, in UTC.
pub(super) fn time(moment: SystemTime) -> Markup {
    html! { time { (shown(moment)) } }
}

/// A level, by its word and colour.
pub(super) fn level(level: Level) -> Markup {
    html! { span class={ "level " (level.word()) } { (level.word()) } }
}

/// A probability.
pub(super) fn score(score: Option<f32>) -> Markup {
    html! { @if let Some(score) = score { (format!("{score:.2}")) } }
}

pub(super) async fn style() -> Response {
    const STYLE: &str = include_str!("style.css");
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (headers, STYLE).into_response()
}
