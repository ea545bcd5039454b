// SPDX-License-Identifier: Apache-2.0
//! Endpoints as tables and lines.

use crate::output::Table;
use crate::text::word;
use std::collections::BTreeMap;
use weir_api::endpoint::{Endpoint, EndpointHealth, LogEntry};

/// The peers' columns in their order, and the pod behind them.
pub(super) fn list(endpoints: &[Endpoint]) -> Table {
    let mut table = Table::new([
        "ENDPOINT",
        "POLICY (ingress)\nENFORCEMENT",
        "POLICY (egress)\nENFORCEMENT",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
        "POD",
    ]);
    for endpoint in endpoints {
        let status = &endpoint.status;
        let addressing = &status.networking.addressing;
        let family = |pick: fn(&weir_api::endpoint::Addressing) -> Option<&String>| {
            let found: Vec<&str> = addressing
                .iter()
                .filter_map(pick)
                .map(String::as_str)
                .collect();
            found.join("\n")
        };
        table.row([
            endpoint.id.to_string(),
            enforcement(status.policy.ingress_enforced).to_owned(),
            enforcement(status.policy.egress_enforced).to_owned(),
            status.identity.id.to_string(),
            status.identity.labels.join("\n"),
            family(|pair| pair.ipv6.as_ref()),
            family(|pair| pair.ipv4.as_ref()),
            word(&status.state),
            status.external_identifiers.pod_name.clone(),
        ]);
    }
    table
}

const fn enforcement(enforced: bool) -> &'static str {
    if enforced { "Enabled" } else { "Disabled" }
}

pub(super) fn log(log: &[LogEntry]) -> Vec<String> {
    let mut table = Table::new(["Timestamp", "Status", "State", "Message"]);
    for entry in log {
        table.row([
            entry.timestamp.clone(),
            entry.code.clone(),
            word(&entry.state),
            entry.message.clone(),
        ]);
    }
    table.lines()
}

pub(super) fn health(health: &EndpointHealth) -> Vec<String> {
    let mut table = Table::default();
    table.row(["Overall Health:".to_owned(), word(&health.overall_health)]);
    table.row(["BPF Health:".to_owned(), word(&health.bpf)]);
    table.row(["Policy Health:".to_owned(), word(&health.policy)]);
    let connected = if health.connected { "yes" } else { "no" };
    table.row(["Connected:", connected]);
    table.lines()
}

/// The options that the peers have for each endpoint. All but the last two are fixed here: flows
/// are always accounted, drops always reported, sources always verified.
pub(super) fn options(endpoint: Option<&Endpoint>) -> BTreeMap<&'static str, &'static str> {
    let policy = endpoint.map(|endpoint| &endpoint.status.policy);
    BTreeMap::from([
        ("ConntrackAccounting", "Enabled"),
        ("DropNotification", "Enabled"),
        ("MonitorAggregationLevel", "Medium"),
        ("SourceIPVerification", "Enabled"),
        (
            "PolicyIngressEnforcement",
            enforcement(policy.is_some_and(|policy| policy.ingress_enforced)),
        ),
        (
            "PolicyEgressEnforcement",
            enforcement(policy.is_some_and(|policy| policy.egress_enforced)),
        ),
    ])
}

pub(super) fn option_lines(
    options: &BTreeMap<&'static str, &'static str>,
    only_names: bool,
) -> Vec<String> {
    if only_names {
        return options.keys().map(|&name| name.to_owned()).collect();
    }
    let mut table = Table::default();
    for (&name, &value) in options {
        table.row([format!("{name}:"), value.to_owned()]);
    }
    table.lines()
}
