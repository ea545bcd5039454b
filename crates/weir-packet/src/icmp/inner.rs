// SPDX-License-Identifier: Apache-2.0
//! The start of the offending packet that an ICMP error carries.

use crate::checksum::{Sum, address_delta, port_delta, updated};
use crate::packet::{
    PacketRead, PacketWrite, WriteError, address_length, address_offset, store_address,
};
use crate::summary::Summary;
use weir_abi::{Address, FlowKey, Port, Protocol};

/// A packet inside an ICMP error; only its IP header and eight bytes more are sure to be there
/// (RFC 792).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// The tuple of the packet inside, as it was sent.
    pub key: FlowKey,
    pub l3_offset: u32,
    pub l4_offset: u32,
}

/// What the kernel's helpers answer to what cannot be.
const MISSING: WriteError = WriteError(-22);

impl Inner {
    /// Nothing read yet.
    pub const EMPTY: Self = Self {
        key: Summary::EMPTY.key,
        l3_offset: 0,
        l4_offset: 0,
    };

    /// Reads the packet inside the ICMP error that `summary` describes. `false` where it is cut off
    /// before its ports, is of the other family, or is a later fragment.
    #[inline(always)]
    pub fn parse_into<P: PacketRead>(&mut self, packet: &P, summary: &Summary) -> bool {
        self.fill(packet, summary).is_some()
    }

    #[inline(always)]
    fn fill<P: PacketRead>(&mut self, packet: &P, summary: &Summary) -> Option<()> {
        let l3_offset = summary.l4_offset.wrapping_add(8);
        let mut protocol;
        let mut l4_offset;
        if summary.is_v4 {
            let header = packet.load::<20>(l3_offset)?;
            let [
                vihl,
                _,
                _,
                _,
                _,
                _,
                f0,
                f1,
                _,
                next,
                _,
                _,
                s0,
                s1,
                s2,
                s3,
                d0,
                d1,
                d2,
                d3,
            ] = header;
            let length = u32::from(vihl & 0x0f).wrapping_mul(4);
            if vihl >> 4 != 4 || length < 20 || f0 & 0x1f != 0 || f1 != 0 {
                return None;
            }
            self.key.source = Address::from_v4([s0, s1, s2, s3]);
            self.key.destination = Address::from_v4([d0, d1, d2, d3]);
            protocol = Protocol(next);
            l4_offset = l3_offset.wrapping_add(length);
        } else {
            let [version, _, _, _, _, _, next, _] = packet.load::<8>(l3_offset)?;
            if version >> 4 != 6 {
                return None;
            }
            protocol = Protocol(next);
            l4_offset = l3_offset.wrapping_add(40);
            // A first fragment: step over its fragment header.
            if next == 44 {
                let [next, _, f0, f1, _, _, _, _] = packet.load::<8>(l4_offset)?;
                if f0 != 0 || f1 & 0xf8 != 0 {
                    return None;
                }
                protocol = Protocol(next);
                l4_offset = l4_offset.wrapping_add(8);
            }
            self.key.source = Address(packet.load::<16>(l3_offset.wrapping_add(8))?);
            self.key.destination = Address(packet.load::<16>(l3_offset.wrapping_add(24))?);
        }
        let [a, b, c, d, e, f, _, _] = packet.load::<8>(l4_offset)?;
        let (source_port, destination_port) = match protocol {
            Protocol::TCP | Protocol::UDP | Protocol::SCTP => (Port([a, b]), Port([c, d])),
            Protocol::ICMP if summary.is_v4 && a == 8 => (Port([e, f]), Port::NONE),
            Protocol::ICMP if summary.is_v4 && a == 0 => (Port::NONE, Port([e, f])),
            Protocol::ICMPV6 if !summary.is_v4 && a == 128 => (Port([e, f]), Port::NONE),
            Protocol::ICMPV6 if !summary.is_v4 && a == 129 => (Port::NONE, Port([e, f])),
            _ => return None,
        };
        self.key.source_port = source_port;
        self.key.destination_port = destination_port;
        self.key.protocol = protocol;
        self.key.zone = [0; 2];
        self.key.reserved = 0;
        self.l3_offset = l3_offset;
        self.l4_offset = l4_offset;
        Some(())
    }
}

/// Rewrites an ICMP error that travels in the direction of `before` (the reverse of the packet
/// inside) as that direction's packets are rewritten: from `before` to `after`. Whether it worked.
///
/// The sender of the error keeps its address unless it is the flow's own far end, or the flow's
/// packets go on under another source: then only that one is known further on, as with the NAT of
/// Linux. The packet inside becomes what the receiver once sent.
#[inline(always)]
pub fn translate_error<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    inner: &Inner,
    before: &FlowKey,
    after: &FlowKey,
) -> bool {
    translate_inside(packet, summary, inner, before, after)
        && translate_outside(packet, summary, before, after)
}

/// The packet inside: its source is our receiver, its destination the far end.
#[inline(never)]
fn translate_inside<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    inner: &Inner,
    before: &FlowKey,
    after: &FlowKey,
) -> bool {
    store_inside(packet, summary, inner, before, after).is_ok()
}

#[inline(always)]
fn store_inside<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    inner: &Inner,
    before: &FlowKey,
    after: &FlowKey,
) -> Result<(), WriteError> {
    let is_v4 = summary.is_v4;
    let [a, b, c, d] = differences(before, after).to_ne_bytes();
    let (addresses, ports) = ([a, b], [c, d]);
    let at = inner.l3_offset.wrapping_add(address_offset(is_v4));
    store_address(packet, at, &after.destination)?;
    store_address(
        packet,
        at.wrapping_add(address_length(is_v4)),
        &after.source,
    )?;
    // What the changes inside add up to, for the checksum of the ICMP message.
    let mut change = Sum(0).add(addresses);
    if is_v4 {
        let at = inner.l3_offset.wrapping_add(10);
        let old = packet.load::<2>(at).ok_or(MISSING)?;
        let new = updated(old, addresses);
        packet.store(at, &new)?;
        change = change.remove(old).add(new);
    }
    let protocol = inner.key.protocol;
    let (field, pseudo_header) = match protocol {
        Protocol::TCP => (16, true),
        Protocol::UDP => (6, true),
        Protocol::ICMP => (2, false),
        Protocol::ICMPV6 => (2, true),
        _ => (0, false),
    };
    store_ports(packet, inner, after)?;
    change = change.add(ports);
    if field != 0
        && let Some(old) = packet.load::<2>(inner.l4_offset.wrapping_add(field))
        && !(matches!(protocol, Protocol::UDP) && u16::from_ne_bytes(old) == 0)
    {
        let delta = if pseudo_header {
            Sum(0).add(ports).add(addresses).folded()
        } else {
            ports
        };
        let new = updated(old, delta);
        packet.store(inner.l4_offset.wrapping_add(field), &new)?;
        change = change.remove(old).add(new);
    }
    let checksum_offset = summary.l4_offset.wrapping_add(2);
    packet.update_transport_checksum(checksum_offset, change.folded(), false, false)
}

/// What the translation changes about the packet inside: by its addresses (first two bytes) and by
/// its ports. (A function of its own for the sake of the kernel's stack.)
#[inline(never)]
fn differences(before: &FlowKey, after: &FlowKey) -> u32 {
    let [a, b] = address_delta(
        [&before.destination, &before.source],
        [&after.destination, &after.source],
    );
    let [c, d] = port_delta(
        [before.destination_port, before.source_port],
        [after.destination_port, after.source_port],
    );
    u32::from_ne_bytes([a, b, c, d])
}

/// The error's own header.
#[inline(never)]
fn translate_outside<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    before: &FlowKey,
    after: &FlowKey,
) -> bool {
    store_outside(packet, summary, before, after).is_ok()
}

#[inline(always)]
fn store_outside<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    before: &FlowKey,
    after: &FlowKey,
) -> Result<(), WriteError> {
    let is_v4 = summary.is_v4;
    let translated = before.source.0 != after.source.0;
    let new_source = if translated || summary.key.source.0 == before.source.0 {
        &after.source
    } else {
        &summary.key.source
    };
    let delta = address_delta(
        [&summary.key.source, &summary.key.destination],
        [new_source, &after.destination],
    );
    let at = summary.l3_offset.wrapping_add(address_offset(is_v4));
    store_address(packet, at, new_source)?;
    store_address(
        packet,
        at.wrapping_add(address_length(is_v4)),
        &after.destination,
    )?;
    if is_v4 {
        let at = summary.l3_offset.wrapping_add(10);
        let old = packet.load::<2>(at).ok_or(MISSING)?;
        packet.store(at, &updated(old, delta))
    } else {
        let checksum_offset = summary.l4_offset.wrapping_add(2);
        packet.update_transport_checksum(checksum_offset, delta, true, false)
    }
}

/// Ports of the packet inside, which runs against the direction of `after`.
#[inline(always)]
fn store_ports<P: PacketWrite>(
    packet: &mut P,
    inner: &Inner,
    after: &FlowKey,
) -> Result<(), WriteError> {
    match inner.key.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => {
            // One of the two is the identifier, the other zero.
            let [a, b] = after.source_port.0;
            let [c, d] = after.destination_port.0;
            packet.store(inner.l4_offset.wrapping_add(4), &[a | c, b | d])
        }
        _ => {
            let [a, b] = after.destination_port.0;
            let [c, d] = after.source_port.0;
            packet.store(inner.l4_offset, &[a, b, c, d])
        }
    }
}
