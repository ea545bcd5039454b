// SPDX-License-Identifier: Apache-2.0
//! The pods: those of this node with their links, and who is behind every pod's address.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::endpoint::flags::READY;
use weir_abi::ipcache::IpcacheRow;
use weir_abi::{EndpointRow, Identity, NodeIndex};
use weir_model::{IdentityTable, Pod};

use super::identities::{has_own_addresses, kind_of};
use super::{Compiler, LocalEndpoint, Owner};
use crate::{DesiredRoute, NodeIndices, Problem};

impl Compiler<'_> {
    pub(super) fn endpoints(&mut self, endpoints: &[LocalEndpoint], identities: &IdentityTable) {
        let own = self.world.node(&self.settings.node);
        let ranges: Vec<IpNet> = own
            .into_iter()
            .flat_map(|node| node.pod_cidrs.iter().map(weir_model::PodCidr::net))
            .collect();
        for endpoint in endpoints {
            let identity = self
                .labels_of(endpoint)
                .and_then(|set| identities.get(&set));
            let row = EndpointRow {
                ifindex: endpoint.interface,
                identity: identity.unwrap_or(Identity::UNKNOWN),
                id: endpoint.id,
                flags: if identity.is_some() { READY } else { 0 },
                mac: endpoint.mac,
                reserved: [0; 2],
                policy_set: weir_abi::PolicySet::NONE,
                blocks: weir_abi::BlockGroup::NONE,
            };
            let behind = IpcacheRow {
                identity: row.identity,
                blocks: weir_abi::BlockGroup::NONE,
                node: NodeIndex::NONE,
                flags: 0,
            };
            for address in &endpoint.addresses {
                if self.claim(*address, Owner::Pod(endpoint.pod.clone()), behind) {
                    self.out.rows.endpoints.insert((*address).into(), row);
                    // A pod outlives the range that its address is of.
                    if !ranges.iter().any(|range| range.contains(address)) {
                        let destination = IpNet::from(*address);
                        let path = self.host_path(*address);
                        self.out.routes.push(DesiredRoute { destination, path });
                    }
                }
            }
        }
    }

    pub(super) fn pods(&mut self, indices: &NodeIndices) {
        let mut pods: Vec<&Pod> = self
            .world
            .pods()
            .map(AsRef::as_ref)
            .filter(|pod| has_own_addresses(pod))
            .collect();
        // What is only announced comes after everything that a status says. Unknown ages last, then by
        // name: the same pod wins at every node and after every restart.
        pods.sort_by_key(|pod| (pod.announced, pod.created == 0, pod.created));
        for pod in pods {
            let identity = self.numbers.get(&kind_of(pod)).copied().flatten();
            if identity.is_none() {
                let count = IdentityTable::LAST.0 - Identity::FIRST_POD.0 + 1;
                self.out.problems.push(Problem::NoIdentity {
                    pod: pod.reference.clone(),
                    count,
                });
            }
            let identity = identity.unwrap_or(Identity::UNKNOWN);
            let node = match &pod.node {
                Some(node) if *node != self.settings.node => self.index_of(node, indices),
                Some(_) | None => NodeIndex::NONE,
            };
            let row = IpcacheRow {
                identity,
                blocks: weir_abi::BlockGroup::NONE,
                node,
                flags: 0,
            };
            for address in &pod.addresses {
                if !pod.announced || self.may_announce(pod, *address) {
                    self.claim(*address, Owner::Pod(pod.reference.clone()), row);
                }
            }
        }
    }

    /// A node has a say about its own ranges alone, not about addresses of others or outside the cluster.
    fn may_announce(&self, pod: &Pod, address: IpAddr) -> bool {
        let node = pod.node.as_ref().and_then(|node| self.world.node(node));
        node.is_some_and(|node| {
            let mut ranges = node.pod_cidrs.iter();
            node.pod_cidrs.is_empty() || ranges.any(|range| range.net().contains(&address))
        })
    }

    pub(super) fn fit_endpoints(&mut self) {
        let size = self.settings.endpoints_size;
        let most = usize::try_from(size).unwrap_or(usize::MAX);
        let rows = &mut self.out.rows.endpoints;
        while rows.len() > most {
            if let Some((address, row)) = rows.pop_last() {
                let map = weir_abi::map::ENDPOINTS.name;
                let object = format!("address {address} of endpoint {}", row.id);
                self.out
                    .problems
                    .push(Problem::MapFull { map, size, object });
            }
        }
    }
}
