// SPDX-License-Identifier: Apache-2.0
//! Who is meant by what was asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weir_abi::{Identity, Protocol};
use weir_api::trace::{Place, TraceEnd};
use weir_model::{Change, LabelSet, Labels, Namespace, NodeName, Pod, PodRef, Service, ServiceRef};

use super::TraceError;
use super::scene::Scene;

/// Addresses that stand for the world. Those that are kept for examples would not do: the usual list
/// of what is not masqueraded names them.
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
];
/// The label by which the peers say a pod's namespace.
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

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

fn identity(scene: &mut Scene<'_>, number: Identity, role: Role) -> Result<Party, TraceError> {
    let own = scene.shared.node.clone();
    if number == Identity::HOST {
        return node(scene, own.as_str());
    }
    if number.is_world() {
        return Ok(world());
    }
    if number == Identity::REMOTE_NODE {
        let other = scene.world.nodes().find(|node| node.name != own);
        let other = other.map(|node| node.name.clone());
        let other = other.ok_or_else(|| missing("there is no other node".to_owned()))?;
        return node(scene, other.as_str());
    }
    let Some(set) = scene.snapshot.identities.set(number).cloned() else {
        return Err(missing(format!(
            "there is no identity {number} on this node"
        )));
    };
    let pods = scene.world.pods().filter(|pod| LabelSet::of(pod) == set);
    let pods: Vec<_> = pods.cloned().collect();
    choose(scene, &pods, role, &format!("identity {number}"))
        .ok_or_else(|| missing(format!("no running pod has identity {number}")))
}

/// One of several that are alike: of this node, if there is one.
fn choose(scene: &mut Scene<'_>, pods: &[Arc<Pod>], role: Role, what: &str) -> Option<Party> {
    let own = &scene.shared.node;
    let ready = |pod: &&Arc<Pod>| !pod.addresses.is_empty();
    let here = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(own);
    let mut good = pods.iter().filter(ready);
    let chosen = pods
        .iter()
        .filter(ready)
        .find(here)
        .or_else(|| good.next())?;
    if pods.len() > 1 {
        let (count, role) = (pods.len(), role.name());
        let name = &chosen.reference;
        scene
            .notes
            .push(format!("{count} pods have {what}; {name} is the {role}"));
    } else {
        let (name, role) = (&chosen.reference, role.name());
        scene
            .notes
            .push(format!("{name}, with {what}, is the {role}"));
    }
    Some(of_pod(scene, Arc::clone(chosen)))
}

fn labelled(scene: &mut Scene<'_>, labels: &[String], role: Role) -> Result<Party, TraceError> {
    let mut wanted = Vec::new();
    let mut namespace = None;
    for label in labels.iter().flat_map(|text| text.split(',')) {
        let label = label.trim();
        if let Some(reserved) = label.strip_prefix("reserved:") {
            let own = scene.shared.node.clone();
            return match reserved {
                "host" => node(scene, own.as_str()),
                "world" | "world-ipv4" | "world-ipv6" => Ok(world()),
                "remote-node" => identity(scene, Identity::REMOTE_NODE, role),
                other => Err(TraceError::Invalid {
                    message: format!("reserved:{other} is nobody that sends packets here"),
                }),
            };
        }
        let plain = ["k8s:", "any:", "unspec:"]
            .iter()
            .find_map(|prefix| label.strip_prefix(prefix))
            .unwrap_or(label);
        let (key, value) = plain.split_once('=').unwrap_or((plain, ""));
        if key == NAMESPACE_LABEL {
            namespace = Some(value.to_owned());
        } else if !key.is_empty() {
            wanted.push((key.to_owned(), value.to_owned()));
        }
    }
    let invalid = |message: String| TraceError::Invalid { message };
    let meant = |pod: &&Arc<Pod>| {
        !pod.host_network
            && namespace
                .as_ref()
                .is_none_or(|name| pod.reference.namespace.as_str() == name)
            && wanted
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value.as_str()))
    };
    let pods: Vec<_> = scene.world.pods().filter(meant).cloned().collect();
    let what = format!("labels {}", labels.join(","));
    if let Some(party) = choose(scene, &pods, role, &what) {
        return Ok(party);
    }
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let namespace = Namespace::new(&namespace).map_err(|error| invalid(error.to_string()))?;
    let name = format!("trace-{}", role.name());
    let reference =
        PodRef::new(namespace.as_str(), &name).map_err(|error| invalid(error.to_string()))?;
    let pod = Pod {
        reference,
        labels: Labels::new(wanted).map_err(|error| invalid(error.to_string()))?,
        node: None,
        addresses: Vec::new(),
        host_network: false,
        container_ports: Vec::new(),
        created: 0,
        workload: None,
        uid: None,
        announced: false,
    };
    suppose(scene, pod, &format!("no running pod has {what}"))
}

fn manifest(scene: &mut Scene<'_>, text: &str, role: Role) -> Result<Party, TraceError> {
    let pod = weir_cluster::text::pod(text).map_err(|message| TraceError::Invalid {
        message: format!("the manifest of the {} is refused: {message}", role.name()),
    })?;
    let known = scene.world.pod(&pod.reference).cloned();
    if let Some(known) = known
        .filter(|known| LabelSet::of(known) == LabelSet::of(&pod) && !known.addresses.is_empty())
    {
        return Ok(of_pod(scene, known));
    }
    suppose(scene, pod, "it is in a manifest")
}

/// Puts a pod on this node that is not there.
fn suppose(scene: &mut Scene<'_>, mut pod: Pod, why: &str) -> Result<Party, TraceError> {
    let own = scene.shared.node.clone();
    pod.node = Some(own.clone());
    pod.host_network = false;
    pod.addresses = scene.free_addresses();
    if pod.addresses.is_empty() {
        return Err(missing(format!(
            "node {own} has no address for a pod that is only supposed"
        )));
    }
    let pod = Arc::new(pod);
    scene.suppose(
        Change::Pod(Arc::clone(&pod)),
        format!("pod {} on node {own} ({why})", pod.reference),
    );
    Ok(of_pod(scene, pod))
}

/// A port and protocol, as somebody types it, at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// 0 for protocols without ports.
    pub(super) port: u16,
}

/// What is meant by `80`, `53/UDP`, `http`, `ICMP`, or by nothing at all.
pub(super) fn target(
    scene: &mut Scene<'_>,
    text: Option<&str>,
    destination: &Party,
    v4: bool,
) -> Result<Target, TraceError> {
    let offered = offered(destination);
    let Some(text) = text else {
        let first = offered.first();
        let (port, protocol) = first.map_or((80, Protocol::TCP), |(_, port, protocol)| {
            (*port, *protocol)
        });
        let name = &destination.name;
        let why = if first.is_some() {
            "the first that it has"
        } else {
            "it declares none"
        };
        scene.notes.push(format!(
            "no port was given: {port}/{protocol} of {name} ({why})"
        ));
        return Ok(Target { protocol, port });
    };
    let icmp = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, Some(protocol)),
        None if text.to_ascii_uppercase().starts_with("ICMP") => ("0", Some("icmp")),
        None => (text, None),
    };
    let protocol = match protocol.map(str::to_ascii_uppercase).as_deref() {
        None | Some("ANY") => None,
        Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some("ICMP" | "ICMPV6" | "ICMPV4") => {
            return Ok(Target {
                protocol: icmp,
                port: 0,
            });
        }
        Some(other) => {
            return Err(TraceError::Invalid {
                message: format!(
                    "`{other}` is no protocol that can be traced: TCP, UDP, SCTP or ICMP"
                ),
            });
        }
    };
    let fits = |(_, _, offered): &&(String, u16, Protocol)| {
        protocol.is_none_or(|wanted| wanted == *offered)
    };
    if let Ok(port) = number.parse::<u16>() {
        let known = offered
            .iter()
            .filter(fits)
            .find(|(_, offered, _)| *offered == port);
        let protocol = protocol.or_else(|| known.map(|(_, _, protocol)| *protocol));
        return Ok(Target {
            protocol: protocol.unwrap_or(Protocol::TCP),
            port,
        });
    }
    let named = offered
        .iter()
        .filter(fits)
        .find(|(name, _, _)| name == number);
    named
        .map(|(_, port, protocol)| Target {
            protocol: *protocol,
            port: *port,
        })
        .ok_or_else(|| missing(format!("{} has no port named `{number}`", destination.name)))
}

/// Name, number and protocol of everything that a destination declares.
fn offered(party: &Party) -> Vec<(String, u16, Protocol)> {
    match &party.what {
        What::Pod(pod) => {
            let ports = pod.container_ports.iter();
            ports
                .map(|port| {
                    (
                        port.name.clone().unwrap_or_default(),
                        port.port,
                        port.protocol,
                    )
                })
                .collect()
        }
        What::Service(service) => {
            let ports = service.ports.iter();
            ports
                .map(|port| (port.name.to_string(), port.port, port.protocol))
                .collect()
        }
        What::Node | What::World => Vec::new(),
    }
}
