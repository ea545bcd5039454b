// SPDX-License-Identifier: Apache-2.0
//! Packets that do not fit their way, and the ICMP errors that say so.

use crate::decision::Workspace;
use crate::run::{Redirect, Verdict};
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

/// A pod is told by an ICMP error what became of its packet.
#[inline(always)]
pub fn dropped_or_answered<T: Tables>(
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
    let mtu = if reason == DropReason::FragmentationNeeded {
        decision.entry.mtu
    } else {
        0
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
