// SPDX-License-Identifier: Apache-2.0
//! Making the packet what its flow entry says.

use crate::direct;
use crate::fate::{Fate, Redirect};
use crate::tables::Tables;
use weir_abi::flow::{Action, Kind};
use weir_abi::observation::Hook;
use weir_abi::{DatapathConfig, DropReason, FlowEntry, Protocol};
use weir_packet::checksum::{Sum, updated};
use weir_packet::packet::{address_length, address_offset, store_address};
use weir_packet::tunnel::encapsulate;
use weir_packet::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketRead, PacketWrite, Room, Summary, WriteError,
};

/// Rewrites the packet and says where it goes. `tunnel` is the size of the headers that the packet
/// came in, which are taken off last, so that offsets hold until then.
#[inline(always)]
pub fn apply<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    summary: &Summary,
    entry: &FlowEntry,
    tunnel: Option<Room>,
    through_neighbour: bool,
) -> Fate {
    let Some(action) = Action::from_number(entry.action) else {
        return Fate::drop(DropReason::WriteError);
    };
    let sent_on = direct::is_sent_on(tables, entry);
    if !sent_on && entry.kind.translates() && translate(packet, summary, entry).is_err() {
        return Fate::drop(DropReason::ChecksumL4);
    }
    if !matches!(action, Action::Pass | Action::ToHost) && decrement_ttl(packet, summary).is_err() {
        return Fate::drop(DropReason::WriteError);
    }
    if let Some(room) = tunnel
        && packet
            .close_room(room, next_v4(tables, action, entry, summary))
            .is_err()
    {
        return Fate::drop(DropReason::WriteError);
    }
    let redirect = match action {
        Action::Pass => return Fate::PASS,
        Action::ToHost => Redirect::Ingress(entry.egress),
        // The shortcut into the pod's namespace exists where packets come in only.
        Action::ToEndpoint => match hook {
            Hook::FromContainer | Hook::FromNetdev => Redirect::Peer(entry.egress),
            Hook::FromHost | Hook::ToNetdev => Redirect::Egress(entry.egress),
        },
        Action::ToDevice => towards_next_hop(entry, through_neighbour),
        Action::ToTunnel => {
            let Some(node) = tables.node(entry.node) else {
                return Fate::drop(DropReason::NoTunnelEndpoint);
            };
            let failed = if sent_on {
                let port = DatapathConfig::DISPATCH_PORT;
                encapsulate::<P, true>(packet, node, entry, summary, port)
            } else {
                let port = tables.config(|config| &config.tunnel_port);
                encapsulate::<P, false>(packet, node, entry, summary, port)
            };
            if let Some(reason) = failed {
                return Fate::drop(reason);
            }
            return Fate::redirect(towards_next_hop(entry, through_neighbour));
        }
    };
    if store_macs(packet, entry, summary.is_v4).is_err() {
        return Fate::drop(DropReason::WriteError);
    }
    Fate::redirect(redirect)
}

/// The family that the kernel is to take a packet for once it is out of the tunnel: its own, but
/// that of the tunnel's next end where it goes on by the tunnel, because the kernel may still take
/// it for encapsulated and learn nothing when it is encapsulated again.
#[inline(always)]
fn next_v4<T: Tables>(tables: &T, action: Action, entry: &FlowEntry, summary: &Summary) -> bool {
    if !matches!(action, Action::ToTunnel) {
        return summary.is_v4;
    }
    match tables.node(entry.node) {
        Some(node) => node.remote.is_v4(),
        None => summary.is_v4,
    }
}

#[inline(always)]
fn towards_next_hop(entry: &FlowEntry, through_neighbour: bool) -> Redirect {
    if through_neighbour || entry.destination_mac.0 == [0; 6] {
        Redirect::Neighbour(entry.egress)
    } else {
        Redirect::Egress(entry.egress)
    }
}

#[inline(always)]
fn store_macs<P: PacketWrite>(
    packet: &mut P,
    entry: &FlowEntry,
    is_v4: bool,
) -> Result<(), WriteError> {
    let [d0, d1, d2, d3, d4, d5] = entry.destination_mac.0;
    let [s0, s1, s2, s3, s4, s5] = entry.source_mac.0;
    let [t0, t1] = if is_v4 {
        ETHERTYPE_IPV4
    } else {
        ETHERTYPE_IPV6
    };
    packet.store(0, &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1])
}

/// RFC 1812, section 5.3.1 (with the incremental checksum of RFC 1624); RFC 8200, section 3.
#[inline(always)]
fn decrement_ttl<P: PacketWrite + PacketRead>(
    packet: &mut P,
    summary: &Summary,
) -> Result<(), WriteError> {
    const MISSING: WriteError = WriteError(-22);
    let l3 = summary.l3_offset;
    if summary.is_v4 {
        let at = l3.wrapping_add(8);
        let [ttl, protocol, c0, c1] = packet.load::<4>(at).ok_or(MISSING)?;
        let lower = ttl.wrapping_sub(1);
        let delta = Sum(0)
            .remove([ttl, protocol])
            .add([lower, protocol])
            .folded();
        let [c0, c1] = updated([c0, c1], delta);
        packet.store(at, &[lower, protocol, c0, c1])
    } else {
        let at = l3.wrapping_add(6);
        let [next, limit] = packet.load::<2>(at).ok_or(MISSING)?;
        let lower = limit.wrapping_sub(1);
        packet.store(at, &[next, lower])?;
        let delta = Sum(0).remove([next, limit]).add([next, lower]).folded();
        packet.note_uncovered_change(delta);
        Ok(())
    }
}

/// Addresses, ports and the checksums over them.
#[inline(always)]
fn translate<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    entry: &FlowEntry,
) -> Result<(), WriteError> {
    const MISSING: WriteError = WriteError(-22);
    let is_v4 = summary.is_v4;
    let addresses_at = summary.l3_offset.wrapping_add(address_offset(is_v4));
    if is_v4 {
        let at = summary.l3_offset.wrapping_add(10);
        let old = packet.load::<2>(at).ok_or(MISSING)?;
        packet.store(at, &updated(old, entry.address_delta))?;
    }
    if entry.kind.contains(Kind::TRANSLATE_SOURCE) {
        store_address(packet, addresses_at, &entry.translated_source)?;
    }
    if entry.kind.contains(Kind::TRANSLATE_DESTINATION) {
        let at = addresses_at.wrapping_add(address_length(is_v4));
        store_address(packet, at, &entry.translated_destination)?;
    }
    if matches!(summary.fragment, weir_packet::Fragment::Later) {
        return Ok(());
    }
    let l4 = summary.l4_offset;
    let (field, pseudo_header) = match summary.key.protocol {
        Protocol::TCP => (16, true),
        Protocol::UDP => (6, true),
        Protocol::ICMP => (2, false),
        Protocol::ICMPV6 => (2, true),
        _ => {
            // SCTP: the checksum covers neither addresses nor, here, changed ports.
            return Ok(());
        }
    };
    let zero_is_none = matches!(summary.key.protocol, Protocol::UDP);
    let at = l4.wrapping_add(field);
    if pseudo_header {
        packet.update_transport_checksum(at, entry.address_delta, true, zero_is_none)?;
    }
    let [a, b] = entry.translated_source_port.0;
    let [c, d] = entry.translated_destination_port.0;
    if u16::from_ne_bytes(entry.port_delta) == 0 {
        return Ok(());
    }
    packet.update_transport_checksum(at, entry.port_delta, false, zero_is_none)?;
    match summary.key.protocol {
        // One of the two is the identifier, the other zero.
        Protocol::ICMP | Protocol::ICMPV6 => packet.store(l4.wrapping_add(4), &[a | c, b | d]),
        _ => packet.store(l4, &[a, b, c, d]),
    }
}
