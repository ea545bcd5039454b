// SPDX-License-Identifier: Apache-2.0
//! From bytes to a summary: headers, tunnel, fragments, and what belongs to a link alone.

use crate::decision::Workspace;
use crate::fate::{Fate, Redirect};
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::observation::Hook;
use weir_abi::{DatapathConfig, DropReason, Generation, Identity, IfIndex, Port, Protocol, Slot};
use weir_packet::dispatch;
use weir_packet::icmp::{Neighbour, answer_arp, answer_solicitation};
use weir_packet::tunnel::{self, TunnelHeader};
use weir_packet::{
    ETHERNET_LENGTH, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, PacketClass,
    PacketWrite, Room, Summary, WriteError,
};

/// Reads the headers, inside the tunnel where the packet came by it; or says what becomes of a
/// packet that is not IP or not well-formed.
#[inline(always)]
pub fn parse<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    workspace: &mut Workspace,
    tunnel: &mut Option<Room>,
) -> Fate {
    let Workspace {
        arrival, summary, ..
    } = workspace;
    let from_pod = matches!(arrival.hook, Hook::FromContainer);
    let Some(ethertype) = packet.load::<2>(12) else {
        return refuse(from_pod, DropReason::UnsupportedL2);
    };
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => {}
        ETHERTYPE_ARP if from_pod => return fate_of(arp(packet), arrival.ifindex),
        _ => return refuse(from_pod, DropReason::UnsupportedL3),
    }
    if let Some(reason) = summary.parse_here(packet, ETHERNET_LENGTH) {
        // What is not for pods may still be for the node, whose stack knows more protocols.
        return refuse(from_pod || matches!(arrival.hook, Hook::FromHost), reason);
    }
    if matches!(arrival.hook, Hook::FromNetdev) && is_dispatch(tables, summary) {
        if !dispatch::read(packet, summary, &mut arrival.backend) {
            return Fate::drop(DropReason::InvalidPacket);
        }
        let room = dispatch::room(summary.is_v4);
        arrival.dispatched = true;
        arrival.tunnel_source = Some(summary.key.source);
        *tunnel = Some(room);
        if let Some(reason) = summary.parse_into(packet, ETHERNET_LENGTH.wrapping_add(room.bytes()))
        {
            return Fate::drop(reason);
        }
    } else if matches!(arrival.hook, Hook::FromNetdev) && is_tunnel(tables, summary) {
        let TunnelHeader::Ours(outer) = tunnel::parse(packet, summary) else {
            return Fate::drop(DropReason::InvalidPacket);
        };
        arrival.tunnel_source = Some(outer.source);
        *tunnel = Some(outer.room);
        let inner_offset = outer.inner_offset();
        if let Some(reason) = summary.parse_into(packet, inner_offset) {
            return Fate::drop(reason);
        }
    }
    Fate::OPEN
}

/// A pod's nonsense is dropped; the node's and the network's goes to the node's stack, which knows
/// what to make of it.
#[inline(always)]
fn refuse(ours: bool, reason: DropReason) -> Fate {
    if ours { Fate::drop(reason) } else { Fate::PASS }
}

/// What became of a question about a neighbour: answered, or dropped. (One byte, so that the kernel
/// can compile the answering as functions of their own.)
#[inline(always)]
pub fn fate_of(dropped: Option<DropReason>, ifindex: IfIndex) -> Fate {
    match dropped {
        None => Fate::redirect(Redirect::Egress(ifindex)),
        Some(reason) => Fate::drop(reason),
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
pub fn link_local<P: PacketWrite>(packet: &mut P, summary: &Summary) -> Option<DropReason> {
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

/// A packet that names its backend. Those for pods are theirs: where pods are reached by routing
/// they come in the same way, and may use the port for what they like.
#[inline(always)]
fn is_dispatch<T: Tables>(tables: &T, summary: &Summary) -> bool {
    tables.config(|config| &config.features) & features::DIRECT_RETURN != 0
        && matches!(summary.key.protocol, Protocol::UDP)
        && matches!(summary.fragment, Fragment::Whole)
        && summary.key.destination_port.0 == DatapathConfig::DISPATCH_PORT.0
        && tables
            .ipcache(&summary.key.destination)
            .is_some_and(|row| row.identity == Identity::HOST)
}

/// Whether nodes take datagrams to this port of theirs for packets of the tunnel.
#[inline(always)]
pub fn is_tunnel_port<T: Tables>(tables: &T, port: Port) -> bool {
    let on = tables.config(|config| &config.features);
    let tunnel = tables.config(|config| &config.tunnel_port);
    (on & features::TUNNEL != 0 && port.0 == tunnel.0)
        || (on & features::DIRECT_RETURN != 0 && port.0 == DatapathConfig::DISPATCH_PORT.0)
}

/// Whether the node's own packet uses a port that masquerading could hand out; others cannot
/// collide and are left alone.
#[inline(always)]
pub fn may_collide<T: Tables>(tables: &T, summary: &Summary) -> bool {
    if !matches!(summary.class, PacketClass::Flow) {
        return false;
    }
    let port = summary.key.source_port.get();
    tables.config(|config| &config.features) & features::MASQUERADE != 0
        && port >= tables.config(|config| &config.masquerade_port_min)
        && port <= tables.config(|config| &config.masquerade_port_max)
}

/// Whether a packet that the node itself sends can be part of a flow in the table: one that could
/// collide, or an answer of the node to what a service sent it.
#[inline(always)]
pub fn concerns_flows<T: Tables>(tables: &T, summary: &Summary) -> bool {
    may_collide(tables, summary)
        || (matches!(summary.class, PacketClass::Flow)
            && tables.generation(Slot::HOST_BACKENDS) != Generation(0))
}

/// Gives later fragments the ports of their first one.
#[inline(always)]
pub fn follow_fragments<T: Tables>(tables: &T, workspace: &mut Workspace) -> Fate {
    let Workspace {
        arrival,
        summary,
        fragment: key,
        ..
    } = workspace;
    *key = FragmentKey {
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
        tables.remember_fragment(key, &row);
        return Fate::OPEN;
    }
    if let Some(row) = tables.fragment(key) {
        summary.key.source_port = row.source_port;
        summary.key.destination_port = row.destination_port;
        return Fate::OPEN;
    }
    let from_underlay = matches!(arrival.hook, Hook::FromNetdev) && arrival.tunnel_source.is_none();
    if from_underlay && tables.endpoint(&summary.key.destination).is_none() {
        return Fate::PASS;
    }
    Fate::drop(if from_underlay {
        DropReason::FirstFragmentNotFoundWorld
    } else {
        DropReason::FirstFragmentNotFound
    })
}
