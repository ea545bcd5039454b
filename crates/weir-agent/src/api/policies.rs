// SPDX-License-Identifier: Apache-2.0
//! Policies as the cluster has them: whom they select, what they allow, who uses which selector.

mod pods;

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use weir_abi::Identity;
use weir_api::policy::{Policies, Policy, PolicyRule as Reference, PolicySide, Selector};
use weir_model::{
    LabelSelector, LogScope, Namespace, NetworkPolicy, PeerNamespaces, PolicyPeer, PolicyRule,
    World,
};

use super::{Answer, Api, ok};
use crate::directory::whole_policy;
use pods::Pods;

pub(super) async fn all(State(api): State<Api>) -> Answer<Policies> {
    let listed = tokio::task::spawn_blocking(move || {
        let snapshot = api.shared.snapshot();
        let world = api.shared.world();
        let pods = Pods::new(&world, &snapshot);
        let (revision, realized) = snapshot.policy_revisions;
        Policies {
            revision,
            realized,
            policies: world.policies().map(|one| shown(one, &pods)).collect(),
        }
    });
    ok(listed
        .await
        .map_err(|error| super::Refusal::internal(&error))?)
}

pub(super) async fn selectors(State(api): State<Api>) -> Answer<Vec<Selector>> {
    let listed = tokio::task::spawn_blocking(move || {
        let snapshot = api.shared.snapshot();
        let world = api.shared.world();
        every_selector(&world, &Pods::new(&world, &snapshot))
    });
    ok(listed
        .await
        .map_err(|error| super::Refusal::internal(&error))?)
}

/// The definition of `ipBlock` asks for addresses outside of the cluster; these are matched all the
/// same, but a pod's address lasts no longer than the pod.
const ONLY_CLUSTER: &str = "covers only addresses of pods and nodes, which change: name pods by their labels with podSelector";

/// For those who follow a guide that leaves out the other half.
const NOT_LOGGED: &str = "its annotation policy.network.gke.io/enable-logging has no effect: NetworkLogging `default` does not have allowed connections logged";

fn shown(policy: &NetworkPolicy, pods: &Pods<'_>) -> Policy {
    let NetworkPolicy {
        reference,
        pod_selector,
        ingress,
        egress,
        annotations: _,
        refused,
    } = policy;
    let selected = pods.matching(|set| policy.selects(&set.namespace, &set.labels));
    let selected_pods = pods.count(&selected);
    let mut warnings = Vec::new();
    if selected_pods == 0 {
        warnings.push("it selects no pod".to_owned());
    }
    if policy.logs_allowed() && pods.world.logging().allow == LogScope::Nothing {
        warnings.push(NOT_LOGGED.to_owned());
    }
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        for (number, rule) in rules.iter().flatten().enumerate() {
            for peer in &rule.peers {
                let problem = match peer {
                    PolicyPeer::Pods {
                        namespaces,
                        pods: selector,
                    } => peers(pods, &reference.namespace, namespaces, selector)
                        .is_empty()
                        .then_some("matches no pod"),
                    PolicyPeer::Block(block) => {
                        pods.hold_all_of(block.cidr()).then_some(ONLY_CLUSTER)
                    }
                };
                if let Some(problem) = problem {
                    warnings.push(format!("{direction} rule {number}: {peer} {problem}"));
                }
            }
        }
    }
    let Reference {
        kind,
        namespace,
        name,
        rule: _,
    } = whole_policy(reference);
    Policy {
        kind,
        namespace,
        name,
        selector: pod_selector.to_string(),
        ingress: side(ingress.as_deref(), "from"),
        egress: side(egress.as_deref(), "to"),
        selects: pods.here(&selected),
        selected_pods,
        warnings,
        refused: refused.as_ref().map(ToString::to_string),
    }
}

fn side(rules: Option<&[PolicyRule]>, preposition: &str) -> PolicySide {
    PolicySide {
        isolates: rules.is_some(),
        rules: rules
            .into_iter()
            .flatten()
            .map(|rule| sentence(rule, preposition))
            .collect(),
    }
}

/// `from pods app=client, from addresses 192.0.2.0/24, port 80/TCP`
fn sentence(rule: &PolicyRule, preposition: &str) -> String {
    let peers: Vec<_> = rule
        .peers
        .iter()
        .map(|peer| format!("{preposition} {peer}"))
        .collect();
    let peers = if peers.is_empty() {
        format!("{preposition} everybody")
    } else {
        peers.join(" or ")
    };
    let ports: Vec<_> = rule.ports.iter().map(ToString::to_string).collect();
    if ports.is_empty() {
        format!("{peers}, every port")
    } else {
        format!("{peers}, port {}", ports.join(" or "))
    }
}

fn peers(
    pods: &Pods<'_>,
    own: &Namespace,
    namespaces: &PeerNamespaces,
    selector: &LabelSelector,
) -> BTreeSet<Identity> {
    pods.matching(|set| {
        let in_namespace = match namespaces {
            PeerNamespaces::Own => set.namespace == *own,
            PeerNamespaces::Selected(wanted) => {
                wanted.matches_namespace(&set.namespace, pods.world.namespace(&set.namespace))
            }
        };
        in_namespace && selector.matches(&set.labels)
    })
}

/// Every selector once, with the policies that use it.
fn every_selector(world: &World, pods: &Pods<'_>) -> Vec<Selector> {
    type Key<'a> = (
        Option<&'a LabelSelector>,
        Option<&'a Namespace>,
        &'a LabelSelector,
    );
    let mut users: BTreeMap<Key<'_>, BTreeSet<Reference>> = BTreeMap::new();
    for policy in world.policies() {
        let own = &policy.reference.namespace;
        let whole = whole_policy(&policy.reference);
        users
            .entry((None, Some(own), &policy.pod_selector))
            .or_default()
            .insert(whole.clone());
        let rules = [&policy.ingress, &policy.egress];
        for list in rules.into_iter().flatten() {
            for (number, rule) in (0..).zip(list) {
                for peer in &rule.peers {
                    let PolicyPeer::Pods {
                        namespaces,
                        pods: selector,
                    } = peer
                    else {
                        continue;
                    };
                    let key = match namespaces {
                        PeerNamespaces::Own => (None, Some(own), selector),
                        PeerNamespaces::Selected(wanted) => (Some(wanted), None, selector),
                    };
                    users.entry(key).or_default().insert(Reference {
                        rule: Some(number),
                        ..whole.clone()
                    });
                }
            }
        }
    }
    let selectors = users.into_iter().map(|((wanted, own, selector), users)| {
        let matched = pods.matching(|set| {
            let in_namespace = match (wanted, own) {
                (Some(wanted), _) => {
                    wanted.matches_namespace(&set.namespace, world.namespace(&set.namespace))
                }
                (None, Some(own)) => set.namespace == *own,
                (None, None) => true,
            };
            in_namespace && selector.matches(&set.labels)
        });
        Selector {
            selector: match (wanted, own) {
                (Some(wanted), _) => format!("{selector} in namespaces {wanted}"),
                (None, Some(own)) => format!("{selector} in namespace {own}"),
                (None, None) => selector.to_string(),
            },
            users: users.into_iter().collect(),
            pods: pods.count(&matched),
            identities: matched.into_iter().map(|identity| identity.0).collect(),
        }
    });
    selectors.collect()
}
