// SPDX-License-Identifier: Apache-2.0
//! What holds for all connections that one node is asked for and another one answers, in whatever order their
//! packets come and whatever either node forgets: the backend sees the client, no two connections with one tuple, and
//! the client gets its answers from the address that it asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_abi::flow::Kind;
use weir_abi::ipcache::{PrefixKey, flags};
use weir_abi::node::NodeRow;
use weir_abi::service::FrontendKey;
use weir_abi::{EndpointId, EndpointRow, Identity, MacAddress, NodeIndex, Port, Protocol, Slot};
use weir_compile::prefix::prefix_key;
use weir_datapath::Hook;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Verdict};

use super::LINKS;
use super::judge::faults;
use super::properties::run;
use super::raw::{Ip, TCP, UDP, ethernet, tcp, udp};
use super::services::{BALANCER, CLUSTER_TWIN};
use super::tuple::{Tuple, innermost, named, tuple};
use super::world::{NEIGHBOUR, NODE, OTHER_NODE, REMOTE, REMOTE_NODE, WORLD, ip, pod_mac};

const SYN: u8 = 2;
const ACK: u8 = 16;
const BACKEND_PORT: u16 = 8080;

/// The addresses and ports by which the one backend is reached.
const fn asked(way: usize, family: usize) -> (&'static str, u16) {
    [
        (NODE[family], 30_081),
        (BALANCER[family], 81),
        (CLUSTER_TWIN[family], 82),
    ][way]
}

/// The node that is asked.
fn front(native: bool) -> MemoryTables {
    let mut tables = LINKS.direct_tables(native);
    for family in 0..2 {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let key = |way| {
                let (address, port) = asked(way, family);
                FrontendKey::new(ip(address), Port::new(port), protocol)
            };
            let row = tables.frontends[&key(0)];
            tables.frontends.extend([(key(1), row), (key(2), row)]);
        }
    }
    tables
}

/// The backend's node: the same cluster from the other side.
fn back(native: bool) -> MemoryTables {
    let mut tables = LINKS.direct_tables(native);
    tables.config.node_ipv4 = ip(OTHER_NODE[0]);
    tables.config.node_ipv6 = ip(OTHER_NODE[1]);
    tables.frontends.clear();
    tables.endpoints.clear();
    for family in 0..2 {
        let row = EndpointRow {
            ifindex: LINKS.pod_b,
            identity: Identity(300),
            id: EndpointId(0x0e),
            flags: weir_abi::endpoint::flags::READY,
            mac: pod_mac(0x0e),
            ..EndpointRow::default()
        };
        tables.endpoints.insert(ip(REMOTE[family]), row);
        let mut change = |key, identity, node, flags| {
            let row = tables.ipcache.entry(key).or_default();
            (row.identity, row.node, row.flags) = (identity, node, flags);
        };
        let none = NodeIndex::NONE;
        let host = |names: [&str; 2]| PrefixKey::host(ip(names[family]));
        change(host(REMOTE), Identity(300), none, 0);
        change(host(OTHER_NODE), Identity::HOST, none, 0);
        change(host(NODE), Identity::REMOTE_NODE, REMOTE_NODE, 0);
        let range = ["10.244.2.0/24", "fd00:244:2::/64"][family];
        let range = prefix_key(range.parse().unwrap());
        change(range, Identity::UNKNOWN, none, flags::LOCAL_RANGE);
    }
    let row = NodeRow {
        local: ip(OTHER_NODE[0]),
        remote: ip(NODE[0]),
    };
    tables.nodes.insert(REMOTE_NODE.get(), row);
    tables
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Connection {
    way: usize,
    is_tcp: bool,
    port: u16,
}

impl Connection {
    fn frame(&self, from: (&str, u16), to: (&str, u16), source: MacAddress, flags: u8) -> Vec<u8> {
        let ports = [from.1, to.1];
        let packet = if self.is_tcp {
            Ip::new(from.0, to.0, TCP).packet(&tcp(from.0, to.0, ports, flags, b"data"))
        } else {
            Ip::new(from.0, to.0, UDP).packet(&udp(from.0, to.0, ports, b"data"))
        };
        ethernet(source, MacAddress::GATEWAY, &packet)
    }
}

fn leaves(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Redirect(Redirect::Egress(to) | Redirect::Neighbour(to)) if to == LINKS.underlay
    )
}

/// One exchange; answers the tuple that the backend saw.
fn talk(
    [front, back]: [&MemoryTables; 2],
    family: usize,
    connection: Connection,
    flags: u8,
) -> Result<Tuple, TestCaseError> {
    let (client, backend) = (WORLD[family], REMOTE[family]);
    let asked = asked(connection.way, family);
    let question = connection.frame((client, connection.port), asked, NEIGHBOUR, flags);
    let (verdict, sent) = run(front, Hook::FromNetdev, LINKS.underlay, &question);
    prop_assert!(leaves(verdict), "{verdict:?}");
    prop_assert_eq!(faults(&sent), Vec::<String>::new());
    prop_assert_eq!(named(&sent), Some((ip(backend), BACKEND_PORT)));
    prop_assert_eq!(innermost(&sent), tuple(&question));

    let (verdict, got) = run(back, Hook::FromNetdev, LINKS.underlay, &sent);
    prop_assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(LINKS.pod_b)));
    prop_assert_eq!(faults(&got), Vec::<String>::new());
    let seen = tuple(&got);
    let to = (seen.destination, seen.destination_port);
    prop_assert_eq!((seen.source, to), (ip(client), (ip(backend), BACKEND_PORT)));

    let to = (client, seen.source_port);
    let answer = connection.frame((backend, BACKEND_PORT), to, pod_mac(0x0e), flags | ACK);
    let (verdict, got) = run(back, Hook::FromContainer, LINKS.pod_b, &answer);
    prop_assert!(leaves(verdict), "{verdict:?}");
    prop_assert_eq!(faults(&got), Vec::<String>::new());
    let got = tuple(&got);
    prop_assert_eq!((got.source, got.source_port), (ip(asked.0), asked.1));
    let to = (got.destination, got.destination_port);
    prop_assert_eq!(to, (ip(client), connection.port));
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn clients_are_answered_by_the_backends_node(
        family in 0..2_usize,
        native: bool,
        steps in prop::collection::vec(
            (0..3_usize, any::<bool>(), 1000..1003_u16, 1..6_u8, any::<prop::sample::Index>()),
            1..60,
        ),
    ) {
        let (front, back) = (front(native), back(native));
        let mut seen: BTreeMap<Tuple, Connection> = BTreeMap::new();
        front.now.set(1000);
        back.now.set(1000);
        for (way, is_tcp, port, packets, change) in steps {
            let connection = Connection { way, is_tcp, port };
            for packet in 0..packets {
                let flags = if packet == 0 { SYN } else { ACK };
                let tuple = talk([&front, &back], family, connection, flags)?;
                if let Some(other) = seen.insert(tuple, connection) {
                    prop_assert_eq!(other, connection, "share {:?}", tuple);
                }
            }
            match change.index(8) {
                0 => front.bump(Slot::ALL),
                1 => back.bump(Slot::ALL),
                2 => back.bump(Slot::of_address(&ip(REMOTE[family]))),
                3 => {
                    let keys: Vec<_> = front.flows().into_keys().collect();
                    front.evict(&keys[change.index(keys.len())]);
                }
                4 => {
                    // Half of a connection of the backend's node, which the next packet puts back.
                    let flows = back.flows();
                    let halves = flows.iter().filter(|(_, entry)| !entry.kind.contains(Kind::REPLY));
                    let keys: Vec<_> = halves.map(|(key, _)| *key).collect();
                    back.evict(&keys[change.index(keys.len())]);
                }
                _ => {}
            }
        }
        // Nobody could undo a translation here, and there is none.
        for (key, entry) in front.flows() {
            prop_assert!(entry.kind.contains(Kind::DIRECT), "{key:?} {entry:?}");
            prop_assert_eq!(key.source, ip(WORLD[family]));
        }
    }
}

/// Two connections of one client port, of which the backend's node had to give the second another port: when the first is
/// long over, the second one is still seen under the port that it has, whatever else changes.
#[test]
fn a_connection_keeps_the_port_that_the_backend_knows() -> Result<(), TestCaseError> {
    for (family, native, is_tcp) in [0, 1]
        .into_iter()
        .flat_map(|family| [false, true].map(|native| (family, native)))
        .flat_map(|(family, native)| [false, true].map(|is_tcp| (family, native, is_tcp)))
    {
        let (front, back) = (front(native), back(native));
        let of = |way| Connection {
            way,
            is_tcp,
            port: 1000,
        };
        let at = |now| {
            front.now.set(now);
            back.now.set(now);
        };
        at(1000);
        let first = talk([&front, &back], family, of(0), SYN)?;
        let second = talk([&front, &back], family, of(1), SYN)?;
        prop_assert_ne!(first.source_port, second.source_port);
        // Long enough for the first one to be forgotten, and often enough for the second one to live.
        for now in (2000..20_000).step_by(1000) {
            at(now);
            back.bump(Slot::ALL);
            let seen = talk([&front, &back], family, of(1), ACK)?;
            prop_assert_eq!(seen, second, "after {} seconds", now - 1000);
        }
    }
    Ok(())
}
