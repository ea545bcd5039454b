// SPDX-License-Identifier: Apache-2.0
//! How the agent is.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::sync::atomic::Ordering;
use weir_api::endpoint::EndpointState;
use weir_api::status::{EndpointCounts, ServiceStatus, Status};

use super::{Api, kernel, listing};
use crate::config::{Config, LoadBalancerAlgorithm, LoadBalancerMode, NoBackend, RoutingMode};
use crate::shared::Shared;

pub(super) async fn status(State(api): State<Api>) -> axum::Json<Status> {
    let maps = api.usage().await.unwrap_or_default();
    let shared = &api.shared;
    let snapshot = api.snapshot();
    let subsystems = shared.subsystems();
    let ready = snapshot
        .endpoints
        .iter()
        .filter(|one| one.status.state == EndpointState::Ready);
    axum::Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node_name: shared.node.to_string(),
        healthy: subsystems.iter().all(|one| one.healthy),
        subsystems,
        revision: snapshot.revision,
        uptime_seconds: shared.started.elapsed().as_secs(),
        routing_mode: match shared.config.routing_mode {
            RoutingMode::Tunnel => "tunnel",
            RoutingMode::Native => "native",
        }
        .to_owned(),
        masquerade: shared.config.masquerade,
        devices: snapshot.devices.clone(),
        ipam: snapshot.pools.clone(),
        endpoints: EndpointCounts {
            total: snapshot.endpoints.len() as u64,
            ready: ready.count() as u64,
        },
        controllers: shared.controllers(),
        events: shared.events.status(),
        maps: maps.iter().map(kernel::map_state).collect(),
        nodes: listing::node_entries(&snapshot, &shared.node),
        services: services(shared),
        repairs: shared.counts.repairs.load(Ordering::Relaxed),
    })
}

fn services(shared: &Shared) -> ServiceStatus {
    let Config {
        socket_lb,
        load_balancer_algorithm,
        load_balancer_mode,
        no_backend,
        node_port_range,
        ..
    } = &shared.config;
    let directory = &shared.directory;
    let count = directory.world().services().count();
    let services = directory.services();
    let rows = services.rows();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    ServiceStatus {
        socket_lb: *socket_lb,
        algorithm: match load_balancer_algorithm {
            LoadBalancerAlgorithm::Random => "random",
            LoadBalancerAlgorithm::Maglev => "maglev",
        }
        .to_owned(),
        mode: match load_balancer_mode {
            LoadBalancerMode::Snat => "snat",
            LoadBalancerMode::Dsr => "dsr",
        }
        .to_owned(),
        no_backend: match no_backend {
            NoBackend::Reject => "reject",
            NoBackend::Drop => "drop",
        }
        .to_owned(),
        node_port_range: node_port_range.to_string(),
        services: number(count),
        frontends: number(rows.frontends.len()),
        backends: number(rows.service_backends.len()),
        without_backend: directory.without_backend.load(Ordering::Relaxed),
    }
}

/// What starting the agent again would not mend: objects that are wrong, a source that is away.
const OTHERS: [&str; 3] = ["kubernetes", "source", "world"];

pub(super) async fn healthz(State(api): State<Api>) -> Response {
    let bad: Vec<_> = api
        .shared
        .subsystems()
        .into_iter()
        .filter(|one| !one.healthy && !OTHERS.contains(&one.name.as_str()))
        .map(|one| format!("error in {}: {}\n", one.name, one.message))
        .collect();
    if bad.is_empty() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, bad.concat()).into_response()
    }
}
