// SPDX-License-Identifier: Apache-2.0
//! Interfaces: the pair `weir_host`/`weir_net`, and the link of each pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_abi::MacAddress as AbiMac;
use weir_net::{
    IfIndex, Link, LinkChange, MacAddress, NetNamespace, Netlink, Result, Route, Veth, sysctl,
};

use super::devices::{HOST_LINK, NET_LINK};
use crate::endpoint::Record;

/// What every pod has as its gateway: link-local, and answered for by the programs.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// The gateway of an address's family.
pub(crate) fn gateway_of(address: IpAddr) -> IpAddr {
    if address.is_ipv4() {
        GATEWAY_V4
    } else {
        GATEWAY_V6
    }
}

/// A link that a pod should have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodLink<'a> {
    pub(crate) host_name: &'a str,
    /// Name inside the pod.
    pub(crate) interface: &'a str,
    pub(crate) mac: AbiMac,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) mtu: u32,
}

impl<'a> PodLink<'a> {
    /// The one that an endpoint was made with.
    pub(crate) fn of(record: &'a Record) -> Self {
        Self {
            host_name: &record.host_interface,
            interface: &record.interface,
            mac: AbiMac(record.mac),
            addresses: &record.addresses,
            mtu: record.mtu,
        }
    }
}

/// Makes the pair through which the node's own stack is reached; tells what was not as it should be.
pub(crate) fn ensure_host_pair(netlink: &mut Netlink, mtu: u32) -> Result<(Link, Vec<String>)> {
    let mac = MacAddress::new(AbiMac::HOST.0);
    let veth = Veth {
        name: HOST_LINK,
        mac: Some(mac),
        peer_name: NET_LINK,
        peer_mac: None,
        peer_namespace: None,
        mtu: Some(mtu),
    };
    let (link, created) = netlink.ensure_veth(&veth)?;
    let mut repaired = Vec::new();
    if created {
        repaired.push(format!("interface {HOST_LINK} was missing"));
        for name in [HOST_LINK, NET_LINK] {
            // Nothing else than the programs may talk on these.
            for setting in ["accept_ra", "autoconf"] {
                let _ = sysctl::ensure(&format!("net/ipv6/conf/{name}/{setting}"), "0");
            }
            let _ = sysctl::ensure(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
        }
    }
    let peer = netlink.require_link(NET_LINK)?;
    for link in [&link, &peer] {
        let wrong_mac = link.name == HOST_LINK && link.mac != Some(mac);
        if created || !link.up || !link.noarp || link.mtu != mtu || wrong_mac {
            if !created {
                repaired.push(format!("interface {} was changed", link.name));
            }
            let change = LinkChange {
                up: Some(true),
                mtu: Some(mtu),
                arp: Some(false),
                mac: wrong_mac.then_some(mac),
                generate_address: Some(false),
                ..LinkChange::default()
            };
            netlink.change_link(link.index, &change)?;
        }
    }
    Ok((netlink.require_link(HOST_LINK)?, repaired))
}

/// Lets the node forward. Devices that take their routes from router advertisements keep doing so:
/// a forwarding node ignores those otherwise (`accept_ra` in the kernel's ip-sysctl).
pub(crate) fn enable_forwarding(devices: &[Link]) -> Result<()> {
    for device in devices {
        let name = format!("net/ipv6/conf/{}/accept_ra", device.name);
        if sysctl::read(&name).is_ok_and(|value| value == "1") {
            let _ = sysctl::write(&name, "2");
        }
    }
    sysctl::ensure("net/ipv4/ip_forward", "1")?;
    // A kernel without IPv6 has no such file.
    match sysctl::ensure("net/ipv6/conf/all/forwarding", "1") {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes a pod's link from scratch, as far as the node's side goes.
pub(crate) fn connect(
    netlink: &mut Netlink,
    pod: &NetNamespace,
    wanted: &PodLink<'_>,
) -> Result<Link> {
    netlink.delete_link_named(wanted.host_name)?;
    let host = netlink.create_veth(&Veth {
        name: wanted.host_name,
        mac: Some(MacAddress::new(AbiMac::GATEWAY.0)),
        peer_name: wanted.interface,
        peer_mac: Some(MacAddress::new(wanted.mac.0)),
        peer_namespace: Some(pod),
        mtu: Some(wanted.mtu),
    })?;
    match raise_host_side(netlink, host.index) {
        Ok(()) => Ok(host),
        Err(error) => {
            // The first error is the one that counts.
            let _ = netlink.delete_link(host.index);
            Err(error)
        }
    }
}

fn raise_host_side(netlink: &mut Netlink, index: IfIndex) -> Result<()> {
    netlink.change_link(
        index,
        &LinkChange {
            generate_address: Some(false),
            ..LinkChange::default()
        },
    )?;
    netlink.change_link(index, &LinkChange::up())
}

/// The host side as it should be; tells what was not.
pub(crate) fn ensure_host_side(
    netlink: &mut Netlink,
    link: &Link,
    mtu: u32,
) -> Result<Vec<String>> {
    let mac = MacAddress::new(AbiMac::GATEWAY.0);
    let mut change = LinkChange::default();
    let mut repaired = Vec::new();
    if !link.up {
        change.up = Some(true);
        repaired.push(format!("interface {} was down", link.name));
    }
    if link.mtu != mtu {
        change.mtu = Some(mtu);
        repaired.push(format!(
            "interface {} had MTU {} instead of {mtu}",
            link.name, link.mtu
        ));
    }
    if link.mac != Some(mac) {
        change.mac = Some(mac);
        repaired.push(format!("interface {} had another MAC address", link.name));
    }
    if !repaired.is_empty() {
        netlink.change_link(link.index, &change)?;
    }
    Ok(repaired)
}

/// Everything inside the pod, where the calling thread has to be, as it should be; tells what was not.
pub(crate) fn configure_inside(wanted: &PodLink<'_>) -> Result<Vec<String>> {
    let interface = wanted.interface;
    let has_v6 = wanted.addresses.iter().any(IpAddr::is_ipv6);
    for setting in ["accept_ra", "accept_dad"] {
        // A kernel without IPv6 has no such file.
        let _ = sysctl::ensure(&format!("net/ipv6/conf/{interface}/{setting}"), "0");
    }
    if has_v6 {
        let _ = sysctl::ensure(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0");
    }
    let mut inside = Netlink::open()?;
    let mut repaired = Vec::new();
    if let Some(loopback) = inside.link("lo")?.filter(|link| !link.up) {
        inside.change_link(loopback.index, &LinkChange::up())?;
    }
    let link = inside.require_link(interface)?;
    if !link.up || link.mtu != wanted.mtu {
        let change = LinkChange {
            mtu: Some(wanted.mtu),
            ..LinkChange::up()
        };
        inside.change_link(link.index, &change)?;
        repaired.push(format!(
            "interface {interface} of the pod was down or had another MTU"
        ));
    }
    for address in wanted.addresses {
        if inside.ensure_address(link.index, IpNet::from(*address))? {
            repaired.push(format!("address {address} of the pod was missing"));
        }
    }
    for v4 in [true, false] {
        if !wanted
            .addresses
            .iter()
            .any(|address| address.is_ipv4() == v4)
        {
            continue;
        }
        let (all, gateway) = everything(v4);
        let route = Route::via(all, gateway, link.index);
        let family = if v4 {
            weir_net::Family::V4
        } else {
            weir_net::Family::V6
        };
        let present = inside.routes(family)?.iter().any(|found| {
            found.destination == all
                && found.gateway == Some(gateway)
                && found.link == Some(link.index)
        });
        if !present {
            inside.replace_route(&route)?;
            repaired.push(format!(
                "default route via {gateway} of the pod was missing"
            ));
        }
    }
    Ok(repaired)
}

fn everything(v4: bool) -> (IpNet, IpAddr) {
    if v4 {
        (IpNet::V4(Ipv4Net::default()), GATEWAY_V4)
    } else {
        (IpNet::V6(Ipv6Net::default()), GATEWAY_V6)
    }
}

/// A number that is the same for the same text on every node and in every version (FNV-1a, 64 bit):
/// names and MAC addresses of links come from it.
pub(crate) fn stable_hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The name of a pod's link on the node.
pub(crate) fn host_name(container: &str, interface: &str) -> String {
    let hash = stable_hash(&[container, interface]);
    format!("weir{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
}

/// A pod's MAC address: locally administered, and none of Weir's own.
pub(crate) fn pod_mac(container: &str, interface: &str) -> AbiMac {
    let [_, _, _, a, b, c, d, e] = stable_hash(&["mac", container, interface]).to_be_bytes();
    AbiMac([0x0e, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_links_are_stable_and_legal() {
        let name = host_name("3b1c", "eth0");
        assert_eq!(name, host_name("3b1c", "eth0"));
        assert_eq!(name.len(), 12);
        assert_ne!(name, host_name("3b1c", "eth1"));
        let mac = pod_mac("3b1c", "eth0");
        assert_eq!(mac.0[0] & 0x03, 0x02);
        assert_ne!(mac, pod_mac("3b1d", "eth0"));
    }
}
