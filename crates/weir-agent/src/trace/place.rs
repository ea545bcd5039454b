// SPDX-License-Identifier: Apache-2.0
//! Who is meant by what was asked for.

mod described;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weir_abi::Identity;
use weir_api::trace::{Place, TraceEnd};
use weir_model::{LabelSet, NodeName, Pod, PodRef, Service, ServiceRef};

use super::TraceError;
use super::scene::Scene;
use described::{identity, labelled, manifest};

/// Addresses that stand for the world. Those that are kept for examples would not do: the usual list
/// of what is not masqueraded names them.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
];

/// What is at an end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// With an address of its own.
    Pod(Arc<Pod>),
    /// The node, or a pod on its network.
    Node,
    Service(Arc<Service>),
    /// Outside the cluster, as far as is known.
    World,
}

/// An end with all its addresses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Party {
    pub(super) name: String,
    pub(super) what: What,
    pub(super) node: Option<NodeName>,
    pub(super) addresses: Vec<IpAddr>,
    /// It was named by its address, so no other will do.
    pub(super) exact: bool,
}

impl Party {
    pub(super) fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }

    pub(super) const fn pod(&self) -> Option<&Arc<Pod>> {
        match &self.what {
            What::Pod(pod) => Some(pod),
            What::Node | What::Service(_) | What::World => None,
        }
    }

    /// As answers show it.
    pub(super) fn end(&self, address: IpAddr) -> TraceEnd {
        let labels = match &self.what {
            What::Pod(pod) => LabelSet::of(pod).display_labels(),
            What::Node => vec!["reserved:host".to_owned()],
            What::World => vec!["reserved:world".to_owned()],
            What::Service(_) => Vec::new(),
        };
        TraceEnd {
            name: self.name.clone(),
            address: address.to_string(),
            node: self.node.as_ref().map(ToString::to_string),
            labels,
        }
    }
}

/// Which end: words and rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Destination,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Finds who is meant; a pod that is only supposed is put into the scene.
pub(super) fn resolve(
    scene: &mut Scene<'_>,
    place: &Place,
    role: Role,
) -> Result<Party, TraceError> {
    let party = match place {
        Place::Pod(name) => of_pod(scene, find_pod(scene, name)?),
        Place::Service(name) => service(scene, name)?,
        Place::Node(name) => node(scene, name)?,
        Place::Address(address) => of_address(scene, *address),
        Place::Endpoint(id) => endpoint(scene, *id)?,
        Place::Identity(number) => identity(scene, Identity(*number), role)?,
        Place::Labels(labels) => labelled(scene, labels, role)?,
        Place::Manifest(text) => manifest(scene, text, role)?,
        Place::World => {
            let [v4, v6] = WORLD;
            scene
                .notes
                .push(format!("{v4} and {v6} stand for the world"));
            world()
        }
    };
    if role == Role::Source && matches!(party.what, What::Service(_)) {
        return Err(TraceError::Invalid {
            message: format!(
                "{} is a service: connections begin at pods, nodes or outside",
                party.name
            ),
        });
    }
    Ok(party)
}

fn missing(message: String) -> TraceError {
    TraceError::Missing { message }
}

fn find_pod(scene: &Scene<'_>, name: &str) -> Result<Arc<Pod>, TraceError> {
    let (namespace, pod) = name.split_once('/').ok_or_else(|| TraceError::Invalid {
        message: format!("`{name}` is not NAMESPACE/POD"),
    })?;
    let reference = PodRef::new(namespace, pod).map_err(|error| TraceError::Invalid {
        message: error.to_string(),
    })?;
    let found = scene.world.pod(&reference).cloned();
    found.ok_or_else(|| missing(format!("there is no running pod {reference}")))
}

fn of_pod(scene: &Scene<'_>, pod: Arc<Pod>) -> Party {
    let name = pod.reference.to_string();
    if pod.host_network {
        let node = pod.node.as_ref().and_then(|node| scene.world.node(node));
        let addresses = node.map_or_else(|| pod.addresses.clone(), |node| node.addresses.clone());
        return Party {
            name,
            what: What::Node,
            node: pod.node.clone(),
            addresses,
            exact: false,
        };
    }
    Party {
        name,
        node: pod.node.clone(),
        addresses: pod.addresses.clone(),
        exact: false,
        what: What::Pod(pod),
    }
}

fn service(scene: &Scene<'_>, name: &str) -> Result<Party, TraceError> {
    let invalid = |message: String| TraceError::Invalid { message };
    let (namespace, short) = name
        .split_once('/')
        .ok_or_else(|| invalid(format!("`{name}` is not NAMESPACE/NAME")))?;
    let reference =
        ServiceRef::new(namespace, short).map_err(|error| invalid(error.to_string()))?;
    let found = scene.world.service(&reference).cloned();
    let service = found.ok_or_else(|| missing(format!("there is no service {reference}")))?;
    Ok(of_service(service))
}

fn of_service(service: Arc<Service>) -> Party {
    let balancers = service.load_balancer_ips();
    let outside: Vec<_> = balancers
        .chain(service.external_ips.iter().copied())
        .collect();
    let mut addresses = service.cluster_ips.to_vec();
    addresses.extend(outside);
    Party {
        name: format!("svc:{}", service.reference),
        node: None,
        addresses,
        exact: false,
        what: What::Service(service),
    }
}

fn node(scene: &Scene<'_>, name: &str) -> Result<Party, TraceError> {
    let proven = NodeName::new(name).map_err(|error| TraceError::Invalid {
        message: error.to_string(),
    })?;
    let found = scene.world.node(&proven);
    let node = found.ok_or_else(|| missing(format!("there is no node {proven}")))?;
    Ok(Party {
        name: format!("node/{proven}"),
        what: What::Node,
        node: Some(proven.clone()),
        addresses: node.addresses.clone(),
        exact: false,
    })
}

/// Whoever has an address; nobody known: the world.
pub(super) fn of_address(scene: &Scene<'_>, address: IpAddr) -> Party {
    let has = |addresses: &[IpAddr]| addresses.contains(&address);
    let mut pods = scene.world.pods();
    if let Some(pod) = pods.find(|pod| !pod.host_network && has(&pod.addresses)) {
        return of_pod(scene, Arc::clone(pod));
    }
    if let Some(node) = scene.node_with(address) {
        return Party {
            name: format!("node/{node}"),
            what: What::Node,
            node: Some(node),
            addresses: vec![address],
            exact: true,
        };
    }
    let mut services = scene.world.services();
    if let Some(service) =
        services.find(|one| of_service(Arc::clone(one)).addresses.contains(&address))
    {
        let mut party = of_service(Arc::clone(service));
        party.addresses = vec![address];
        party.exact = true;
        return party;
    }
    let mut nodes = scene.world.nodes();
    let unused = nodes.any(|node| node.pod_cidrs.iter().any(|cidr| cidr.contains(address)));
    Party {
        name: if unused { "nobody" } else { "world" }.to_owned(),
        what: What::World,
        node: None,
        addresses: vec![address],
        exact: true,
    }
}

fn world() -> Party {
    Party {
        name: "world".to_owned(),
        what: What::World,
        node: None,
        addresses: WORLD.to_vec(),
        exact: false,
    }
}

fn endpoint(scene: &Scene<'_>, id: u16) -> Result<Party, TraceError> {
    let endpoints = &scene.snapshot.endpoints;
    let found = endpoints.iter().find(|one| one.id == id);
    let one = found.ok_or_else(|| missing(format!("no endpoint {id} on this node")))?;
    let name = &one.status.external_identifiers.pod_name;
    Ok(of_pod(scene, find_pod(scene, name)?))
}
