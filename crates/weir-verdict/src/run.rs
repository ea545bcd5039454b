// SPDX-License-Identifier: Apache-2.0
//! A packet's whole stay at a hook: parse, find or decide, rewrite.

use crate::decide::decide;
use crate::decision::{Decision, Outcome};
use crate::established;
use crate::rewrite::{self, Manner};
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction};
use weir_abi::flow::Action;
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowEntry, IfIndex, Protocol};
use weir_packet::icmp::{ErrorKind, Neighbour, answer_arp, answer_solicitation, answer_with_error};
use weir_packet::tunnel::{self, Outer, TunnelHeader};
use weir_packet::{
    ETHERNET_LENGTH, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Malformed,
    PacketClass, PacketWrite, Summary,
};

/// Where and how a packet came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub hook: Hook,
    pub ifindex: IfIndex,
    /// The outer source address, where the packet came by the tunnel.
    pub tunnel_source: Option<Address>,
}

/// Where a rewritten packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// Into the namespace behind the other end of this link, at once (`bpf_redirect_peer`).
    Peer(IfIndex),
    /// Out of this device, as it is (`bpf_redirect`).
    Egress(IfIndex),
    /// Out of this device, MAC addresses by the kernel (`bpf_redirect_neigh`).
    Neighbour(IfIndex),
    /// In through this device (`bpf_redirect` with `BPF_F_INGRESS`).
    Ingress(IfIndex),
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on along the path it is on.
    Pass,
    Redirect(Redirect),
    /// It is gone, for this reason.
    Drop(DropReason),
    /// It is gone for this reason, but its sender is told by the packet that it became.
    Answer(DropReason, Redirect),
}

/// Handles one packet. `decision` is scratch memory that afterwards explains the verdict;
/// `summary` likewise, where the packet could be parsed.
#[inline(always)]
pub fn run<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    ifindex: IfIndex,
    decision: &mut Decision,
    seen: &mut Option<Summary>,
) -> Verdict {
    let mut arrival = Arrival {
        hook,
        ifindex,
        tunnel_source: None,
    };
    decision.report = false;
    let from_pod = matches!(hook, Hook::FromContainer);
    let Some(ethertype) = packet.load::<2>(12) else {
        return refuse(from_pod, DropReason::UnsupportedL2);
    };
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {}
        ETHERTYPE_ARP if from_pod => return arp(packet, ifindex),
        _ => return refuse(from_pod, DropReason::UnsupportedL3),
    }
    let mut summary = match Summary::parse(packet, ETHERNET_LENGTH) {
        Ok(summary) => summary,
        // What is not for pods may still be for the node, whose stack knows more protocols.
        Err(Malformed(reason)) => {
            return refuse(from_pod || matches!(hook, Hook::FromHost), reason);
        }
    };
    let mut outer = None;
    if matches!(hook, Hook::FromNetdev) && is_tunnel(tables, &summary) {
        match unwrap_tunnel(packet, &summary) {
            Ok((tunnel, inner)) => {
                arrival.tunnel_source = Some(tunnel.source);
                outer = Some(tunnel);
                summary = inner;
            }
            Err(Malformed(reason)) => return Verdict::Drop(reason),
        }
    }
    if matches!(hook, Hook::ToNetdev) && !may_collide(tables, &summary) {
        return Verdict::Pass;
    }
    *seen = Some(summary);
    if !matches!(summary.fragment, Fragment::Whole)
        && let Err(verdict) = follow_fragments(tables, &arrival, &mut summary)
    {
        return verdict;
    }
    *seen = Some(summary);
    if matches!(summary.class, PacketClass::LinkLocal) && from_pod {
        return link_local(packet, &summary, ifindex);
    }

    let now = tables.now();
    let segment_size = packet.segment_size();
    let mut manner = Manner {
        outer,
        related: None,
        through_neighbour: false,
    };
    if matches!(summary.class, PacketClass::Flow)
        && let Some(flow) = tables.flow(&summary.key)
        && established::usable(tables, &arrival, &summary, segment_size, &flow, now)
    {
        established::touch(tables, &summary, &flow, now);
        tables.count_packet(0, direction(hook), summary.l3_length);
        return match rewrite::apply(packet, tables, &arrival, &summary, flow.fixed(), &manner) {
            Ok(verdict) => verdict,
            Err(reason) => Verdict::Drop(reason),
        };
    }
    let outcome = decide(packet, tables, &arrival, &summary, decision);
    decision.direction = direction(hook);
    if outcome == Outcome::PASS {
        tables.count_packet(0, direction(hook), summary.l3_length);
        return Verdict::Pass;
    }
    if let Some(reason) = outcome.drop_reason() {
        return Verdict::Drop(reason);
    }
    if let Some(verdict) = unfit(
        packet,
        tables,
        &arrival,
        &summary,
        segment_size,
        &decision.entry,
    ) {
        return verdict;
    }
    tables.count_packet(0, direction(hook), summary.l3_length);
    if decision.related {
        tables.count(Counter::IcmpErrorsTranslated);
        manner.related = Some((&decision.inner_flow, &decision.inner));
    }
    manner.through_neighbour = decision.through_neighbour;
    match rewrite::apply(packet, tables, &arrival, &summary, &decision.entry, &manner) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Which way a packet at this hook travels, seen from pods and node.
#[inline(always)]
pub const fn direction(hook: Hook) -> Direction {
    match hook {
        Hook::FromContainer | Hook::FromHost | Hook::ToNetdev => Direction::Egress,
        Hook::FromNetdev => Direction::Ingress,
    }
}

/// A pod's nonsense is dropped; the node's and the network's goes to the node's stack, which knows
/// what to make of it.
#[inline(always)]
fn refuse(ours: bool, reason: DropReason) -> Verdict {
    if ours {
        Verdict::Drop(reason)
    } else {
        Verdict::Pass
    }
}

#[inline(always)]
fn arp<P: PacketWrite>(packet: &mut P, ifindex: IfIndex) -> Verdict {
    match answer_arp(packet) {
        Ok(Neighbour::Answered) => Verdict::Redirect(Redirect::Egress(ifindex)),
        Ok(Neighbour::NotOurs) => Verdict::Drop(DropReason::UnknownL3Target),
        Ok(Neighbour::NothingToAnswer) => Verdict::Drop(DropReason::MulticastHandled),
        Err(_) => Verdict::Drop(DropReason::WriteError),
    }
}

/// A pod's neighbour discovery ends at its link.
#[inline(always)]
fn link_local<P: PacketWrite>(packet: &mut P, summary: &Summary, ifindex: IfIndex) -> Verdict {
    // Router advertisements and redirects: a pod must not pose as a router.
    if matches!(summary.icmp_type, 134 | 137) {
        return Verdict::Drop(DropReason::ForbiddenIcmpv6);
    }
    match answer_solicitation(packet, summary) {
        Ok(Neighbour::Answered) => Verdict::Redirect(Redirect::Egress(ifindex)),
        Ok(Neighbour::NotOurs) => Verdict::Drop(DropReason::UnknownL3Target),
        Ok(Neighbour::NothingToAnswer) => Verdict::Drop(DropReason::MulticastHandled),
        Err(_) => Verdict::Drop(DropReason::WriteError),
    }
}

#[inline(always)]
fn is_tunnel<T: Tables>(tables: &T, summary: &Summary) -> bool {
    matches!(summary.key.protocol, Protocol::UDP)
        && matches!(summary.fragment, Fragment::Whole)
        && summary.key.destination_port.0 == tables.config(|config| &config.tunnel_port).0
        && tables.config(|config| &config.features) & features::TUNNEL != 0
}

/// Parses the packet inside the tunnel packet.
#[inline(always)]
fn unwrap_tunnel<P: PacketWrite>(
    packet: &P,
    summary: &Summary,
) -> Result<(Outer, Summary), Malformed> {
    match tunnel::parse(packet, summary) {
        TunnelHeader::Ours(outer) => {
            Summary::parse(packet, outer.inner_offset()).map(|inner| (outer, inner))
        }
        TunnelHeader::Malformed => Err(Malformed(DropReason::InvalidPacket)),
    }
}

/// Whether the node's own packet uses a port that masquerading could hand out; others cannot
/// collide and are left alone.
#[inline(always)]
fn may_collide<T: Tables>(tables: &T, summary: &Summary) -> bool {
    if !matches!(summary.class, PacketClass::Flow) {
        return false;
    }
    let port = summary.key.source_port.get();
    tables.config(|config| &config.features) & features::MASQUERADE != 0
        && port >= tables.config(|config| &config.masquerade_port_min)
        && port <= tables.config(|config| &config.masquerade_port_max)
}

/// Gives later fragments the ports of their first one.
#[inline(always)]
fn follow_fragments<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &mut Summary,
) -> Result<(), Verdict> {
    let key = FragmentKey {
        source: summary.key.source,
        destination: summary.key.destination,
        identification: summary.identification,
        protocol: summary.key.protocol,
        reserved: [0; 3],
    };
    if matches!(summary.fragment, Fragment::First) {
        let row = FragmentRow {
            source_port: summary.key.source_port,
            destination_port: summary.key.destination_port,
        };
        tables.remember_fragment(&key, &row);
        return Ok(());
    }
    if let Some(row) = tables.fragment(&key) {
        summary.key.source_port = row.source_port;
        summary.key.destination_port = row.destination_port;
        return Ok(());
    }
    let from_underlay = matches!(arrival.hook, Hook::FromNetdev) && arrival.tunnel_source.is_none();
    if from_underlay && tables.endpoint(&summary.key.destination).is_none() {
        return Err(Verdict::Pass);
    }
    Err(Verdict::Drop(if from_underlay {
        DropReason::FirstFragmentNotFoundWorld
    } else {
        DropReason::FirstFragmentNotFound
    }))
}

/// A packet that is too large for its way or has used up its time is dropped; a pod is told by an
/// ICMP error.
#[inline(always)]
fn unfit<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    segment_size: u32,
    entry: &FlowEntry,
) -> Option<Verdict> {
    let forwarded = matches!(
        Action::from_number(entry.action),
        Some(Action::ToEndpoint | Action::ToDevice | Action::ToTunnel)
    );
    if !forwarded {
        return None;
    }
    let (reason, kind) = if summary.ttl <= 1 {
        (DropReason::TtlExceeded, ErrorKind::TimeExceeded)
    } else if entry.mtu != 0 && summary.largest_packet(segment_size) > u32::from(entry.mtu) {
        (
            DropReason::FragmentationNeeded,
            ErrorKind::TooBig(entry.mtu),
        )
    } else {
        return None;
    };
    let answers = tables.config(|config| &config.features) & features::ICMP_ERRORS != 0
        && matches!(arrival.hook, Hook::FromContainer)
        // RFC 1122, section 3.2.2: no errors about errors, nor about later fragments.
        && matches!(summary.class, PacketClass::Flow)
        && !matches!(summary.fragment, Fragment::Later);
    let source = if summary.is_v4 {
        tables.config(|config| &config.node_ipv4)
    } else {
        tables.config(|config| &config.node_ipv6)
    };
    if !answers || source.0 == Address::UNSPECIFIED.0 {
        return Some(Verdict::Drop(reason));
    }
    Some(match answer_with_error(packet, summary, kind, &source) {
        Ok(()) => {
            tables.count(Counter::IcmpErrorsSent);
            Verdict::Answer(reason, Redirect::Egress(arrival.ifindex))
        }
        Err(_) => Verdict::Drop(reason),
    })
}
