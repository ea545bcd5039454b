// SPDX-License-Identifier: Apache-2.0
//! One node of a small cluster, twice: as tables in memory and as maps, interfaces, routes and neighbours of the
//! kernel. The tables are the fixture; the kernel's side is made from them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::config::features;
use weir_abi::endpoint::flags::READY;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::node::NodeRow;
use weir_abi::{
    Address, DatapathConfig, EndpointId, EndpointRow, Identity, IfIndex, MacAddress, NodeIndex,
};
use weir_compile::prefix::prefix_key;
use weir_compile::{Rows, plan};
use weir_datapath::{Maps, execute};
use weir_net::{Netlink, Route as KernelRoute, sysctl};
use weir_verdict::Route;
use weir_verdict::memory::MemoryTables;

use super::veth::veth;

/// The MAC address of everything behind the underlay.
pub(crate) const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
const UNDERLAY: &str = "underlay";
const UNDERLAY_MTU: u16 = 1500;
pub(crate) const REMOTE_NODE: NodeIndex = NodeIndex(3);

/// Who is who, in both families.
pub(crate) const POD_A: [&str; 2] = ["10.244.1.10", "fd00:244:1::10"];
pub(crate) const POD_B: [&str; 2] = ["10.244.1.11", "fd00:244:1::11"];
pub(crate) const NOT_READY: [&str; 2] = ["10.244.1.12", "fd00:244:1::12"];
pub(crate) const GONE: [&str; 2] = ["10.244.1.99", "fd00:244:1::99"];
pub(crate) const REMOTE: [&str; 2] = ["10.244.2.5", "fd00:244:2::5"];
pub(crate) const NODE: [&str; 2] = ["172.18.0.2", "fd00:18::2"];
pub(crate) const OTHER_NODE: [&str; 2] = ["172.18.0.3", "fd00:18::3"];
pub(crate) const WORLD: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
const LOCAL_RANGE: [&str; 2] = ["10.244.1.0/24", "fd00:244:1::/64"];
const REMOTE_RANGE: [&str; 2] = ["10.244.2.0/24", "fd00:244:2::/64"];
const EXEMPT: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];
const GATEWAY: [&str; 2] = ["172.18.0.1", "fd00:18::1"];

/// The interfaces of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) pod_a: IfIndex,
    pub(crate) pod_b: IfIndex,
    pub(crate) host: IfIndex,
    pub(crate) underlay: IfIndex,
    underlay_mac: MacAddress,
}

/// The address of a name.
pub(crate) fn ip(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

/// The MAC address of the pod with this last byte.
pub(crate) fn pod_mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

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
        Self {
            pod_a,
            pod_b,
            host,
            underlay,
            underlay_mac: mac,
        }
    }

    /// The fixture.
    pub(crate) fn tables(&self, extra_features: u32) -> MemoryTables {
        let config = DatapathConfig {
            features: DatapathConfig::DEFAULT.features | extra_features,
            host: self.host,
            node_ipv4: ip(NODE[0]),
            node_ipv6: ip(NODE[1]),
            underlay_mtu: UNDERLAY_MTU,
            pod_mtu: 1450,
            ..DatapathConfig::DEFAULT
        };
        let mut tables = MemoryTables::default();
        tables.config = config;
        for family in 0..2 {
            self.add_family(&mut tables, family);
        }
        let row = NodeRow {
            local: ip(NODE[0]),
            remote: ip(OTHER_NODE[0]),
        };
        tables.nodes.insert(REMOTE_NODE.get(), row);
        tables
    }

    fn add_family(&self, tables: &mut MemoryTables, family: usize) {
        let endpoint = |ifindex, last: u8, flags| EndpointRow {
            ifindex,
            identity: Identity(u32::from(last) + 256),
            id: EndpointId(u16::from(last)),
            flags,
            mac: pod_mac(last),
            ..EndpointRow::default()
        };
        let pods = [
            (POD_A, endpoint(self.pod_a, 0x0a, READY)),
            (POD_B, endpoint(self.pod_b, 0x0b, READY)),
            (NOT_READY, endpoint(self.pod_b, 0x0c, 0)),
        ];
        for (names, row) in pods {
            let address = ip(names[family]);
            tables.endpoints.insert(address, row);
            let known = IpcacheRow {
                identity: row.identity,
                ..IpcacheRow::default()
            };
            tables.ipcache.insert(PrefixKey::host(address), known);
        }
        let known = |identity, node, flags| IpcacheRow {
            identity,
            node,
            flags,
        };
        let (none, unknown) = (NodeIndex::NONE, Identity::UNKNOWN);
        let range = |text: &str| prefix_key(text.parse().unwrap());
        let host = |names: [&str; 2]| PrefixKey::host(ip(names[family]));
        tables.ipcache.extend([
            (
                range(LOCAL_RANGE[family]),
                known(unknown, none, flags::LOCAL_RANGE),
            ),
            (
                range(REMOTE_RANGE[family]),
                known(unknown, REMOTE_NODE, flags::POD_RANGE),
            ),
            (host(REMOTE), known(Identity(300), REMOTE_NODE, 0)),
            (host(NODE), known(Identity::HOST, none, 0)),
            (host(OTHER_NODE), known(Identity::REMOTE_NODE, none, 0)),
        ]);
        tables.masquerade_exempt.insert(range(EXEMPT[family]), ());
        let route = Route {
            egress: self.underlay,
            mtu: UNDERLAY_MTU,
            source_mac: self.underlay_mac,
            destination_mac: NEIGHBOUR,
        };
        let everything = prefix_key(["0.0.0.0/0", "::/0"][family].parse().unwrap());
        tables.routes.insert(everything, Ok(route));
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
        ipcache: tables.ipcache.clone(),
        masquerade_exempt: tables.masquerade_exempt.keys().copied().collect(),
        nodes: tables
            .nodes
            .iter()
            .map(|(index, row)| (NodeIndex(*index), *row))
            .collect(),
    };
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

/// The feature bits of native routing.
pub(crate) const NATIVE: u32 = features::TUNNEL;

fn parse_mac(text: &str) -> MacAddress {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    MacAddress(bytes.try_into().unwrap())
}
