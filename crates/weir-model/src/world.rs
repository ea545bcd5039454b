// SPDX-License-Identifier: Apache-2.0
//! Everything that sources have told, and how it changes.
//!
//! Here changes become differences. `announced` completes pods by the word of their nodes, `slices`
//! finds those of a service, `read` gives what there is.

mod announced;
mod read;
mod slices;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{
    EndpointSlice, Labels, Namespace, NetworkLogging, NetworkPolicy, Node, NodeName, NodePods, Pod,
    PodRef, PolicyRef, Service, ServiceRef, SliceRef, Touched,
};

/// One thing that a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Node(Arc<Node>),
    NodeGone(NodeName),
    /// What a node announces of its pods, instead of what it did before.
    NodePods(Arc<NodePods>),
    NodePodsGone(NodeName),
    Namespace(Namespace, Labels),
    /// Denials of the namespace's pods are logged where that is left to namespaces. Until
    /// [`Change::Namespace`] tells of it anew.
    NamespaceLogging(Namespace),
    NamespaceGone(Namespace),
    Pod(Arc<Pod>),
    PodGone(PodRef),
    NetworkPolicy(Arc<NetworkPolicy>),
    NetworkPolicyGone(PolicyRef),
    Service(Arc<Service>),
    ServiceGone(ServiceRef),
    EndpointSlice(Arc<EndpointSlice>),
    EndpointSliceGone(SliceRef),
    NetworkLogging(NetworkLogging),
    NetworkLoggingGone,
}

/// The desired world. Cloning is cheap enough for a snapshot: objects are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    generation: u64,
    nodes: BTreeMap<NodeName, Arc<Node>>,
    announced: BTreeMap<NodeName, Arc<NodePods>>,
    namespaces: BTreeMap<Namespace, Labels>,
    /// Those whose denials are logged where that is delegated.
    logged_namespaces: BTreeSet<Namespace>,
    logging: NetworkLogging,
    /// With the addresses that were announced where their own status names none.
    pods: BTreeMap<PodRef, Arc<Pod>>,
    policies: BTreeMap<PolicyRef, Arc<NetworkPolicy>>,
    services: BTreeMap<ServiceRef, Arc<Service>>,
    slices: BTreeMap<SliceRef, Arc<EndpointSlice>>,
    /// The slices of each service, by name.
    slices_of: BTreeMap<ServiceRef, Vec<Arc<EndpointSlice>>>,
}

impl World {
    /// Takes a change in; tells whether anything differs now. Each difference is a new generation.
    pub fn apply(&mut self, change: Change) -> bool {
        self.apply_noting(change, &mut Touched::default())
    }

    /// The same, and notes what the change concerns.
    pub fn apply_noting(&mut self, change: Change, touched: &mut Touched) -> bool {
        let changed = match change {
            Change::Node(node) => {
                let name = node.name.clone();
                touched
                    .nodes
                    .note(name, |name| put(&mut self.nodes, name, node))
            }
            Change::NodeGone(name) => touched
                .nodes
                .note(name, |name| self.nodes.remove(&name).is_some()),
            Change::NodePods(all) => self.announce(&all.node.clone(), Some(all), touched),
            Change::NodePodsGone(name) => self.announce(&name, None, touched),
            Change::Namespace(name, labels) => {
                let was_logged = self.logged_namespaces.remove(&name);
                let differs = touched
                    .namespaces
                    .note(name, |name| put(&mut self.namespaces, name, labels));
                differs || was_logged
            }
            // Nothing is compiled of it.
            Change::NamespaceLogging(name) => self.logged_namespaces.insert(name),
            Change::NamespaceGone(name) => {
                self.logged_namespaces.remove(&name);
                touched
                    .namespaces
                    .note(name, |name| self.namespaces.remove(&name).is_some())
            }
            Change::Pod(pod) => {
                let pod = self.completed(pod);
                let name = pod.reference.clone();
                touched
                    .pods
                    .note(name, |name| put(&mut self.pods, name, pod))
            }
            Change::PodGone(name) => touched
                .pods
                .note(name, |name| self.pods.remove(&name).is_some()),
            Change::NetworkPolicy(policy) => {
                let name = policy.reference.clone();
                touched
                    .policies
                    .note(name, |name| put(&mut self.policies, name, policy))
            }
            Change::NetworkPolicyGone(name) => touched
                .policies
                .note(name, |name| self.policies.remove(&name).is_some()),
            Change::Service(service) => {
                let name = service.reference.clone();
                touched
                    .services
                    .note(name, |name| put(&mut self.services, name, service))
            }
            Change::ServiceGone(name) => touched
                .services
                .note(name, |name| self.services.remove(&name).is_some()),
            Change::EndpointSlice(slice) => {
                let differs = self.slices.get(&slice.reference) != Some(&slice);
                if differs {
                    self.remove_slice(&slice.reference, touched);
                    self.add_slice(slice, touched);
                }
                differs
            }
            Change::EndpointSliceGone(name) => self.remove_slice(&name, touched),
            Change::NetworkLogging(logging) => self.set_logging(logging),
            Change::NetworkLoggingGone => self.set_logging(NetworkLogging::default()),
        };
        self.generation += u64::from(changed);
        changed
    }

    fn set_logging(&mut self, logging: NetworkLogging) -> bool {
        std::mem::replace(&mut self.logging, logging) != logging
    }

    /// Counts the changes so far.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

/// Remembers the names of what differs.
trait Note<K> {
    /// Makes a change that tells whether it made a difference.
    fn note(&mut self, name: K, change: impl FnOnce(K) -> bool) -> bool;
}

impl<K: Ord + Clone> Note<K> for BTreeSet<K> {
    fn note(&mut self, name: K, change: impl FnOnce(K) -> bool) -> bool {
        let differs = change(name.clone());
        if differs {
            self.insert(name);
        }
        differs
    }
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.entry(key) {
        Entry::Occupied(entry) if *entry.get() == value => false,
        Entry::Occupied(mut entry) => {
            entry.insert(value);
            true
        }
        Entry::Vacant(entry) => {
            entry.insert(value);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogScope;

    #[test]
    fn only_differences_make_a_generation() {
        let mut world = World::default();
        let name = Namespace::new("shop").unwrap();
        let labels = Labels::new([("team", "a")]).unwrap();
        assert!(world.apply(Change::Namespace(name.clone(), labels.clone())));
        assert!(!world.apply(Change::Namespace(name.clone(), labels)));
        assert_eq!(world.generation(), 1);
        assert!(world.apply(Change::Namespace(name.clone(), Labels::default())));
        assert!(world.apply(Change::NamespaceGone(name.clone())));
        assert!(!world.apply(Change::NamespaceGone(name)));
        assert_eq!(world.generation(), 3);
    }

    #[test]
    fn logging_concerns_nothing_that_is_compiled() {
        let mut world = World::default();
        let mut touched = Touched::default();
        let name = Namespace::new("shop").unwrap();
        let logging = NetworkLogging {
            deny: LogScope::Delegated,
            ..NetworkLogging::default()
        };
        assert!(world.apply_noting(Change::NetworkLogging(logging), &mut touched));
        assert!(!world.apply_noting(Change::NetworkLogging(logging), &mut touched));
        let logged = Change::NamespaceLogging(name.clone());
        assert!(world.apply_noting(logged.clone(), &mut touched));
        assert!(!world.apply_noting(logged, &mut touched));
        assert!(touched.is_empty());
        assert!(world.logging().is_on() && world.logs_denied(&name));
        world.apply(Change::Namespace(name.clone(), Labels::default()));
        world.apply(Change::NetworkLoggingGone);
        assert!(!world.logging().is_on() && !world.logs_denied(&name));
    }
}
