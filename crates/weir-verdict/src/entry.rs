// SPDX-License-Identifier: Apache-2.0
//! Writing flow entries.

use crate::decision::{Decision, Outcome};
use crate::direct;
use crate::flow;
use crate::run::Arrival;
use crate::tables::{Insert, Tables};
use weir_abi::flow::state::ANSWERED;
use weir_abi::flow::{Dependencies, Kind};
use weir_abi::{
    Address, DropReason, FlowEntry, FlowKey, NodeIndex, PolicyCookie, Port, Protocol, Seconds, Slot,
};

/// Fills in everything but translation, counters and origin.
#[inline(always)]
pub fn write_entry<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    key: &FlowKey,
    kind: Kind,
    state: u32,
    decision: &mut Decision,
) {
    // Nobody has answered. Perhaps the answer came, and the entry that it needs was evicted, as entries that have seen no
    // packet are first. A SYN that is sent again is always decided on, and answers of what is sent on come by another way.
    let unanswered = state & ANSWERED == 0
        && !matches!(key.protocol, Protocol::TCP)
        && !direct::sends_on(tables, decision);
    let Decision {
        entry,
        way,
        now,
        everything,
        ..
    } = decision;
    let interval = u32::from(tables.config(|config| &config.report_interval));
    let unresolved = way.is_routed() && way.destination_mac.0 == [0; 6];
    // Ask again soon, also where the next hop was not resolved yet.
    entry.last_report = if unresolved || unanswered {
        Seconds(now.0.wrapping_sub(interval.wrapping_sub(1)))
    } else {
        *now
    };
    entry.expires = Seconds(
        now.0
            .wrapping_add(flow::timeout(tables, key.protocol, state)),
    );
    entry.state = state;
    entry.ingress = arrival.ifindex;
    // What changes everything changes routes as well.
    if !way.is_routed() {
        let Dependencies {
            slots: [.., slot],
            generations: [.., generation],
        } = &mut entry.dependencies;
        (*slot, *generation) = (Slot::ALL, *everything);
    }
    entry.egress = way.egress;
    entry.action = way.action as u8;
    entry.mtu = way.mtu;
    entry.destination_mac = way.destination_mac;
    entry.source_mac = way.source_mac;
    entry.node = way.node;
    if arrival.tunnel_source.is_some() {
        entry.kind = kind.with(Kind::FROM_TUNNEL);
        // `source::check` found it by the same row.
        let whose = match &arrival.tunnel_source {
            Some(outer) if direct::is_named(tables, arrival) => outer,
            _ => &key.source,
        };
        entry.sender = tables
            .ipcache(whose)
            .map_or(NodeIndex::NONE, |row| row.node);
    } else {
        entry.kind = kind;
        entry.sender = NodeIndex::NONE;
    }
    entry.translated_source = Address::UNSPECIFIED;
    entry.translated_destination = Address::UNSPECIFIED;
    entry.translated_source_port = Port::NONE;
    entry.translated_destination_port = Port::NONE;
    entry.address_delta = [0; 2];
    entry.port_delta = [0; 2];
    entry.cookie = PolicyCookie::NONE;
}

/// Stores an entry.
#[inline(always)]
pub fn insert<T: Tables>(
    tables: &T,
    key: &FlowKey,
    entry: &FlowEntry,
    extended: &mut i32,
) -> Result<(), Outcome> {
    tables
        .insert_flow(key, entry, Insert::Replace)
        .map_err(|errno| {
            *extended = errno;
            Outcome::Drop(DropReason::CtInsertionFailed)
        })
}
