// SPDX-License-Identifier: Apache-2.0
//! Why policies allow a connection or not, in words of the objects that people write.
//!
//! A denial has no rule to point at, so the rule that comes nearest is named with what keeps it from
//! matching. Rules of policies that do not isolate the pod count too, if only the selection is off:
//! a wrong label in `podSelector`, the wrong namespace, the wrong direction.

mod misses;

use std::net::IpAddr;

use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;
use weir_model::{LabelSet, NetworkPolicy, PolicyRef, PolicyRule, World};

use super::Origin;
use super::miss::{Miss, NearMiss};
use misses::misses;

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
