//! Taking in a request's body: bounded in bytes, and given up when nothing comes.

use super::ApiError;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a body may stand still, and how long it may take in all: 4 MiB at 64 kbit/s take nine
/// minutes.
const STILL: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// A body that comes in.
pub struct Incoming {
    body: Body,
    until: Instant,
}

impl Incoming {
    /// Begins.
    pub fn new(body: Body) -> Self {
        Self { body, until: Instant::now() + WHOLE }
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let slow = |_| {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body came too slowly: send a smaller one",
            )
        };
        loop {
            let frame = timeout_at(self.until, timeout(STILL, self.body.frame()));
            match frame.await.map_err(slow)?.map_err(slow)? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                // The line's fault, not the body's: a camera gives up what it is told is malformed (400).
                Some(Err(error)) => {
                    let sentence = format!("the body broke off ({error}): send it again");
                    return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, sentence));
                }
            }
        }
    }

    /// All of it, at most `bytes_max`.
    pub async fn whole(
        mut self,
        headers: &HeaderMap,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ApiError> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let mut whole = Vec::with_capacity(announced.unwrap_or(0).min(bytes_max));
        let too_large = || {
            let sentence = format!("the body has more than {bytes_max} bytes: send less at a time");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
        };
        while let Some(bytes) = self.next().await? {
            if bytes.len() > bytes_max - whole.len() {
                self.discard(bytes_max * 4).await;
                return Err(too_large());
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// Lets up to `bytes_max` more go by: a client that still sends when the connection closes would not
    /// get to read the answer.
    pub async fn discard(mut self, bytes_max: usize) {
        let mut seen = 0;
        while let Ok(Some(bytes)) = self.next().await {
            seen += bytes.len();
            if seen > bytes_max {
                return;
            }
        }
    }
}

/// Whether the body is of this media type, parameters aside.
pub fn is_of(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// 415, naming the right type.
pub fn wrong_type(media_type: &str) -> ApiError {
    let sentence = format!("Content-Type is not {media_type}: send it so");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence)
}
