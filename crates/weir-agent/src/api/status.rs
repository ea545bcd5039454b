// SPDX-License-Identifier: Apache-2.0
//! How the agent is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use weir_abi::PolicySet;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_api::endpoint::{Endpoint, EndpointState};
use weir_api::status::{EndpointCounts, PolicySetUse, ServiceStatus, Status};

use super::{Api, kernel, listing};
use crate::config::{
    Config, LoadBalancerAcceleration, LoadBalancerAlgorithm, LoadBalancerMode, NoBackend,
    RoutingMode,
};
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
        policy_sets: policy_sets(shared, &snapshot.endpoints),
        repairs: shared.counts.repairs.load(Ordering::Relaxed),
    })
}

fn services(shared: &Shared) -> ServiceStatus {
    let Config {
        socket_lb,
        load_balancer_algorithm,
        load_balancer_mode,
        load_balancer_acceleration,
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
        acceleration: match load_balancer_acceleration {
            LoadBalancerAcceleration::Disabled => "disabled",
            LoadBalancerAcceleration::Native => "native",
            LoadBalancerAcceleration::BestEffort => "best-effort",
            LoadBalancerAcceleration::Generic => "generic",
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

/// What each set of policies takes in the kernel, and who shares it.
fn policy_sets(shared: &Shared, endpoints: &[Endpoint]) -> Vec<PolicySetUse> {
    const ROW_BYTES: u64 = (size_of::<PolicyKey>() + size_of::<PolicyRow>()) as u64;
    let mut sets: BTreeMap<u32, PolicySetUse> = BTreeMap::new();
    let shared_by = endpoints.iter().map(|one| one.status.policy.set);
    for set in shared_by.filter(|set| *set != PolicySet::NONE.get()) {
        sets.entry(set).or_default().endpoints += 1;
    }
    for key in shared.directory.policy().rows().policy.keys() {
        sets.entry(key.set.get()).or_default().rows += 1;
    }
    sets.into_iter()
        .map(|(set, used)| PolicySetUse {
            set,
            bytes: used.rows * ROW_BYTES,
            ..used
        })
        .collect()
}

/// What starting the agent again would not mend: objects that are wrong, a source that is away, a driver that cannot.
const OTHERS: [&str; 5] = [
    "acceleration",
    "announcements",
    "kubernetes",
    "source",
    "world",
];

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
