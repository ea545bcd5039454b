// SPDX-License-Identifier: Apache-2.0
//! What holds for all masqueraded connections, in whatever order their packets come: no two share a mapping, an
//! answer goes to the pod that asked with the tuple that it asked with, every checksum is right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_abi::{DropReason, IfIndex, MacAddress, Slot};
use weir_datapath::Hook;
use weir_packet::memory::MemoryPacket;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Verdict, Workspace};

use super::LINKS;
use super::judge::faults;
use super::raw::{Ip, TCP, UDP, ethernet, icmp, icmp_of, tcp, udp};
use super::tuple::{Tuple, tuple};
use super::world::{NEIGHBOUR, NODE, POD_A, POD_B, ip, pod_mac};

/// Few destinations and few ports, so that connections collide.
const WORLDS: [[&str; 2]; 2] = [
    ["203.0.113.10", "2001:db8:113::10"],
    ["203.0.113.11", "2001:db8:113::11"],
];
const SYN: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Connection {
    pod: usize,
    world: usize,
    protocol: usize,
    source_port: u16,
    destination_port: u16,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The pod sends, and the world answers.
    Talk(Connection),
    /// Everything has to be decided again.
    Change,
    /// Time passes.
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let connection = (
        0..2_usize,
        0..2_usize,
        0..3_usize,
        1000..1012_u16,
        80..82_u16,
    )
        .prop_map(
            |(pod, world, protocol, source_port, destination_port)| Connection {
                pod,
                world,
                protocol,
                source_port,
                destination_port: if protocol == 2 { 0 } else { destination_port },
            },
        );
    prop_oneof![
        8 => connection.prop_map(Step::Talk),
        1 => Just(Step::Change),
        1 => (1..30_u32).prop_map(Step::Wait),
    ]
}

pub(crate) fn run(
    tables: &MemoryTables,
    hook: Hook,
    link: IfIndex,
    frame: &[u8],
) -> (Verdict, Vec<u8>) {
    let mut packet = MemoryPacket::new(frame.to_vec());
    let verdict = weir_verdict::run(&mut packet, tables, hook, link, &mut Workspace::default());
    (verdict, packet.bytes().to_vec())
}

impl Connection {
    /// The packet that the pod sends.
    fn question(&self, family: usize) -> Vec<u8> {
        let (from, to) = ([POD_A, POD_B][self.pod][family], WORLDS[self.world][family]);
        let ports = [self.source_port, self.destination_port];
        let [high, low] = self.source_port.to_be_bytes();
        let (protocol, payload) = match self.protocol {
            0 => (TCP, tcp(from, to, ports, SYN, b"question")),
            1 => (UDP, udp(from, to, ports, b"question")),
            _ => {
                let kind = [[8, 0], [128, 0]][family];
                (
                    icmp_of(family),
                    icmp(from, to, kind, [high, low, 0, 1], b"question"),
                )
            }
        };
        let packet = Ip::new(from, to, protocol).packet(&payload);
        ethernet(
            pod_mac([0x0a, 0x0b][self.pod]),
            MacAddress::GATEWAY,
            &packet,
        )
    }

    /// What the world answers to what it saw.
    fn answer(&self, family: usize, port: u16) -> Vec<u8> {
        let (from, to) = (WORLDS[self.world][family], NODE[family]);
        let ports = [self.destination_port, port];
        let [high, low] = port.to_be_bytes();
        let (protocol, payload) = match self.protocol {
            0 => (TCP, tcp(from, to, ports, SYN | 16, b"answer")),
            1 => (UDP, udp(from, to, ports, b"answer")),
            _ => {
                let kind = [[0, 0], [129, 0]][family];
                (
                    icmp_of(family),
                    icmp(from, to, kind, [high, low, 0, 1], b"answer"),
                )
            }
        };
        let packet = Ip::new(from, to, protocol).packet(&payload);
        ethernet(NEIGHBOUR, pod_mac(1), &packet)
    }

    fn link(&self) -> IfIndex {
        [LINKS.pod_a, LINKS.pod_b][self.pod]
    }
}

/// One exchange; answers the tuple that the world saw, or nothing where no port was left.
fn talk(
    tables: &MemoryTables,
    family: usize,
    connection: Connection,
) -> Result<Option<Tuple>, TestCaseError> {
    let question = connection.question(family);
    let (verdict, sent) = run(tables, Hook::FromContainer, connection.link(), &question);
    if verdict == Verdict::Drop(DropReason::NoMasqueradeMapping) {
        return Ok(None);
    }
    let to_network = matches!(
        verdict,
        Verdict::Redirect(Redirect::Egress(to) | Redirect::Neighbour(to)) if to == LINKS.underlay
    );
    prop_assert!(to_network, "{verdict:?}");
    prop_assert_eq!(faults(&sent), Vec::<String>::new());
    let seen = tuple(&sent);
    prop_assert_eq!(seen.source, ip(NODE[family]));

    let answer = connection.answer(family, seen.source_port);
    let (verdict, got) = run(tables, Hook::FromNetdev, LINKS.underlay, &answer);
    prop_assert_eq!(
        verdict,
        Verdict::Redirect(Redirect::Peer(connection.link()))
    );
    prop_assert_eq!(faults(&got), Vec::<String>::new());
    let (asked, answered) = (tuple(&question), tuple(&got));
    prop_assert_eq!(answered.source, asked.destination);
    prop_assert_eq!(answered.destination, asked.source);
    if connection.protocol < 2 {
        prop_assert_eq!(answered.source_port, asked.destination_port);
        prop_assert_eq!(answered.destination_port, asked.source_port);
    } else {
        prop_assert_eq!(answered.source_port, asked.source_port, "identifier");
    }
    Ok(Some(seen))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn mappings_are_unique_and_answers_come_back(
        family in 0..2_usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut tables = LINKS.tables(false);
        tables.config.timeout_tcp_syn = 60;
        tables.config.timeout_other = 60;
        tables.config.report_interval = 5;
        tables.config.masquerade_port_min = 50_000;
        tables.config.masquerade_port_max = 50_015;
        let mut now = 1000;
        // What the world sees of each connection, while it lives.
        let mut mappings: BTreeMap<Tuple, (Connection, u32)> = BTreeMap::new();
        for step in steps {
            tables.now.set(now);
            match step {
                Step::Change => tables.bump(Slot::ALL),
                Step::Wait(seconds) => now += seconds,
                Step::Talk(connection) => {
                    let Some(seen) = talk(&tables, family, connection)? else { continue };
                    let before = mappings.insert(seen, (connection, now));
                    let shortest = u32::from(tables.config.timeout_other);
                    if let Some((other, when)) = before {
                        prop_assert!(other == connection || when + shortest <= now,
                            "{other:?} and {connection:?} share {seen:?}");
                    }
                }
            }
        }
    }
}
