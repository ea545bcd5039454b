// SPDX-License-Identifier: Apache-2.0
//! What the agent does: endpoints, identities, addresses, its source and its own jobs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::page::{Labels, Page, labels, number};
use super::policy::{policy, policy_log, services};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

pub(super) fn control(page: &mut Page, shared: &Shared, snapshot: &Snapshot) {
    let none = Labels::new;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &shared.counts;
    page.level(
        "endpoint",
        "Endpoints of this node",
        [(none(), number(snapshot.endpoints.len() as u64))],
    );
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for endpoint in snapshot.endpoints.iter() {
        let state = serde_json::to_value(endpoint.status.state).unwrap_or_default();
        *states
            .entry(state.as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    let states = states
        .into_iter()
        .map(|(state, count)| (labels([("endpoint_state", state)]), number(count)));
    page.level("endpoint_state", "Endpoints by state", states);
    page.count(
        "endpoint_regenerations",
        "Endpoints whose rows were rebuilt",
        [(none(), count(&counts.regenerations))],
    );
    page.0.register(
        "endpoint_create_seconds",
        "Time from the request for an endpoint to its rows in the kernel",
        counts.creation_seconds.clone(),
    );
    page.level(
        "identity",
        "Identities in use",
        [(none(), number(snapshot.identities.iter().count() as u64))],
    );
    services(page, shared);
    policy(page, shared, snapshot);
    policy_log(page, shared);
    page.count(
        "repairs",
        "Rows, links and routes that were found changed and put right",
        [(none(), count(&counts.repairs))],
    );
    page.count(
        "kubernetes_events",
        "Looks at the source that found something new",
        [(none(), count(&counts.source_batches))],
    );
    let bootstrap = number(count(&counts.bootstrap_milliseconds)) / 1000.0;
    page.level(
        "agent_bootstrap_seconds",
        "Time from the start to the first realized state",
        [(none(), bootstrap)],
    );
    page.level(
        "source_revision",
        "Revision of the source that is realized",
        [(none(), number(snapshot.revision))],
    );
    let pools = |value: fn(&weir_api::status::IpamPool) -> u64| {
        snapshot
            .pools
            .iter()
            .map(move |pool| (labels([("cidr", pool.cidr.clone())]), number(value(pool))))
    };
    page.level(
        "ip_addresses",
        "Addresses that pods have",
        pools(|pool| pool.used),
    );
    page.level(
        "ipam_capacity",
        "Addresses that pods can have",
        pools(|pool| pool.capacity),
    );
    let failing = shared
        .controllers()
        .iter()
        .filter(|one| one.consecutive_errors > 0)
        .count();
    page.level(
        "controllers_failing",
        "Recurring jobs that fail",
        [(none(), number(failing as u64))],
    );
    let subsystems = shared.subsystems();
    let healthy = subsystems.iter().map(|one| {
        (
            labels([("subsystem", one.name.clone())]),
            f64::from(u8::from(one.healthy)),
        )
    });
    page.level("healthy", "1 where a subsystem is fine", healthy);
    events(page, shared);
}

fn events(page: &mut Page, shared: &Shared) {
    let events = shared.events.status();
    let lost = [
        (labels([("place", "kernel".to_owned())]), events.lost),
        (labels([("place", "listener".to_owned())]), events.dropped),
    ];
    page.count(
        "events_received",
        "Records read from the ring buffer",
        [(Labels::new(), events.received)],
    );
    page.count("events_lost", "Events that were lost, and where", lost);
}
