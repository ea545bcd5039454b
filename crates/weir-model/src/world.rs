// SPDX-License-Identifier: Apache-2.0
//! Everything that sources have told, and how it changes.

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

    /// A pod's own status stands above what its node announces. That counts for the one pod that it
    /// names, by UID and not by name alone, on the node that says so, and with a network of its own.
    fn completed(&self, pod: Arc<Pod>) -> Arc<Pod> {
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

    fn announce(
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

    fn set_logging(&mut self, logging: NetworkLogging) -> bool {
        std::mem::replace(&mut self.logging, logging) != logging
    }

    fn add_slice(&mut self, slice: Arc<EndpointSlice>, touched: &mut Touched) {
        let service = slice.service_ref();
        let all = self.slices_of.entry(service.clone()).or_default();
        let place = all.partition_point(|one| one.reference < slice.reference);
        all.insert(place, Arc::clone(&slice));
        self.slices.insert(slice.reference.clone(), slice);
        touched.services.insert(service);
    }

    fn remove_slice(&mut self, name: &SliceRef, touched: &mut Touched) -> bool {
        let Some(slice) = self.slices.remove(name) else {
            return false;
        };
        let service = slice.service_ref();
        if let Some(all) = self.slices_of.get_mut(&service) {
            all.retain(|one| one.reference != *name);
            if all.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        touched.services.insert(service);
        true
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

    /// What a node announces of its pods.
    pub fn announced_by(&self, node: &NodeName) -> Option<&Arc<NodePods>> {
        self.announced.get(node)
    }

    /// All namespaces with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Namespace, &Labels)> {
        self.namespaces.iter()
    }

    /// The labels of one namespace; none where there is no object of it.
    pub fn namespace(&self, name: &Namespace) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Which decisions of policies are logged.
    pub const fn logging(&self) -> NetworkLogging {
        self.logging
    }

    /// Whether what a namespace's pods are denied is logged where that is left to namespaces.
    pub fn logs_denied(&self, name: &Namespace) -> bool {
        self.logged_namespaces.contains(name)
    }

    /// All pods by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// One pod.
    pub fn pod(&self, reference: &PodRef) -> Option<&Arc<Pod>> {
        self.pods.get(reference)
    }

    /// All services by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// One service.
    pub fn service(&self, reference: &ServiceRef) -> Option<&Arc<Service>> {
        self.services.get(reference)
    }

    /// All endpoint slices by namespace and name.
    pub fn endpoint_slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.values()
    }

    /// The endpoint slices of a service, by name; they may be there before the service is.
    pub fn slices_of(&self, service: &ServiceRef) -> &[Arc<EndpointSlice>] {
        self.slices_of.get(service).map_or(&[], Vec::as_slice)
    }

    /// All network policies by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.policies.values()
    }

    /// One network policy.
    pub fn policy(&self, reference: &PolicyRef) -> Option<&Arc<NetworkPolicy>> {
        self.policies.get(reference)
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
    use crate::{Given, Uid};

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
            deny: crate::LogScope::Delegated,
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

    fn slice(name: &str, service: &str) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            reference: SliceRef::new("shop", name).unwrap(),
            service: crate::ServiceName::new(service).unwrap(),
            family: crate::Family::V4,
            ports: Box::default(),
            endpoints: Box::default(),
        })
    }

    #[test]
    fn a_slice_that_moves_concerns_both_services() {
        let mut world = World::default();
        let service = |name| ServiceRef::new("shop", name).unwrap();
        let names = |world: &World, name| {
            let slices = world.slices_of(&service(name)).iter();
            slices
                .map(|slice| slice.reference.name.to_string())
                .collect::<Vec<_>>()
        };
        for name in ["b", "a"] {
            world.apply(Change::EndpointSlice(slice(name, "web")));
        }
        assert_eq!(names(&world, "web"), ["a", "b"]);

        let mut touched = Touched::default();
        assert!(world.apply_noting(Change::EndpointSlice(slice("a", "api")), &mut touched));
        assert_eq!(
            touched.services,
            BTreeSet::from([service("api"), service("web")])
        );
        assert_eq!(
            (names(&world, "web"), names(&world, "api")),
            (vec!["b".into()], vec!["a".into()])
        );

        let mut touched = Touched::default();
        assert!(!world.apply_noting(Change::EndpointSlice(slice("a", "api")), &mut touched));
        assert!(touched.is_empty());
        let gone = Change::EndpointSliceGone(SliceRef::new("shop", "a").unwrap());
        assert!(world.apply_noting(gone.clone(), &mut touched));
        assert!(!world.apply(gone));
        assert!(world.slices_of(&service("api")).is_empty());
    }
}
