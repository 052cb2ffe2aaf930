//! Logging in and out.

use super::refusal::PageError;
use super::{COOKIE, Visitor, cookie, layout};
use crate::api::Shared;
use crate::users::{self, SESSION_HOURS, UserError, form_is_ours};
use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use tokio::sync::Semaphore;

/// Passwords that are being checked: each takes 19 MiB and some tens of ms of a core.
static CHECKING: Semaphore = Semaphore::const_new(4);

#[derive(Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: String,
}

/// What every form that changes something brings along.
#[derive(Deserialize)]
pub(super) struct Ours {
    pub(super) form_token: String,
}

pub(super) async fn page() -> Response {
    shown(None)
}

pub(super) async fn log_in(
    State(server): State<Shared>,
    form: Result<Form<Credentials>, FormRejection>,
) -> Result<Response, PageError> {
    let Form(Credentials { name, password }) = form.map_err(unreadable)?;
    let checking = CHECKING.acquire().await.map_err(|_| PageError::Overloaded)?;
    let let_in = users::log_in(&server.database, &name, &password).await;
    drop(checking);
    match let_in {
        Ok(secret) => {
            let seconds = SESSION_HOURS * 3600;
            let value = format!(
                "{COOKIE}={secret}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
            );
            Ok(([(header::SET_COOKIE, value)], Redirect::to("/events")).into_response())
        }
        Err(error @ UserError::Wrong) => {
            Ok((StatusCode::UNAUTHORIZED, shown(Some(&error))).into_response())
        }
        Err(error @ UserError::Locked) => {
            Ok((StatusCode::TOO_MANY_REQUESTS, shown(Some(&error))).into_response())
        }
        Err(UserError::Database(error)) => Err(error.into()),
        Err(error) => Err(PageError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) async fn log_out(
    State(server): State<Shared>,
    visitor: Visitor,
    headers: HeaderMap,
    form: Result<Form<Ours>, FormRejection>,
) -> Result<Response, PageError> {
    let Form(form) = form.map_err(unreadable)?;
    if form_is_ours(&visitor.0, &form.form_token) {
        users::log_out(&server.database, cookie(&headers).unwrap_or_default()).await?;
    }
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    Ok(([(header::SET_COOKIE, gone)], Redirect::to("/login")).into_response())
}

pub(super) fn unreadable(rejection: FormRejection) -> PageError {
    PageError::new(rejection.status(), "The form cannot be read: open the page anew and try again.")
}

fn shown(wrong: Option<&UserError>) -> Response {
    let content = html! {
        @if let Some(wrong) = wrong { p class="wrong" { (wrong) } }
        form class="login" method="post" action="/login" {
            label { "Name" input name="name" autocomplete="username" required autofocus; }
            label { "Password" input name="password" type="password" autocomplete="current-password" required; }
            button { "Log in" }
        }
    };
    layout::page("Log in", None, content).into_response()
}
