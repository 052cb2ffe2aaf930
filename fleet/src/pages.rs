//! The operator's pages: HTML from this server alone, without a script. Every text in them is escaped by
//! maud, which builds them; nothing that a camera said is ever taken for markup.

mod devices;
mod events;
mod layout;
mod login;
mod policies;
mod refusal;
mod story;

use crate::api::Shared;
use crate::users::{Role, Session, form_is_ours, session};
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use refusal::PageError;
use std::time::Duration;
use tokio::time::timeout;

/// The cookie of a session. The prefix makes browsers refuse it from anywhere but this very host.
const COOKIE: &str = "__Host-lookback";
/// The most bytes in a form.
const FORM_BYTES_MAX: usize = 8 << 10;
/// The longest that a page may take, its form's slow sending included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing but this server's own style and pictures; no script, no frame, no other host.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// The routes of the pages.
pub fn router(server: &Shared) -> Router<Shared> {
    Router::new()
        .route("/", get(async || Redirect::to("/events")))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/devices", get(devices::list))
        .route("/devices/{id}", get(devices::one))
        .route("/devices/{id}/revoke", post(devices::revoke))
        .route("/events", get(events::list))
        .route("/events/{device}/{event}", get(events::one))
        .route("/evidence/{hash}", get(events::evidence))
        .route("/policies", get(policies::list))
        .route("/policies/halt", post(policies::halt))
        .route("/policies/resume", post(policies::resume))
        .route("/audit", get(devices::audit))
        .route("/style.css", get(layout::style))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(from_fn_with_state(server.clone(), bounded))
        .layer(from_fn(guarded))
}

/// Keeps a page from taking a place for long.
async fn bounded(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let Ok(_work) = server.work.try_acquire() else {
        crate::metrics::Metrics::add(&server.metrics.overloaded, 1);
        return PageError::Overloaded.into_response();
    };
    match timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => PageError::Overloaded.into_response(),
    }
}

/// Tells the browser what a page may do; a page that says more itself keeps its word.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Somebody who is logged in: a page that takes one is shown to nobody else.
struct Visitor(Session);

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, server: &Shared) -> Result<Self, Response> {
        let to_login = || Redirect::to("/login").into_response();
        let secret = cookie(&parts.headers).ok_or_else(to_login)?;
        match session(&server.database, secret).await {
            Ok(Some(session)) => Ok(Self(session)),
            Ok(None) => Err(to_login()),
            Err(error) => Err(PageError::from(error).into_response()),
        }
    }
}

impl Visitor {
    /// Whether they may do what `form_token` came with.
    fn may_change(&self, form_token: &str) -> Result<(), PageError> {
        if self.0.role != Role::Operator {
            return Err(PageError::new(StatusCode::FORBIDDEN, "Only an operator may do this."));
        }
        if !form_is_ours(&self.0, form_token) {
            let sentence = "This form is not from your session: open the page anew and try again.";
            return Err(PageError::new(StatusCode::FORBIDDEN, sentence));
        }
        Ok(())
    }
}

/// The secret in the session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}
