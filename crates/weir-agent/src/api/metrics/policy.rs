// SPDX-License-Identifier: Apache-2.0
//! Services and policies: how many there are, which of them are realized, and what the policy log does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::page::{Labels, Page, labels, number};
use crate::policy_log::counts::ERRORS;
use crate::policy_log::{Disposition, DropCause};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

/// One number for the whole node.
fn alone(count: usize) -> [(Labels, f64); 1] {
    [(Labels::new(), number(count as u64))]
}

pub(super) fn services(page: &mut Page, shared: &Shared) {
    let directory = &shared.directory;
    let services = directory.world().services().count();
    page.level("services", "Services of the cluster", alone(services));
    {
        let services = directory.services();
        let rows = services.rows();
        let frontends = rows.frontends.len();
        page.level(
            "service_frontends",
            "Addresses and ports that services answer",
            alone(frontends),
        );
        let backends = rows.service_backends.len();
        page.level(
            "service_backends",
            "Backends of service ports",
            alone(backends),
        );
    }
    let empty = directory.without_backend.load(Ordering::Relaxed);
    page.level(
        "services_without_backend",
        "Services that have a port without a usable backend",
        [(Labels::new(), number(empty))],
    );
}

pub(super) fn policy(page: &mut Page, shared: &Shared, snapshot: &Snapshot) {
    let directory = &shared.directory;
    let policies = directory.world().policies().count();
    page.level("policy", "Policies of the cluster", alone(policies));
    let (revision, realized) = snapshot.policy_revisions;
    page.level(
        "policy_max_revision",
        "Changes of policies so far",
        [(Labels::new(), number(revision))],
    );
    page.level(
        "policy_realized_revision",
        "Changes of policies that every endpoint has",
        [(Labels::new(), number(realized))],
    );
    let rows = directory.policy().rows().policy.len();
    page.level("policy_rows", "Rows of policy sets", alone(rows));
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

pub(super) fn policy_log(page: &mut Page, shared: &Shared) {
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
