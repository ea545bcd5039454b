// SPDX-License-Identifier: Apache-2.0
//! The tuple of a frame, read by a parser that is not ours.

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use weir_abi::Address;

/// Addresses and ports; the identifier of an echo takes the place of its source port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Tuple {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Tells protocols apart.
    pub(crate) kind: &'static str,
}

/// The tuple of the packet inside the tunnel, where there is one.
pub(crate) fn innermost(frame: &[u8]) -> Tuple {
    let outer = tuple(frame);
    // Headers of the tunnel behind that of UDP.
    let inside = match (outer.kind, outer.destination_port) {
        ("UDP", 8472) => 8,
        ("UDP", 6081) => 8 + 24,
        _ => return outer,
    };
    let headers = if outer.source.is_v4() { 20 } else { 40 };
    tuple(&frame[14 + headers + 8 + inside..])
}

/// The backend that a frame names.
pub(crate) fn named(frame: &[u8]) -> Option<(Address, u16)> {
    let outer = tuple(frame);
    if (outer.kind, outer.destination_port) != ("UDP", 6081) {
        return None;
    }
    let headers = if outer.source.is_v4() { 20 } else { 40 };
    let data = frame.get(14 + headers + 8 + 12..)?;
    let port = u16::from_be_bytes([*data.get(16)?, *data.get(17)?]);
    Some((Address(data.get(..16)?.try_into().ok()?), port))
}

/// The tuple of a frame with TCP, UDP, SCTP or an echo.
pub(crate) fn tuple(frame: &[u8]) -> Tuple {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let net = packet.net.unwrap();
    let (source, destination): (Address, Address) = match &net {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => panic!("an IP packet is expected"),
    };
    let id = |message: &[u8]| u16::from_be_bytes([message[4], message[5]]);
    let (source_port, destination_port, kind) = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port(), "TCP"),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port(), "UDP"),
        Some(TransportSlice::Icmpv4(icmp)) => (id(icmp.slice()), 0, "ICMP"),
        Some(TransportSlice::Icmpv6(icmp)) => (id(icmp.slice()), 0, "ICMPv6"),
        Some(TransportSlice::Igmp(_)) => panic!("IGMP is not expected"),
        None => {
            // Its ports lie where those of UDP do (RFC 9260, section 3.1).
            let payload = net.ip_payload_ref().unwrap();
            assert_eq!(payload.ip_number, IpNumber::SCTP);
            let port = |at| u16::from_be_bytes([payload.payload[at], payload.payload[at + 1]]);
            (port(0), port(2), "SCTP")
        }
    };
    Tuple {
        source,
        destination,
        source_port,
        destination_port,
        kind,
    }
}
