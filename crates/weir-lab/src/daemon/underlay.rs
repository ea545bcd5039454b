// SPDX-License-Identifier: Apache-2.0
//! The network between the nodes: a bridge that joins them and a router towards hosts outside the cluster.
//!
//! Every host has its addresses as /32 and /128. Nodes reach each other on the link; everything else goes to the
//! underlay's router, which knows each node's pod CIDRs, so that a host outside sees pods and pods see it by their
//! own addresses unless the dataplane masquerades.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use weir_net::{Family, IfIndex, LinkChange, NetNamespace, Netlink, Route, Veth, offload, sysctl};

use crate::config::{External, Node, Topology};

/// Which nodes take what goes to an address outside.
pub(crate) type Vips = BTreeMap<IpAddr, BTreeSet<String>>;

const BRIDGE: &str = "underlay";
/// The interface of every node and external host.
pub(crate) const HOST_INTERFACE: &str = "eth0";
const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 254, 1));
const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe));

fn router(family: Family) -> IpAddr {
    match family {
        Family::V4 => ROUTER_V4,
        Family::V6 => ROUTER_V6,
    }
}

/// Makes the bridge and switches routing on.
pub(crate) fn build(underlay: &NetNamespace, topology: &Topology) -> Result<()> {
    underlay.run_in(|| {
        sysctl::write("net.ipv4.ip_forward", "1")?;
        sysctl::write("net.ipv6.conf.all.forwarding", "1")?;
        // What goes to a load balancer is divided by connections, not by hosts.
        for family in ["ipv4", "ipv6"] {
            sysctl::write(&format!("net.{family}.fib_multipath_hash_policy"), "1")?;
        }
        Ok::<(), weir_net::Error>(())
    })??;
    let mut netlink = Netlink::open_in(underlay)?;
    let (bridge, _) = netlink.ensure_bridge(BRIDGE)?;
    netlink.change_link(
        bridge.index,
        &LinkChange {
            mtu: Some(topology.underlay_mtu),
            ..LinkChange::up()
        },
    )?;
    add_router(&mut netlink, bridge.index)
}

/// Plugs a node into the bridge.
pub(crate) fn join_node(
    underlay: &NetNamespace,
    node: &NetNamespace,
    number: usize,
    own: &Node,
    topology: &Topology,
) -> Result<()> {
    let mut netlink = Netlink::open_in(underlay)?;
    let bridge = netlink.require_link(BRIDGE)?.index;
    let name = format!("node{number}");
    let port = plug(&mut netlink, node, &name, topology.underlay_mtu)?;
    if own.is_accelerated() {
        // What comes over a real wire has its checksums, and programs at drivers rely on them; pairs of links save
        // themselves the work.
        underlay.run_in(|| offload::finish_checksums(&name))??;
    }
    netlink.change_link(
        port,
        &LinkChange {
            master: Some(Some(bridge)),
            ..LinkChange::up()
        },
    )?;
    for address in &own.addresses {
        netlink.replace_route(&Route::device(IpNet::from(*address), bridge))?;
    }
    for cidr in &own.pod_cidrs {
        let family = Family::of(cidr.addr());
        // Pods of a family that the node itself lacks cannot be reached from outside.
        if let Some(gateway) = own.address(family) {
            netlink.replace_route(&Route::via(cidr.trunc(), gateway, bridge))?;
        }
    }
    let mut netlink = Netlink::open_in(node)?;
    let device = settle(&mut netlink, &own.addresses)?;
    for other in topology.nodes.iter().filter(|other| other.name != own.name) {
        for address in &other.addresses {
            let source = own.address(Family::of(*address));
            if source.is_some() {
                netlink.replace_route(
                    &Route::device(IpNet::from(*address), device).with_source(source),
                )?;
            }
        }
    }
    Ok(())
}

/// Gives a host outside the cluster a link of its own to the router.
pub(crate) fn join_external(
    underlay: &NetNamespace,
    host: &NetNamespace,
    number: usize,
    own: &External,
    topology: &Topology,
) -> Result<()> {
    let mut netlink = Netlink::open_in(underlay)?;
    let port = plug(
        &mut netlink,
        host,
        &format!("external{number}"),
        topology.underlay_mtu,
    )?;
    netlink.change_link(port, &LinkChange::up())?;
    add_router(&mut netlink, port)?;
    for address in &own.addresses {
        netlink.replace_route(&Route::device(IpNet::from(*address), port))?;
    }
    settle(&mut Netlink::open_in(host)?, &own.addresses)?;
    Ok(())
}

/// Sends what goes to the addresses of load balancers to their nodes; `old` is what was routed before.
pub(crate) fn route_vips(
    underlay: &NetNamespace,
    old: &Vips,
    new: &Vips,
    topology: &Topology,
) -> Result<()> {
    let mut netlink = Netlink::open_in(underlay)?;
    let bridge = netlink.require_link(BRIDGE)?.index;
    for address in old.keys().filter(|address| !new.contains_key(*address)) {
        netlink.delete_routes_to(IpNet::from(*address))?;
    }
    for (address, names) in new {
        if old.get(address) == Some(names) {
            continue;
        }
        let chosen = topology.nodes.iter().filter(|n| names.contains(&n.name));
        let gateways: Vec<IpAddr> = chosen
            .filter_map(|node| node.address(Family::of(*address)))
            .collect();
        // An IPv6 route that is replaced by one with fewer gateways would keep the others.
        netlink.delete_routes_to(IpNet::from(*address))?;
        netlink.replace_shared_route(IpNet::from(*address), &gateways, bridge)?;
    }
    Ok(())
}

fn plug(netlink: &mut Netlink, host: &NetNamespace, name: &str, mtu: u32) -> Result<IfIndex> {
    let veth = Veth {
        name,
        mac: None,
        peer_name: HOST_INTERFACE,
        peer_mac: None,
        peer_namespace: Some(host),
        mtu: Some(mtu),
    };
    Ok(netlink.ensure_veth(&veth)?.0.index)
}

/// The router answers to the same addresses on every link.
fn add_router(netlink: &mut Netlink, link: IfIndex) -> Result<()> {
    netlink.ensure_address(link, IpNet::from(ROUTER_V4))?;
    netlink.ensure_address(link, IpNet::new(ROUTER_V6, 64)?)?;
    Ok(())
}

/// Switches a host's interface on and gives it addresses and default routes.
fn settle(netlink: &mut Netlink, addresses: &[IpAddr]) -> Result<IfIndex> {
    let device = netlink.require_link(HOST_INTERFACE)?.index;
    netlink.change_link(device, &LinkChange::up())?;
    for address in addresses {
        netlink.ensure_address(device, IpNet::from(*address))?;
    }
    for family in Family::BOTH {
        let source = addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family);
        if source.is_some() {
            let all: IpNet = match family {
                Family::V4 => IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?,
                Family::V6 => IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)?,
            };
            netlink.replace_route(&Route::via(all, router(family), device).with_source(source))?;
        }
    }
    Ok(device)
}
