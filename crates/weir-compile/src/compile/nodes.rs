// SPDX-License-Identifier: Apache-2.0
//! The nodes: the tunnels to the others, and who has which of their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::ipcache::IpcacheRow;
use weir_abi::node::NodeRow;
use weir_abi::{Identity, NodeIndex};
use weir_model::NodeName;

use super::{Compiler, Owner, RoutingMode};
use crate::{NodeIndices, Problem};

impl Compiler<'_> {
    /// Chooses the outer addresses of each tunnel: IPv4 where both sides have it.
    pub(super) fn number_nodes(&mut self, indices: &mut NodeIndices) {
        if self.settings.routing == RoutingMode::Native && !self.settings.direct_return {
            indices.update(&BTreeSet::new(), self.settings.nodes_size);
            return;
        }
        let own = self.world.node(&self.settings.node);
        let own_address = |family: fn(&IpAddr) -> bool| {
            let object = own.into_iter().flat_map(|node| node.addresses.iter());
            object
                .chain(&self.settings.node_addresses)
                .copied()
                .find(family)
        };
        let own = (own_address(IpAddr::is_ipv4), own_address(IpAddr::is_ipv6));
        let mut remotes = BTreeMap::new();
        let mut problems = Vec::new();
        let others = self.world.nodes();
        for node in others.filter(|node| node.name != self.settings.node) {
            let pair = match (own, node.ipv4(), node.ipv6()) {
                ((Some(local), _), Some(remote), _) | ((_, Some(local)), _, Some(remote)) => {
                    Some(NodeRow {
                        local: local.into(),
                        remote: remote.into(),
                    })
                }
                _ => None,
            };
            match pair {
                Some(pair) => drop(remotes.insert(node.name.clone(), pair)),
                None if node.addresses.is_empty() => {
                    problems.push(Problem::NodeWithoutAddress {
                        node: node.name.clone(),
                    });
                }
                None => problems.push(Problem::NoCommonFamily {
                    node: node.name.clone(),
                }),
            }
        }
        let wanted = remotes.values().map(|row| row.remote).collect();
        let places = self.settings.nodes_size;
        let refused: BTreeSet<_> = indices.update(&wanted, places).into_iter().collect();
        remotes.retain(|node, row| {
            let placed = !refused.contains(&row.remote);
            if !placed {
                problems.push(Problem::TooManyNodes {
                    node: node.clone(),
                    places,
                });
            }
            placed
        });
        self.remotes = remotes;
        self.out.problems.extend(problems);
    }

    pub(super) fn index_of(&self, node: &NodeName, indices: &NodeIndices) -> NodeIndex {
        let remote = self.remotes.get(node).map(|row| row.remote);
        remote
            .and_then(|remote| indices.get(remote))
            .unwrap_or(NodeIndex::NONE)
    }

    pub(super) fn nodes(&mut self, indices: &NodeIndices) {
        for row in self.remotes.values() {
            if let Some(index) = indices.get(row.remote) {
                self.out.rows.nodes.insert(index, *row);
            }
        }
        let (world, own_name) = (self.world, &self.settings.node);
        let own = world.node(own_name);
        if own.is_none() {
            self.out.problems.push(Problem::UnknownNode {
                node: own_name.clone(),
            });
        }
        let own_addresses = own.into_iter().flat_map(|node| node.addresses.iter());
        for address in own_addresses.chain(&self.settings.node_addresses).copied() {
            self.node_address(own_name, address, Identity::HOST, NodeIndex::NONE);
        }
        let mut ranges: Vec<(IpNet, NodeName)> = Vec::new();
        if let Some(node) = own {
            self.ranges(node, NodeIndex::NONE, &mut ranges);
        }
        for node in world.nodes().filter(|node| node.name != *own_name) {
            let index = self.index_of(&node.name, indices);
            for address in &node.addresses {
                self.node_address(&node.name, *address, Identity::REMOTE_NODE, index);
            }
            self.ranges(node, index, &mut ranges);
        }
    }

    fn node_address(
        &mut self,
        node: &NodeName,
        address: IpAddr,
        identity: Identity,
        index: NodeIndex,
    ) {
        let row = IpcacheRow {
            identity,
            blocks: weir_abi::BlockGroup::NONE,
            node: index,
            flags: 0,
        };
        self.claim(address, Owner::Node(node.clone()), row);
    }
}
