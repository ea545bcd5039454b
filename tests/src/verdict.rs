// SPDX-License-Identifier: Apache-2.0
//! What may come to any hook: decided without harm, and what leaves is as right as what came.

use std::collections::BTreeMap;

use etherparse::{LaxSlicedPacket, NetSlice, TransportSlice};
use weir_abi::config::features;
use weir_abi::endpoint::flags::READY;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::node::NodeRow;
use weir_abi::observation::Hook;
use weir_abi::{
    Address, DatapathConfig, EndpointId, EndpointRow, Identity, IfIndex, MacAddress, NodeIndex,
    Port,
};
use weir_packet::memory::MemoryPacket;
use weir_packet::{PacketRead as _, Room};
use weir_verdict::decision::Workspace;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Route, Verdict, run};

use crate::seeds;

const POD_LINK: IfIndex = IfIndex(5);
const UNDERLAY: IfIndex = IfIndex(2);
const WEIR_HOST: IfIndex = IfIndex(3);

const HOOKS: [(Hook, IfIndex); 4] = [
    (Hook::FromContainer, POD_LINK),
    (Hook::FromNetdev, UNDERLAY),
    (Hook::ToNetdev, UNDERLAY),
    (Hook::FromHost, WEIR_HOST),
];

/// Sends a frame to every hook, three times: the first is decided, the second finds the flow, and before the third
/// everything that the flow depended on changes.
pub fn check(frame: &[u8]) {
    for (tunnel, direct) in [(true, false), (false, false), (true, true), (false, true)] {
        for (hook, link) in HOOKS {
            let tables = tables(tunnel, direct);
            for _ in 0..2 {
                send(&tables, hook, link, frame);
            }
            tables.bump(weir_abi::Slot::ALL);
            send(&tables, hook, link, frame);
        }
    }
}

fn send(tables: &MemoryTables, hook: Hook, link: IfIndex, frame: &[u8]) {
    let mut packet = MemoryPacket::new(frame.to_vec());
    let verdict = run(&mut packet, tables, hook, link, &mut Workspace::default());
    match verdict {
        // The kernel reads an untouched packet.
        Verdict::Pass => assert_eq!(packet.bytes(), frame, "a packet that passes was changed"),
        Verdict::Drop(reason) => assert!(reason.number() >= 130),
        Verdict::Answer(_, to) => assert_eq!(to, Redirect::Egress(link), "an answer goes back"),
        Verdict::Redirect(_) => {
            assert!(packet.length() >= 14);
            if intact(frame, 0) && was_intact_inside(frame, packet.bytes()) {
                assert!(
                    intact(packet.bytes(), 0),
                    "{hook:?} broke a checksum: {verdict:?}"
                );
                inner_intact(frame, packet.bytes());
            }
        }
    }
}

/// Whether a packet that came out of its outer headers was right inside of them: nobody looks at it before, and the
/// checksum outside may be left out.
fn was_intact_inside(before: &[u8], after: &[u8]) -> bool {
    let outer = Room::DispatchV4.bytes() as usize;
    after.len() + outer != before.len() || intact(before, outer)
}

/// What was put into a tunnel is right inside of it too.
fn inner_intact(before: &[u8], after: &[u8]) {
    let rooms = [
        Room::TunnelV4,
        Room::TunnelV6,
        Room::DispatchV4,
        Room::DispatchV6,
    ];
    for room in rooms {
        let outer = room.bytes() as usize;
        if after.len() == before.len() + outer {
            assert!(intact(after, outer), "a checksum in the tunnel is wrong");
        }
    }
}

/// Whether an independent parser finds every checksum right, in a frame whose first `skip` bytes behind the Ethernet
/// header are not looked at. What it cannot read has none that could be wrong.
fn intact(frame: &[u8], skip: usize) -> bool {
    let Some(ip) = frame.get(14 + skip..) else {
        return true;
    };
    let Ok(sliced) = LaxSlicedPacket::from_ip(ip) else {
        return true;
    };
    if sliced.stop_err.is_some() {
        return true;
    }
    let header = match sliced.net.as_ref() {
        Some(etherparse::LaxNetSlice::Ipv4(v4)) => {
            let header = v4.header().to_header();
            header.header_checksum == header.calc_header_checksum()
        }
        _ => true,
    };
    header && transport_intact(ip)
}

/// The same for the transport checksum, where the packet is whole.
fn transport_intact(ip: &[u8]) -> bool {
    let Ok(sliced) = etherparse::SlicedPacket::from_ip(ip) else {
        return true;
    };
    let (Some(net), Some(transport)) = (sliced.net, sliced.transport) else {
        return true;
    };
    match (net, transport) {
        (NetSlice::Ipv4(v4), TransportSlice::Tcp(tcp)) => tcp
            .calc_checksum_ipv4(v4.header().source(), v4.header().destination())
            .is_ok_and(|sum| sum == tcp.checksum()),
        (NetSlice::Ipv6(v6), TransportSlice::Tcp(tcp)) => tcp
            .calc_checksum_ipv6(v6.header().source(), v6.header().destination())
            .is_ok_and(|sum| sum == tcp.checksum()),
        (NetSlice::Ipv4(v4), TransportSlice::Udp(udp)) if udp.checksum() != 0 => udp
            .to_header()
            .calc_checksum_ipv4_raw(
                v4.header().source(),
                v4.header().destination(),
                udp.payload(),
            )
            .is_ok_and(|sum| sum == udp.checksum()),
        (NetSlice::Ipv6(v6), TransportSlice::Udp(udp)) if udp.checksum() != 0 => udp
            .to_header()
            .calc_checksum_ipv6_raw(
                v6.header().source(),
                v6.header().destination(),
                udp.payload(),
            )
            .is_ok_and(|sum| sum == udp.checksum()),
        (NetSlice::Ipv6(v6), TransportSlice::Icmpv6(icmp)) => {
            icmp.is_checksum_valid(v6.header().source(), v6.header().destination())
        }
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
        }
        _ => true,
    }
}

/// A node with one pod, a neighbour node with another, and a world behind a router.
fn tables(tunnel: bool, direct: bool) -> MemoryTables {
    let pods = seeds::pods();
    let nodes = seeds::nodes();
    let mut config = DatapathConfig {
        host: WEIR_HOST,
        node_ipv4: nodes[0],
        node_ipv6: Address([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
        tunnel_port: Port::new(8472),
        ..DatapathConfig::DEFAULT
    };
    if !tunnel {
        config.features &= !features::TUNNEL;
    }
    if direct {
        config.features |= features::DIRECT_RETURN;
    }
    let endpoint = EndpointRow {
        ifindex: POD_LINK,
        identity: Identity::FIRST_POD,
        id: EndpointId(7),
        flags: READY,
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        ..EndpointRow::default()
    };
    let node = if tunnel || direct {
        NodeIndex(1)
    } else {
        NodeIndex::NONE
    };
    let row = |identity, node, flags| IpcacheRow {
        identity,
        blocks: weir_abi::BlockGroup::NONE,
        node,
        flags,
    };
    let mut ipcache = BTreeMap::from([
        (
            PrefixKey::host(nodes[0]),
            row(Identity::HOST, NodeIndex::NONE, 0),
        ),
        (
            PrefixKey::host(nodes[1]),
            row(Identity::REMOTE_NODE, node, 0),
        ),
        (
            PrefixKey {
                length: 120,
                address: Address::from_v4([10, 244, 1, 0]),
            },
            row(Identity::UNKNOWN, NodeIndex::NONE, flags::LOCAL_RANGE),
        ),
        (
            PrefixKey {
                length: 120,
                address: Address::from_v4([10, 244, 2, 0]),
            },
            row(Identity::UNKNOWN, node, flags::POD_RANGE),
        ),
    ]);
    for remote in &pods[2..] {
        ipcache.insert(
            PrefixKey::host(*remote),
            row(Identity(Identity::FIRST_POD.0 + 1), node, 0),
        );
    }
    let route = Route {
        egress: UNDERLAY,
        mtu: 1500,
        source_mac: MacAddress([2, 0, 0, 0, 1, 2]),
        destination_mac: MacAddress([2, 0, 0, 0, 1, 3]),
    };
    // Not by a struct expression: the tables free their entries when they are dropped.
    let mut tables = MemoryTables::default();
    tables.config = config;
    tables.ipcache = ipcache;
    tables.endpoints = pods[..2].iter().map(|pod| (*pod, endpoint)).collect();
    tables.nodes = BTreeMap::from([(
        1,
        NodeRow {
            local: nodes[0],
            remote: nodes[1],
        },
    )]);
    tables.routes = BTreeMap::from([(
        PrefixKey {
            length: 0,
            address: Address::UNSPECIFIED,
        },
        Ok(route),
    )]);
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_seen_and_a_right_frame_is_not_blamed() {
        for mut frame in seeds::frames() {
            assert!(intact(&frame, 0));
            let length = frame.len();
            let is_whole_tcp = frame[23] == 6 && frame[12..14] == [8, 0];
            if is_whole_tcp {
                frame[length - 1] ^= 1;
                assert!(!intact(&frame, 0));
            }
        }
    }

    #[test]
    fn seeds_that_name_a_backend_reach_it() {
        let names = |frame: &&Vec<u8>| frame[36..38] == 6081_u16.to_be_bytes();
        for frame in seeds::frames().iter().filter(names) {
            let mut packet = MemoryPacket::new(frame.clone());
            let tables = tables(false, true);
            let mut workspace = Workspace::default();
            let verdict = run(
                &mut packet,
                &tables,
                Hook::FromNetdev,
                UNDERLAY,
                &mut workspace,
            );
            assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(POD_LINK)));
        }
    }

    #[test]
    fn most_seeds_are_forwarded_from_the_pod() {
        let redirected = seeds::frames()
            .into_iter()
            .filter(|frame| {
                let tables = tables(true, false);
                let mut packet = MemoryPacket::new(frame.clone());
                let verdict = run(
                    &mut packet,
                    &tables,
                    Hook::FromContainer,
                    POD_LINK,
                    &mut Workspace::default(),
                );
                matches!(verdict, Verdict::Redirect(_))
            })
            .count();
        assert!(
            redirected * 2 > seeds::frames().len(),
            "only {redirected} seeds are forwarded"
        );
    }
}
