// SPDX-License-Identifier: Apache-2.0
//! The gateway's side of ARP (RFC 826) and neighbour discovery (RFC 4861).

use crate::checksum::Sum;
use crate::packet::{PacketRead, PacketWrite, WriteError};
use crate::summary::Summary;
use weir_abi::{Address, MacAddress, Protocol};

/// What pods are told to use as gateways.
pub const GATEWAY_IPV4: [u8; 4] = [169, 254, 1, 1];
pub const GATEWAY_IPV6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// What a question about a neighbour was answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbour {
    /// The packet is now the answer, to be sent back.
    Answered,
    /// It asks for somebody else.
    NotOurs,
    /// It is no question, or the sender asks for itself (duplicate address detection).
    NothingToAnswer,
}

/// Turns an ARP request for the gateway into its reply.
#[inline(always)]
pub fn answer_arp<P: PacketWrite>(packet: &mut P) -> Result<Neighbour, WriteError> {
    // Ethernet/IPv4, sizes 6 and 4, operation "request".
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let (Some(head), Some(body)) = (packet.load::<8>(14), packet.load::<20>(22)) else {
        return Ok(Neighbour::NothingToAnswer);
    };
    if u64::from_ne_bytes(head) != u64::from_ne_bytes(REQUEST) {
        return Ok(Neighbour::NothingToAnswer);
    }
    let [
        m0,
        m1,
        m2,
        m3,
        m4,
        m5,
        s0,
        s1,
        s2,
        s3,
        _,
        _,
        _,
        _,
        _,
        _,
        t0,
        t1,
        t2,
        t3,
    ] = body;
    if u32::from_ne_bytes([s0, s1, s2, s3]) == u32::from_ne_bytes([t0, t1, t2, t3]) {
        return Ok(Neighbour::NothingToAnswer);
    }
    if u32::from_ne_bytes([t0, t1, t2, t3]) != u32::from_ne_bytes(GATEWAY_IPV4) {
        return Ok(Neighbour::NotOurs);
    }
    let [g0, g1, g2, g3, g4, g5] = MacAddress::GATEWAY.0;
    packet.store(0, &[m0, m1, m2, m3, m4, m5, g0, g1, g2, g3, g4, g5])?;
    packet.store(
        20,
        &[
            0, 2, g0, g1, g2, g3, g4, g5, t0, t1, t2, t3, m0, m1, m2, m3, m4, m5, s0, s1, s2, s3,
        ],
    )?;
    Ok(Neighbour::Answered)
}

/// Turns a neighbour solicitation for the gateway into its advertisement (RFC 4861, sections 4.3
/// and 4.4). The link-layer option, where there is one, becomes the target's.
#[inline(always)]
pub fn answer_solicitation<P: PacketWrite + PacketRead>(
    packet: &mut P,
    summary: &Summary,
) -> Result<Neighbour, WriteError> {
    const SOLICITATION: u8 = 135;
    let l4 = summary.l4_offset;
    let source = summary.key.source;
    // An unspecified sender looks for duplicates of its own address (RFC 4862, section 5.4).
    if summary.icmp_type != SOLICITATION || source.0 == Address::UNSPECIFIED.0 {
        return Ok(Neighbour::NothingToAnswer);
    }
    let (Some(target), Some(ethernet)) =
        (packet.load::<16>(l4.wrapping_add(8)), packet.load::<12>(0))
    else {
        return Ok(Neighbour::NothingToAnswer);
    };
    if target != GATEWAY_IPV6 {
        return Ok(Neighbour::NotOurs);
    }
    let [_, _, _, _, _, _, m0, m1, m2, m3, m4, m5] = ethernet;
    let [g0, g1, g2, g3, g4, g5] = MacAddress::GATEWAY.0;
    packet.store(0, &[m0, m1, m2, m3, m4, m5, g0, g1, g2, g3, g4, g5])?;

    let length = summary
        .l3_length
        .wrapping_sub(l4.wrapping_sub(summary.l3_offset));
    let target_address = Address(target);
    // Flags "solicited" and "override".
    let head = [136, 0, 0, 0, 0x60, 0, 0, 0];
    let mut sum = Sum(0)
        .add_address(&target_address)
        .add_address(&source)
        .add([0, Protocol::ICMPV6.0])
        .add_bytes(&head)
        .add_address(&target_address);
    let option_at = l4.wrapping_add(24);
    if length >= 32 {
        let option = [2, 1, g0, g1, g2, g3, g4, g5];
        packet.store(option_at, &option)?;
        sum = sum.add_bytes(&option);
        // Anything after the first option is left out of the answer.
        packet.truncate(l4.wrapping_add(32))?;
        sum = sum.add([0, 32]);
        packet.store(summary.l3_offset.wrapping_add(4), &[0, 32])?;
    } else {
        packet.truncate(option_at)?;
        sum = sum.add([0, 24]);
        packet.store(summary.l3_offset.wrapping_add(4), &[0, 24])?;
    }
    let [c0, c1] = sum.checksum();
    packet.store(l4, &[136, 0, c0, c1, 0x60, 0, 0, 0])?;
    // Hop limit 255 proves that the answer crossed no router.
    packet.store(
        summary.l3_offset.wrapping_add(6),
        &[Protocol::ICMPV6.0, 255],
    )?;
    packet.store(summary.l3_offset.wrapping_add(8), &target)?;
    packet.store(summary.l3_offset.wrapping_add(24), &source.0)?;
    Ok(Neighbour::Answered)
}
