// SPDX-License-Identifier: Apache-2.0
//! Which flow is an ICMP error about, and where does it go?

use crate::decision::{Decision, Outcome};
use crate::run::Arrival;
use crate::tables::Tables;
use crate::way;
use weir_abi::config::features;
use weir_abi::flow::Kind;
use weir_abi::node::TunnelMtu;
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowEntry, Identity, Protocol, Seconds, TraceReason};
use weir_packet::icmp::{Inner, translate_error};
use weir_packet::{PacketRead, PacketWrite, Summary};

/// RFC 1191, section 6.3: forget a learned MTU after ten minutes.
const MTU_LIFETIME: u32 = 600;
/// Below this an IPv4 (or IPv6) path cannot be; smaller claims are forged (RFC 8200, section 5;
/// Linux uses 552 for IPv4).
const MTU_MIN_V4: u32 = 552;
const MTU_MIN_V6: u32 = 1280;

/// Decides on an ICMP error: it travels the way of the packets that answer the offending one, and
/// is translated as they are.
#[inline(never)]
pub fn decide<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    decision: &mut Decision,
) -> Outcome {
    Outcome::of(relate(packet, tables, arrival, summary, decision))
}

#[inline(always)]
fn relate<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let unrelated = Outcome::drop(if summary.is_v4 {
        DropReason::UnknownIcmpv4Type
    } else {
        DropReason::UnknownIcmpv6Type
    });
    let from_underlay = matches!(arrival.hook, Hook::FromNetdev) && arrival.tunnel_source.is_none();
    // What is not about a flow of this table may be about the node's own traffic.
    let otherwise = match arrival.hook {
        Hook::FromNetdev | Hook::ToNetdev if arrival.tunnel_source.is_none() => Outcome::PASS,
        Hook::FromContainer | Hook::FromNetdev | Hook::ToNetdev | Hook::FromHost => unrelated,
    };
    let Some(inner) = Inner::parse(packet, summary) else {
        return Err(otherwise);
    };
    decision.inner = inner;
    if from_underlay && is_about_tunnel(tables, &inner) {
        learn_mtu(packet, tables, summary, &inner, decision.now);
        return Err(Outcome::PASS);
    }
    decision.inner_flow = inner.key.reversed();
    let Some(flow) = tables.flow(&decision.inner_flow) else {
        return Err(otherwise);
    };
    let fixed = flow.fixed();
    decision.after = fixed.translated(&decision.inner_flow);
    way::find(tables, arrival, decision).step()?;
    let (after, way) = (decision.after, decision.way);
    let kept = if fixed.kind.translates() {
        Kind(fixed.kind.0 & (Kind::TRANSLATE_SOURCE.0 | Kind::TRANSLATE_DESTINATION.0))
    } else {
        Kind(0)
    };
    decision.entry = FlowEntry {
        egress: way.egress,
        action: way.action as u8,
        kind: kept,
        mtu: way.mtu,
        destination_mac: way.destination_mac,
        source_mac: way.source_mac,
        node: way.node,
        tunnel_source_port: fixed.tunnel_source_port,
        translated_source: after.source,
        translated_destination: after.destination,
        translated_source_port: after.source_port,
        translated_destination_port: after.destination_port,
        ..FlowEntry::default()
    };
    decision.related = true;
    decision.report = true;
    decision.reply = fixed.kind.contains(Kind::REPLY);
    decision.trace_reason = TraceReason::Related;
    decision.through_neighbour = way.is_routed();
    Ok(())
}

/// Rewrites the error and the packet inside as the flow's packets are rewritten, and takes that off
/// the entry: what remains is where the error goes.
#[inline(never)]
pub fn translate<P: PacketWrite>(
    packet: &mut P,
    summary: &Summary,
    decision: &mut Decision,
) -> Result<(), ()> {
    let entry = &mut decision.entry;
    if entry.kind.translates() {
        let after = entry.translated(&decision.inner_flow);
        entry.kind = Kind(0);
        translate_error(
            packet,
            summary,
            &decision.inner,
            &decision.inner_flow,
            &after,
        )
        .map_err(drop)?;
    }
    Ok(())
}

/// Whether the packet inside is one that this node tunnelled.
#[inline(always)]
fn is_about_tunnel<T: Tables>(tables: &T, inner: &Inner) -> bool {
    tables.config(|config| &config.features) & features::TUNNEL != 0
        && matches!(inner.key.protocol, Protocol::UDP)
        && inner.key.destination_port.0 == tables.config(|config| &config.tunnel_port).0
        && tables
            .ipcache(&inner.key.destination)
            .is_some_and(|row| row.identity == Identity::REMOTE_NODE)
}

/// Remembers the MTU that "fragmentation needed" or "packet too big" tells of the way to a node.
#[inline(always)]
fn learn_mtu<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    summary: &Summary,
    inner: &Inner,
    now: Seconds,
) {
    let too_big = if summary.is_v4 {
        summary.icmp_type == 3 && summary.icmp_code == 4
    } else {
        summary.icmp_type == 2
    };
    let Some([a, b, c, d]) = packet.load::<4>(summary.l4_offset.wrapping_add(4)) else {
        return;
    };
    let (mtu, least) = if summary.is_v4 {
        (u32::from(u16::from_be_bytes([c, d])), MTU_MIN_V4)
    } else {
        (u32::from_be_bytes([a, b, c, d]), MTU_MIN_V6)
    };
    if too_big && mtu >= least {
        let remote: Address = inner.key.destination;
        let expires = Seconds(now.0.wrapping_add(MTU_LIFETIME));
        tables.learn_tunnel_mtu(&remote, &TunnelMtu { mtu, expires });
    }
}
