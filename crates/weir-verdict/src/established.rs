// SPDX-License-Identifier: Apache-2.0
//! The fast path: may the entry that was found be used as it is?

use crate::direct;
use crate::flow::timeout;
use crate::live::LiveFlow;
use crate::run::Arrival;
use crate::tables::Tables;
use weir_abi::flow::{Action, Dependencies, Kind, state};
use weir_abi::{Protocol, Seconds};
use weir_packet::{PacketClass, Summary, tcp_flags};

/// The entry that was found, where it may be used. No closure, which the compiler would make a
/// function of.
#[inline(always)]
pub fn if_usable<'t, T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    segment_size: u32,
    found: Option<LiveFlow<'t>>,
    now: Seconds,
) -> Option<LiveFlow<'t>> {
    match found {
        Some(flow) if usable(tables, arrival, summary, segment_size, &flow, now) => Some(flow),
        Some(_) | None => None,
    }
}

/// Whether nothing about this packet needs a decision: the entry is alive, complete and current,
/// the packet came the way it should, fits, and does not open or close a connection.
#[inline(always)]
pub fn usable<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    segment_size: u32,
    flow: &LiveFlow<'_>,
    now: Seconds,
) -> bool {
    const SPECIAL: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
    let entry = flow.fixed();
    let report_interval = u32::from(tables.config(|config| &config.report_interval));
    if summary.tcp_flags & SPECIAL != 0
        || !matches!(summary.class, PacketClass::Flow)
        || summary.ttl <= 1
        || entry.ingress != arrival.ifindex
        || flow.expires() <= now
        || now.0.wrapping_sub(flow.last_report().0) >= report_interval
        || Action::from_number(entry.action).is_none()
        || (entry.mtu != 0 && summary.largest_packet(segment_size) > u32::from(entry.mtu))
    {
        return false;
    }
    let from_tunnel = entry.kind.contains(Kind::FROM_TUNNEL);
    match &arrival.tunnel_source {
        None if from_tunnel => return false,
        None => {}
        Some(outer) => {
            let expected = tables
                .node(entry.sender)
                .is_some_and(|node| node.remote.0 == outer.0);
            if !from_tunnel || !expected {
                return false;
            }
        }
    }
    if direct::is_named(tables, arrival) && !direct::agrees(arrival, entry) {
        return false;
    }
    current(tables, &entry.dependencies)
}

/// Whether nothing that the decision depended on has changed since.
#[inline(always)]
pub fn current<T: Tables>(tables: &T, dependencies: &Dependencies) -> bool {
    let Dependencies {
        slots: [a, b, c, d],
        generations: [ga, gb, gc, gd],
    } = dependencies;
    tables.generation(*a) == *ga
        && tables.generation(*b) == *gb
        && tables.generation(*c) == *gc
        && tables.generation(*d) == *gd
}

/// Counts the packet and keeps the entry alive.
#[inline(always)]
pub fn touch<T: Tables>(tables: &T, summary: &Summary, flow: &LiveFlow<'_>, now: Seconds) {
    let mut bits = u32::from(summary.tcp_flags) << state::TCP_FLAGS_SHIFT;
    bits |= state::SEEN_NON_SYN;
    flow.add_state(bits);
    let seconds = if matches!(summary.key.protocol, Protocol::TCP) {
        timeout(tables, Protocol::TCP, flow.state())
    } else {
        timeout(tables, Protocol::UDP, 0)
    };
    flow.set_expires(Seconds(now.0.wrapping_add(seconds)));
    flow.account(summary.l3_length);
}
