// SPDX-License-Identifier: Apache-2.0
//! Turning a packet into the ICMP error that answers it.

use crate::checksum::Sum;
use crate::packet::{PacketRead, PacketWrite, Room, WriteError, low_half};
use crate::summary::Summary;
use crate::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weir_abi::{Address, Protocol};

/// Which error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// "Fragmentation needed" (RFC 1191, section 4) or "packet too big" (RFC 4443, section 3.2),
    /// with the MTU that fits.
    TooBig(u16),
    /// TTL or hop limit used up in transit (RFC 792; RFC 4443, section 3.3).
    TimeExceeded,
    /// Nobody listens at the port (RFC 1122, section 3.2.2.1; RFC 4443, section 3.1).
    PortUnreachable,
}

/// The most of the original packet that goes into an error. Linux wants the transport header's
/// first eight bytes; a TCP header is carried whole, because a packet cannot be cut before the end
/// of a checksum that a device has yet to fill in.
const EMBEDDED_MAX: u32 = 4 * EMBEDDED_WORDS;
const EMBEDDED_WORDS: u32 = 32;

/// Rewrites the packet in place into an ICMP error from `source` to the packet's sender, addressed
/// back to where it came from. Packets that cannot be answered (too short) are refused.
#[inline(always)]
pub fn answer_with_error<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    kind: ErrorKind,
    source: &Address,
) -> Result<(), WriteError> {
    const UNANSWERABLE: WriteError = WriteError(-22);
    let headers = summary.l4_offset.wrapping_sub(summary.l3_offset);
    let embedded = headers.wrapping_add(if matches!(summary.key.protocol, Protocol::TCP) {
        20
    } else {
        8
    });
    if embedded > summary.l3_length || embedded > EMBEDDED_MAX {
        return Err(UNANSWERABLE);
    }
    let ethernet = packet.load::<12>(0).ok_or(UNANSWERABLE)?;
    let [g0, g1, g2, g3, g4, g5, m0, m1, m2, m3, m4, m5] = ethernet;
    packet.truncate(summary.l3_offset.wrapping_add(embedded))?;
    let room = if summary.is_v4 {
        Room::IcmpV4
    } else {
        Room::IcmpV6
    };
    packet.open_room(room)?;

    let l3 = summary.l3_offset;
    let message = embedded.wrapping_add(8);
    let [t0, t1] = if summary.is_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    packet.store(0, &[m0, m1, m2, m3, m4, m5, g0, g1, g2, g3, g4, g5, t0, t1])?;
    if summary.is_v4 {
        store_ipv4_header(packet, l3, message, source, &summary.key.source)?;
    } else {
        store_ipv6_header(packet, l3, message, source, &summary.key.source)?;
    }

    let l4 = l3.wrapping_add(room.bytes()).wrapping_sub(8);
    let (icmp_type, code, parameter) = match (kind, summary.is_v4) {
        (ErrorKind::TooBig(mtu), true) => {
            let [a, b] = mtu.to_be_bytes();
            (3, 4, [0, 0, a, b])
        }
        (ErrorKind::TooBig(mtu), false) => (2, 0, u32::from(mtu).to_be_bytes()),
        (ErrorKind::TimeExceeded, true) => (11, 0, [0; 4]),
        (ErrorKind::TimeExceeded, false) => (3, 0, [0; 4]),
        (ErrorKind::PortUnreachable, true) => (3, 3, [0; 4]),
        (ErrorKind::PortUnreachable, false) => (1, 4, [0; 4]),
    };
    let [p0, p1, p2, p3] = parameter;
    let mut sum = Sum(0).add([icmp_type, code]).add([p0, p1]).add([p2, p3]);
    if !summary.is_v4 {
        // RFC 4443, section 2.3: the pseudo header of RFC 8200, section 8.1.
        sum = sum.add_address(source).add_address(&summary.key.source);
        sum = sum.add(low_half(message)).add([0, Protocol::ICMPV6.0]);
    }
    let body = l4.wrapping_add(8);
    let mut offset = 0;
    for _ in 0..EMBEDDED_WORDS {
        if offset >= embedded {
            break;
        }
        let word = packet
            .load::<4>(body.wrapping_add(offset))
            .ok_or(UNANSWERABLE)?;
        sum = sum.add_bytes(&word);
        offset = offset.wrapping_add(4);
    }
    let [c0, c1] = sum.checksum();
    packet.store(l4, &[icmp_type, code, c0, c1, p0, p1, p2, p3])
}

#[inline(always)]
fn store_ipv4_header<P: PacketWrite + PacketRead>(
    packet: &mut P,
    offset: u32,
    payload: u32,
    source: &Address,
    destination: &Address,
) -> Result<(), WriteError> {
    let [l0, l1] = low_half(payload.wrapping_add(20));
    let [s0, s1, s2, s3] = source.v4_octets();
    let [d0, d1, d2, d3] = destination.v4_octets();
    // Precedence "internetwork control", as RFC 1812, section 4.3.2.5 asks of routers.
    let mut header = [
        0x45, 0xc0, l0, l1, 0, 0, 0, 0, 64, 1, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3,
    ];
    let [c0, c1] = Sum(0).add_bytes(&header).checksum();
    let [_, _, _, _, _, _, _, _, _, _, h0, h1, ..] = &mut header;
    (*h0, *h1) = (c0, c1);
    packet.store(offset, &header)
}

#[inline(always)]
fn store_ipv6_header<P: PacketWrite + PacketRead>(
    packet: &mut P,
    offset: u32,
    payload: u32,
    source: &Address,
    destination: &Address,
) -> Result<(), WriteError> {
    let [l0, l1] = low_half(payload);
    packet.store(offset, &[0x60, 0, 0, 0, l0, l1, Protocol::ICMPV6.0, 64])?;
    packet.store(offset.wrapping_add(8), &source.0)?;
    packet.store(offset.wrapping_add(24), &destination.0)
}
