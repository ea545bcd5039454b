// SPDX-License-Identifier: Apache-2.0
//! Metrics in Prometheus' text form. Names and labels are those of the field, with the prefix
//! `weir_`.
//!
//! Everything is collected when it is asked for: the truth is in the kernel and in the snapshot, and
//! a second set of numbers would only differ from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weir_abi::counter::{Counter as Place, METRICS};
use weir_datapath::Maps;

use super::map_text::{direction_name, reason_name};
use super::{Api, Refusal};
use crate::policy_log::counts::ERRORS;
use crate::policy_log::{Disposition, DropCause};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

type Labels = Vec<(String, String)>;
type Count = Counter<u64>;
type Level = Gauge<f64, AtomicU64>;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, Refusal> {
    let shared = std::sync::Arc::clone(&api.shared);
    let snapshot = api.snapshot();
    // Reading maps may take a while on a full table.
    let text = tokio::task::spawn_blocking(move || text(&shared, &snapshot)).await;
    let text = text.map_err(|error| Refusal::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// A registry that is filled once and printed.
struct Page(Registry);

impl Page {
    fn count(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Count>::default();
        for (labels, value) in rows {
            let count = family.get_or_create(&labels).clone();
            count.inc_by(value);
            if labels.is_empty() {
                // One number for the whole node: no braces.
                self.0.register(name, help, count);
                return;
            }
        }
        self.0.register(name, help, family);
    }

    fn level(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Level>::default();
        for (labels, value) in rows {
            let level = family.get_or_create(&labels).clone();
            level.set(value);
            if labels.is_empty() {
                self.0.register(name, help, level);
                return;
            }
        }
        self.0.register(name, help, family);
    }
}

fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no count on a node comes near 2^52"
)]
fn number(count: u64) -> f64 {
    count as f64
}

fn text(shared: &Shared, snapshot: &Snapshot) -> String {
    let mut page = Page(Registry::with_prefix("weir"));
    if let Some(maps) = &snapshot.maps
        && let Err(error) = datapath(&mut page, maps, shared)
    {
        tracing::warn!(
            error = crate::error::chain(&error),
            "metrics of the datapath are missing"
        );
    }
    collections(&mut page, shared);
    control(&mut page, shared, snapshot);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &page.0);
    text
}

fn datapath(page: &mut Page, maps: &Maps, shared: &Shared) -> weir_datapath::Result<()> {
    let sums = maps.metrics.sums()?;
    let rows = |dropped: bool, bytes: bool| {
        let sums = sums
            .iter()
            .filter(move |(index, _)| *index < METRICS && (*index >> 2 != 0) == dropped);
        sums.map(move |(index, metric)| {
            let mut row = labels([("direction", direction_name(index & 3).to_owned())]);
            if dropped {
                let code = u8::try_from(index >> 2).unwrap_or(u8::MAX);
                row.push(("reason".to_owned(), reason_name(code)));
            }
            (row, if bytes { metric.bytes } else { metric.packets })
        })
    };
    page.count("drop_count", "Packets dropped", rows(true, false));
    page.count("drop_bytes", "Bytes dropped", rows(true, true));
    page.count("forward_count", "Packets forwarded", rows(false, false));
    page.count("forward_bytes", "Bytes forwarded", rows(false, true));
    let mut counters = Vec::new();
    for counter in Place::ALL {
        counters.push((
            labels([("counter", counter.name().to_owned())]),
            maps.counter(*counter)?,
        ));
    }
    page.count(
        "datapath_events",
        "Things that the programs count beside packets",
        counters,
    );
    let usage = match shared.usage.get() {
        Some(known) => known,
        None => shared.usage.count(maps)?,
    };
    let name = |usage: &weir_datapath::MapUsage| labels([("map_name", usage.map.name.to_owned())]);
    let pressure = usage
        .iter()
        .filter_map(|one| Some((name(one), one.percent()? / 100.0)));
    page.level(
        "bpf_map_pressure",
        "How full a map is, from 0 to 1",
        pressure,
    );
    let capacity = usage.iter().map(|one| (name(one), f64::from(one.size)));
    page.level(
        "bpf_map_capacity",
        "Entries (bytes for rings) that fit a map",
        capacity,
    );
    let errors = usage.iter().map(|one| (name(one), one.failed_writes));
    page.count("bpf_map_errors", "Writes that the kernel refused", errors);
    Ok(())
}

fn collections(page: &mut Page, shared: &Shared) {
    let all = shared.collections();
    let status = |status: &str| labels([("status", status.to_owned())]);
    let runs = [
        (status("completed"), all.runs - all.failed),
        (status("uncompleted"), all.failed),
    ];
    page.count(
        "datapath_conntrack_gc_runs",
        "Collections of the flow table",
        runs,
    );
    page.count(
        "datapath_conntrack_gc_deleted",
        "Flow entries that were collected",
        [(Labels::new(), all.deleted)],
    );
    page.level(
        "datapath_conntrack_gc_duration_seconds",
        "Time spent collecting",
        [(Labels::new(), all.seconds)],
    );
    if let Some(last) = all.last {
        let entries = [
            (status("alive"), number(last.used())),
            (status("deleted"), number(last.deleted)),
        ];
        page.level(
            "datapath_conntrack_gc_entries",
            "What the last collection found",
            entries,
        );
    }
    let signals = shared.counts.signals.load(Ordering::Relaxed);
    page.count(
        "datapath_signals_handled",
        "Calls of the programs for a collection",
        [(Labels::new(), signals)],
    );
}

fn control(page: &mut Page, shared: &Shared, snapshot: &Snapshot) {
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
    services_and_policy(page, shared, snapshot);
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

fn policy_log(page: &mut Page, shared: &Shared) {
    let counts = &shared.policy_log;
    let on = |flag: &AtomicBool| f64::from(u8::from(flag.load(Ordering::Relaxed)));
    page.level(
        "policy_logging_enabled",
        "1 where NetworkLogging asks for decisions of policies",
        [(Labels::new(), on(&counts.enabled))],
    );
    page.level(
        "policy_logging_ready",
        "1 where the policy log can be written",
        [(Labels::new(), on(&counts.ready))],
    );
    let verdicts = |values: [u64; 2]| {
        let names = [Disposition::Allow, Disposition::Deny];
        let rows = names.into_iter().zip(values);
        rows.map(|(one, value)| (labels([("verdict", one.name().to_owned())]), value))
    };
    page.count(
        "policy_logging_event_count",
        "Decisions of policies on new connections while logging is enabled",
        verdicts(counts.events()),
    );
    page.count(
        "policy_logging_log_count",
        "Lines of the policy log",
        verdicts(counts.lines()),
    );
    let reason = |name: &str| labels([("reason", name.to_owned())]);
    let drops = DropCause::ALL.iter().zip(counts.drops());
    page.count(
        "policy_logging_drop_count",
        "Lines that were over a limit of the policy log",
        drops.map(|(cause, value)| (reason(cause.name()), value)),
    );
    let errors = ERRORS.iter().zip(counts.errors());
    page.count(
        "policy_logging_error_count",
        "What failed at the policy log",
        errors.map(|(name, value)| (reason(name), value)),
    );
    page.0.register(
        "policy_logging_allow_latency_microseconds",
        "Time from an allowed packet to its line",
        counts.allow_microseconds.clone(),
    );
    page.0.register(
        "policy_logging_deny_latency_seconds",
        "Time from a denied packet to its line",
        counts.deny_seconds.clone(),
    );
}

fn services_and_policy(page: &mut Page, shared: &Shared, snapshot: &Snapshot) {
    let none = Labels::new;
    let directory = &shared.directory;
    let level = |count: usize| [(none(), number(count as u64))];
    let (services, policies) = {
        let world = directory.world();
        (world.services().count(), world.policies().count())
    };
    page.level("services", "Services of the cluster", level(services));
    {
        let services = directory.services();
        let rows = services.rows();
        let frontends = rows.frontends.len();
        page.level(
            "service_frontends",
            "Addresses and ports that services answer",
            level(frontends),
        );
        let backends = rows.service_backends.len();
        page.level(
            "service_backends",
            "Backends of service ports",
            level(backends),
        );
    }
    let empty = directory.without_backend.load(Ordering::Relaxed);
    page.level(
        "services_without_backend",
        "Services that have a port without a usable backend",
        [(none(), number(empty))],
    );
    page.level("policy", "Policies of the cluster", level(policies));
    let (revision, realized) = snapshot.policy_revisions;
    page.level(
        "policy_max_revision",
        "Changes of policies so far",
        [(none(), number(revision))],
    );
    page.level(
        "policy_realized_revision",
        "Changes of policies that every endpoint has",
        [(none(), number(realized))],
    );
    let rows = directory.policy().rows().policy.len();
    page.level("policy_rows", "Rows of policy sets", level(rows));
    let mut enforced: BTreeMap<&str, u64> = BTreeMap::new();
    for endpoint in snapshot.endpoints.iter() {
        let policy = &endpoint.status.policy;
        let state = match (policy.ingress_enforced, policy.egress_enforced) {
            (true, true) => "both",
            (true, false) => "ingress",
            (false, true) => "egress",
            (false, false) => "none",
        };
        *enforced.entry(state).or_default() += 1;
    }
    let enforced = enforced.into_iter().map(|(state, count)| {
        let labels = labels([("enforcement", state.to_owned())]);
        (labels, number(count))
    });
    page.level(
        "policy_endpoint_enforcement_status",
        "Endpoints by the directions in which policies isolate them",
        enforced,
    );
}
