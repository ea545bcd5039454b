// SPDX-License-Identifier: Apache-2.0
//! Packets that do not fit their way, and the ICMP errors that say so.

use crate::decision::Workspace;
use crate::fate::Fate;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::flow::Action;
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowEntry};
use weir_packet::icmp::{ErrorKind, answer_with_error};
use weir_packet::{Fragment, PacketClass, PacketWrite, Summary};

/// Whether a packet is too large for its way, or has used up its time.
#[inline(always)]
pub fn unfit(summary: &Summary, segment_size: u32, entry: &FlowEntry) -> Option<DropReason> {
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

/// The verdict on a packet that is refused: its sender is told by an ICMP error where the decision
/// says so, and where it can be.
#[inline(always)]
pub fn refused<T: Tables>(tables: &T, workspace: &Workspace, reason: DropReason) -> Fate {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
    let answers = decision.rejects
        && tables.config(|config| &config.features) & features::ICMP_ERRORS != 0
        && arrival.tunnel_source.is_none()
        && matches!(arrival.hook, Hook::FromContainer | Hook::FromNetdev)
        // RFC 1122, section 3.2.2: no errors about errors, nor about later fragments.
        && matches!(summary.class, PacketClass::Flow)
        && !matches!(summary.fragment, Fragment::Later);
    if answers {
        Fate::answer(reason, arrival.ifindex)
    } else {
        Fate::drop(reason)
    }
}

/// Second half of [`run`]: carries out an answer. The packet becomes the error that goes
/// back, or is dropped where that cannot be; others stay.
#[inline(always)]
pub fn conclude<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    workspace: &Workspace,
    fate: Fate,
) -> Fate {
    if !fate.is_answer() {
        return fate;
    }
    let reason = fate.reason();
    let Workspace {
        decision, summary, ..
    } = workspace;
    let mtu = if reason == DropReason::FragmentationNeeded.number() {
        decision.entry.mtu
    } else if reason == DropReason::TtlExceeded.number() {
        0
    } else {
        PORT_UNREACHABLE
    };
    // A service speaks for itself; of what happens on the way the node tells.
    let source = if mtu == PORT_UNREACHABLE {
        summary.key.destination
    } else if summary.is_v4 {
        tables.config(|config| &config.node_ipv4)
    } else {
        tables.config(|config| &config.node_ipv6)
    };
    if source.0 == Address::UNSPECIFIED.0 || !tell(packet, summary, mtu, &source) {
        return fate.without_answer();
    }
    tables.count(Counter::IcmpErrorsSent);
    fate
}

/// Stands for "port unreachable" where an MTU would; no link has it.
const PORT_UNREACHABLE: u16 = 1;

/// Whether the packet could be turned into an ICMP error: "too big" for an MTU, "time exceeded" for
/// 0, "port unreachable" for 1. (A plain number, because half of an enum would reach the kernel's function undefined.)
#[inline(never)]
fn tell<P: PacketWrite>(packet: &mut P, summary: &Summary, mtu: u16, source: &Address) -> bool {
    let kind = match mtu {
        0 => ErrorKind::TimeExceeded,
        PORT_UNREACHABLE => ErrorKind::PortUnreachable,
        mtu => ErrorKind::TooBig(mtu),
    };
    answer_with_error(packet, summary, kind, source).is_ok()
}
