// SPDX-License-Identifier: Apache-2.0
//! Services and policies of the fixture in `world.rs`.

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags::SERVICE};
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PolicyRow, PortRule, rule_flags};
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SourceRangeKey, backend_flags, flags,
};
use weir_abi::{
    BlockGroup, EndpointId, EndpointRow, FrontendId, Identity, PolicyCookie, PolicySet, Port,
    Protocol, ServiceId,
};
use weir_verdict::memory::MemoryTables;

use super::world::{Links, NODE, OTHER_NODE, POD_A, POD_B, REMOTE, WORLD, ip, pod_mac};

pub(crate) const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
/// The same backends behind another address.
pub(crate) const CLUSTER_TWIN: [&str; 2] = ["10.96.0.11", "fd00:96::11"];
pub(crate) const BALANCER: [&str; 2] = ["198.18.0.10", "2001:db8:198::10"];
/// A pod that policies isolate.
pub(crate) const ISOLATED: [&str; 2] = ["10.244.1.13", "fd00:244:1::13"];
/// Outside the cluster, in a block that policies name.
pub(crate) const BLOCKED: [&str; 2] = ["203.0.113.77", "2001:db8:113::77"];

const SET: PolicySet = PolicySet(7);
const GROUP: BlockGroup = BlockGroup(3);
const NO_BACKENDS: &[(&str, u16)] = &[];

/// What the frontends of one service share.
struct Service<'a> {
    id: u32,
    protocol: Protocol,
    internal: &'a [(&'a str, u16)],
    external: &'a [(&'a str, u16)],
    flags: u8,
    affinity: u32,
}

#[expect(clippy::too_many_lines, reason = "a table: one entry for each service")]
pub(crate) fn add_services(tables: &mut MemoryTables, family: usize) {
    use FrontendKind::{ClusterIp, LoadBalancer, NodePort};
    let [a, b, remote, node] = [POD_A, POD_B, REMOTE, NODE].map(|names| names[family]);
    let [cluster, twin, balancer] = [CLUSTER, CLUSTER_TWIN, BALANCER].map(|names| names[family]);
    for address in [cluster, twin, balancer] {
        let row = IpcacheRow {
            identity: Identity::WORLD,
            flags: SERVICE,
            ..IpcacheRow::default()
        };
        tables.ipcache.insert(PrefixKey::host(ip(address)), row);
    }
    let base = [100, 200][family];
    let mut add = |offset, backends: &[(&str, u16)], flags, frontends: &[(&str, u16, _)]| {
        let service = Service {
            id: base + offset,
            protocol: Protocol::TCP,
            internal: backends,
            external: if flags & flags::EXTERNAL_LOCAL == 0 {
                backends
            } else {
                NO_BACKENDS
            },
            flags,
            affinity: if offset == 6 { 600 } else { 0 },
        };
        service.add(tables, frontends);
        Service {
            protocol: Protocol::UDP,
            id: service.id + 50,
            ..service
        }
        .add(tables, frontends);
    };
    add(
        1,
        &[(b, 8080)],
        0,
        &[
            (cluster, 80, ClusterIp),
            (twin, 80, ClusterIp),
            (node, 30080, NodePort),
        ],
    );
    add(
        2,
        &[(remote, 8080)],
        0,
        &[(cluster, 81, ClusterIp), (node, 30081, NodePort)],
    );
    add(
        3,
        NO_BACKENDS,
        0,
        &[(cluster, 82, ClusterIp), (node, 30082, NodePort)],
    );
    add(4, &[(a, 8080)], 0, &[(cluster, 83, ClusterIp)]);
    add(
        5,
        &[(remote, 8080)],
        flags::EXTERNAL_LOCAL,
        &[(node, 30083, NodePort)],
    );
    add(
        6,
        &[(b, 8080), (b, 8081), (remote, 8080)],
        0,
        &[(cluster, 84, ClusterIp)],
    );
    add(
        7,
        &[(node, 9090)],
        0,
        &[(node, 30084, NodePort), (cluster, 85, ClusterIp)],
    );
    add(
        8,
        &[(b, 80)],
        flags::SOURCE_RANGES,
        &[(balancer, 80, LoadBalancer)],
    );
    let far = super::world::FAR[family];
    add(11, &[(far, 8080)], 0, &[(node, 30085, NodePort)]);
    let other = OTHER_NODE[family];
    add(12, &[(other, 9090)], 0, &[(node, 30086, NodePort)]);
    // Whoever sends this to a node speaks for other nodes.
    add(13, &[(other, 6081)], 0, &[(node, 30087, NodePort)]);
    add(14, &[(other, 8472)], 0, &[(node, 30088, NodePort)]);
    let sctp = Service {
        id: base + 9,
        protocol: Protocol::SCTP,
        internal: &[(b, 8080)],
        external: NO_BACKENDS,
        flags: 0,
        affinity: 0,
    };
    sctp.add(tables, &[(cluster, 86, ClusterIp)]);
    let sctp = Service {
        id: base + 10,
        internal: &[(b, 87)],
        ..sctp
    };
    sctp.add(tables, &[(cluster, 87, ClusterIp)]);
    for protocol in [0, 50] {
        tables.source_ranges.insert(SourceRangeKey {
            length: 160,
            service: ServiceId(base + 8 + protocol),
            address: ip(WORLD[family]),
        });
    }
}

impl Service<'_> {
    fn add(&self, tables: &mut MemoryTables, frontends: &[(&str, u16, FrontendKind)]) {
        let internal = self.run(tables, self.internal, backend_flags::INTERNAL);
        let external = self.run(tables, self.external, backend_flags::EXTERNAL);
        for (place, &(address, port, kind)) in (0_u32..).zip(frontends) {
            let key = FrontendKey::new(ip(address), Port::new(port), self.protocol);
            let row = FrontendRow {
                id: FrontendId(self.id * 10 + place),
                service: ServiceId(self.id),
                internal,
                external,
                affinity_timeout: self.affinity,
                kind: kind as u8,
                flags: self.flags,
                reserved: [0; 2],
            };
            assert!(tables.frontends.insert(key, row).is_none());
        }
    }

    fn run(&self, tables: &mut MemoryTables, backends: &[(&str, u16)], bit: u32) -> BackendRun {
        let first = tables.backends.keys().last().map_or(1, |last| last + 1);
        for (place, &(address, port)) in (first..).zip(backends) {
            let (address, port) = (ip(address), Port::new(port));
            let service = ServiceId(self.id);
            let row = BackendRow {
                address,
                service,
                port,
                reserved: [0; 2],
            };
            tables.backends.insert(place, row);
            let key = ServiceBackendKey {
                address,
                service,
                port,
                reserved: [0; 2],
            };
            let state: &mut ServiceBackendRow = tables.service_backends.entry(key).or_default();
            state.flags |= bit;
        }
        BackendRun {
            first,
            count: u32::try_from(backends.len()).unwrap(),
            maglev: 0,
        }
    }
}

/// The isolated pod, reached by the second pod's link, and who may talk to it.
pub(crate) fn add_policies(tables: &mut MemoryTables, links: &Links, family: usize) {
    let row = EndpointRow {
        ifindex: links.pod_b,
        identity: Identity(0x0d + 256),
        id: EndpointId(0x0d),
        flags: READY | ENFORCE_INGRESS | ENFORCE_EGRESS,
        mac: pod_mac(0x0d),
        policy_set: SET,
        ..EndpointRow::default()
    };
    let address = ip(ISOLATED[family]);
    tables.endpoints.insert(address, row);
    let known = |identity, blocks| IpcacheRow {
        identity,
        blocks,
        ..IpcacheRow::default()
    };
    let isolated = known(row.identity, BlockGroup::NONE);
    tables.ipcache.insert(PrefixKey::host(address), isolated);
    let world = [Identity::WORLD_IPV4, Identity::WORLD_IPV6][family];
    let block = known(world, GROUP);
    tables
        .ipcache
        .insert(PrefixKey::host(ip(BLOCKED[family])), block);

    let rule = |cookie, protocol, [first_port, last_port]: [u16; 2]| PortRule {
        cookie: PolicyCookie(cookie),
        first_port,
        last_port,
        precedence: 0,
        protocol: Protocol(protocol),
        flags: 0,
    };
    let ingress = PolicyDirection::Ingress;
    let pod_a = 0x0a + 256;
    let mut narrow: Vec<PortRule> = (0_u16..11)
        .map(|n| rule(20 + u32::from(n), 6, [9000 + 2 * n; 2]))
        .collect();
    narrow.push(rule(1, 6, [80, 80]));
    narrow.push(PortRule {
        precedence: 5,
        flags: rule_flags::DENY,
        ..rule(2, 6, [9004, 9004])
    });
    let mut put = |key, rules: &[PortRule]| {
        let parts = PolicyRow::parts(key, rules).unwrap();
        tables.policy.extend(parts);
    };
    put(
        PolicyKey::new(SET, ingress, PeerKind::Identity, pod_a),
        &narrow,
    );
    put(
        PolicyKey::new(SET, ingress, PeerKind::Any, 0),
        &[rule(3, 17, [5000, 5999])],
    );
    put(
        PolicyKey::blocks(SET, ingress, GROUP),
        &[rule(4, 0, [0, u16::MAX])],
    );
    let egress = PolicyDirection::Egress;
    put(
        PolicyKey::new(SET, egress, PeerKind::Identity, 0x0b + 256),
        &[rule(5, 6, [8080, 8080])],
    );
}
