//! `GET /v1/halts`: which rollouts a device should not begin.

use super::{ApiError, Peer, Shared};
use crate::database::in_time;
use crate::rollouts;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use release::is_label;
use serde_json::{Value, json};

pub(super) async fn halts(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let _work = server.begin_work()?;
    server.device(peer).await?;
    let query = query.unwrap_or_default();
    let channel = query.split('&').find_map(|pair| pair.strip_prefix("channel="));
    let Some(channel) = channel.filter(|name| is_label(name)) else {
        let sentence = "channel is no word of lower-case letters, digits, - and _: ask with ?channel=<channel>";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, sentence));
    };
    let halted = in_time(rollouts::halted(&server.database, channel)).await?;
    Ok(Json(json!({"channel": channel, "halted": halted})))
}
