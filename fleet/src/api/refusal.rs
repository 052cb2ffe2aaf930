//! What a camera is told when something is wrong: one sentence, in JSON.

use crate::authority::AuthorityError;
use crate::cloudevents::Refusal;
use crate::database::DatabaseError;
use crate::enrolment::EnrolmentError;
use crate::evidence::EvidenceError;
use crate::ingest::IngestError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Seconds after which a client that was turned away may come again; up to twice as many, so that those
/// turned away together do not come back together.
const RETRY_AFTER_S: u64 = 5;

/// The same for a device that has sent its evidence of the day. Cameras wait no longer than an hour.
const ENOUGH_RETRY_AFTER_S: u64 = 1800;

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What is wrong and what to do, for people.
    pub sentence: String,
    /// What this server needs and does not get at.
    pub away: Option<Away>,
    /// Where an upload goes on.
    pub upload_offset: Option<u64>,
    /// Seconds to wait, if they are others than usual.
    pub retry_after_s: Option<u64>,
}

/// What a server cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// Its database.
    Database,
    /// The store of its evidence.
    Evidence,
}

impl ApiError {
    /// A refusal.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
            away: None,
            upload_offset: None,
            retry_after_s: None,
        }
    }

    /// Turned away for now.
    pub fn later(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }

    /// A fault of this server. The client is told no detail; the log is.
    pub fn fault(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    /// What the client is told.
    pub fn told(&self) -> &str {
        match (self.status, self.away) {
            (StatusCode::INTERNAL_SERVER_ERROR, _) => "the server failed: its log says why",
            (_, Some(Away::Database)) => {
                "the server cannot reach its database: send it again after Retry-After"
            }
            (_, Some(Away::Evidence)) => {
                "the server cannot store evidence now: send it again after Retry-After"
            }
            (_, None) => &self.sentence,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.told()}))).into_response();
        let headers = response.headers_mut();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let spread = crate::secret::random::<1>().map_or(0, |[byte]| u64::from(byte));
            let least = self.retry_after_s.unwrap_or(RETRY_AFTER_S);
            let seconds = least + spread % (least + 1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(offset) = self.upload_offset {
            headers.insert("upload-offset", HeaderValue::from(offset));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Away(_) => {
                Self { away: Some(Away::Database), ..Self::later(error.to_string()) }
            }
            other => Self::fault(other),
        }
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::EventTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::ForeignSource { .. } => StatusCode::FORBIDDEN,
            Refusal::NoBatch(_) | Refusal::Key { .. } | Refusal::Syntax { .. } => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::new(status, refusal.to_string())
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Database(error) => error.into(),
            IngestError::TooManyStretches(error) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
        }
    }
}

impl From<EnrolmentError> for ApiError {
    fn from(error: EnrolmentError) -> Self {
        let status = match &error {
            EnrolmentError::Token => StatusCode::UNAUTHORIZED,
            EnrolmentError::Expired => StatusCode::GONE,
            EnrolmentError::Authority(AuthorityError::Request(_)) => StatusCode::BAD_REQUEST,
            EnrolmentError::Authority(_) | EnrolmentError::NoRandomness(_) => {
                return Self::fault(error);
            }
            EnrolmentError::Database(_) => {
                let EnrolmentError::Database(error) = error else { return Self::fault(error) };
                return error.into();
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<EvidenceError> for ApiError {
    fn from(error: EvidenceError) -> Self {
        let sentence = error.to_string();
        match error {
            EvidenceError::Offset { there } => {
                Self { upload_offset: Some(there), ..Self::new(StatusCode::CONFLICT, sentence) }
            }
            EvidenceError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, sentence),
            EvidenceError::TooLong { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, sentence),
            EvidenceError::Hash { .. } => Self {
                upload_offset: Some(0),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
            },
            EvidenceError::Enough { .. } => Self {
                retry_after_s: Some(ENOUGH_RETRY_AFTER_S),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, sentence)
            },
            EvidenceError::Folder { .. }
            | EvidenceError::Url(_)
            | EvidenceError::Refused { .. } => Self::fault(sentence),
            EvidenceError::Away { .. } => {
                Self { away: Some(Away::Evidence), ..Self::later(sentence) }
            }
            EvidenceError::Database(error) => error.into(),
        }
    }
}
