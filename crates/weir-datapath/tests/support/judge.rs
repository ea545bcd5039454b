// SPDX-License-Identifier: Apache-2.0
//! Whether a frame is right, judged by a parser that is not ours and by whole sums instead of differences.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use weir_abi::Address;

use super::raw::{pseudo_header, sum};

/// The ports that mark a tunnel packet, and the bytes between its UDP header and the packet inside.
const TUNNELS: [(u16, usize); 2] = [(8472, 8), (6081, 32)];

/// What is wrong with a frame, the packet inside a tunnel included; empty: nothing.
pub(crate) fn faults(frame: &[u8]) -> Vec<String> {
    let sliced = match SlicedPacket::from_ethernet(frame) {
        Ok(sliced) => sliced,
        Err(error) => return vec![format!("not a packet: {error}")],
    };
    let mut faults = Vec::new();
    let Some((from, to, segment_protocol, fragmented)) = network(&sliced, &mut faults) else {
        return faults;
    };
    if fragmented {
        return faults;
    }
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            check(&mut faults, "TCP", from, to, segment_protocol, tcp.slice());
        }
        Some(TransportSlice::Udp(udp)) => {
            let tunnel = TUNNELS
                .into_iter()
                .find(|(port, _)| udp.destination_port() == *port)
                .map(|(_, header)| header);
            // Zero is "none": for IPv4, and for tunnels (RFC 6935).
            if udp.checksum() != 0 {
                check(&mut faults, "UDP", from, to, segment_protocol, udp.slice());
            } else if !from.is_v4() && tunnel.is_none() {
                faults.push("UDP over IPv6 without a checksum".to_owned());
            }
            let inside = tunnel.and_then(|header| udp.payload().get(header..));
            if let Some(inside) = inside.filter(|inside| !inside.is_empty()) {
                let inner = self::faults(inside);
                faults.extend(inner.into_iter().map(|fault| format!("inside: {fault}")));
            }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            if sum(icmp.slice()) != 0xffff {
                faults.push("ICMP checksum".to_owned());
            }
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            check(
                &mut faults,
                "ICMPv6",
                from,
                to,
                segment_protocol,
                icmp.slice(),
            );
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
    faults
}

fn network(
    sliced: &SlicedPacket<'_>,
    faults: &mut Vec<String>,
) -> Option<(Address, Address, u8, bool)> {
    match sliced.net.as_ref()? {
        NetSlice::Ipv4(packet) => {
            let header = packet.header();
            if sum(header.slice()) != 0xffff {
                faults.push("IPv4 header checksum".to_owned());
            }
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
                header.protocol().0,
                packet.is_payload_fragmented(),
            ))
        }
        NetSlice::Ipv6(packet) => {
            let header = packet.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
                packet.payload().ip_number.0,
                packet.is_payload_fragmented(),
            ))
        }
        NetSlice::Arp(_) => None,
    }
}

fn check(
    faults: &mut Vec<String>,
    what: &str,
    from: Address,
    to: Address,
    protocol: u8,
    segment: &[u8],
) {
    let mut covered = pseudo_header(from, to, protocol, segment.len());
    covered.extend(segment);
    if sum(&covered) != 0xffff {
        faults.push(format!("{what} checksum"));
    }
}
