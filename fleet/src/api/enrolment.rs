//! `POST /v1/enrol`.

use super::body::Incoming;
use super::{ApiError, Shared};
use crate::enrolment::{Application, enrol as admit};
use crate::metrics::Metrics;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// A request with a key of P-256 has some 600 bytes.
const BYTES_MAX: usize = 16 << 10;

#[derive(Deserialize)]
struct Request {
    token: String,
    csr: String,
    name: Option<String>,
    agent: String,
}

pub(super) async fn enrol(
    State(server): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let coming = server.begin_body()?;
    let body = Incoming::new(body).whole(&headers, BYTES_MAX).await?;
    drop(coming);
    let _work = server.begin_work()?;
    let request: Request = serde_json::from_slice(&body).map_err(|error| {
        let sentence = format!(
            "the body is no enrolment ({error}): send {{\"token\", \"csr\", \"name\", \"agent\"}} as JSON"
        );
        ApiError::new(StatusCode::BAD_REQUEST, sentence)
    })?;
    let Request { token, csr, name, agent } = request;
    let application = Application { token, csr, name, agent };
    let enrolled = admit(&server.database, &server.authority, &application).await?;
    Metrics::add(&server.metrics.enrolled, 1);
    tracing::info!(device = %enrolled.device, "device enrolled");
    Ok(Json(json!({
        "device": enrolled.device,
        "certificate": enrolled.certificate,
        "ca": server.authority.pem(),
    })))
}
