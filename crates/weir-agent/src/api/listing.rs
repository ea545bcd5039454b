// SPDX-License-Identifier: Apache-2.0
//! What the agent knows, without a look at the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::State;
use serde_json::Value;
use weir_abi::{Address, Identity, NodeIndex};
use weir_api::kernel::{IdentityEntry, NodeEntry};
use weir_compile::NodeIndices;
use weir_model::{LabelSet, NodeName};

use super::{Answer, Api, ok};
use crate::snapshot::Snapshot;

pub(super) async fn identities(State(api): State<Api>) -> Answer<Vec<IdentityEntry>> {
    let snapshot = api.snapshot();
    let mut references: BTreeMap<Identity, u64> = BTreeMap::new();
    let world = api.shared.world();
    for pod in world.pods().filter(|pod| !pod.host_network) {
        if let Some(number) = snapshot.identities.get(&LabelSet::of(pod)) {
            *references.entry(number).or_default() += 1;
        }
    }
    let reserved = (0..Identity::FIRST_POD.0)
        .map(Identity)
        .filter(|number| number.reserved_name().is_some());
    let numbers = reserved.chain(snapshot.identities.iter().map(|(number, _)| number));
    ok(numbers
        .map(|number| IdentityEntry {
            id: number.0,
            labels: snapshot.identities.display_labels(number),
            references: references.get(&number).copied().unwrap_or_default(),
        })
        .collect())
}

pub(super) async fn nodes(State(api): State<Api>) -> Answer<Vec<NodeEntry>> {
    ok(node_entries(&api.snapshot(), &api.shared.node))
}

/// The cluster's nodes, this one among them.
pub(super) fn node_entries(snapshot: &Snapshot, own: &NodeName) -> Vec<NodeEntry> {
    let indices = NodeIndices::restore(&snapshot.compiled.rows.nodes);
    snapshot
        .nodes
        .iter()
        .map(|node| {
            let index = |ip: &IpAddr| indices.get(Address::from(*ip));
            NodeEntry {
                name: node.name.to_string(),
                local: node.name == *own,
                addresses: node.addresses.iter().map(ToString::to_string).collect(),
                pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
                index: node
                    .addresses
                    .iter()
                    .find_map(index)
                    .unwrap_or(NodeIndex::NONE)
                    .0,
                source: "k8s".to_owned(),
            }
        })
        .collect()
}

pub(super) async fn config(State(api): State<Api>) -> Answer<Value> {
    let mut config = serde_json::to_value(&api.shared.config).unwrap_or_default();
    let snapshot = api.snapshot();
    if let Value::Object(fields) = &mut config {
        let devices: Vec<_> = snapshot
            .devices
            .iter()
            .map(|device| device.name.clone())
            .collect();
        fields.insert("nodeName".to_owned(), api.shared.node.to_string().into());
        // What was found stands in the place of what was left open.
        fields.insert("devices".to_owned(), devices.into());
        let smallest = snapshot.devices.iter().map(|device| device.mtu).min();
        if let Some(mtu) = smallest.filter(|_| fields.get("mtu").is_none_or(Value::is_null)) {
            fields.insert("mtu".to_owned(), mtu.into());
        }
        let pools: Vec<_> = snapshot
            .pools
            .iter()
            .map(|pool| pool.cidr.clone())
            .collect();
        fields.insert("podCIDRs".to_owned(), pools.into());
    }
    ok(config)
}
