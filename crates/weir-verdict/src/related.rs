// SPDX-License-Identifier: Apache-2.0
//! Which flow is an ICMP error about, and where does it go?

use crate::arrive::is_tunnel_port;
use crate::decision::{Decision, Outcome, Workspace};
use crate::direct;
use crate::run::Arrival;
use crate::source;
use crate::tables::Tables;
use weir_abi::flow::Kind;
use weir_abi::node::TunnelMtu;
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, Identity, Protocol, Seconds, TraceReason};
use weir_packet::icmp::{Inner, translate_error};
use weir_packet::{PacketRead, PacketWrite, Summary};

/// RFC 1191, section 6.3: forget a learned MTU after ten minutes.
const MTU_LIFETIME: u32 = 600;
/// Below this an IPv4 (or IPv6) path cannot be; smaller claims are forged (RFC 8200, section 5;
/// Linux uses 552 for IPv4).
const MTU_MIN_V4: u32 = 552;
const MTU_MIN_V6: u32 = 1280;

/// First step for an ICMP error: finds the flow. The error travels the way of the packets that
/// answer the offending one, and is translated as they are.
#[inline(never)]
pub fn examine<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    workspace: &mut Workspace,
) -> Outcome {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
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
    source::check(tables, arrival, summary, decision)?;
    let from_underlay = matches!(arrival.hook, Hook::FromNetdev) && arrival.tunnel_source.is_none();
    // What is not about a flow of this table may be about the node's own traffic.
    let otherwise = unrelated(arrival, summary);
    if !decision.inner.parse_into(packet, summary) {
        return Err(otherwise);
    }
    let inner = &decision.inner;
    if from_underlay && is_about_tunnel(tables, inner) {
        learn_mtu(packet, tables, summary, inner, decision.now);
        return Err(Outcome::Pass);
    }
    decision.inner_flow = inner.key.reversed();
    let Some(flow) = tables.flow(&decision.inner_flow) else {
        return Err(otherwise);
    };
    let fixed = flow.fixed();
    decision.after = fixed.translated(&decision.inner_flow);
    // The error itself comes from wherever on the way; the route back is looked up for its sender.
    let Kind(bits) = fixed.kind;
    let translation = Kind::TRANSLATE_SOURCE.0 | Kind::TRANSLATE_DESTINATION.0;
    // The backend's node translates the errors of the packets that it translates.
    decision.direct = direct::is_sent_on(tables, fixed);
    decision.entry.kind = Kind(bits & (translation | Kind::DIRECT.0));
    decision.related = true;
    decision.translated = fixed.kind.translates();
    decision.reply = fixed.kind.contains(Kind::REPLY);
    Ok(())
}

/// ICMP that belongs to no flow of the table: the node's own business, or nobody's.
#[inline(always)]
pub fn unrelated(arrival: &Arrival, summary: &Summary) -> Outcome {
    match arrival.hook {
        Hook::FromNetdev | Hook::ToNetdev if arrival.tunnel_source.is_none() => Outcome::Pass,
        Hook::FromContainer | Hook::FromNetdev | Hook::ToNetdev | Hook::FromHost => {
            Outcome::Drop(if summary.is_v4 {
                DropReason::UnknownIcmpv4Type
            } else {
                DropReason::UnknownIcmpv6Type
            })
        }
    }
}

/// Last step for an ICMP error: the entry says where it goes; it is never stored.
#[inline(always)]
pub fn settle(decision: &mut Decision) {
    let Decision {
        entry, way, after, ..
    } = decision;
    entry.egress = way.egress;
    entry.action = way.action as u8;
    entry.mtu = way.mtu;
    entry.destination_mac = way.destination_mac;
    entry.source_mac = way.source_mac;
    entry.node = way.node;
    entry.translated_source = after.source;
    entry.translated_destination = after.destination;
    entry.translated_source_port = after.source_port;
    entry.translated_destination_port = after.destination_port;
    decision.report = true;
    decision.trace_reason = TraceReason::Related;
    decision.through_neighbour = decision.way.is_routed();
}

/// Rewrites the error and the packet inside as the flow's packets are rewritten, and takes that off
/// the entry: what remains is where the error goes.
#[inline(never)]
pub fn translate<P: PacketWrite>(packet: &mut P, workspace: &mut Workspace) -> bool {
    let Workspace {
        decision, summary, ..
    } = workspace;
    let Decision {
        entry,
        inner,
        inner_flow,
        after,
        ..
    } = decision;
    if !entry.kind.translates() {
        return true;
    }
    entry.kind = Kind(0);
    translate_error(packet, summary, inner, inner_flow, after)
}

/// Whether the packet inside is one that this node tunnelled.
#[inline(always)]
fn is_about_tunnel<T: Tables>(tables: &T, inner: &Inner) -> bool {
    matches!(inner.key.protocol, Protocol::UDP)
        && is_tunnel_port(tables, inner.key.destination_port)
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
