// SPDX-License-Identifier: Apache-2.0
//! Tells the other nodes which addresses pods of this one were just given.
//!
//! A pod's own status says its address only a second after the pod runs. What is announced stays until that
//! status has been read here and has had time to be read everywhere, or until the pod goes.

use std::collections::BTreeMap;
use std::time::Instant;

use weir_cluster::Announcement;
use weir_model::{Given, NodePods, Pod, PodRef, Uid, World};

use super::Core;
use crate::announced::Announced;
use crate::endpoint::Endpoint;

impl Core {
    /// Announces what differs from what was announced before.
    pub(super) fn announce(&mut self) {
        // The node's object and those of its pods say what is needed.
        if self.writer.is_none() || !self.synced {
            return;
        }
        let now = Instant::now();
        let announcement = {
            let world = self.shared.world();
            let said = self.announced.as_ref().map(|last| &last.pods.pods);
            for endpoint in self.endpoints.values_mut() {
                let said = said.is_some_and(|said| said.contains_key(&endpoint.pod));
                let confirmed = is_confirmed(endpoint, &world);
                endpoint.announced = endpoint.announced.next(confirmed, said, now);
            }
            let node = &self.shared.node;
            Announcement {
                pods: NodePods {
                    node: node.clone(),
                    pods: given(&self.endpoints, &world),
                },
                node_uid: world.node(node).and_then(|node| node.uid.clone()),
            }
        };
        let first = self.announced.is_none();
        // Nothing to say, and nothing said: there is no object then.
        let silent =
            first && announcement.pods.pods.is_empty() && self.announced_in_world().is_empty();
        if !silent && self.announced.as_ref() != Some(&announcement) {
            self.say(announcement);
        }
    }

    /// Says it again when the API has something else, for whatever reason.
    pub(super) fn check_announced(&mut self) {
        self.announce();
        let Some(last) = &self.announced else { return };
        if last.pods.pods != self.announced_in_world() {
            self.say(last.clone());
        }
    }

    fn announced_in_world(&self) -> BTreeMap<PodRef, Given> {
        let world = self.shared.world();
        let told = world.announced_by(&self.shared.node);
        told.map_or_else(BTreeMap::new, |told| told.pods.clone())
    }

    fn say(&mut self, announcement: Announcement) {
        if let Some(writer) = &self.writer {
            self.accepting = Some(writer.announce(announcement.clone()));
            self.announced = Some(announcement);
        }
    }
}

/// What is said of endpoints. Of two of one pod, of which one is on its way out, the addresses of both.
fn given(endpoints: &BTreeMap<u16, Endpoint>, world: &World) -> BTreeMap<PodRef, Given> {
    let mut pods: BTreeMap<PodRef, Given> = BTreeMap::new();
    for endpoint in endpoints
        .values()
        .filter(|one| one.announced != Announced::Over)
    {
        let Some(uid) = uid_of(endpoint, world) else {
            continue;
        };
        let addresses = &endpoint.record.addresses;
        match pods.get_mut(&endpoint.pod) {
            Some(first) if first.uid == uid => first.addresses.extend(addresses),
            Some(_) | None => {
                let addresses = addresses.clone();
                pods.insert(endpoint.pod.clone(), Given { uid, addresses });
            }
        }
    }
    pods
}

/// The runtime says which pod it means; one that does not can only mean the one that there is.
fn uid_of(endpoint: &Endpoint, world: &World) -> Option<Uid> {
    match &endpoint.record.uid {
        Some(uid) => Uid::new(uid).ok(),
        None => world.pod(&endpoint.pod)?.uid.clone(),
    }
}

/// The pod's own status names every address of it.
fn is_confirmed(endpoint: &Endpoint, world: &World) -> bool {
    let is_same = |pod: &Pod| uid_of(endpoint, world).is_some_and(|uid| pod.uid == Some(uid));
    let pod = world.pod(&endpoint.pod);
    pod.is_some_and(|pod| {
        let mut addresses = endpoint.record.addresses.iter();
        !pod.announced && is_same(pod) && addresses.all(|one| pod.addresses.contains(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::record;
    use std::sync::Arc;
    use weir_api::endpoint::EndpointState;
    use weir_model::{Change, Labels, NodeName};

    fn world(uid: &str, addresses: &[&str]) -> World {
        let mut world = World::default();
        world.apply(Change::Pod(Arc::new(Pod {
            reference: PodRef::new("shop", "web").unwrap(),
            uid: Uid::new(uid).ok(),
            labels: Labels::default(),
            node: NodeName::new("n1").ok(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            announced: false,
            host_network: false,
            container_ports: Vec::new(),
            created: 0,
            workload: None,
        })));
        world
    }

    fn endpoint(id: u16, uid: Option<&str>) -> Endpoint {
        let mut record = record(id);
        record.uid = uid.map(str::to_owned);
        record.addresses = vec![format!("10.1.0.{id}").parse().unwrap()];
        let pod = record.reference().unwrap();
        Endpoint::new(
            record,
            pod,
            None,
            EndpointState::WaitingForIdentity,
            "created",
        )
    }

    #[test]
    fn only_the_status_of_the_same_pod_confirms() {
        let of_runtime = endpoint(1, Some("u"));
        assert!(is_confirmed(&of_runtime, &world("u", &["10.1.0.1"])));
        assert!(!is_confirmed(&of_runtime, &world("u", &["10.1.0.2"])));
        assert!(!is_confirmed(&of_runtime, &world("u", &[])));
        assert!(!is_confirmed(&of_runtime, &world("other", &["10.1.0.1"])));
        assert!(!is_confirmed(&of_runtime, &World::default()));
        assert!(is_confirmed(
            &endpoint(1, None),
            &world("any", &["10.1.0.1"])
        ));
    }

    #[test]
    fn what_is_said_names_the_pod_by_its_uid() {
        let all = |endpoints: &[Endpoint], world: &World| {
            let endpoints = endpoints.iter().map(|one| (one.record.id, one.clone()));
            let given = given(&endpoints.collect(), world);
            let shown = given
                .values()
                .map(|one| format!("{} {:?}", one.uid, one.addresses));
            shown.collect::<Vec<_>>()
        };
        let there = world("u", &[]);
        assert_eq!(all(&[endpoint(1, Some("v"))], &there), ["v [10.1.0.1]"]);
        assert_eq!(all(&[endpoint(1, None)], &there), ["u [10.1.0.1]"]);
        assert_eq!(all(&[endpoint(1, None)], &World::default()), [""; 0]);
        let two = [endpoint(1, Some("u")), endpoint(2, Some("u"))];
        assert_eq!(all(&two, &there), ["u [10.1.0.1, 10.1.0.2]"]);
        let mut over = endpoint(1, Some("u"));
        over.announced = Announced::Over;
        assert_eq!(all(&[over], &there), [""; 0]);
    }
}
