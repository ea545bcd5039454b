// SPDX-License-Identifier: Apache-2.0
//! A packet's whole stay at a hook: parse, find or decide, rewrite.

use crate::decide::decide;
use crate::decision::{Outcome, Workspace};
use crate::established;
use crate::related;
use crate::rewrite;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction};
use weir_abi::flow::Action;
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowEntry, IfIndex, Protocol};
use weir_packet::icmp::{ErrorKind, Neighbour, answer_arp, answer_solicitation, answer_with_error};
use weir_packet::tunnel::{self, TunnelHeader};
use weir_packet::{
    ETHERNET_LENGTH, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, PacketClass,
    PacketWrite, Room, Summary, WriteError,
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
    /// It is gone for this reason, but its sender is told by the packet that it becomes.
    Answer(DropReason, Redirect),
}

/// Handles one packet; afterwards `workspace` explains the verdict.
pub fn run<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    ifindex: IfIndex,
    workspace: &mut Workspace,
) -> Verdict {
    let verdict = start(packet, tables, hook, ifindex, workspace);
    conclude(packet, tables, workspace, verdict)
}

/// First half of [`run`]: everything but turning a packet into the error that answers it, so that
/// events in between can show the packet as it came.
#[inline(always)]
pub fn start<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    ifindex: IfIndex,
    workspace: &mut Workspace,
) -> Verdict {
    workspace.parsed = false;
    workspace.decision.report = false;
    workspace.arrival = Arrival {
        hook,
        ifindex,
        tunnel_source: None,
    };
    let mut tunnel = None;
    if let Err(verdict) = parse(packet, tables, workspace, &mut tunnel) {
        workspace.decision.reset();
        return verdict;
    }
    if matches!(hook, Hook::ToNetdev) && !may_collide(tables, &workspace.summary) {
        return Verdict::Pass;
    }
    workspace.parsed = true;
    if !matches!(workspace.summary.fragment, Fragment::Whole)
        && let Err(verdict) = follow_fragments(tables, &workspace.arrival, &mut workspace.summary)
    {
        workspace.decision.reset();
        return verdict;
    }
    let class = workspace.summary.class;
    if matches!(class, PacketClass::LinkLocal) && matches!(hook, Hook::FromContainer) {
        workspace.decision.reset();
        return verdict_of(link_local(packet, &workspace.summary), ifindex);
    }

    let now = tables.now();
    let segment_size = packet.segment_size();
    let mut through_neighbour = false;
    let established = if matches!(class, PacketClass::Flow) {
        let Workspace {
            arrival, summary, ..
        } = &*workspace;
        tables
            .flow(&summary.key)
            .filter(|flow| established::usable(tables, arrival, summary, segment_size, flow, now))
    } else {
        None
    };
    let entry = if let Some(flow) = established {
        established::touch(tables, &workspace.summary, &flow, now);
        flow.fixed()
    } else {
        let outcome = decide(packet, tables, workspace);
        workspace.decision.direction = direction(hook);
        match outcome {
            Outcome::Forward => {}
            Outcome::Pass => {
                tables.count_packet(0, direction(hook), workspace.summary.l3_length);
                return Verdict::Pass;
            }
            Outcome::Drop(reason) => return Verdict::Drop(reason),
        }
        if let Some(reason) = unfit(&workspace.summary, segment_size, &workspace.decision.entry) {
            return dropped_or_answered(tables, workspace, reason);
        }
        if workspace.decision.related {
            tables.count(Counter::IcmpErrorsTranslated);
            if !related::translate(packet, workspace) {
                return Verdict::Drop(DropReason::ChecksumL4);
            }
        }
        through_neighbour = workspace.decision.through_neighbour;
        &workspace.decision.entry
    };
    let summary = &workspace.summary;
    tables.count_packet(0, direction(hook), summary.l3_length);
    match rewrite::apply(
        packet,
        tables,
        hook,
        summary,
        entry,
        tunnel,
        through_neighbour,
    ) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Reads the headers, inside the tunnel where the packet came by it; or says what becomes of a
/// packet that is not IP or not well-formed.
#[inline(always)]
fn parse<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    workspace: &mut Workspace,
    tunnel: &mut Option<Room>,
) -> Result<(), Verdict> {
    let Workspace {
        arrival, summary, ..
    } = workspace;
    let from_pod = matches!(arrival.hook, Hook::FromContainer);
    let Some(ethertype) = packet.load::<2>(12) else {
        return Err(refuse(from_pod, DropReason::UnsupportedL2));
    };
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {}
        ETHERTYPE_ARP if from_pod => return Err(verdict_of(arp(packet), arrival.ifindex)),
        _ => return Err(refuse(from_pod, DropReason::UnsupportedL3)),
    }
    if let Some(reason) = summary.parse_into(packet, ETHERNET_LENGTH) {
        // What is not for pods may still be for the node, whose stack knows more protocols.
        return Err(refuse(
            from_pod || matches!(arrival.hook, Hook::FromHost),
            reason,
        ));
    }
    if matches!(arrival.hook, Hook::FromNetdev) && is_tunnel(tables, summary) {
        let TunnelHeader::Ours(outer) = tunnel::parse(packet, summary) else {
            return Err(Verdict::Drop(DropReason::InvalidPacket));
        };
        arrival.tunnel_source = Some(outer.source);
        *tunnel = Some(outer.room);
        let inner_offset = outer.inner_offset();
        if let Some(reason) = summary.parse_into(packet, inner_offset) {
            return Err(Verdict::Drop(reason));
        }
    }
    Ok(())
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

/// What became of a question about a neighbour: answered, or dropped. (One byte, so that the kernel
/// can compile the answering as functions of their own.)
#[inline(always)]
fn verdict_of(dropped: Option<DropReason>, ifindex: IfIndex) -> Verdict {
    match dropped {
        None => Verdict::Redirect(Redirect::Egress(ifindex)),
        Some(reason) => Verdict::Drop(reason),
    }
}

#[inline(always)]
fn dropped(answer: Result<Neighbour, WriteError>) -> Option<DropReason> {
    match answer {
        Ok(Neighbour::Answered) => None,
        Ok(Neighbour::NotOurs) => Some(DropReason::UnknownL3Target),
        Ok(Neighbour::NothingToAnswer) => Some(DropReason::MulticastHandled),
        Err(_) => Some(DropReason::WriteError),
    }
}

#[inline(never)]
fn arp<P: PacketWrite>(packet: &mut P) -> Option<DropReason> {
    dropped(answer_arp(packet))
}

/// A pod's neighbour discovery ends at its link.
#[inline(never)]
fn link_local<P: PacketWrite>(packet: &mut P, summary: &Summary) -> Option<DropReason> {
    // Router advertisements and redirects: a pod must not pose as a router.
    if matches!(summary.icmp_type, 134 | 137) {
        return Some(DropReason::ForbiddenIcmpv6);
    }
    dropped(answer_solicitation(packet, summary))
}

#[inline(always)]
fn is_tunnel<T: Tables>(tables: &T, summary: &Summary) -> bool {
    matches!(summary.key.protocol, Protocol::UDP)
        && matches!(summary.fragment, Fragment::Whole)
        && summary.key.destination_port.0 == tables.config(|config| &config.tunnel_port).0
        && tables.config(|config| &config.features) & features::TUNNEL != 0
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
        reserved: 0,
        reserved_tail: [0; 2],
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

/// Whether a packet is too large for its way, or has used up its time.
#[inline(always)]
fn unfit(summary: &Summary, segment_size: u32, entry: &FlowEntry) -> Option<DropReason> {
    let forwarded = matches!(
        Action::from_number(entry.action),
        Some(Action::ToEndpoint | Action::ToDevice | Action::ToTunnel)
    );
    if !forwarded {
        None
    } else if summary.ttl <= 1 {
        Some(DropReason::TtlExceeded)
    } else if entry.mtu != 0 && summary.largest_packet(segment_size) > u32::from(entry.mtu) {
        Some(DropReason::FragmentationNeeded)
    } else {
        None
    }
}

/// A pod is told by an ICMP error what became of its packet.
#[inline(always)]
fn dropped_or_answered<T: Tables>(
    tables: &T,
    workspace: &Workspace,
    reason: DropReason,
) -> Verdict {
    let Workspace {
        arrival, summary, ..
    } = workspace;
    let answers = tables.config(|config| &config.features) & features::ICMP_ERRORS != 0
        && matches!(arrival.hook, Hook::FromContainer)
        // RFC 1122, section 3.2.2: no errors about errors, nor about later fragments.
        && matches!(summary.class, PacketClass::Flow)
        && !matches!(summary.fragment, Fragment::Later);
    if answers {
        Verdict::Answer(reason, Redirect::Egress(arrival.ifindex))
    } else {
        Verdict::Drop(reason)
    }
}

/// Second half of [`run`]: carries out a [`Verdict::Answer`]. The packet becomes the error that goes
/// back, or is dropped where that cannot be; other verdicts pass through.
#[inline(always)]
pub fn conclude<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    workspace: &Workspace,
    verdict: Verdict,
) -> Verdict {
    let Verdict::Answer(reason, _) = verdict else {
        return verdict;
    };
    let Workspace {
        decision, summary, ..
    } = workspace;
    let mtu = match reason {
        DropReason::FragmentationNeeded => decision.entry.mtu,
        _ => 0,
    };
    let source = if summary.is_v4 {
        tables.config(|config| &config.node_ipv4)
    } else {
        tables.config(|config| &config.node_ipv6)
    };
    if source.0 == Address::UNSPECIFIED.0 || !tell(packet, summary, mtu, &source) {
        return Verdict::Drop(reason);
    }
    tables.count(Counter::IcmpErrorsSent);
    verdict
}

/// Whether the packet could be turned into an ICMP error: "too big" for an MTU, "time exceeded" for
/// 0. (A plain number, because half of an enum would reach the kernel's function undefined.)
#[inline(never)]
fn tell<P: PacketWrite>(packet: &mut P, summary: &Summary, mtu: u16, source: &Address) -> bool {
    let kind = match mtu {
        0 => ErrorKind::TimeExceeded,
        mtu => ErrorKind::TooBig(mtu),
    };
    answer_with_error(packet, summary, kind, source).is_ok()
}
