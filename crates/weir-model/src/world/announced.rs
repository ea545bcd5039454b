// SPDX-License-Identifier: Apache-2.0
//! What a node announces of its pods, and where it counts: while a pod's own status is silent.

use std::sync::Arc;

use super::{Note as _, World, put};
use crate::{NodeName, NodePods, Pod, Touched};

impl World {
    /// A pod's own status stands above what its node announces. That counts for the one pod that it
    /// names, by UID and not by name alone, on the node that says so, and with a network of its own.
    pub(super) fn completed(&self, pod: Arc<Pod>) -> Arc<Pod> {
        if !pod.addresses.is_empty() || pod.host_network {
            return pod;
        }
        let node = pod.node.as_ref();
        let announced = node.and_then(|node| self.announced.get(node));
        let given = announced.and_then(|all| all.pods.get(&pod.reference));
        match given.filter(|given| pod.uid.as_ref() == Some(&given.uid)) {
            Some(given) => Arc::new(Pod {
                addresses: given.addresses.clone(),
                announced: true,
                ..Pod::clone(&pod)
            }),
            None => pod,
        }
    }

    /// Takes in what a node announces, instead of what it did before.
    pub(super) fn announce(
        &mut self,
        node: &NodeName,
        all: Option<Arc<NodePods>>,
        touched: &mut Touched,
    ) -> bool {
        if self.announced.get(node) == all.as_ref() {
            return false;
        }
        let after = all.clone();
        let before = match all {
            Some(all) => self.announced.insert(node.clone(), all),
            None => self.announced.remove(node),
        };
        let names = before.iter().chain(&after).flat_map(|all| all.pods.keys());
        for name in names {
            let Some(pod) = self.pods.get(name) else {
                continue;
            };
            // As its own status has it.
            let told = if pod.announced {
                Arc::new(Pod {
                    addresses: Vec::new(),
                    announced: false,
                    ..Pod::clone(pod)
                })
            } else {
                Arc::clone(pod)
            };
            let now = self.completed(told);
            touched
                .pods
                .note(name.clone(), |name| put(&mut self.pods, name, now));
        }
        true
    }

    /// What a node announces of its pods.
    pub fn announced_by(&self, node: &NodeName) -> Option<&Arc<NodePods>> {
        self.announced.get(node)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Change, Given, Labels, PodRef, Uid};

    fn pod(uid: &str, node: &str, addresses: &[&str]) -> Pod {
        Pod {
            reference: PodRef::new("shop", "web").unwrap(),
            uid: Uid::new(uid).ok(),
            labels: Labels::default(),
            node: NodeName::new(node).ok(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            announced: false,
            host_network: false,
            container_ports: Vec::new(),
            created: 0,
            workload: None,
        }
    }

    /// What node n1 says of a pod with the UID `u`.
    fn announcement(address: &str) -> Change {
        let given = Given {
            uid: Uid::new("u").unwrap(),
            addresses: vec![address.parse().unwrap()],
        };
        Change::NodePods(Arc::new(NodePods {
            node: NodeName::new("n1").unwrap(),
            pods: BTreeMap::from([(PodRef::new("shop", "web").unwrap(), given)]),
        }))
    }

    fn found(world: &World) -> (String, bool) {
        let pod = world.pods().next().unwrap();
        let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
        (addresses.join(" "), pod.announced)
    }

    #[test]
    fn an_announcement_counts_until_the_status_says_something() {
        let in_any_order = |changes: [Change; 2]| {
            let mut world = World::default();
            for change in changes {
                world.apply(change);
            }
            assert_eq!(found(&world), ("10.1.0.1".to_owned(), true));
            world
        };
        let put = |pod| Change::Pod(Arc::new(pod));
        let new = put(pod("u", "n1", &[]));
        in_any_order([announcement("10.1.0.1"), new.clone()]);
        let mut world = in_any_order([new.clone(), announcement("10.1.0.1")]);

        let mut touched = Touched::default();
        assert!(!world.apply_noting(announcement("10.1.0.1"), &mut touched));
        assert!(
            !world.apply_noting(new, &mut touched),
            "told again as it was"
        );
        assert!(touched.is_empty());
        assert!(world.apply_noting(announcement("10.1.0.2"), &mut touched));
        assert_eq!(
            (found(&world).0.as_str(), touched.pods.len()),
            ("10.1.0.2", 1)
        );

        // The status says something else: it counts, whatever is announced before or after.
        world.apply(put(pod("u", "n1", &["10.1.0.9"])));
        assert_eq!(found(&world), ("10.1.0.9".to_owned(), false));
        let mut touched = Touched::default();
        assert!(world.apply_noting(announcement("10.1.0.3"), &mut touched));
        assert!(touched.is_empty(), "nothing is to be compiled for it");
        assert_eq!(found(&world), ("10.1.0.9".to_owned(), false));
        assert!(world.apply(Change::NodePodsGone(NodeName::new("n1").unwrap())));
        assert_eq!(found(&world), ("10.1.0.9".to_owned(), false));
    }

    #[test]
    fn an_announcement_that_is_withdrawn_leaves_nothing() {
        let mut world = World::default();
        world.apply(Change::Pod(Arc::new(pod("u", "n1", &[]))));
        world.apply(announcement("10.1.0.1"));
        let mut touched = Touched::default();
        let gone = Change::NodePodsGone(NodeName::new("n1").unwrap());
        assert!(world.apply_noting(gone.clone(), &mut touched));
        assert_eq!(
            (found(&world), touched.pods.len()),
            ((String::new(), false), 1)
        );
        assert!(!world.apply(gone));

        world.apply(announcement("10.1.0.1"));
        let without = Change::NodePods(Arc::new(NodePods {
            node: NodeName::new("n1").unwrap(),
            pods: BTreeMap::new(),
        }));
        assert!(world.apply(without));
        assert_eq!(found(&world), (String::new(), false));
    }

    #[test]
    fn nobody_else_is_meant_by_an_announcement() {
        let on_host = Pod {
            host_network: true,
            ..pod("u", "n1", &[])
        };
        let without_uid = Pod {
            uid: None,
            ..pod("u", "n1", &[])
        };
        let without_node = Pod {
            node: None,
            ..pod("u", "n1", &[])
        };
        for other in [
            pod("another", "n1", &[]),
            pod("u", "n2", &[]),
            on_host,
            without_uid,
            without_node,
        ] {
            let mut world = World::default();
            world.apply(announcement("10.1.0.1"));
            world.apply(Change::Pod(Arc::new(other.clone())));
            assert_eq!(found(&world), (String::new(), false), "{other:?}");
        }
        // A pod that comes in the place of the one that was meant.
        let mut world = World::default();
        world.apply(announcement("10.1.0.1"));
        world.apply(Change::Pod(Arc::new(pod("u", "n1", &[]))));
        world.apply(Change::Pod(Arc::new(pod("another", "n1", &[]))));
        assert_eq!(found(&world), (String::new(), false));
    }
}
