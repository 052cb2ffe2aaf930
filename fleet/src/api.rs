//! The routes of the cameras: the contract in README.md, version 1.

mod body;
mod enrolment;
mod events;
mod evidence;
mod halts;
mod refusal;

pub use refusal::{ApiError, Away};

use crate::authority::Authority;
use crate::database::{Database, in_time};
use crate::devices::{Bearer, bearer};
use crate::evidence::Evidence;
use crate::ids::{CertificatePrint, DeviceId};
use crate::metrics::Metrics;
use crate::pages;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, head, post};
use axum::{Extension, Json, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What every request may use.
pub struct Server {
    /// PostgreSQL.
    pub database: Database,
    /// The fleet's certificate authority.
    pub authority: Authority,
    /// Where evidence is kept.
    pub evidence: Evidence,
    /// The most bytes of evidence that a device may send on a day; 0 is no bound.
    pub evidence_per_day: u64,
    /// From this share of devices on that did not keep a policy its rollout is halted; 0 is never.
    pub halt_share: f64,
    /// The counters.
    pub metrics: Metrics,
    /// Requests that may be in work at the same time.
    pub work: Semaphore,
    /// Bodies that may be coming in at the same time: slow links keep theirs for minutes.
    pub bodies: Semaphore,
}

/// [`Server`], as axum hands it on.
pub type Shared = Arc<Server>;

/// The client certificate of a connection, if it showed one.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<CertificatePrint>);

impl Server {
    /// A place among the requests in work.
    fn begin_work(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.work.try_acquire().map_err(|_| self.overloaded())
    }

    /// A place among the bodies that come in.
    fn begin_body(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.bodies.try_acquire().map_err(|_| self.overloaded())
    }

    fn overloaded(&self) -> ApiError {
        Metrics::add(&self.metrics.overloaded, 1);
        ApiError::later("the server has too many requests in work: send it again after Retry-After")
    }

    /// The device of a connection.
    async fn device(&self, peer: Peer) -> Result<DeviceId, ApiError> {
        let Some(print) = peer.0 else {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "this needs the client certificate of a device: enrol with POST /v1/enrol",
            ));
        };
        let forbidden = |sentence: String| ApiError::new(StatusCode::FORBIDDEN, sentence);
        match in_time(bearer(&self.database, &print)).await? {
            Bearer::Device(id) => Ok(id),
            Bearer::Revoked(id) => {
                Err(forbidden(format!("device {id} was revoked: enrol it again with a new token")))
            }
            Bearer::Unknown => Err(forbidden(
                "this certificate belongs to no device of this fleet: enrol again with a new token"
                    .into(),
            )),
        }
    }
}

/// Every route of the server.
pub fn router(server: &Shared) -> Router {
    Router::new()
        .route("/v1/enrol", post(enrolment::enrol))
        .route("/v1/events", post(events::receive))
        .route("/v1/events/committed", get(events::committed))
        .route("/v1/evidence/{hash}", head(evidence::presence).patch(evidence::upload))
        .route("/v1/halts", get(halts::halts))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .merge(pages::router(server))
        .fallback(async || {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "there is nothing here: README.md lists the routes",
            )
        })
        .method_not_allowed_fallback(async || {
            let sentence = "this route has no such method: README.md lists them";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
        })
        .layer(from_fn_with_state(server.clone(), measured))
        .with_state(server.clone())
}

async fn health(State(server): State<Shared>) -> Result<Response, ApiError> {
    let client = server.database.client().await?;
    client.simple_query("SELECT 1").await?;
    Ok(Json(json!({"ok": true})).into_response())
}

async fn metrics(State(server): State<Shared>) -> Response {
    let media = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (media, server.metrics.text()).into_response()
}

/// Counts and times every request, and says in the log what went wrong here.
async fn measured(
    State(server): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let route = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some("/v1/enrol") => "enrol",
        Some("/v1/events") => "events",
        Some("/v1/events/committed") => "committed",
        Some("/v1/evidence/{hash}") => "evidence",
        Some("/v1/halts") => "halts",
        Some("/v1/health") => "health",
        Some("/metrics") => "metrics",
        Some(_) => "pages",
        None => "none",
    };
    let response = next.run(request).await;
    let (status, took) = (response.status(), begun.elapsed());
    if let Some(error) = response.extensions().get::<ApiError>() {
        match error.away {
            Some(away) => {
                let counter = match away {
                    Away::Database => &server.metrics.database_away,
                    Away::Evidence => &server.metrics.evidence_store_away,
                };
                Metrics::add(counter, 1);
                tracing::warn!(route, "{}", error.sentence);
            }
            None if status.is_server_error() => tracing::error!(route, "{}", error.sentence),
            None => tracing::debug!(route, status = status.as_u16(), ?peer, "{}", error.sentence),
        }
    }
    server.metrics.answered(route, status.as_u16(), took);
    response
}
