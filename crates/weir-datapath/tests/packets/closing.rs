// SPDX-License-Identifier: Apache-2.0
//! How long a TCP connection is remembered when its ends have said that they will send no more.

use weir_abi::{FlowKey, IfIndex, MacAddress, Seconds};
use weir_datapath::Hook;
use weir_verdict::memory::MemoryTables;

use super::LINKS;
use super::properties::run;
use super::raw::{Ip, TCP, ethernet, tcp};
use super::world::{POD_A, POD_B, pod_mac};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const NOW: u32 = 1000;

/// Two pods of one node, of which the first one asks.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

fn send(tables: &MemoryTables, family: usize, from: Side, flags: u8) {
    let (client, server) = ((POD_A[family], 4711), (POD_B[family], 8080));
    let (link, mac, from, to): (IfIndex, MacAddress, _, _) = match from {
        Side::Client => (LINKS.pod_a, pod_mac(0x0a), client, server),
        Side::Server => (LINKS.pod_b, pod_mac(0x0b), server, client),
    };
    let segment = tcp(from.0, to.0, [from.1, to.1], flags, b"");
    let packet = Ip::new(from.0, to.0, TCP).packet(&segment);
    let frame = ethernet(mac, MacAddress::GATEWAY, &packet);
    let (verdict, _) = run(tables, Hook::FromContainer, link, &frame);
    assert!(
        matches!(verdict, weir_verdict::Verdict::Redirect(_)),
        "{verdict:?}"
    );
}

/// Seconds that each direction has left after these packets.
fn left(family: usize, packets: &[(Side, u8)]) -> Vec<u32> {
    let tables = LINKS.tables(false);
    tables.now.set(NOW);
    for (from, flags) in packets {
        send(&tables, family, *from, *flags);
    }
    let flows: Vec<(FlowKey, _)> = tables.flows().into_iter().collect();
    assert_eq!(flows.len(), 2, "{flows:?}");
    let left = flows
        .iter()
        .map(|(_, entry)| entry.expires.0 - Seconds(NOW).0);
    left.collect()
}

#[test]
fn the_closer_to_its_end_the_shorter_a_connection_is_remembered() {
    use Side::{Client, Server};
    let config = LINKS.tables(false).config;
    let open = [
        (Client, SYN),
        (Server, SYN | ACK),
        (Client, ACK),
        (Server, ACK),
    ];
    let with = |more: &[(Side, u8)]| [&open, more].concat();
    let checks = [
        (with(&[]), config.timeout_tcp),
        (with(&[(Client, FIN | ACK)]), config.timeout_tcp_half_closed),
        (
            with(&[(Client, FIN | ACK), (Server, ACK)]),
            config.timeout_tcp_half_closed,
        ),
        (
            with(&[(Server, FIN | ACK), (Client, ACK)]),
            config.timeout_tcp_half_closed,
        ),
        (
            with(&[(Client, FIN | ACK), (Server, FIN | ACK), (Client, ACK)]),
            config.timeout_tcp_closing,
        ),
        (with(&[(Server, RST | ACK)]), config.timeout_tcp_closing),
    ];
    for family in 0..2 {
        for (number, (packets, seconds)) in checks.iter().enumerate() {
            let seconds = u32::from(*seconds);
            assert_eq!(
                left(family, packets),
                [seconds; 2],
                "IPv{}, {number}",
                [4, 6][family]
            );
        }
    }
}
