// SPDX-License-Identifier: Apache-2.0
//! Which devices carry the cluster's traffic, and what they are like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_abi::config::features;
use weir_abi::{Address, DatapathConfig, IfIndex};
use weir_api::status::Device;
use weir_model::{NodeName, World};
use weir_net::{Family, Link, Netlink};

use crate::config::{Config, LoadBalancerAlgorithm, LoadBalancerMode, NoBackend, RoutingMode};

/// The pair through which the node's own stack is reached.
pub(crate) const HOST_LINK: &str = "weir_host";
pub(crate) const NET_LINK: &str = "weir_net";
const POD_LINK_PREFIX: &str = "weir";

/// The node's own network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeNetwork {
    /// Underlay devices.
    pub(crate) devices: Vec<Link>,
    /// Addresses of every device that is not Weir's, without link-local ones.
    pub(crate) addresses: Vec<(IfIndex, IpAddr)>,
    pub(crate) ipv4: Option<IpAddr>,
    pub(crate) ipv6: Option<IpAddr>,
    pub(crate) underlay_mtu: u16,
    pub(crate) pod_mtu: u16,
    /// `weir_host`.
    pub(crate) host: IfIndex,
    /// Names of all interfaces.
    pub(crate) names: BTreeMap<IfIndex, String>,
}

/// Why the node's network cannot be made out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("device {0} of the configuration does not exist")]
    Missing(String),
    #[error(
        "no default route and no device with an address of the Node object: name the underlay devices in `devices`"
    )]
    NoDevice,
    #[error(transparent)]
    Network(#[from] weir_net::Error),
}

/// Whether a name is that of a pod's link.
pub(crate) fn is_pod_link(name: &str) -> bool {
    let digits = name.strip_prefix(POD_LINK_PREFIX);
    digits.is_some_and(|text| text.len() == 8 && text.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// Whether a name is that of one of Weir's interfaces; they are nobody's underlay.
pub(crate) fn is_own(name: &str) -> bool {
    name == HOST_LINK || name == NET_LINK || is_pod_link(name)
}

/// Reads what the node has.
pub(crate) fn discover(
    netlink: &mut Netlink,
    config: &Config,
    world: &World,
    node: &NodeName,
) -> Result<NodeNetwork, DeviceError> {
    let links = netlink.links()?;
    let by_index: BTreeMap<u32, &Link> =
        links.iter().map(|link| (link.index.get(), link)).collect();
    let addresses: Vec<(IfIndex, IpAddr)> = netlink
        .addresses()?
        .into_iter()
        .filter(|address| {
            by_index
                .get(&address.link.get())
                .is_some_and(|link| !is_own(&link.name))
        })
        .map(|address| (IfIndex(address.link.get()), address.ip()))
        .filter(|(_, ip)| !Address::from(*ip).is_link_local() && !ip.is_loopback())
        .collect();
    let object = world.node(node);
    let claimed = object
        .map(|node| node.addresses.clone())
        .unwrap_or_default();

    let mut devices: Vec<Link> = Vec::new();
    let mut chosen = BTreeSet::new();
    let mut choose = |link: &Link| {
        if chosen.insert(link.index) {
            devices.push(link.clone());
        }
    };
    if config.devices.is_empty() {
        for family in Family::BOTH {
            let default = netlink.default_route(family)?;
            let link = default.and_then(|route| by_index.get(&route.link.get()).copied());
            link.filter(|link| !is_own(&link.name) && !link.loopback)
                .into_iter()
                .for_each(&mut choose);
        }
        let carries = |link: &&&Link| {
            let index = IfIndex(link.index.get());
            addresses
                .iter()
                .any(|(owner, ip)| *owner == index && claimed.contains(ip))
        };
        by_index
            .values()
            .filter(carries)
            .filter(|link| !link.loopback)
            .for_each(|link| choose(link));
    } else {
        for name in &config.devices {
            let link = links.iter().find(|link| link.name == *name);
            choose(link.ok_or_else(|| DeviceError::Missing(name.clone()))?);
        }
    }
    if devices.is_empty() {
        return Err(DeviceError::NoDevice);
    }

    let on_device = |ip: &IpAddr| {
        addresses.iter().any(|(owner, have)| {
            have == ip && devices.iter().any(|device| device.index.get() == owner.0)
        })
    };
    let local = |ip: &IpAddr| addresses.iter().any(|(_, have)| have == ip);
    // The Node object says which address is the primary one, if it is on this node at all.
    let primary = |family: fn(&IpAddr) -> bool| {
        let object = claimed.iter().copied().filter(family).find(local);
        object.or_else(|| {
            addresses
                .iter()
                .map(|(_, ip)| *ip)
                .filter(family)
                .find(on_device)
        })
    };
    let (ipv4, ipv6) = (primary(IpAddr::is_ipv4), primary(IpAddr::is_ipv6));
    let smallest = devices.iter().map(|link| link.mtu).min().unwrap_or(1500);
    let underlay_mtu = config
        .mtu
        .unwrap_or_else(|| u16::try_from(smallest).unwrap_or(u16::MAX));
    let overhead = match config.routing_mode {
        RoutingMode::Native => 0,
        RoutingMode::Tunnel if needs_ipv6_tunnel(ipv4, world, node) => {
            DatapathConfig::TUNNEL_OVERHEAD_V6
        }
        RoutingMode::Tunnel => DatapathConfig::TUNNEL_OVERHEAD_V4,
    };
    let host = links.iter().find(|link| link.name == HOST_LINK);
    Ok(NodeNetwork {
        addresses,
        ipv4,
        ipv6,
        underlay_mtu,
        pod_mtu: underlay_mtu.saturating_sub(overhead),
        host: host.map_or(IfIndex::NONE, |link| IfIndex(link.index.get())),
        names: links
            .iter()
            .map(|link| (IfIndex(link.index.get()), link.name.clone()))
            .collect(),
        devices,
    })
}

/// Whether some node can only be reached by IPv6.
fn needs_ipv6_tunnel(ipv4: Option<IpAddr>, world: &World, node: &NodeName) -> bool {
    let only_v6 = |other: &weir_model::Node| other.ipv4().is_none() && other.ipv6().is_some();
    ipv4.is_none()
        || world
            .nodes()
            .any(|other| other.name != *node && only_v6(other))
}

/// What is the node's own and never changes while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constants {
    /// Keeps the choice of backends from being foreseen.
    pub(crate) seed: u32,
    /// The node's own network namespace, as programs at sockets know it.
    pub(crate) namespace: u64,
}

impl NodeNetwork {
    /// What the programs are told.
    pub(crate) fn datapath_config(&self, config: &Config, constants: Constants) -> DatapathConfig {
        let mut on = features::TRACE | features::ICMP_ERRORS;
        if config.routing_mode == RoutingMode::Tunnel {
            on |= features::TUNNEL;
        }
        if config.masquerade {
            on |= features::MASQUERADE;
        }
        if config.load_balancer_mode == LoadBalancerMode::Dsr {
            on |= features::DIRECT_RETURN;
        }
        DatapathConfig {
            features: on,
            host: self.host,
            node_ipv4: self.ipv4.map_or(Address::UNSPECIFIED, Address::from),
            node_ipv6: self.ipv6.map_or(Address::UNSPECIFIED, Address::from),
            underlay_mtu: self.underlay_mtu,
            pod_mtu: self.pod_mtu,
            masquerade_port_min: config.node_port_range.last.saturating_add(1),
            no_backend_drops: u8::from(config.no_backend == NoBackend::Drop),
            pod_sockets: u8::from(config.socket_lb),
            maglev_size: config.maglev_size(),
            seed: match config.load_balancer_algorithm {
                LoadBalancerAlgorithm::Random => constants.seed,
                // Every node has to choose alike.
                LoadBalancerAlgorithm::Maglev => 0,
            },
            node_namespace: constants.namespace,
            ..DatapathConfig::DEFAULT
        }
    }

    /// For `status`.
    pub(crate) fn shown(&self) -> Vec<Device> {
        self.devices
            .iter()
            .map(|device| Device {
                name: device.name.clone(),
                ifindex: device.index.get(),
                mtu: device.mtu,
                addresses: self
                    .addresses
                    .iter()
                    .filter(|(owner, _)| owner.0 == device.index.get())
                    .map(|(_, ip)| ip.to_string())
                    .collect(),
            })
            .collect()
    }

    /// Whether an address is one of this node's.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(_, have)| *have == ip)
    }
}
