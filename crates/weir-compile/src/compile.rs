// SPDX-License-Identifier: Apache-2.0
//! The rows of one node, out of the whole world.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::endpoint::flags::READY;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::node::NodeRow;
use weir_abi::{Address, EndpointId, EndpointRow, Identity, IfIndex, MacAddress, NodeIndex};
use weir_model::{
    ContainerPort, IdentityTable, LabelSet, Labels, NamedPorts, Namespace, Node, NodeName, Pod,
    PodRef, World,
};

use crate::prefix::prefix_key;
use crate::{DesiredRoute, NodeIndices, Problem, RoutePath, Rows};

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
        numbers: HashMap::default(),
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
    /// Every label set of the world's pods with its number; none where there was none left.
    numbers: HashMap<PodKind<'a>, Option<Identity>, FixedSeed>,
}

/// What makes pods one of a kind, as it stands in the pod: pods of several kinds can have one label
/// set, never the other way round.
type PodKind<'a> = (&'a Namespace, &'a Labels, &'a [ContainerPort]);

fn kind_of(pod: &Pod) -> PodKind<'_> {
    (&pod.reference.namespace, &pod.labels, &pod.container_ports)
}

/// No randomness: the same world makes the same rows in the same time.
type FixedSeed = BuildHasherDefault<DefaultHasher>;

/// Pods on the host's network have their node's addresses.
fn has_own_addresses(pod: &Pod) -> bool {
    !pod.host_network && !pod.addresses.is_empty()
}

impl Compiler<'_> {
    /// Pods by the thousand share few label sets, so the sets are told apart by hash first.
    fn number_identities(&mut self, endpoints: &[LocalEndpoint], identities: &mut IdentityTable) {
        let pods = self.world.pods().filter(|pod| has_own_addresses(pod));
        self.numbers = pods.map(|pod| (kind_of(pod), None)).collect();
        let owned = |(namespace, labels, ports): PodKind<'_>| LabelSet {
            namespace: namespace.clone(),
            labels: labels.clone(),
            ports: NamedPorts::of(ports),
        };
        let mut in_use: BTreeSet<_> = self.numbers.keys().copied().map(owned).collect();
        in_use.extend(
            endpoints
                .iter()
                .filter_map(|endpoint| self.labels_of(endpoint)),
        );
        identities.update(&in_use);
        for (set, number) in &mut self.numbers {
            *number = identities.get(&owned(*set));
        }
    }

    /// The labels of the pod object, or the last ones seen while there is no such object.
    fn labels_of(&self, endpoint: &LocalEndpoint) -> Option<LabelSet> {
        let object = self.world.pod(&endpoint.pod).map(|pod| LabelSet::of(pod));
        object.or_else(|| endpoint.labels.clone())
    }

    fn others(&self) -> impl Iterator<Item = &Node> {
        self.world
            .nodes()
            .map(AsRef::as_ref)
            .filter(|node| node.name != self.settings.node)
    }

    /// Chooses the outer addresses of each tunnel: IPv4 where both sides have it.
    fn number_nodes(&mut self, indices: &mut NodeIndices) {
        if self.settings.routing == RoutingMode::Native && !self.settings.direct_return {
            indices.update(&BTreeSet::new(), self.settings.nodes_size);
            return;
        }
        let own = self.world.node(&self.settings.node).cloned();
        let own_address = |family: fn(&IpAddr) -> bool| {
            let object = own.iter().flat_map(|node| node.addresses.iter());
            object
                .chain(&self.settings.node_addresses)
                .copied()
                .find(family)
        };
        let own = (own_address(IpAddr::is_ipv4), own_address(IpAddr::is_ipv6));
        let mut remotes = BTreeMap::new();
        let mut problems = Vec::new();
        for node in self.others() {
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

    fn index_of(&self, node: &NodeName, indices: &NodeIndices) -> NodeIndex {
        let remote = self.remotes.get(node).map(|row| row.remote);
        remote
            .and_then(|remote| indices.get(remote))
            .unwrap_or(NodeIndex::NONE)
    }

    fn nodes(&mut self, indices: &NodeIndices) {
        for row in self.remotes.values() {
            if let Some(index) = indices.get(row.remote) {
                self.out.rows.nodes.insert(index, *row);
            }
        }
        let own_name = self.settings.node.clone();
        let own_object = self.world.node(&own_name).cloned();
        if own_object.is_none() {
            self.out.problems.push(Problem::UnknownNode {
                node: own_name.clone(),
            });
        }
        let own_addresses = own_object.iter().flat_map(|node| node.addresses.iter());
        for address in own_addresses.chain(&self.settings.node_addresses).copied() {
            self.node_address(&own_name, address, Identity::HOST, NodeIndex::NONE);
        }
        let mut ranges: Vec<(IpNet, NodeName)> = Vec::new();
        if let Some(node) = &own_object {
            self.ranges(node, NodeIndex::NONE, &mut ranges);
        }
        for node in self
            .world
            .nodes()
            .filter(|node| node.name != own_name)
            .cloned()
            .collect::<Vec<_>>()
        {
            let index = self.index_of(&node.name, indices);
            for address in &node.addresses {
                self.node_address(&node.name, *address, Identity::REMOTE_NODE, index);
            }
            self.ranges(&node, index, &mut ranges);
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

    fn ranges(&mut self, node: &Node, index: NodeIndex, taken: &mut Vec<(IpNet, NodeName)>) {
        let own = node.name == self.settings.node;
        for cidr in &node.pod_cidrs {
            let net = cidr.net();
            let overlap = taken
                .iter()
                .find(|(other, _)| other.contains(&net) || net.contains(other));
            match overlap {
                Some((_, first)) if *first == node.name => continue,
                Some((_, first)) => {
                    self.out
                        .problems
                        .push(Problem::overlap(*cidr, first, &node.name));
                    continue;
                }
                None => taken.push((net, node.name.clone())),
            }
            let local = if own { flags::LOCAL_RANGE } else { 0 };
            let row = IpcacheRow {
                identity: Identity::UNKNOWN,
                blocks: weir_abi::BlockGroup::NONE,
                node: index,
                flags: flags::POD_RANGE | local,
            };
            if self.room_for(|| format!("pod range {net} of node {}", node.name)) {
                self.out.rows.ipcache.insert(prefix_key(net), row);
            }
            self.route(node, net, own);
        }
    }

    fn route(&mut self, node: &Node, destination: IpNet, own: bool) {
        let example = destination.addr();
        let path = match (own, self.settings.routing) {
            (true, _) | (_, RoutingMode::Tunnel) => self.host_path(example),
            (false, RoutingMode::Native) => {
                let Some(gateway) = node.address_like(example) else {
                    let cidr = destination.to_string();
                    self.out.problems.push(Problem::NoGateway {
                        node: node.name.clone(),
                        cidr,
                    });
                    return;
                };
                RoutePath::Node { gateway }
            }
        };
        self.out.routes.push(DesiredRoute { destination, path });
    }

    fn host_path(&self, example: IpAddr) -> RoutePath {
        let own = self.world.node(&self.settings.node);
        let source = own.and_then(|node| node.address_like(example)).or_else(|| {
            let mut found = self.settings.node_addresses.iter();
            found
                .find(|address| address.is_ipv4() == example.is_ipv4())
                .copied()
        });
        let mtu = match self.settings.routing {
            RoutingMode::Native => None,
            // The links of the node's own pods are as narrow as the way to the others.
            RoutingMode::Tunnel => Some(self.settings.pod_mtu),
        };
        RoutePath::Host { source, mtu }
    }

    fn endpoints(&mut self, endpoints: &[LocalEndpoint], identities: &IdentityTable) {
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

    fn pods(&mut self, indices: &NodeIndices) {
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

    fn fit_endpoints(&mut self) {
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

#[cfg(test)]
mod tests;
