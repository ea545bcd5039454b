// SPDX-License-Identifier: Apache-2.0
//! Pods and addresses of the cluster, as selectors and blocks of policies meet them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_abi::Identity;
use weir_api::endpoint::Endpoint;
use weir_model::{IdentityTable, LabelSet, Node, PodCidr, World};

use crate::snapshot::Snapshot;

/// Pods by what policy can tell them apart by: many pods are few label sets.
pub(super) struct Pods<'a> {
    pub(super) world: &'a World,
    identities: &'a IdentityTable,
    endpoints: &'a [Endpoint],
    /// Pods of the whole cluster that have an identity.
    counts: BTreeMap<Identity, u64>,
    /// Addresses of pods and nodes, in as few ranges as possible.
    cluster: Vec<IpNet>,
}

impl<'a> Pods<'a> {
    pub(super) fn new(world: &'a World, snapshot: &'a Snapshot) -> Self {
        let mut counts = BTreeMap::new();
        for pod in world.pods().filter(|pod| !pod.host_network) {
            if let Some(identity) = snapshot.identities.get(&LabelSet::of(pod)) {
                *counts.entry(identity).or_default() += 1;
            }
        }
        Self {
            cluster: cluster_ranges(world),
            world,
            identities: &snapshot.identities,
            endpoints: &snapshot.endpoints,
            counts,
        }
    }

    pub(super) fn matching(&self, wanted: impl Fn(&LabelSet) -> bool) -> BTreeSet<Identity> {
        let all = self.identities.iter();
        all.filter(|(_, set)| wanted(set))
            .map(|(identity, _)| identity)
            .collect()
    }

    pub(super) fn count(&self, identities: &BTreeSet<Identity>) -> u64 {
        let counts = identities.iter().filter_map(|one| self.counts.get(one));
        counts.sum()
    }

    /// Whether a block covers addresses of pods and nodes only.
    pub(super) fn hold_all_of(&self, block: IpNet) -> bool {
        self.cluster.iter().any(|range| range.contains(&block))
    }

    pub(super) fn here(&self, identities: &BTreeSet<Identity>) -> Vec<String> {
        let endpoints = self.endpoints.iter();
        endpoints
            .filter(|one| identities.contains(&Identity(one.status.identity.id)))
            .map(|one| one.status.external_identifiers.pod_name.clone())
            .collect()
    }
}

fn cluster_ranges(world: &World) -> Vec<IpNet> {
    let of_node = |node: &Node| {
        let pods = node.pod_cidrs.iter().map(PodCidr::net);
        let own = node.addresses.iter().copied().map(IpNet::from);
        pods.chain(own).collect::<Vec<_>>()
    };
    let ranges: Vec<_> = world.nodes().flat_map(|node| of_node(node)).collect();
    IpNet::aggregate(&ranges)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::{Change, NodeName};

    use super::*;

    #[test]
    fn ranges_of_neighbours_are_one_range_of_the_cluster() {
        let node = |name: &str, address: &str, cidr: &str| Node {
            name: NodeName::new(name).unwrap(),
            labels: weir_model::Labels::default(),
            addresses: vec![address.parse().unwrap()],
            uid: None,
            pod_cidrs: vec![PodCidr::new(cidr.parse().unwrap()).unwrap()],
        };
        let mut world = World::default();
        for (name, address, cidr) in [
            ("a", "192.0.2.1", "10.244.0.0/24"),
            ("b", "192.0.2.7", "10.244.1.0/24"),
        ] {
            world.apply(Change::Node(Arc::new(node(name, address, cidr))));
        }
        let ranges = cluster_ranges(&world);
        let covers = |block: &str| {
            let block: IpNet = block.parse().unwrap();
            ranges.iter().any(|range| range.contains(&block))
        };
        assert!(covers("10.244.0.0/23") && covers("10.244.1.8/32") && covers("192.0.2.7/32"));
        assert!(!covers("10.244.0.0/22") && !covers("192.0.2.0/24") && !covers("0.0.0.0/0"));
    }
}
