// SPDX-License-Identifier: Apache-2.0
//! What a pod or a peer may send: read without harm, and as an independent parser reads it.

use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader};
use weir_abi::{Address, Protocol};
use weir_packet::icmp::error::{ErrorKind, answer_with_error};
use weir_packet::icmp::inner::Inner;
use weir_packet::icmp::neighbour::{answer_arp, answer_solicitation};
use weir_packet::memory::MemoryPacket;
use weir_packet::{ETHERNET_LENGTH, Fragment, PacketClass, PacketRead as _, Summary, tunnel};

/// Reads a frame in every way that the programs do, and turns it into every answer that they give.
pub fn check(frame: &[u8]) {
    let packet = MemoryPacket::new(frame.to_vec());
    let _ = answer_arp(&mut packet.clone());
    let Ok(summary) = Summary::parse(&packet, ETHERNET_LENGTH) else {
        return;
    };

    within(&summary, &packet);
    like_etherparse(frame, &summary);
    let mut inner = Inner::EMPTY;
    let _ = inner.parse_into(&packet, &summary);
    let _ = tunnel::parse(&packet, &summary);
    let _ = answer_solicitation(&mut packet.clone(), &summary);
    for kind in [ErrorKind::TooBig(1280), ErrorKind::TimeExceeded] {
        answered(&packet, &summary, kind);
    }
}

/// No offset points outside of the packet.
fn within(summary: &Summary, packet: &MemoryPacket) {
    assert_eq!(summary.l3_offset, ETHERNET_LENGTH);
    assert!(summary.l4_offset > summary.l3_offset);
    assert!(summary.l4_offset <= packet.length());
    assert!(summary.l3_offset + summary.l3_length <= packet.length());
    if summary.fragment != Fragment::Later {
        assert!(summary.headers_length <= summary.l3_length, "{summary:?}");
    }
}

/// Addresses, protocol and ports are what another parser finds, where it finds any.
fn like_etherparse(frame: &[u8], summary: &Summary) {
    // Ours trusts the version field; the other one trusts the ethertype.
    let Some(ip) = frame.get(14..) else { return };
    let Ok(other) = LaxPacketHeaders::from_ip(ip) else {
        return;
    };
    let addresses = match &other.net {
        Some(NetHeaders::Ipv4(header, _)) => [
            Address::from_v4(header.source),
            Address::from_v4(header.destination),
        ],
        Some(NetHeaders::Ipv6(header, _)) => [Address(header.source), Address(header.destination)],
        _ => return,
    };
    assert_eq!([summary.key.source, summary.key.destination], addresses);
    if summary.fragment == Fragment::Later {
        return;
    }
    let (protocol, ports) = match &other.transport {
        Some(TransportHeader::Tcp(tcp)) => (Protocol::TCP, [tcp.source_port, tcp.destination_port]),
        Some(TransportHeader::Udp(udp)) => (Protocol::UDP, [udp.source_port, udp.destination_port]),
        _ => return,
    };
    assert_eq!(summary.key.protocol, protocol);
    assert_eq!(
        [
            summary.key.source_port.get(),
            summary.key.destination_port.get()
        ],
        ports
    );
}

/// An ICMP error that answers a packet is itself a good packet, and is about the packet.
fn answered(packet: &MemoryPacket, summary: &Summary, kind: ErrorKind) {
    let mut answer = packet.clone();
    let source = if summary.is_v4 {
        Address::from_v4([172, 18, 0, 2])
    } else {
        Address([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])
    };
    if answer_with_error(&mut answer, summary, kind, &source).is_err() {
        return;
    }
    let about = Summary::parse(&answer, ETHERNET_LENGTH).expect("our own answer is well formed");
    assert_eq!(about.class, PacketClass::IcmpError);
    assert_eq!(about.key.source, source);
    assert_eq!(about.key.destination, summary.key.source);
    if summary.is_v4 {
        let header = &answer.bytes()[14..34];
        assert_eq!(
            ones_complement(header),
            0xffff,
            "the IP header's checksum is wrong"
        );
        assert_eq!(
            ones_complement(&answer.bytes()[34..]),
            0xffff,
            "the ICMP checksum is wrong"
        );
    }
}

/// The plain sum of RFC 1071, written without looking at ours.
fn ones_complement(bytes: &[u8]) -> u32 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
