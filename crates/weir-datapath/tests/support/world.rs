// SPDX-License-Identifier: Apache-2.0
//! One node of a small cluster as tables in memory. They are the fixture; the kernel's side is made from them, see
//! `kernel_world.rs`.

use std::net::IpAddr;

use weir_abi::config::features;
use weir_abi::endpoint::flags::READY;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::node::NodeRow;
use weir_abi::{
    Address, DatapathConfig, EndpointId, EndpointRow, Identity, IfIndex, MacAddress, NodeIndex,
};
use weir_compile::prefix::prefix_key;
use weir_verdict::Route;
use weir_verdict::memory::MemoryTables;

use super::services::{add_policies, add_services};

/// The MAC address of everything behind the underlay.
pub(crate) const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
/// `BPF_FIB_LKUP_RET_UNREACHABLE`
const FIB_UNREACHABLE: i32 = 2;
pub(crate) const UNDERLAY_MTU: u16 = 1500;
pub(crate) const REMOTE_NODE: NodeIndex = NodeIndex(3);

/// Who is who, in both families.
pub(crate) const POD_A: [&str; 2] = ["10.244.1.10", "fd00:244:1::10"];
pub(crate) const POD_B: [&str; 2] = ["10.244.1.11", "fd00:244:1::11"];
pub(crate) const NOT_READY: [&str; 2] = ["10.244.1.12", "fd00:244:1::12"];
pub(crate) const GONE: [&str; 2] = ["10.244.1.99", "fd00:244:1::99"];
pub(crate) const REMOTE: [&str; 2] = ["10.244.2.5", "fd00:244:2::5"];
/// A pod of a third node.
pub(crate) const FAR: [&str; 2] = ["10.244.3.5", "fd00:244:3::5"];
pub(crate) const FAR_NODE: &str = "172.18.0.4";
pub(crate) const FAR_INDEX: NodeIndex = NodeIndex(4);
pub(crate) const NODE: [&str; 2] = ["172.18.0.2", "fd00:18::2"];
pub(crate) const OTHER_NODE: [&str; 2] = ["172.18.0.3", "fd00:18::3"];
pub(crate) const WORLD: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
pub(crate) const EXEMPT_HOST: [&str; 2] = ["10.9.9.9", "fd00:9::9"];
/// On the node's own link, and nobody has answered for it yet.
pub(crate) const UNRESOLVED: [&str; 2] = ["192.0.2.9", "2001:db8:2::9"];
/// Behind a node that no row tells about.
pub(crate) const LOST: [&str; 2] = ["10.244.9.9", "fd00:244:9::9"];
/// The node's routing table refuses these.
pub(crate) const UNROUTABLE: [&str; 2] = ["198.51.100.1", "2001:db8:51::1"];
const LOST_RANGE: [&str; 2] = ["10.244.9.0/24", "fd00:244:9::/64"];
pub(crate) const UNROUTABLE_RANGE: [&str; 2] = ["198.51.100.0/24", "2001:db8:51::/48"];
const LOCAL_RANGE: [&str; 2] = ["10.244.1.0/24", "fd00:244:1::/64"];
const REMOTE_RANGE: [&str; 2] = ["10.244.2.0/24", "fd00:244:2::/64"];
const EXEMPT: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];

/// The interfaces of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) pod_a: IfIndex,
    pub(crate) pod_b: IfIndex,
    pub(crate) host: IfIndex,
    pub(crate) underlay: IfIndex,
    pub(crate) underlay_mac: MacAddress,
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
    /// The fixture, in tunnel mode or in native routing.
    pub(crate) fn tables(&self, native: bool) -> MemoryTables {
        self.tables_of(native, false)
    }

    /// The same where backends on other nodes answer clients directly.
    pub(crate) fn direct_tables(&self, native: bool) -> MemoryTables {
        self.tables_of(native, true)
    }

    fn tables_of(&self, native: bool, direct: bool) -> MemoryTables {
        let default = DatapathConfig::DEFAULT;
        let mut features = default.features;
        features &= !if native { features::TUNNEL } else { 0 };
        features |= if direct { features::DIRECT_RETURN } else { 0 };
        let knows_nodes = direct || !native;
        let config = DatapathConfig {
            features,
            host: self.host,
            node_ipv4: ip(NODE[0]),
            node_ipv6: ip(NODE[1]),
            // Longer than any test: the two sides may read the clock in different seconds, and nothing may hang on it.
            report_interval: 3600,
            timeout_tcp_syn: 3600,
            timeout_tcp_closing: 3000,
            timeout_other: 3600,
            underlay_mtu: UNDERLAY_MTU,
            pod_mtu: if native {
                UNDERLAY_MTU
            } else {
                UNDERLAY_MTU - 50
            },
            ..default
        };
        let mut tables = MemoryTables::default();
        tables.config = config;
        for family in 0..2 {
            self.add_family(&mut tables, family, knows_nodes);
            add_services(&mut tables, family);
            add_policies(&mut tables, self, family);
        }
        if knows_nodes {
            let row = NodeRow {
                local: ip(NODE[0]),
                remote: ip(OTHER_NODE[0]),
            };
            tables.nodes.insert(REMOTE_NODE.get(), row);
            let remote = ip(FAR_NODE);
            tables
                .nodes
                .insert(FAR_INDEX.get(), NodeRow { remote, ..row });
        }
        tables
    }

    fn add_family(&self, tables: &mut MemoryTables, family: usize, knows_nodes: bool) {
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
                blocks: weir_abi::BlockGroup::NONE,
                ..IpcacheRow::default()
            };
            tables.ipcache.insert(PrefixKey::host(address), known);
        }
        let known = |identity, node, flags| IpcacheRow {
            identity,
            blocks: weir_abi::BlockGroup::NONE,
            node,
            flags,
        };
        let none = NodeIndex::NONE;
        let behind = |index| if knows_nodes { index } else { none };
        let remote = behind(REMOTE_NODE);
        let far = behind(FAR_INDEX);
        let lost = behind(NodeIndex(9));
        let range = |text: &str| prefix_key(text.parse().unwrap());
        let host = |names: [&str; 2]| PrefixKey::host(ip(names[family]));
        tables.ipcache.extend([
            (
                range(LOCAL_RANGE[family]),
                known(Identity::UNKNOWN, none, flags::LOCAL_RANGE),
            ),
            (
                range(REMOTE_RANGE[family]),
                known(Identity::UNKNOWN, remote, flags::POD_RANGE),
            ),
            (
                range(LOST_RANGE[family]),
                known(Identity::UNKNOWN, lost, flags::POD_RANGE),
            ),
            (host(REMOTE), known(Identity(300), remote, 0)),
            (host(FAR), known(Identity(301), far, 0)),
            (host(NODE), known(Identity::HOST, none, 0)),
            (host(OTHER_NODE), known(Identity::REMOTE_NODE, remote, 0)),
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
        // The kernel tells neither addresses nor MTU of a next hop that it has not resolved.
        let unresolved = Route {
            mtu: 0,
            source_mac: MacAddress([0; 6]),
            destination_mac: MacAddress([0; 6]),
            ..route
        };
        tables.routes.insert(host(UNRESOLVED), Ok(unresolved));
        tables
            .routes
            .insert(range(UNROUTABLE_RANGE[family]), Err(FIB_UNREACHABLE));
    }
}
