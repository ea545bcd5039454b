// SPDX-License-Identifier: Apache-2.0
//! What keeps a rule from matching a connection: its peers, its ports, or nothing.

use std::net::IpAddr;

use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;
use weir_model::{
    IpBlock, LabelSelector, LabelSet, NetworkPolicy, PeerNamespaces, PolicyPeer, PolicyPort,
    PolicyRule, PortMatch, World,
};

use super::{Peer, Question};
use crate::policy::miss::Miss;

/// What keeps a rule from matching; nothing: it matches.
pub(super) fn misses(
    world: &World,
    policy: &NetworkPolicy,
    rule: &PolicyRule,
    question: &Question<'_>,
) -> Vec<Miss> {
    let peers = rule.peers.iter();
    let mut nearest = peers
        .map(|peer| peer_misses(world, policy, peer, question))
        .min_by_key(|misses| misses.iter().map(Miss::distance).sum::<u32>())
        .unwrap_or_default();
    nearest.extend(port_miss(&rule.ports, question));
    nearest
}

fn peer_misses(
    world: &World,
    policy: &NetworkPolicy,
    peer: &PolicyPeer,
    question: &Question<'_>,
) -> Vec<Miss> {
    match peer {
        PolicyPeer::Block(block) => block_miss(block, question.peer_address)
            .into_iter()
            .collect(),
        PolicyPeer::Pods { namespaces, pods } => {
            let set = match question.peer {
                Peer::Pod(set) => set,
                Peer::Node { pod: Some(set), .. } => {
                    let mut misses = pod_misses(world, policy, namespaces, pods, set);
                    misses.push(Miss::HostNetwork);
                    return misses;
                }
                Peer::Node { pod: None, .. } => return vec![Miss::NotAPod { is: "a node" }],
                Peer::Outside => {
                    return vec![Miss::NotAPod {
                        is: "outside the cluster",
                    }];
                }
            };
            pod_misses(world, policy, namespaces, pods, set)
        }
    }
}

fn pod_misses(
    world: &World,
    policy: &NetworkPolicy,
    namespaces: &PeerNamespaces,
    pods: &LabelSelector,
    set: &LabelSet,
) -> Vec<Miss> {
    let mut misses = Vec::new();
    match namespaces {
        PeerNamespaces::Own if policy.reference.namespace != set.namespace => {
            misses.push(Miss::OwnNamespace {
                wanted: policy.reference.namespace.clone(),
                found: set.namespace.clone(),
            });
        }
        PeerNamespaces::Own => {}
        PeerNamespaces::Selected(selector) => {
            let labels = world.namespace(&set.namespace);
            let unmet = selector.unmet_by_namespace(&set.namespace, labels);
            misses.extend(unmet.map(|requirement| {
                let key = requirement.key();
                let found = match key {
                    weir_model::selector::NAMESPACE_NAME_LABEL => Some(set.namespace.as_str()),
                    key => labels.and_then(|labels| labels.get(key)),
                };
                Miss::NamespaceLabel {
                    requirement: requirement.clone(),
                    namespace: set.namespace.clone(),
                    found: found.map(str::to_owned),
                }
            }));
        }
    }
    misses.extend(pods.unmet(&set.labels).map(|requirement| Miss::PeerLabel {
        requirement: requirement.clone(),
        found: set.labels.get(requirement.key()).map(str::to_owned),
    }));
    misses
}

fn block_miss(block: &IpBlock, address: Option<IpAddr>) -> Option<Miss> {
    let Some(address) = address else {
        return Some(Miss::NoAddress {
            block: block.clone(),
        });
    };
    if block.contains(address) {
        return None;
    }
    let except = block.except().find(|except| except.contains(&address));
    Some(match except {
        Some(except) => Miss::Excepted { except, address },
        None => Miss::OutsideBlock {
            block: block.clone(),
            address,
        },
    })
}

fn port_miss(ports: &[PolicyPort], question: &Question<'_>) -> Option<Miss> {
    if ports.is_empty() {
        return None;
    }
    let Question { protocol, port, .. } = *question;
    if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
        return Some(Miss::Portless { protocol });
    }
    let destination = match (question.direction, question.peer) {
        (PolicyDirection::Ingress, _) => Some(question.subject),
        (PolicyDirection::Egress, Peer::Pod(set)) => Some(set),
        (PolicyDirection::Egress, Peer::Node { .. } | Peer::Outside) => None,
    };
    let numbers = |name: &str, protocol| -> Vec<u16> {
        let sets = destination.into_iter();
        sets.flat_map(|set| set.ports.numbers(name, protocol))
            .collect()
    };
    let holds = |one: &PolicyPort| match &one.ports {
        PortMatch::All => true,
        PortMatch::Range(first, last) => (*first..=*last).contains(&port),
        PortMatch::Named(name) => numbers(name, one.protocol).contains(&port),
    };
    if ports
        .iter()
        .any(|one| one.protocol == protocol && holds(one))
    {
        return None;
    }
    let allowed = ports.to_vec();
    if ports.iter().any(holds) {
        return Some(Miss::Protocol {
            allowed,
            protocol,
            port,
        });
    }
    // One name, and nothing else that could be meant.
    if let [only] = ports
        && let PortMatch::Named(name) = &only.ports
    {
        return Some(Miss::NamedPort {
            name: name.clone(),
            allowed: only.protocol,
            numbers: numbers(name, only.protocol),
            protocol,
            port,
        });
    }
    let same_protocol = ports.iter().any(|one| one.protocol == protocol);
    Some(Miss::Port {
        allowed,
        protocol,
        port,
        same_protocol,
    })
}
