//! `HEAD` and `PATCH /v1/evidence/<hash>`.

use super::body::{Incoming, is_of, wrong_type};
use super::{ApiError, Peer, Shared};
use crate::database::in_time;
use crate::evidence::{EvidenceError, MediaType, OBJECT_BYTES_MAX, Presence, charge};
use crate::ids::ContentHash;
use crate::metrics::Metrics;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

const OFFSET: &str = "upload-offset";
const LENGTH: &str = "upload-length";
const MEDIA: &str = "lookback-media-type";
const CHUNK_TYPE: &str = "application/offset+octet-stream";

pub(super) async fn presence(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(hash): Path<String>,
) -> Result<Response, ApiError> {
    let _work = server.begin_work()?;
    let device = server.device(peer).await?;
    let hash = named(&hash)?;
    Ok(match server.evidence.presence(&hash, &device).await? {
        Presence::Whole { bytes } => {
            // HEAD: the length is of the object, the body is none.
            let mut response = StatusCode::OK.into_response();
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
            response
        }
        Presence::Begun { bytes } => at(StatusCode::NOT_FOUND, bytes),
    })
}

pub(super) async fn upload(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let device = server.device(peer).await?;
    let hash = named(&hash)?;
    if !is_of(&headers, CHUNK_TYPE) {
        return Err(wrong_type(CHUNK_TYPE));
    }
    let (offset, length) = (number(&headers, OFFSET)?, number(&headers, LENGTH)?);
    if length > OBJECT_BYTES_MAX {
        let sentence = format!("{LENGTH} is {length}, at most {OBJECT_BYTES_MAX} bytes are taken");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
    }
    let media = headers.get(MEDIA).and_then(|value| MediaType::parse(value.to_str().ok()?));
    let Some(media) = media else {
        let sentence =
            format!("{MEDIA} is neither image/jpeg nor application/json: name one of them");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence));
    };
    let _coming = server.begin_body()?;
    let mut incoming = Incoming::new(body);
    if let Presence::Whole { bytes } = server.evidence.presence(&hash, &device).await? {
        incoming.discard(OBJECT_BYTES_MAX as usize).await;
        return Ok(at(StatusCode::CREATED, bytes));
    }
    // Before there is a file: who has sent enough shall not fill the folder with empty ones.
    let announced = number(&headers, header::CONTENT_LENGTH.as_str());
    let coming = announced.unwrap_or(u64::MAX).min(length.saturating_sub(offset));
    let charged = charge(&server.database, &device, coming, server.evidence_per_day);
    if let Err(error) = in_time(charged).await {
        incoming.discard(OBJECT_BYTES_MAX as usize).await;
        return Err(error.into());
    }
    let mut upload = match server.evidence.go_on(&hash, &device, offset, length) {
        Ok(upload) => upload,
        Err(error) => {
            let passing = matches!(error, EvidenceError::Offset { .. } | EvidenceError::Busy);
            if passing {
                incoming.discard(OBJECT_BYTES_MAX as usize).await;
            }
            return Err(error.into());
        }
    };
    let mut broken = None;
    loop {
        match incoming.next().await {
            Ok(Some(bytes)) => {
                upload.append(&bytes).await?;
                Metrics::add(&server.metrics.evidence_bytes, bytes.len() as u64);
            }
            Ok(None) => break,
            // What came is kept: the camera goes on from there.
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    let presence = upload.end(&server.database, media).await?;
    match (presence, broken) {
        (Presence::Whole { bytes }, _) => Ok(at(StatusCode::CREATED, bytes)),
        (Presence::Begun { bytes }, None) => Ok(at(StatusCode::NO_CONTENT, bytes)),
        (Presence::Begun { bytes }, Some(error)) => {
            Err(ApiError { upload_offset: Some(bytes), ..error })
        }
    }
}

fn at(status: StatusCode, offset: u64) -> Response {
    (status, [(OFFSET, HeaderValue::from(offset))]).into_response()
}

fn named(hash: &str) -> Result<ContentHash, ApiError> {
    ContentHash::parse(hash).ok_or_else(|| {
        let sentence =
            "this is not the name of an object: it is 64 lower-case hex digits of BLAKE3";
        ApiError::new(StatusCode::BAD_REQUEST, sentence)
    })
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, ApiError> {
    let digits = headers.get(name).and_then(|value| value.to_str().ok());
    let digits = digits.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let sentence = format!("{name} is not a number of bytes: send one");
        ApiError::new(StatusCode::BAD_REQUEST, sentence)
    })
}
