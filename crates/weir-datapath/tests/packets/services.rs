// SPDX-License-Identifier: Apache-2.0
//! What holds for all connections through services, in whatever order their packets come: a backend sees no two of
//! them with one tuple, and answers come back from the address that was asked.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_abi::ipcache::PrefixKey;
use weir_abi::service::{FrontendKey, ServiceBackendKey, ServiceBackendRow, backend_flags};
use weir_abi::{IfIndex, MacAddress, Port, Protocol, Slot};
use weir_datapath::Hook;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Verdict};

use super::LINKS;
use super::judge::faults;
use super::properties::run;
use super::raw::{Ip, TCP, UDP, ethernet, tcp, udp};
use super::services::{CLUSTER, CLUSTER_TWIN};
use super::tuple::{Tuple, innermost, tuple};
use super::world::{NEIGHBOUR, NODE, POD_A, POD_B, REMOTE, WORLD, ip, pod_mac};

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Who asks whom: every way leads to port 8080 of the second pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Connection {
    client: usize,
    way: usize,
    protocol: usize,
    port: u16,
}

impl Connection {
    /// Clients of this node and outside of it.
    fn client(&self, family: usize) -> (&'static str, Hook, IfIndex, MacAddress) {
        match self.client {
            0 => (
                POD_A[family],
                Hook::FromContainer,
                LINKS.pod_a,
                pod_mac(0x0a),
            ),
            1 => (
                POD_B[family],
                Hook::FromContainer,
                LINKS.pod_b,
                pod_mac(0x0b),
            ),
            _ => (WORLD[family], Hook::FromNetdev, LINKS.underlay, NEIGHBOUR),
        }
    }

    /// Cluster IPs are for the cluster alone.
    fn asked(&self, family: usize) -> (&'static str, u16) {
        let ways = [
            (NODE[family], 30080),
            (POD_B[family], 8080),
            (CLUSTER[family], 80),
            (CLUSTER_TWIN[family], 80),
        ];
        ways[if self.client == 2 {
            self.way % 2
        } else {
            self.way
        }]
    }

    fn frame(&self, from: (&str, u16), to: (&str, u16), source: MacAddress, flags: u8) -> Vec<u8> {
        let ports = [from.1, to.1];
        let packet = if self.protocol == 0 {
            Ip::new(from.0, to.0, TCP).packet(&tcp(from.0, to.0, ports, flags, b"data"))
        } else {
            Ip::new(from.0, to.0, UDP).packet(&udp(from.0, to.0, ports, b"data"))
        };
        ethernet(source, MacAddress::GATEWAY, &packet)
    }
}

/// One exchange; answers the tuple that the backend saw.
fn talk(
    tables: &MemoryTables,
    family: usize,
    connection: Connection,
) -> Result<Tuple, TestCaseError> {
    let (client, hook, link, mac) = connection.client(family);
    let asked = connection.asked(family);
    let question = connection.frame((client, connection.port), asked, mac, SYN);
    let (verdict, sent) = run(tables, hook, link, &question);
    prop_assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(LINKS.pod_b)));
    prop_assert_eq!(faults(&sent), Vec::<String>::new());
    let seen = tuple(&sent);
    let backend = POD_B[family];
    prop_assert_eq!(
        (seen.destination, seen.destination_port),
        (ip(backend), 8080)
    );
    if connection.client != 1 {
        prop_assert_eq!(seen.source, ip(client), "the client's address is preserved");
    }

    let source = seen.source.to_string();
    let to = (source.as_str(), seen.source_port);
    let answer = connection.frame((backend, 8080), to, pod_mac(0x0b), SYN | ACK);
    let (verdict, got) = run(tables, Hook::FromContainer, LINKS.pod_b, &answer);
    let arrives = match verdict {
        Verdict::Redirect(Redirect::Peer(to)) => to == link && connection.client != 2,
        Verdict::Redirect(Redirect::Egress(to) | Redirect::Neighbour(to)) => {
            to == LINKS.underlay && connection.client == 2
        }
        Verdict::Redirect(_) | Verdict::Pass | Verdict::Drop(_) | Verdict::Answer(..) => false,
    };
    prop_assert!(arrives, "{verdict:?}");
    prop_assert_eq!(faults(&got), Vec::<String>::new());
    let got = tuple(&got);
    prop_assert_eq!((got.source, got.source_port), (ip(asked.0), asked.1));
    prop_assert_eq!(
        (got.destination, got.destination_port),
        (ip(client), connection.port)
    );
    Ok(seen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn services_with_one_backend_are_told_apart(
        family in 0..2_usize,
        steps in prop::collection::vec(
            (0..3_usize, 0..4_usize, 0..2_usize, 1000..1003_u16, any::<prop::sample::Index>()),
            1..80,
        ),
    ) {
        let tables = LINKS.tables(false);
        tables.now.set(1000);
        let mut seen: BTreeMap<Tuple, Connection> = BTreeMap::new();
        for (client, way, protocol, port, change) in steps {
            // The pod talks to itself through services only.
            let way = if client == 1 && way == 1 { 2 } else { way };
            let connection = Connection { client, way, protocol, port };
            let tuple = talk(&tables, family, connection)?;
            let same = |other: &Connection| {
                other.client == client
                    && other.protocol == protocol
                    && other.port == port
                    && other.asked(family) == connection.asked(family)
            };
            if let Some(other) = seen.insert(tuple, connection) {
                prop_assert!(same(&other), "{other:?} and {connection:?} share {tuple:?}");
            }
            match change.index(12) {
                0 => tables.bump(Slot::ALL),
                1 => tables.bump(Slot::of_address(&ip(POD_B[family]))),
                _ => {}
            }
        }
    }
}

/// The second pod is about to end: its service keeps the connections that it has, new ones go to the remote pod.
fn second_pod_leaves(tables: &mut MemoryTables, family: usize) {
    let (leaving, other) = (ip(POD_B[family]), ip(REMOTE[family]));
    let frontend = FrontendKey::new(ip(CLUSTER[family]), Port::new(80), Protocol::TCP);
    let service = tables.frontends[&frontend].service;
    for row in tables.backends.values_mut() {
        if row.service == service {
            row.address = other;
        }
    }
    let key = |address| ServiceBackendKey {
        address,
        service,
        port: Port::new(8080),
        reserved: [0; 2],
    };
    let flags = |flags| ServiceBackendRow { flags };
    let both = backend_flags::INTERNAL | backend_flags::EXTERNAL;
    let states = &mut tables.service_backends;
    states.insert(key(leaving), flags(backend_flags::TERMINATING));
    states.insert(key(other), flags(both));
    for address in [leaving, ip(CLUSTER[family])] {
        tables.bump(Slot::of_address(&address));
    }
}

/// Where the first pod's SYN, sent again after its backend began to leave, arrives.
fn second_try(answered: bool, family: usize) -> Tuple {
    try_again(answered, family, |tables| second_pod_leaves(tables, family))
}

/// Where the first pod's SYN, sent again after something has changed, arrives.
fn try_again(answered: bool, family: usize, change: impl FnOnce(&mut MemoryTables)) -> Tuple {
    let mut tables = LINKS.tables(false);
    tables.now.set(1000);
    let (client, service) = ((POD_A[family], 4711), (CLUSTER[family], 80));
    let connection = Connection {
        client: 0,
        way: 2,
        protocol: 0,
        port: client.1,
    };
    let open = |tables: &MemoryTables| {
        let frame = connection.frame(client, service, pod_mac(0x0a), SYN);
        let (verdict, sent) = run(tables, Hook::FromContainer, LINKS.pod_a, &frame);
        assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
        innermost(&sent)
    };
    let first = open(&tables);
    assert_eq!(first.destination, ip(POD_B[family]));
    if answered {
        let back = (POD_B[family], 8080);
        let frame = connection.frame(back, client, pod_mac(0x0b), SYN | ACK);
        let (verdict, _) = run(&tables, Hook::FromContainer, LINKS.pod_b, &frame);
        assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(LINKS.pod_a)));
    }
    change(&mut tables);
    open(&tables)
}

#[test]
fn a_connection_that_has_not_begun_leaves_a_backend_that_is_leaving() {
    for (family, other) in REMOTE.into_iter().enumerate() {
        let to = second_try(false, family);
        assert_eq!(to.destination, ip(other));
    }
}

#[test]
fn a_connection_that_was_answered_stays_with_a_backend_that_is_leaving() {
    for (family, own) in POD_B.into_iter().enumerate() {
        let to = second_try(true, family);
        assert_eq!(to.destination, ip(own));
    }
}

/// The first pod asks the service's address before there is a service, and again when there is one; answers where the
/// second packet arrives.
fn before_and_after(protocol: usize, family: usize) -> Tuple {
    let mut tables = LINKS.tables(false);
    tables.now.set(1000);
    let address = ip(CLUSTER[family]);
    let number = [Protocol::TCP, Protocol::UDP][protocol];
    let frontend = FrontendKey::new(address, Port::new(80), number);
    let row = tables.frontends.remove(&frontend).unwrap();
    let known = tables.ipcache.remove(&PrefixKey::host(address)).unwrap();
    let connection = Connection {
        client: 0,
        way: 2,
        protocol,
        port: 4711,
    };
    let frame = connection.frame(
        (POD_A[family], 4711),
        (CLUSTER[family], 80),
        pod_mac(0x0a),
        SYN,
    );
    let ask = |tables: &MemoryTables| {
        let (verdict, sent) = run(tables, Hook::FromContainer, LINKS.pod_a, &frame);
        assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
        innermost(&sent)
    };
    assert_eq!(ask(&tables).destination, address, "out into the world");
    tables.frontends.insert(frontend, row);
    tables.ipcache.insert(PrefixKey::host(address), known);
    tables.bump(Slot::of_address(&address));
    ask(&tables)
}

#[test]
fn what_was_sent_before_there_was_a_service_reaches_it_once_there_is() {
    for (family, backend) in POD_B.into_iter().enumerate() {
        for protocol in 0..2 {
            let to = before_and_after(protocol, family);
            assert_eq!(to.destination, ip(backend), "{protocol}");
        }
    }
}

#[test]
fn a_connection_that_begins_again_is_not_sent_to_a_backend_that_is_gone() {
    for (family, other) in REMOTE.into_iter().enumerate() {
        let to = try_again(true, family, |tables| {
            second_pod_leaves(tables, family);
            let gone = ip(POD_B[family]);
            tables.service_backends.retain(|key, _| key.address != gone);
        });
        assert_eq!(to.destination, ip(other));
    }
}
