// SPDX-License-Identifier: Apache-2.0
//! The overlay: VXLAN (RFC 7348) over UDP over IPv4 or IPv6, or Geneve where a packet names its backend.

use crate::checksum::Sum;
use crate::dispatch;
use crate::hash::hash_of;
use crate::packet::{PacketRead, PacketWrite, Room, WriteError, low_half};
use crate::summary::Summary;
use crate::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weir_abi::node::NodeRow;
use weir_abi::{Address, DatapathConfig, DropReason, FlowEntry, MacAddress, Port, Protocol};

/// A tunnel header that was recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// The node that sent it, by its address.
    pub source: Address,
    /// The headers to remove.
    pub room: Room,
}

impl Outer {
    /// Offset of the inner IP header while the outer headers are still there.
    #[inline(always)]
    pub const fn inner_offset(&self) -> u32 {
        ETHERNET_LENGTH.wrapping_add(self.room.bytes())
    }
}

/// Whether the inner packet's header can be trusted to be what the tunnel makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelHeader {
    /// A tunnel packet of this cluster.
    Ours(Outer),
    /// For the tunnel's port, but not of its form.
    Malformed,
}

/// Reads the tunnel header of a packet to the tunnel's port. The outer header must be plain: no IP
/// options, no extension headers, no fragment, as Weir and Linux make them.
#[inline(always)]
pub fn parse<P: PacketRead>(packet: &P, summary: &Summary) -> TunnelHeader {
    let room = if summary.is_v4 {
        Room::TunnelV4
    } else {
        Room::TunnelV6
    };
    let expected_l4 = ETHERNET_LENGTH.wrapping_add(if summary.is_v4 { 20 } else { 40 });
    if summary.l4_offset != expected_l4 {
        return TunnelHeader::Malformed;
    }
    // VXLAN header, then the inner Ethernet header's type.
    let (Some(vxlan), Some(ethertype)) = (
        packet.load::<8>(expected_l4.wrapping_add(8)),
        packet.load::<2>(expected_l4.wrapping_add(8 + 8 + 12)),
    ) else {
        return TunnelHeader::Malformed;
    };
    let [flags, _, _, _, v0, v1, v2, _] = vxlan;
    let known = u16::from_ne_bytes(ethertype) == u16::from_ne_bytes(ETHERTYPE_IPV4)
        || u16::from_ne_bytes(ethertype) == u16::from_ne_bytes(ETHERTYPE_IPV6);
    // The I bit says that the network identifier is valid (section 5).
    if flags & 0x08 == 0 || [v0, v1, v2] != DatapathConfig::VNI || !known {
        return TunnelHeader::Malformed;
    }
    TunnelHeader::Ours(Outer {
        source: summary.key.source,
        room,
    })
}

/// Puts the outer headers in front of the packet that `summary` describes: from and to the tunnel
/// ends of `node`, with the MAC addresses of `entry`, and its backend where it is to be `NAMED`.
#[inline(never)]
pub fn encapsulate<P: PacketWrite, const NAMED: bool>(
    packet: &mut P,
    node: &NodeRow,
    entry: &FlowEntry,
    summary: &Summary,
    port: Port,
) -> Option<DropReason> {
    match add_headers::<P, NAMED>(packet, node, entry, summary, port) {
        Ok(()) => None,
        Err(_) => Some(DropReason::WriteError),
    }
}

#[inline(always)]
fn add_headers<P: PacketWrite, const NAMED: bool>(
    packet: &mut P,
    node: &NodeRow,
    entry: &FlowEntry,
    summary: &Summary,
    port: Port,
) -> Result<(), WriteError> {
    let v4 = node.remote.is_v4();
    packet.open_room(match (NAMED, v4) {
        (true, _) => dispatch::room(v4),
        (false, true) => Room::TunnelV4,
        (false, false) => Room::TunnelV6,
    })?;
    let extra = if NAMED { dispatch::OPTION_LENGTH } else { 0 };
    let [d0, d1, d2, d3, d4, d5] = entry.destination_mac.0;
    let [s0, s1, s2, s3, s4, s5] = entry.source_mac.0;
    let [t0, t1] = if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    packet.store(0, &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1])?;

    // UDP 8, VXLAN 8, inner Ethernet 14. Lengths of packets that will be segmented do not fit in
    // sixteen bits; whoever cuts them writes the lengths anew.
    let udp_length = low_half(summary.l3_length.wrapping_add(30).wrapping_add(extra));
    let l4 = if v4 {
        let [l0, l1] = low_half(summary.l3_length.wrapping_add(50).wrapping_add(extra));
        let [a0, a1, a2, a3] = node.local.v4_octets();
        let [b0, b1, b2, b3] = node.remote.v4_octets();
        // "Don't fragment", so that a smaller MTU on the way is heard of.
        let sum = Sum(0)
            .add([0x45, 0])
            .add([l0, l1])
            .add([0x40, 0])
            .add([64, Protocol::UDP.0])
            .add([a0, a1])
            .add([a2, a3])
            .add([b0, b1])
            .add([b2, b3]);
        let [c0, c1] = sum.checksum();
        let header = [
            0x45,
            0,
            l0,
            l1,
            0,
            0,
            0x40,
            0,
            64,
            Protocol::UDP.0,
            c0,
            c1,
            a0,
            a1,
            a2,
            a3,
            b0,
            b1,
            b2,
            b3,
        ];
        packet.store(ETHERNET_LENGTH, &header)?;
        ETHERNET_LENGTH.wrapping_add(20)
    } else {
        let [l0, l1] = udp_length;
        packet.store(
            ETHERNET_LENGTH,
            &[0x60, 0, 0, 0, l0, l1, Protocol::UDP.0, 64],
        )?;
        packet.store(ETHERNET_LENGTH.wrapping_add(8), &node.local.0)?;
        packet.store(ETHERNET_LENGTH.wrapping_add(24), &node.remote.0)?;
        ETHERNET_LENGTH.wrapping_add(40)
    };
    // Section 5: from the dynamic range, by a hash of the inner flow.
    let [low, high, _, _] = hash_of(&summary.key).to_le_bytes();
    let (p0, p1) = (high | 0xc0, low);
    let [q0, q1] = port.0;
    let [l0, l1] = udp_length;
    // UDP checksum zero: allowed over IPv4, and for tunnels over IPv6 (RFC 6935).
    packet.store(l4, &[p0, p1, q0, q1, l0, l1, 0, 0])?;
    if NAMED {
        let (address, port) = (
            &entry.translated_destination,
            entry.translated_destination_port,
        );
        dispatch::store(packet, l4.wrapping_add(8), address, port)?;
    } else {
        let [v0, v1, v2] = DatapathConfig::VNI;
        packet.store(l4.wrapping_add(8), &[0x08, 0, 0, 0, v0, v1, v2, 0])?;
    }
    let [d0, d1, d2, d3, d4, d5] = MacAddress::TUNNEL.0;
    let [s0, s1, s2, s3, s4, s5] = MacAddress::GATEWAY.0;
    let [t0, t1] = if summary.is_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    packet.store(
        l4.wrapping_add(16).wrapping_add(extra),
        &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1],
    )
}
