// SPDX-License-Identifier: Apache-2.0
//! Labs without Weir: the same topology with the kernel's own routing, and with its own VXLAN devices between nodes.
//! What Weir is compared with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use weir_net::{
    Family, IfIndex, LinkChange, MacAddress, NetNamespace, Netlink, Route, Veth, Vxlan, sysctl,
};

use super::underlay::HOST_INTERFACE;
use crate::config::{Dataplane, Node, Topology};

const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const VXLAN_DEVICE: &str = "vxlan1";
const VXLAN_PORT: u16 = 8472;

/// Hands out the addresses of one node's pod CIDRs.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    taken: BTreeMap<IpAddr, String>,
}

impl Pool {
    /// Addresses for a pod: those that it asks for, and one of every other family that the node has.
    pub(crate) fn take(
        &mut self,
        cidrs: &[IpNet],
        pod: &str,
        requested: &[IpAddr],
    ) -> Result<Vec<IpAddr>> {
        for address in requested {
            ensure!(
                cidrs.iter().any(|cidr| cidr.contains(address)),
                "address {address} of {pod} is outside its node's pod CIDRs"
            );
            if let Some(owner) = self.taken.get(address).filter(|owner| *owner != pod) {
                bail!("address {address} of {pod} belongs to {owner}");
            }
        }
        let mut addresses = requested.to_vec();
        if requested.is_empty() {
            for family in Family::BOTH {
                let mut cidrs = cidrs
                    .iter()
                    .filter(|cidr| Family::of(cidr.addr()) == family)
                    .peekable();
                if cidrs.peek().is_some() {
                    let free = cidrs.find_map(|cidr| self.free(*cidr));
                    let free =
                        free.with_context(|| format!("no {family} address is left for {pod}"))?;
                    addresses.push(free);
                }
            }
        }
        for address in &addresses {
            self.taken.insert(*address, pod.to_owned());
        }
        Ok(addresses)
    }

    pub(crate) fn give_back(&mut self, pod: &str) {
        self.taken.retain(|_, owner| owner != pod);
    }

    /// The first free address behind the network's own and the one that is by custom the gateway's.
    fn free(&self, cidr: IpNet) -> Option<IpAddr> {
        let taken: BTreeSet<_> = self.taken.keys().collect();
        cidr.trunc()
            .hosts()
            .filter(|address| usable(cidr, *address))
            .find(|a| !taken.contains(a))
    }
}

fn usable(cidr: IpNet, address: IpAddr) -> bool {
    let offset = match (cidr.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            u128::from(u32::from(address).wrapping_sub(u32::from(base)))
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            u128::from(address).wrapping_sub(u128::from(base))
        }
        _ => 0,
    };
    offset >= 2
}

/// The MTU of pods.
pub(crate) fn pod_mtu(topology: &Topology, node: &Node) -> u32 {
    match (topology.dataplane, node.addresses.first()) {
        (Dataplane::KernelVxlan, Some(IpAddr::V6(_))) => topology.underlay_mtu - 70,
        (Dataplane::KernelVxlan, _) => topology.underlay_mtu - 50,
        (Dataplane::Weir | Dataplane::KernelRouting, _) => topology.underlay_mtu,
    }
}

/// Lets a node forward, with routes to the pods of the others.
pub(crate) fn prepare_node(
    namespace: &NetNamespace,
    own: &Node,
    topology: &Topology,
) -> Result<()> {
    namespace.run_in(|| {
        sysctl::write("net.ipv4.ip_forward", "1")?;
        sysctl::write("net.ipv6.conf.all.forwarding", "1")
    })??;
    let mut netlink = Netlink::open_in(namespace)?;
    let device = netlink.require_link(HOST_INTERFACE)?.index;
    let tunnel = match topology.dataplane {
        Dataplane::KernelVxlan => Some(make_tunnel(&mut netlink, device, own, topology)?),
        Dataplane::Weir | Dataplane::KernelRouting => None,
    };
    for (number, other) in topology.nodes.iter().enumerate() {
        if other.name == own.name {
            continue;
        }
        for cidr in &other.pod_cidrs {
            let family = Family::of(cidr.addr());
            let source = own.address(family);
            match tunnel {
                // One neighbour for each remote subnet: its own first address, as flannel does it.
                Some(tunnel) => {
                    let gateway = cidr.network();
                    netlink.replace_permanent_neighbour(tunnel, gateway, tunnel_mac(number))?;
                    netlink.replace_route(
                        &Route::via(cidr.trunc(), gateway, tunnel).with_source(source),
                    )?;
                }
                None => {
                    if let Some(gateway) = other.address(family) {
                        netlink.replace_route(
                            &Route::via(cidr.trunc(), gateway, device).with_source(source),
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn make_tunnel(
    netlink: &mut Netlink,
    device: IfIndex,
    own: &Node,
    topology: &Topology,
) -> Result<IfIndex> {
    let local = *own.addresses.first().context("a node without address")?;
    let number = topology
        .nodes
        .iter()
        .position(|node| node.name == own.name)
        .unwrap_or(0);
    let vxlan = Vxlan {
        name: VXLAN_DEVICE,
        mac: Some(tunnel_mac(number)),
        vni: 1,
        port: VXLAN_PORT,
        local,
        device,
        mtu: Some(pod_mtu(topology, own)),
    };
    let (tunnel, _) = netlink.ensure_vxlan(&vxlan)?;
    netlink.change_link(tunnel.index, &LinkChange::up())?;
    for (number, other) in topology.nodes.iter().enumerate() {
        if other.name != own.name
            && let Some(remote) = other.address(Family::of(local))
        {
            netlink.append_forwarding_entry(tunnel.index, tunnel_mac(number), remote)?;
        }
    }
    Ok(tunnel.index)
}

fn tunnel_mac(number: usize) -> MacAddress {
    let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    MacAddress::new([0x0a, 0x58, 0, 0, high, low])
}

/// Connects a pod to its node.
pub(crate) fn connect_pod(
    node: &NetNamespace,
    pod: &NetNamespace,
    interface: &str,
    addresses: &[IpAddr],
    own: &Node,
    mtu: u32,
) -> Result<()> {
    let mut netlink = Netlink::open_in(node)?;
    let veth = Veth {
        name: interface,
        mac: None,
        peer_name: HOST_INTERFACE,
        peer_mac: None,
        peer_namespace: Some(pod),
        mtu: Some(mtu),
    };
    let link = netlink.ensure_veth(&veth)?.0.index;
    netlink.change_link(link, &LinkChange::up())?;
    netlink.ensure_address(link, IpNet::from(GATEWAY_V4))?;
    netlink.ensure_address(link, IpNet::new(GATEWAY_V6, 64)?)?;
    for address in addresses {
        let source = own.address(Family::of(*address));
        netlink.replace_route(&Route::device(IpNet::from(*address), link).with_source(source))?;
    }
    let mut netlink = Netlink::open_in(pod)?;
    let device = netlink.require_link(HOST_INTERFACE)?.index;
    netlink.change_link(device, &LinkChange::up())?;
    for address in addresses {
        netlink.ensure_address(device, IpNet::from(*address))?;
        let (gateway, all) = match address {
            IpAddr::V4(_) => (GATEWAY_V4, IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?),
            IpAddr::V6(_) => (GATEWAY_V6, IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)?),
        };
        netlink.replace_route(&Route::via(all, gateway, device))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn take(pool: &mut Pool, cidrs: &[IpNet], pod: &str, requested: &[&str]) -> String {
        let requested: Vec<IpAddr> = requested.iter().map(|text| text.parse().unwrap()).collect();
        match pool.take(cidrs, pod, &requested) {
            Ok(addresses) => addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn pods_get_one_address_of_each_family() {
        let cidrs = cidrs(&["10.244.1.0/24", "fd00:244:1::/64"]);
        let mut pool = Pool::default();
        assert_eq!(
            take(&mut pool, &cidrs, "a/1", &[]),
            "10.244.1.2 fd00:244:1::2"
        );
        assert_eq!(
            take(&mut pool, &cidrs, "a/2", &[]),
            "10.244.1.3 fd00:244:1::3"
        );
        pool.give_back("a/1");
        assert_eq!(
            take(&mut pool, &cidrs, "a/3", &[]),
            "10.244.1.2 fd00:244:1::2"
        );
    }

    #[test]
    fn requested_addresses_are_exact_or_refused() {
        let cidrs = cidrs(&["10.244.1.0/24"]);
        let mut pool = Pool::default();
        assert_eq!(
            take(&mut pool, &cidrs, "a/1", &["10.244.1.77"]),
            "10.244.1.77"
        );
        assert_eq!(
            take(&mut pool, &cidrs, "a/1", &["10.244.1.77"]),
            "10.244.1.77"
        );
        assert_eq!(
            take(&mut pool, &cidrs, "a/2", &["10.244.1.77"]),
            "address 10.244.1.77 of a/2 belongs to a/1"
        );
        assert_eq!(
            take(&mut pool, &cidrs, "a/2", &["10.9.0.1"]),
            "address 10.9.0.1 of a/2 is outside its node's pod CIDRs"
        );
    }

    #[test]
    fn a_full_cidr_is_an_error() {
        let cidrs = cidrs(&["10.244.1.0/30"]);
        let mut pool = Pool::default();
        assert_eq!(take(&mut pool, &cidrs, "a/1", &[]), "10.244.1.2");
        assert_eq!(
            take(&mut pool, &cidrs, "a/2", &[]),
            "no IPv4 address is left for a/2"
        );
    }
}
