// SPDX-License-Identifier: Apache-2.0
//! The agent's answers: HTTP/JSON on the unix socket, metrics and health by TCP too.
//!
//! Reading is done here, from the last snapshot and from the kernel; whatever changes something is
//! handed to the loop.

mod endpoints;
mod kernel;
mod lb;
mod listing;
mod map_text;
mod metrics;
mod policies;
mod policy;
mod reference;
mod services;
mod status;
mod stream;
mod trace;

use std::sync::Arc;
use std::sync::mpsc::Sender;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use weir_api::{Problem, path};
use weir_datapath::{MapUsage, Maps};

use crate::core::Input;
use crate::error::{EndpointError, chain};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

/// The largest request body: an endpoint request is a few hundred bytes.
const LARGEST_BODY: usize = 64 * 1024;

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inputs: Sender<Input>,
}

/// A refused request.
pub(crate) struct Refusal(StatusCode, Problem);

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        Self(
            status,
            Problem {
                error: error.into(),
                hint: hint.map(str::to_owned),
            },
        )
    }

    fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what, None)
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(error), None)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

impl From<EndpointError> for Refusal {
    fn from(error: EndpointError) -> Self {
        use crate::ipam::IpamError;
        let status = match &error {
            EndpointError::Invalid { .. } => StatusCode::BAD_REQUEST,
            EndpointError::Unknown(_) => StatusCode::NOT_FOUND,
            EndpointError::Address { source, .. } => match source {
                IpamError::OutOfRange { .. } | IpamError::Reserved { .. } => {
                    StatusCode::BAD_REQUEST
                }
                IpamError::InUse { .. } => StatusCode::CONFLICT,
                IpamError::NoRanges | IpamError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
            },
            EndpointError::InterfaceTaken { .. } => StatusCode::CONFLICT,
            EndpointError::Namespace { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            EndpointError::NoDatapath(_) | EndpointError::NotSynced | EndpointError::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            EndpointError::Link { .. }
            | EndpointError::NoNumber
            | EndpointError::Store(_)
            | EndpointError::Rows { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = error.hint();
        Self::new(status, chain(&error), hint)
    }
}

/// JSON, or a refusal as JSON.
pub(crate) type Answer<T> = Result<axum::Json<T>, Refusal>;

#[expect(
    clippy::unnecessary_wraps,
    reason = "so that handlers that cannot fail look like the others"
)]
fn ok<T: Serialize>(value: T) -> Answer<T> {
    Ok(axum::Json(value))
}

impl Api {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot()
    }

    /// How full the maps are. Rows are counted one by one, so on a full table the last count is
    /// good for a while: counting takes a twentieth of the time at most.
    async fn usage(&self) -> Result<Vec<MapUsage>, Refusal> {
        if let Some(known) = self.shared.usage.get() {
            return Ok(known);
        }
        let shared = Arc::clone(&self.shared);
        self.with_maps(move |maps, _| shared.usage.count(maps))
            .await
    }

    /// Reads the kernel on a thread that may wait.
    async fn with_maps<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Maps, &Snapshot) -> weir_datapath::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let snapshot = self.snapshot();
        let Some(maps) = snapshot.maps.clone() else {
            return Err(not_loaded());
        };
        match tokio::task::spawn_blocking(move || read(&maps, &snapshot)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Refusal::internal(&error)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }
}

fn not_loaded() -> Refusal {
    let hint = Some("see the subsystem `datapath` in `weir status`");
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the datapath is not loaded",
        hint,
    )
}

/// Everything that can be asked on the socket.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route(path::STATUS, get(status::status))
        .route(path::ENDPOINTS, get(endpoints::list).put(endpoints::create))
        .route(path::ENDPOINTS_CHECK, post(endpoints::check))
        // A reference may hold a slash (`ns/pod`), so what follows it is found by hand.
        .route(
            "/v1/endpoints/{*rest}",
            get(endpoints::read)
                .post(endpoints::act)
                .delete(endpoints::delete),
        )
        .route(path::EVENTS, get(stream::events))
        .route(path::SERVICES, get(services::list))
        .route(path::SERVICES_COMPARE, post(services::compare))
        .route(path::OBSERVED, get(stream::observed))
        .route(path::FLOWS, get(stream::flows))
        .route(path::POLICIES, get(policies::all))
        .route(path::POLICY_SELECTORS, get(policies::selectors))
        .route(
            path::TRACE,
            post(trace::trace).layer(DefaultBodyLimit::max(trace::LARGEST_QUESTION)),
        )
        .route(path::KERNEL_POLICY, get(policy::all))
        .route("/v1/kernel/policy/{*reference}", get(policy::one))
        .route(path::LB_FRONTENDS, get(lb::frontends))
        .route(path::LB_BACKENDS, get(lb::backends))
        .route(path::LB_SOURCE_RANGES, get(lb::source_ranges))
        .route(path::LB_MAGLEV, get(lb::maglev))
        .route(path::LB_AFFINITY, get(lb::affinity))
        .route(path::LB_SOCKETS, get(lb::sockets))
        .route(path::IPCACHE, get(kernel::ipcache))
        .route(path::KERNEL_ENDPOINTS, get(kernel::endpoints))
        .route(path::KERNEL_METRICS, get(kernel::metrics))
        .route(path::MAPS, get(kernel::maps))
        .route(path::MAP, get(kernel::map))
        .route(path::IDENTITIES, get(listing::identities))
        .route(path::NODES, get(listing::nodes))
        .route(path::CONFIG, get(listing::config))
        .merge(probes())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(api)
}

/// What is served by TCP too.
pub(crate) fn public_router(api: Api) -> Router {
    probes().fallback(unknown).with_state(api)
}

fn probes() -> Router<Api> {
    Router::new()
        .route(path::METRICS, get(metrics::metrics))
        .route(path::HEALTHZ, get(status::healthz))
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!("nothing is served at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let error = format!("{method} is not possible at {}", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error, None)
}
