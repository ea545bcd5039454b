// SPDX-License-Identifier: Apache-2.0
//! Everything that sources have told, and how it changes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::{Labels, Namespace, Node, NodeName, Pod, PodRef};

/// One thing that a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Node(Arc<Node>),
    NodeGone(NodeName),
    Namespace(Namespace, Labels),
    NamespaceGone(Namespace),
    Pod(Arc<Pod>),
    PodGone(PodRef),
}

/// The desired world. Cloning is cheap enough for a snapshot: objects are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    generation: u64,
    nodes: BTreeMap<NodeName, Arc<Node>>,
    namespaces: BTreeMap<Namespace, Labels>,
    pods: BTreeMap<PodRef, Arc<Pod>>,
}

impl World {
    /// Takes a change in; tells whether anything differs now. Each difference is a new generation.
    pub fn apply(&mut self, change: Change) -> bool {
        let changed = match change {
            Change::Node(node) => put(&mut self.nodes, node.name.clone(), node),
            Change::NodeGone(name) => self.nodes.remove(&name).is_some(),
            Change::Namespace(name, labels) => put(&mut self.namespaces, name, labels),
            Change::NamespaceGone(name) => self.namespaces.remove(&name).is_some(),
            Change::Pod(pod) => put(&mut self.pods, pod.reference.clone(), pod),
            Change::PodGone(reference) => self.pods.remove(&reference).is_some(),
        };
        self.generation += u64::from(changed);
        changed
    }

    /// Counts the changes so far.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All namespaces with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Namespace, &Labels)> {
        self.namespaces.iter()
    }

    /// All pods by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// One pod.
    pub fn pod(&self, reference: &PodRef) -> Option<&Arc<Pod>> {
        self.pods.get(reference)
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
}
