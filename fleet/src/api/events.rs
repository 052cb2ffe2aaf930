//! `POST /v1/events` and `GET /v1/events/committed`.

use super::body::{Incoming, is_of, wrong_type};
use super::{ApiError, Peer, Shared};
use crate::cloudevents::{BATCH_BYTES_MAX, BATCH_MEDIA_TYPE, parse_batch};
use crate::database::in_time;
use crate::ids::Epoch;
use crate::ingest;
use crate::metrics::Metrics;
use crate::rollouts;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde_json::{Value, json};

pub(super) async fn receive(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let device = server.device(peer).await?;
    if !is_of(&headers, BATCH_MEDIA_TYPE) {
        return Err(wrong_type(BATCH_MEDIA_TYPE));
    }
    let coming = server.begin_body()?;
    let body = Incoming::new(body).whole(&headers, BATCH_BYTES_MAX).await?;
    drop(coming);
    let _work = server.begin_work()?;
    let batch = parse_batch(&body, &device).inspect_err(|refusal| {
        Metrics::add(&server.metrics.batches_refused, 1);
        tracing::warn!(%device, "batch refused: {refusal}");
    })?;
    let receipt = in_time(ingest::store(&server.database, &device, &batch)).await?;
    Metrics::add(&server.metrics.events_stored, receipt.stored as u64);
    Metrics::add(&server.metrics.events_repeated, receipt.repeated as u64);
    tracing::debug!(%device, epoch = %batch.epoch, ?receipt, "batch committed");
    // After the commit, so that it counts what all replicas have stored. The batch is safe whatever comes of this.
    let ruled = rollouts::stop_rule(&server.database, &batch.changes, server.halt_share);
    if let Err(error) = in_time(ruled).await {
        tracing::warn!("whether a rollout is to be halted is not known: {error}");
    }
    Ok(mark(receipt.committed, &batch.epoch))
}

pub(super) async fn committed(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let _work = server.begin_work()?;
    let device = server.device(peer).await?;
    let query = query.unwrap_or_default();
    let epoch = query.split('&').find_map(|pair| Epoch::parse(pair.strip_prefix("epoch=")?));
    let Some(epoch) = epoch else {
        let sentence = "epoch is not 16 lower-case hex digits: ask with ?epoch=<epoch>";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence));
    };
    Ok(mark(ingest::committed(&server.database, &device, &epoch).await?, &epoch))
}

fn mark(committed: u64, epoch: &Epoch) -> Json<Value> {
    Json(json!({"committed": committed, "epoch": epoch}))
}
