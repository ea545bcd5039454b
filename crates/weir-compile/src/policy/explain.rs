// SPDX-License-Identifier: Apache-2.0
//! Why policies allow a connection or not, in words of the objects that people write.
//!
//! A denial has no rule to point at, so the rule that comes nearest is named with what keeps it from
//! matching. Rules of policies that do not isolate the pod count too, if only the selection is off:
//! a wrong label in `podSelector`, the wrong namespace, the wrong direction.

use std::net::IpAddr;

use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;
use weir_model::{
    IpBlock, LabelSet, NetworkPolicy, PeerNamespaces, PolicyPeer, PolicyPort, PolicyRef,
    PolicyRule, PortMatch, World,
};

use super::Origin;
use super::miss::{Miss, NearMiss};

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// A pod with a network of its own.
    Pod(&'a LabelSet),
    /// A node, or a pod on its node's network.
    Node {
        /// The one that the pod in question runs on.
        own: bool,
        /// The pod that uses the node's network, where that is known.
        pod: Option<&'a LabelSet>,
    },
    /// Somebody outside the cluster.
    Outside,
}

/// A connection as one end's policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The pod whose policies are asked.
    pub subject: &'a LabelSet,
    /// [`PolicyDirection::Ingress`]: the peer connects to the subject.
    pub direction: PolicyDirection,
    pub peer: Peer<'a>,
    pub peer_address: Option<IpAddr>,
    pub protocol: Protocol,
    /// The destination's port, after services; 0 where the protocol has none.
    pub port: u16,
}

/// What the policies of one end say about a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Policies that isolate the pod in the direction; none: everything is allowed.
    pub isolating: Vec<PolicyRef>,
    /// What allows it although the pod is isolated.
    pub allowing: Vec<Origin>,
    /// Where nothing does: the rule that comes nearest.
    pub nearest: Option<NearMiss>,
}

impl Explanation {
    /// Whether the connection may be.
    pub const fn allowed(&self) -> bool {
        self.isolating.is_empty() || !self.allowing.is_empty()
    }
}

/// Asks the policies of one end.
pub fn explain(world: &World, question: &Question<'_>) -> Explanation {
    let mut explanation = Explanation::default();
    let mut nearest: Option<NearMiss> = None;
    let mut consider = |miss: NearMiss| {
        // Of equals the first: policies and rules have an order that people know.
        if nearest
            .as_ref()
            .is_none_or(|best| miss.distance() < best.distance())
        {
            nearest = Some(miss);
        }
    };
    for policy in world.policies() {
        if selects(policy, question.subject) {
            if let Some(rules) = policy.rules(question.direction) {
                explanation.isolating.push(policy.reference.clone());
                for (number, rule) in (0..).zip(rules) {
                    let misses = misses(world, policy, rule, question);
                    if misses.is_empty() {
                        explanation.allowing.push(Origin::Rule {
                            policy: policy.reference.clone(),
                            direction: question.direction,
                            rule: number,
                        });
                    }
                    consider(NearMiss::new(
                        policy,
                        question.direction,
                        Some(number),
                        misses,
                    ));
                }
                if rules.is_empty() {
                    let miss = match &policy.refused {
                        Some(refusal) => Miss::Refused(refusal.clone()),
                        None => Miss::NoRules,
                    };
                    consider(NearMiss::new(policy, question.direction, None, vec![miss]));
                }
            }
            for miss in misdirected(world, policy, question) {
                consider(miss);
            }
        } else {
            for miss in misplaced(world, policy, question) {
                consider(miss);
            }
        }
    }
    if matches!(question.peer, Peer::Node { own: true, .. }) && !explanation.isolating.is_empty() {
        explanation.allowing.insert(0, Origin::OwnNode);
    }
    if !explanation.allowed() {
        explanation.nearest = nearest;
    }
    explanation
}

/// The policies that allow a connection of a pod that is isolated. Much cheaper than [`explain`], which looks for what
/// comes nearest too.
pub fn allowing(world: &World, question: &Question<'_>) -> Vec<PolicyRef> {
    let policies = world.policies().filter(|policy| {
        let mut rules = policy.rules(question.direction).unwrap_or_default().iter();
        selects(policy, question.subject)
            && rules.any(|rule| misses(world, policy, rule, question).is_empty())
    });
    policies.map(|policy| policy.reference.clone()).collect()
}

fn selects(policy: &NetworkPolicy, subject: &LabelSet) -> bool {
    policy.selects(&subject.namespace, &subject.labels)
}

/// Rules that would allow the connection if they were written for the other direction.
fn misdirected(world: &World, policy: &NetworkPolicy, question: &Question<'_>) -> Vec<NearMiss> {
    let other = match question.direction {
        PolicyDirection::Ingress => PolicyDirection::Egress,
        PolicyDirection::Egress => PolicyDirection::Ingress,
    };
    let rules = (0..).zip(policy.rules(other).unwrap_or_default());
    let fits = |rule: &PolicyRule| {
        // A rule for everybody is everywhere; nobody takes it for this one.
        !rule.peers.is_empty() && misses(world, policy, rule, question).is_empty()
    };
    rules
        .filter(|(_, rule)| fits(rule))
        .map(|(number, _)| NearMiss::new(policy, other, Some(number), vec![Miss::Direction]))
        .collect()
}

/// Rules that would allow the connection if their policy selected the pod.
fn misplaced(world: &World, policy: &NetworkPolicy, question: &Question<'_>) -> Vec<NearMiss> {
    let subject = question.subject;
    let mut why = Vec::new();
    if policy.reference.namespace != subject.namespace {
        // Everywhere else there are policies for everything; only one for this pod is meant.
        if policy.pod_selector.is_everything() {
            return Vec::new();
        }
        why.push(Miss::SubjectNamespace {
            wanted: policy.reference.namespace.clone(),
            found: subject.namespace.clone(),
        });
    }
    why.extend(
        policy
            .pod_selector
            .unmet(&subject.labels)
            .map(|requirement| {
                let found = subject.labels.get(requirement.key());
                Miss::SubjectLabel {
                    requirement: requirement.clone(),
                    found: found.map(str::to_owned),
                }
            }),
    );
    if why.len() > 1 {
        return Vec::new();
    }
    let rules = policy.rules(question.direction).unwrap_or_default();
    let rules = (0..).zip(rules);
    rules
        .filter(|(_, rule)| misses(world, policy, rule, question).is_empty())
        .map(|(number, _)| NearMiss::new(policy, question.direction, Some(number), why.clone()))
        .collect()
}

/// What keeps a rule from matching; nothing: it matches.
fn misses(
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
    pods: &weir_model::LabelSelector,
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
