// SPDX-License-Identifier: Apache-2.0
//! The last step for a packet of a known connection.

use crate::decision::{Decision, Outcome};
use crate::direct;
use crate::entry::{insert, write_entry};
use crate::flow::{self, Connection};
use crate::run::Arrival;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::event::policy_flags;
use weir_abi::flow::{Kind, state};
use weir_abi::{FlowEntry, PolicyCookie, Seconds, TraceReason};
use weir_packet::Summary;

/// A packet of a known connection whose entry cannot be used as it is.
#[inline(always)]
pub fn carry_on<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    connection: &Connection<'_>,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let key = &summary.key;
    let now = decision.now;
    let reply = connection.reply;
    decision.trace_reason = if reply {
        TraceReason::Reply
    } else {
        TraceReason::Established
    };

    // What the packet turns into is settled; where it goes is looked up anew.
    let (kind, created, cookie, packets, bytes, old_state) = match connection.own {
        Some(own) => {
            let fixed = own.fixed();
            (
                fixed.kind,
                fixed.created,
                fixed.cookie,
                own.packets(),
                own.bytes(),
                own.state(),
            )
        }
        None => {
            let (out, cookie) = connection.pair.map_or((0, PolicyCookie::NONE), |pair| {
                (pair.fixed().kind.0 & Kind::OUT.0, pair.fixed().cookie)
            });
            let kind = Kind(out | if reply { Kind::REPLY.0 } else { 0 });
            (kind, now, cookie, 0, 0, 0)
        }
    };
    let bits = flow::own_state(summary, connection.own.is_some());
    let bits = direct::closing(tables, kind, bits);
    let mut state = old_state | bits;
    if reply {
        state |= state::ANSWERED;
    }
    let Kind(kept) = kind;
    let kept = Kind(kept & !Kind::FROM_TUNNEL.0);
    write_entry(tables, arrival, key, kept, state, decision);
    let Decision {
        entry,
        after,
        policy,
        egress_cookie,
        ingress_cookie,
        ..
    } = &mut *decision;
    entry.created = created;
    // What was asked anew has a new answer.
    let (asked, answer) = if reply {
        (*policy & policy_flags::INGRESS_ASKED, *ingress_cookie)
    } else {
        (*policy & policy_flags::EGRESS_ASKED, *egress_cookie)
    };
    entry.cookie = if asked == 0 { cookie } else { answer };
    entry.packets = packets.wrapping_add(1);
    entry.bytes = bytes.wrapping_add(u64::from(summary.l3_length));
    if kept.translates() {
        entry.translated_source = after.source;
        entry.translated_destination = after.destination;
        entry.translated_source_port = after.source_port;
        entry.translated_destination_port = after.destination_port;
        flow::write_deltas(key, entry);
    }
    // Entries that are there are changed where they lie, which no dry run may.
    if tables.config(|config| &config.features) & features::DRY_RUN != 0 {
        return Ok(());
    }
    match connection.own {
        // Most often only time has passed: keep the entry and its place.
        Some(own) if same_way(own.fixed(), &decision.entry) => {
            own.add_state(state);
            own.set_expires(decision.entry.expires);
            own.set_last_report(decision.entry.last_report);
            own.account(summary.l3_length);
        }
        _ => {
            insert(tables, key, &decision.entry, &mut decision.extended)?;
            tables.count(Counter::FlowsRefreshed);
        }
    }
    // The other direction passes by the backend's node alone.
    if direct::is_sent_on(tables, &decision.entry) {
        return Ok(());
    }
    keep_pair(tables, summary, connection, decision)
}

/// Tells the other direction's entry, or puts it back where it was evicted: else its packets would
/// open a connection of their own.
#[inline(always)]
fn keep_pair<T: Tables>(
    tables: &T,
    summary: &Summary,
    connection: &Connection<'_>,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let key = &summary.key;
    let Some(pair) = connection.pair else {
        flow::write_pair(&mut decision.pair, key, &decision.entry);
        decision.pair.cookie = if connection.reply {
            decision.egress_cookie
        } else {
            decision.ingress_cookie
        };
        decision.pair_key = decision.after.reversed();
        let Decision {
            pair,
            pair_key,
            extended,
            ..
        } = decision;
        return insert(tables, pair_key, pair, extended);
    };
    let bits = flow::pair_state(summary, connection.reply);
    pair.add_state(bits);
    // The end of one direction is told to the other at once: it may have nothing more to say.
    if bits & (state::CLOSING | state::PEER_CLOSING) != 0 {
        let timeout = flow::timeout(tables, key.protocol, pair.state() | bits);
        pair.set_expires(Seconds(decision.now.0.wrapping_add(timeout)));
    }
    Ok(())
}

/// Whether two entries treat packets alike, under the same generations.
#[inline(always)]
fn same_way(old: &FlowEntry, new: &FlowEntry) -> bool {
    old.action == new.action
        && old.cookie == new.cookie
        && old.kind == new.kind
        && old.ingress == new.ingress
        && old.egress == new.egress
        && old.mtu == new.mtu
        && old.node == new.node
        && old.sender == new.sender
        && old.destination_mac.0 == new.destination_mac.0
        && old.source_mac.0 == new.source_mac.0
        && old.dependencies.slots == new.dependencies.slots
        && old.dependencies.generations == new.dependencies.generations
}
