// SPDX-License-Identifier: Apache-2.0
//! The first node of a random cluster: its rows in the kernel's maps and in tables in memory, and packets that ask
//! both.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::config::features;
use weir_abi::event::kind;
use weir_abi::{DatapathConfig, DropReason, IfIndex, MacAddress, Protocol};
use weir_compile::{Plan, Rows, plan};
use weir_datapath::{Datapath, DryRun, Hook, execute};
use weir_net::{Netlink, Route as KernelRoute, sysctl};
use weir_packet::memory::MemoryPacket;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Route, Verdict, Workspace};

use super::evaluator::{End, Probe};
use super::kernel::Node;
use super::node::loader_with;
use super::random::{node_addresses, node_name};
use super::raw::{Ip, SCTP, TCP, UDP, ethernet, icmp, icmp_of, sctp, tcp, udp, vxlan};
use super::veth::veth;
use super::world::{NEIGHBOUR, UNDERLAY_MTU, ip};

const ROOT: &str = "/sys/fs/bpf/policies";
/// Every pod of a random cluster may be on the node, and numbers begin at two.
const LINKS: u16 = 28;
const GATEWAY: [&str; 2] = ["172.18.0.254", "fd00:18::fe"];
const SYN: u8 = 2;
/// The MAC address that all pods of a random cluster have.
const POD: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

pub(crate) struct OneNode {
    datapath: Datapath,
    dry: DryRun,
    config: DatapathConfig,
    /// By the number of the endpoint.
    links: Vec<IfIndex>,
    host: IfIndex,
    underlay: IfIndex,
    underlay_mac: MacAddress,
}

impl OneNode {
    /// Loads the programs in the namespace of the calling thread, beside links for pods and a way out.
    pub(crate) fn make() -> Self {
        let links =
            (0..LINKS).map(|number| veth(&format!("weir{number:x}"), &format!("p{number:x}")).0);
        let links: Vec<_> = links.collect();
        let (host, _) = veth("weir_host", "weir_net");
        let (underlay, _) = veth("underlay", "far");
        let mac = connect("underlay");
        let default = DatapathConfig::DEFAULT;
        let [v4, v6]: [IpAddr; 2] = node_addresses(1).try_into().unwrap();
        let config = DatapathConfig {
            host,
            node_ipv4: v4.into(),
            node_ipv6: v6.into(),
            underlay_mtu: UNDERLAY_MTU,
            pod_mtu: UNDERLAY_MTU - 50,
            ..default
        };
        let loader = || loader_with(ROOT, &[("policy", 65_536), ("policy_hits", 65_536)]);
        let datapath = loader()
            .load(&config)
            .unwrap_or_else(|error| panic!("{error}"));
        let dry = DryRun::new(loader(), config);
        Self {
            datapath,
            config: *dry.config(),
            dry,
            links,
            host,
            underlay,
            underlay_mac: mac,
        }
    }

    /// The node as one that has seen nothing, in the kernel too.
    pub(crate) fn start(&self) -> Node {
        self.execute(&plan(&self.rows(), &Rows::default()));
        let mut node = Node::new(&node_name(1));
        node.links.clone_from(&self.links);
        node
    }

    pub(crate) fn execute(&self, plan: &Plan) {
        let outcome = execute(&self.datapath.maps, plan);
        assert!(outcome.is_complete(), "{:?}", outcome.failures);
    }

    /// What the kernel holds.
    pub(crate) fn rows(&self) -> Rows {
        self.datapath.maps.read_back().unwrap()
    }

    /// The same rows in memory.
    pub(crate) fn tables(&self) -> MemoryTables {
        let rows = self.rows();
        let mut tables = MemoryTables::default();
        tables.config = self.config;
        tables.now.set(1000);
        tables.endpoints.extend(rows.endpoints);
        tables.ipcache = rows.ipcache;
        let exempt = rows.masquerade_exempt.into_iter();
        tables.masquerade_exempt = exempt.map(|key| (key, ())).collect();
        let nodes = rows.nodes.into_iter();
        tables.nodes = nodes.map(|(index, row)| (index.get(), row)).collect();
        tables.policy.extend(rows.policy);
        let route = Route {
            egress: self.underlay,
            mtu: UNDERLAY_MTU,
            source_mac: self.underlay_mac,
            destination_mac: NEIGHBOUR,
        };
        for all in ["0.0.0.0/0", "::/0"] {
            let all = weir_compile::prefix::prefix_key(all.parse().unwrap());
            tables.routes.insert(all, Ok(route));
        }
        tables
    }

    /// Whether the first packet of a connection passes: what the user-space build decides, and what the programs do.
    /// It may be stopped by policy alone.
    pub(crate) fn ask(
        &self,
        tables: &MemoryTables,
        from: &End,
        to: &End,
        probe: Probe,
    ) -> (bool, bool) {
        assert!(
            tables.config.has(features::DRY_RUN),
            "nothing may be left behind"
        );
        let (hook, link, frame) = self.packet(tables, from, to, probe);
        let mut packet = MemoryPacket::new(frame.clone());
        let decided =
            match weir_verdict::run(&mut packet, tables, hook, link, &mut Workspace::default()) {
                Verdict::Pass | Verdict::Redirect(_) => None,
                Verdict::Drop(reason) | Verdict::Answer(reason, _) => Some(reason),
            };
        let output = self.dry.run(hook, link, &frame).unwrap();
        let done = (output.record.kind == kind::DROP)
            .then(|| DropReason::from_number(output.record.subtype).unwrap());
        let passes = |reason: Option<DropReason>| match reason {
            None => true,
            Some(DropReason::PolicyDenied) => false,
            Some(other) => panic!("{from:?} -> {to:?} {probe:?}: {other:?}"),
        };
        (passes(decided), passes(done))
    }

    /// The packet, and where it meets a program.
    fn packet(
        &self,
        tables: &MemoryTables,
        from: &End,
        to: &End,
        probe: Probe,
    ) -> (Hook, IfIndex, Vec<u8>) {
        let packet = first_packet(
            &from.address().to_string(),
            &to.address().to_string(),
            probe,
        );
        let [own, other] = [1, 2].map(|number| node_addresses(number)[0].to_string());
        let tunnelled = || {
            let payload = vxlan([0, 0, 1], &packet);
            let outer =
                Ip::new(&other, &own, UDP).packet(&udp(&other, &own, [50_000, 8472], &payload));
            (
                Hook::FromNetdev,
                self.underlay,
                ethernet(NEIGHBOUR, self.underlay_mac, &outer),
            )
        };
        match from {
            End::Pod(pod, address) if pod.node == Some(node_name(1)) => {
                let row = &tables.endpoints[&(*address).into()];
                (
                    Hook::FromContainer,
                    row.ifindex,
                    ethernet(POD, MacAddress::GATEWAY, &packet),
                )
            }
            End::Node(name, _) if *name == node_name(1) => {
                let mac = MacAddress([2, 0, 0, 0, 0, 2]);
                (
                    Hook::FromHost,
                    self.host,
                    ethernet(mac, MacAddress::GATEWAY, &packet),
                )
            }
            End::Pod(..) | End::Node(..) => tunnelled(),
            End::Other(_) => (
                Hook::FromNetdev,
                self.underlay,
                ethernet(NEIGHBOUR, self.underlay_mac, &packet),
            ),
        }
    }
}

/// Gives the node its addresses, a next hop for everything, and answers the MAC address of its link.
fn connect(underlay: &str) -> MacAddress {
    sysctl::write("net.ipv4.ip_forward", "1").unwrap();
    sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.require_link(underlay).unwrap();
    for (address, gateway) in node_addresses(1).into_iter().zip(GATEWAY) {
        let gateway: IpAddr = gateway.parse().unwrap();
        let all: IpNet = if gateway.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        }
        .parse()
        .unwrap();
        netlink
            .ensure_address(link.index, IpNet::from(address))
            .unwrap();
        let near = KernelRoute::device(IpNet::from(gateway), link.index);
        netlink.ensure_route(&near).unwrap();
        netlink
            .ensure_route(&KernelRoute::via(all, gateway, link.index))
            .unwrap();
        let mac = NEIGHBOUR.to_string().parse().unwrap();
        netlink
            .replace_permanent_neighbour(link.index, gateway, mac)
            .unwrap();
    }
    let mac = link.mac.unwrap().to_string();
    let bytes = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap());
    MacAddress(bytes.collect::<Vec<_>>().try_into().unwrap())
}

/// The packet that opens a connection.
fn first_packet(from: &str, to: &str, probe: Probe) -> Vec<u8> {
    let ports = [40_000, probe.port];
    let (protocol, payload) = match probe.protocol {
        Protocol::TCP => (TCP, tcp(from, to, ports, SYN, b"")),
        Protocol::UDP => (UDP, udp(from, to, ports, b"data")),
        Protocol::SCTP => (SCTP, sctp(ports)),
        _ => {
            let family = usize::from(!ip(from).is_v4());
            let kind = [[8, 0], [128, 0]][family];
            (icmp_of(family), icmp(from, to, kind, [0, 7, 0, 1], b"data"))
        }
    };
    Ip::new(from, to, protocol).packet(&payload)
}
