//! A page that says what is wrong.

use super::layout;
use crate::api::ApiError;
use crate::database::DatabaseError;
use crate::evidence::EvidenceError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;

/// Why a page is not shown.
pub(super) enum PageError {
    /// A sentence for the visitor.
    Told(StatusCode, String),
    /// Too much to do.
    Overloaded,
    /// The database or the store of evidence is away, or a fault of this server.
    Failed(Box<ApiError>),
}

impl PageError {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self::Told(status, sentence.into())
    }

    pub(super) fn nothing_here() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing here.")
    }
}

impl From<DatabaseError> for PageError {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

impl From<EvidenceError> for PageError {
    fn from(error: EvidenceError) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        // The same statuses, headers and log lines as cameras get; only the body is for people.
        let as_api = match self {
            Self::Told(status, sentence) => ApiError::new(status, sentence),
            Self::Overloaded => ApiError::later(
                "The server has too much to do just now: try again in some seconds.",
            ),
            Self::Failed(error) => *error,
        };
        let body = layout::page("Not shown", None, html! { p { (as_api.told()) } });
        let mut response = as_api.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.remove(header::CONTENT_LENGTH);
        *response.body_mut() = body.0.into();
        response
    }
}
