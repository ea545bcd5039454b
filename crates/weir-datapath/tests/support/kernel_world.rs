// SPDX-License-Identifier: Apache-2.0
//! The fixture of `world.rs` in the kernel: maps, interfaces, routes and neighbours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::{MacAddress, NodeIndex};
use weir_compile::{Rows, plan};
use weir_datapath::{Maps, execute};
use weir_net::{Netlink, Route as KernelRoute, RouteKind, sysctl};
use weir_verdict::memory::MemoryTables;

use super::veth::veth;
use super::world::{Links, NEIGHBOUR, NODE, UNRESOLVED, UNROUTABLE_RANGE};

const UNDERLAY: &str = "underlay";
const GATEWAY: [&str; 2] = ["172.18.0.1", "fd00:18::1"];

impl Links {
    /// Makes interfaces, routes and neighbours in the namespace of the calling thread.
    pub(crate) fn make() -> Self {
        let (pod_a, _) = veth("weir0000000a", "pod-a");
        let (pod_b, _) = veth("weir0000000b", "pod-b");
        let (host, _) = veth("weir_host", "weir_net");
        let (underlay, _) = veth(UNDERLAY, "far");
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.require_link(UNDERLAY).unwrap();
        let mac: MacAddress = parse_mac(&link.mac.unwrap().to_string());
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
        for (node, gateway) in NODE.into_iter().zip(GATEWAY) {
            let node = IpNet::from(node.parse::<IpAddr>().unwrap());
            netlink.ensure_address(link.index, node).unwrap();
            let gateway: IpAddr = gateway.parse().unwrap();
            let default = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            }
            .parse::<IpNet>()
            .unwrap();
            netlink
                .ensure_route(&KernelRoute::device(IpNet::from(gateway), link.index))
                .unwrap();
            netlink
                .ensure_route(&KernelRoute::via(default, gateway, link.index))
                .unwrap();
            let mac = NEIGHBOUR.to_string().parse().unwrap();
            netlink
                .replace_permanent_neighbour(link.index, gateway, mac)
                .unwrap();
        }
        for address in UNRESOLVED {
            let address = IpNet::from(address.parse::<IpAddr>().unwrap());
            netlink
                .ensure_route(&KernelRoute::device(address, link.index))
                .unwrap();
        }
        for range in UNROUTABLE_RANGE {
            let route = KernelRoute::device(range.parse().unwrap(), link.index);
            let kind = RouteKind::Unreachable;
            netlink
                .ensure_route(&KernelRoute {
                    kind,
                    link: None,
                    ..route
                })
                .unwrap();
        }
        Self {
            pod_a,
            pod_b,
            host,
            underlay,
            underlay_mac: mac,
        }
    }
}

/// Writes the rows of the fixture into the kernel's maps.
pub(crate) fn fill(maps: &Maps, tables: &MemoryTables) {
    let desired = Rows {
        endpoints: tables
            .endpoints
            .iter()
            .map(|(key, row)| (*key, *row))
            .collect(),
        ipcache: rows_of_others(tables),
        masquerade_exempt: tables.masquerade_exempt.keys().copied().collect(),
        nodes: tables
            .nodes
            .iter()
            .map(|(index, row)| (NodeIndex(*index), *row))
            .collect(),
        policy: tables
            .policy
            .iter()
            .map(|(key, row)| (*key, *row))
            .collect(),
    };
    for (key, row) in &tables.ipcache {
        if row.flags & flags::SERVICE != 0 {
            maps.ipcache.upsert(key, row).unwrap();
        }
    }
    for (key, row) in &tables.frontends {
        maps.frontends.upsert(key, row).unwrap();
    }
    for (place, row) in &tables.backends {
        maps.backends.upsert(place, row).unwrap();
    }
    for (key, row) in &tables.service_backends {
        maps.service_backends.upsert(key, row).unwrap();
    }
    for key in &tables.source_ranges {
        maps.source_ranges.insert(key).unwrap();
    }
    for (key, row) in &tables.policy {
        maps.policy.upsert(key, row).unwrap();
    }
    let realized = maps.read_back().unwrap();
    let outcome = execute(maps, &plan(&realized, &desired));
    assert!(outcome.is_complete(), "{:?}", outcome.failures);
    assert_eq!(maps.read_back().unwrap(), desired);
    // The plan bumped what it changed; in memory nothing was bumped.
    let generations: BTreeMap<_, _> = maps.generations.entries().unwrap().into_iter().collect();
    let mut known = tables.generations.borrow_mut();
    for (slot, generation) in generations.into_iter().filter(|(_, one)| one.get() != 0) {
        known.insert(u16::try_from(slot).unwrap(), generation.get());
    }
}

/// The rows of services in this map are known by their addresses alone.
fn rows_of_others(tables: &MemoryTables) -> BTreeMap<PrefixKey, IpcacheRow> {
    let mut rows = tables.ipcache.clone();
    rows.retain(|_, row| row.flags & flags::SERVICE == 0);
    rows
}

fn parse_mac(text: &str) -> MacAddress {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddress(bytes.try_into().unwrap())
}
