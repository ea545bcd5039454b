// SPDX-License-Identifier: Apache-2.0
//! What policy allows endpoints: the rows in the kernel, named and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use weir_abi::policy::{
    PeerKind, PolicyDirection, PolicyKey, PolicyRow as Row, PortRule, rule_flags,
};
use weir_abi::{Identity, PolicySet, Protocol};
use weir_api::endpoint::Endpoint;
use weir_api::policy::{EndpointPolicy, PolicyRow};
use weir_datapath::{Maps, Result};

use super::{Answer, Api, ok, reference};
use crate::directory::Directory;
use crate::snapshot::Snapshot;

pub(super) async fn all(State(api): State<Api>) -> Answer<Vec<EndpointPolicy>> {
    let endpoints = Arc::clone(&api.snapshot().endpoints);
    ok(of_endpoints(&api, endpoints.as_ref().clone()).await?)
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(named): Path<String>,
) -> Answer<Vec<EndpointPolicy>> {
    let snapshot = api.snapshot();
    let endpoint = reference::find(&snapshot.endpoints, &named)?;
    ok(of_endpoints(&api, vec![endpoint.clone()]).await?)
}

async fn of_endpoints(
    api: &Api,
    endpoints: Vec<Endpoint>,
) -> std::result::Result<Vec<EndpointPolicy>, super::Refusal> {
    let directory = Arc::clone(&api.shared.directory);
    api.with_maps(move |maps, snapshot| read(&endpoints, maps, snapshot, &directory))
        .await
}

/// The policy of endpoints as the kernel has it; a set that several share is read once.
pub(super) fn read(
    endpoints: &[Endpoint],
    maps: &Maps,
    snapshot: &Snapshot,
    directory: &Directory,
) -> Result<Vec<EndpointPolicy>> {
    let sets: BTreeSet<PolicySet> = endpoints
        .iter()
        .map(|endpoint| PolicySet(endpoint.status.policy.set))
        .filter(|set| *set != PolicySet::NONE)
        .collect();
    let mut rows: BTreeMap<PolicySet, Vec<PolicyRow>> = BTreeMap::new();
    if !sets.is_empty() {
        let mut found = BTreeMap::new();
        maps.policy.for_each(|key, row| {
            if sets.contains(&key.set) {
                found.insert(key, row);
            }
        })?;
        for (key, row, state) in states(&sets, found, directory) {
            for rule in row.rules.iter().take(usize::from(row.count)) {
                let shown = shown(&key, rule, state, maps, snapshot, directory)?;
                rows.entry(key.set).or_default().push(shown);
            }
        }
    }
    let of = |endpoint: &Endpoint| {
        let policy = &endpoint.status.policy;
        EndpointPolicy {
            endpoint: endpoint.id,
            pod: endpoint.status.external_identifiers.pod_name.clone(),
            set: policy.set,
            ingress_enforced: policy.ingress_enforced,
            egress_enforced: policy.egress_enforced,
            rows: rows
                .get(&PolicySet(policy.set))
                .cloned()
                .unwrap_or_default(),
        }
    };
    Ok(endpoints.iter().map(of).collect())
}

/// Each row of the sets with how it compares with the desired one.
fn states(
    sets: &BTreeSet<PolicySet>,
    found: BTreeMap<PolicyKey, Row>,
    directory: &Directory,
) -> Vec<(PolicyKey, Row, &'static str)> {
    let policy = directory.policy();
    let desired = &policy.rows().policy;
    let mut all: Vec<_> = desired
        .iter()
        .filter(|(key, _)| sets.contains(&key.set) && !found.contains_key(key))
        .map(|(key, row)| (*key, *row, "missing"))
        .collect();
    all.extend(found.into_iter().map(|(key, row)| {
        let state = match desired.get(&key) {
            Some(wanted) if *wanted == row => "sync",
            Some(_) => "changed",
            None => "foreign",
        };
        (key, row, state)
    }));
    all.sort_by_key(|(key, ..)| (key.set, key.direction, key.peer_kind, key.peer, key.part));
    all
}

fn shown(
    key: &PolicyKey,
    rule: &PortRule,
    state: &str,
    maps: &Maps,
    snapshot: &Snapshot,
    directory: &Directory,
) -> Result<PolicyRow> {
    let hits = maps
        .policy_hits
        .get(&rule.cookie.get())?
        .unwrap_or_default();
    let kind = |kind: PeerKind| key.peer_kind == kind as u8;
    let labels = if kind(PeerKind::Identity) {
        snapshot.identities.display_labels(Identity(key.peer))
    } else {
        Vec::new()
    };
    Ok(PolicyRow {
        set: key.set.get(),
        action: if rule.flags & rule_flags::DENY != 0 {
            "Deny"
        } else {
            "Allow"
        }
        .to_owned(),
        direction: if key.direction == PolicyDirection::Ingress as u8 {
            "Ingress"
        } else {
            "Egress"
        }
        .to_owned(),
        peer_kind: if kind(PeerKind::Any) {
            "any"
        } else if kind(PeerKind::Identity) {
            "identity"
        } else {
            "blocks"
        }
        .to_owned(),
        peer: key.peer,
        labels,
        port: port(rule),
        precedence: rule.precedence,
        cookie: rule.cookie.get(),
        packets: hits.packets,
        bytes: hits.bytes,
        rules: directory
            .rules(rule.cookie)
            .map_or_else(Vec::new, |rules| rules.to_vec()),
        state: state.to_owned(),
    })
}

/// `ANY`, `80/TCP`, `8000-9000/UDP`, `ANY/SCTP`.
fn port(rule: &PortRule) -> String {
    let ports = match (rule.first_port, rule.last_port) {
        (0, u16::MAX) => "ANY".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    if rule.protocol == Protocol(0) {
        ports
    } else {
        format!("{ports}/{}", rule.protocol)
    }
}
