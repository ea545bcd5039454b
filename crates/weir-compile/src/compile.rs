// SPDX-License-Identifier: Apache-2.0
//! The rows of one node, out of the whole world.
//!
//! Here are the input, the result and what all parts share: who has an address, and what there is room
//! for. `identities` numbers the pods' labels; `nodes` with their `ranges`, and `pods` after them, make the
//! rows: whoever comes first keeps an address.

mod identities;
mod nodes;
mod pods;
mod ranges;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::node::NodeRow;
use weir_abi::{Address, EndpointId, IfIndex, MacAddress};
use weir_model::{IdentityTable, LabelSet, NodeName, PodRef, World};

use crate::prefix::prefix_key;
use crate::{DesiredRoute, NodeIndices, Problem, Rows};
use identities::Numbers;

/// How pods of other nodes are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingMode {
    /// Inside VXLAN.
    #[default]
    Tunnel,
    /// By the underlay's own routing.
    Native,
}

/// What is configured for this node, and the limits of its maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: NodeName,
    pub routing: RoutingMode,
    /// Whether packets are sent to the nodes of their backends whatever the routing.
    pub direct_return: bool,
    pub masquerade: bool,
    /// Destinations that are never masqueraded, besides the cluster itself.
    pub non_masquerade: Vec<IpNet>,
    /// Addresses of this node that no Node object names (of its devices).
    pub node_addresses: Vec<IpAddr>,
    /// What routes towards pods behind a tunnel state as their MTU.
    pub pod_mtu: u32,
    pub endpoints_size: u32,
    pub ipcache_size: u32,
    pub masquerade_exempt_size: u32,
    pub nodes_size: u32,
}

/// A pod's link on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    pub id: EndpointId,
    pub pod: PodRef,
    pub interface: IfIndex,
    pub mac: MacAddress,
    pub addresses: Vec<IpAddr>,
    /// Its labels as last seen; none while the pod object is not known.
    pub labels: Option<LabelSet>,
}

/// Who an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Node(NodeName),
    Pod(PodRef),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Pod(pod) => write!(f, "pod {pod}"),
        }
    }
}

/// What a node should have in its kernel, and what could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub rows: Rows,
    pub routes: Vec<DesiredRoute>,
    /// Who is behind each single address, for names in events and listings.
    pub owners: BTreeMap<Address, Owner>,
    pub problems: Vec<Problem>,
}

/// Computes what this node should hold. Numbers are kept in the two tables between calls.
pub fn compile(
    world: &World,
    settings: &Settings,
    endpoints: &[LocalEndpoint],
    identities: &mut IdentityTable,
    indices: &mut NodeIndices,
) -> Compiled {
    let mut compiler = Compiler {
        world,
        settings,
        out: Compiled::default(),
        remotes: BTreeMap::new(),
        numbers: Numbers::default(),
    };
    compiler.number_identities(endpoints, identities);
    compiler.number_nodes(indices);
    compiler.nodes(indices);
    compiler.endpoints(endpoints, identities);
    compiler.pods(indices);
    compiler.exemptions();
    compiler.fit_endpoints();
    compiler.out.problems.sort();
    compiler.out.problems.dedup();
    compiler.out.routes.sort();
    compiler.out
}

struct Compiler<'a> {
    world: &'a World,
    settings: &'a Settings,
    out: Compiled,
    /// Tunnel ends: outer source and destination for each other node.
    remotes: BTreeMap<NodeName, NodeRow>,
    numbers: Numbers<'a>,
}

impl Compiler<'_> {
    /// Writes who is behind a single address unless somebody else is; tells whether it did.
    fn claim(&mut self, address: IpAddr, owner: Owner, row: IpcacheRow) -> bool {
        let key = Address::from(address);
        if let Some(first) = self.out.owners.get(&key) {
            if *first != owner {
                let first = first.clone();
                self.out.problems.push(Problem::DuplicateAddress {
                    address,
                    first,
                    second: owner,
                });
                return false;
            }
            return true;
        }
        if !self.room_for(|| format!("address {address} of {owner}")) {
            return false;
        }
        self.out.owners.insert(key, owner);
        self.out.rows.ipcache.insert(PrefixKey::host(key), row);
        true
    }

    fn room_for(&mut self, object: impl FnOnce() -> String) -> bool {
        let size = self.settings.ipcache_size;
        let fits = self.out.rows.ipcache.len() < usize::try_from(size).unwrap_or(usize::MAX);
        if !fits {
            let map = weir_abi::map::IPCACHE.name;
            self.out.problems.push(Problem::MapFull {
                map,
                size,
                object: object(),
            });
        }
        fits
    }

    fn exemptions(&mut self) {
        if !self.settings.masquerade {
            return;
        }
        let size = self.settings.masquerade_exempt_size;
        let mut wanted: Vec<IpNet> = self.settings.non_masquerade.clone();
        for node in self.world.nodes() {
            wanted.extend(node.pod_cidrs.iter().map(weir_model::PodCidr::net));
            wanted.extend(node.addresses.iter().map(|address| IpNet::from(*address)));
        }
        wanted.extend(
            self.settings
                .node_addresses
                .iter()
                .map(|address| IpNet::from(*address)),
        );
        for net in wanted {
            let exempt = &mut self.out.rows.masquerade_exempt;
            if exempt.len() < usize::try_from(size).unwrap_or(usize::MAX) {
                exempt.insert(prefix_key(net));
            } else if !exempt.contains(&prefix_key(net)) {
                let map = weir_abi::map::MASQUERADE_EXEMPT.name;
                let object = net.to_string();
                self.out
                    .problems
                    .push(Problem::MapFull { map, size, object });
            }
        }
    }
}

#[cfg(test)]
mod tests;
