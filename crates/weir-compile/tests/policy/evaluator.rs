// SPDX-License-Identifier: Apache-2.0
//! What the definition of `NetworkPolicy` says about one connection, as plainly as it can be written:
//! every policy, rule, peer and port is looked at, nothing is prepared.

use std::net::IpAddr;

use weir_abi::Protocol;
use weir_model::{
    LabelSelector, Labels, Namespace, NetworkPolicy, NodeName, PeerNamespaces, Pod, PolicyPeer,
    PolicyPort, PolicyRule, PortMatch, Requirement, World,
};

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// A pod with a network of its own, and its address.
    Pod(Pod, IpAddr),
    /// A node's own network, also as pods use it that have none.
    Node(NodeName, IpAddr),
    /// Neither.
    Other(IpAddr),
}

impl End {
    pub(crate) fn of(world: &World, address: IpAddr) -> Self {
        let mut pods = world.pods().filter(|pod| !pod.host_network);
        if let Some(pod) = pods.find(|pod| pod.addresses.contains(&address)) {
            return Self::Pod((**pod).clone(), address);
        }
        let mut nodes = world.nodes();
        match nodes.find(|node| node.addresses.contains(&address)) {
            Some(node) => Self::Node(node.name.clone(), address),
            None => Self::Other(address),
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::Pod(_, address) | Self::Node(_, address) | Self::Other(address) => *address,
        }
    }

    fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Pod(pod, _) => pod.node.as_ref(),
            Self::Node(node, _) => Some(node),
            Self::Other(_) => None,
        }
    }
}

/// A connection by its destination's port; none: a packet without ports, such as ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Whether a connection may be.
pub(crate) fn allowed(world: &World, from: &End, to: &End, probe: Probe) -> bool {
    leaves(world, from, to, probe) && enters(world, from, to, probe)
}

/// Whether the source's policies let it out.
pub(crate) fn leaves(world: &World, from: &End, to: &End, probe: Probe) -> bool {
    let End::Pod(pod, _) = from else { return true };
    // "Traffic to and from the node where a Pod is running is always allowed."
    if matches!(to, End::Node(..)) && to.node() == from.node() {
        return true;
    }
    let rules = |policy: &NetworkPolicy| policy.egress.clone();
    side(world, pod, rules, to, to, probe)
}

/// Whether the destination's policies let it in.
pub(crate) fn enters(world: &World, from: &End, to: &End, probe: Probe) -> bool {
    let End::Pod(pod, _) = to else { return true };
    if matches!(from, End::Node(..)) && from.node() == to.node() {
        return true;
    }
    let rules = |policy: &NetworkPolicy| policy.ingress.clone();
    side(world, pod, rules, from, to, probe)
}

fn side(
    world: &World,
    pod: &Pod,
    rules: impl Fn(&NetworkPolicy) -> Option<Vec<PolicyRule>>,
    peer: &End,
    destination: &End,
    probe: Probe,
) -> bool {
    let mut isolated = false;
    for policy in world.policies() {
        if policy.reference.namespace != pod.reference.namespace
            || !selects(&policy.pod_selector, &pod.labels)
        {
            continue;
        }
        let Some(rules) = rules(policy) else { continue };
        isolated = true;
        for rule in rules {
            let own = &policy.reference.namespace;
            let from_peer = rule.peers.is_empty()
                || rule.peers.iter().any(|one| is_peer(world, own, one, peer));
            let at_port = rule.ports.is_empty()
                || rule
                    .ports
                    .iter()
                    .any(|one| is_port(one, destination, probe));
            if from_peer && at_port {
                return true;
            }
        }
    }
    !isolated
}

fn is_peer(world: &World, own: &Namespace, peer: &PolicyPeer, end: &End) -> bool {
    match peer {
        PolicyPeer::Block(block) => {
            let address = end.address();
            let mut except = block.except();
            block.cidr().contains(&address) && !except.any(|net| net.contains(&address))
        }
        PolicyPeer::Pods { namespaces, pods } => {
            let End::Pod(pod, _) = end else { return false };
            let namespace = &pod.reference.namespace;
            let right_namespace = match namespaces {
                PeerNamespaces::Own => namespace == own,
                PeerNamespaces::Selected(selector) => {
                    selects(selector, &namespace_labels(world, namespace))
                }
            };
            right_namespace && selects(pods, &pod.labels)
        }
    }
}

/// With the label that the API server gives to every namespace.
fn namespace_labels(world: &World, name: &Namespace) -> Labels {
    let found = world.namespaces().find(|(one, _)| *one == name);
    let mut labels: Vec<(String, String)> = Vec::new();
    for (key, value) in found.iter().flat_map(|(_, labels)| labels.iter()) {
        if key != "kubernetes.io/metadata.name" {
            labels.push((key.to_owned(), value.to_owned()));
        }
    }
    labels.push(("kubernetes.io/metadata.name".to_owned(), name.to_string()));
    Labels::new(labels).unwrap()
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|one| match one {
        Requirement::In(key, values) => match labels.get(key) {
            Some(value) => values.contains(value),
            None => false,
        },
        Requirement::NotIn(key, values) => match labels.get(key) {
            Some(value) => !values.contains(value),
            None => true,
        },
        Requirement::Exists(key) => labels.get(key).is_some(),
        Requirement::DoesNotExist(key) => labels.get(key).is_none(),
    })
}

fn is_port(port: &PolicyPort, destination: &End, probe: Probe) -> bool {
    if port.protocol != probe.protocol {
        return false;
    }
    match &port.ports {
        PortMatch::All => true,
        PortMatch::Range(first, last) => (*first..=*last).contains(&probe.port),
        PortMatch::Named(name) => match destination {
            End::Pod(pod, _) => pod.container_ports.iter().any(|one| {
                one.name.as_ref() == Some(name)
                    && one.protocol == probe.protocol
                    && one.port == probe.port
            }),
            End::Node(..) | End::Other(_) => false,
        },
    }
}
