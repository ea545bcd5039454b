// SPDX-License-Identifier: Apache-2.0
//! Which tuple do the answers to a translated connection carry?
//!
//! The mapping is the reply entry itself: inserting it under the tuple that replies will carry,
//! only where that key is free, reserves it. No two flows can share a mapping, whether they are
//! masqueraded, go through services to one backend from one port, or collide with a connection that
//! is not translated; and a port can serve any number of destinations (RFC 4787, "address and
//! port-dependent mapping", which is what tables of a busy node need).

use crate::decision::{Decision, Outcome, Workspace};
use crate::flow::{write_deltas, write_pair};
use crate::live::LiveFlow;
use crate::tables::{EXISTS, Insert, Repeat, Tables};
use weir_abi::counter::Counter;
use weir_abi::flow::Kind;
use weir_abi::{DropReason, FlowKey, Port, Protocol};
use weir_packet::hash::hash_of;

/// Ports that are tried for a connection, at most.
pub const ATTEMPTS: u32 = 128;
/// After so many tries the agent is asked to collect garbage.
const SIGNAL_AFTER: u32 = 64;

/// Last step of a translated flow: reserves a mapping and stores both entries.
///
/// [`Decision::entry`] must be filled in but for its translation, [`Decision::after`] must name the
/// translated destination, and [`Decision::pair_key`] the address that answers are sent to as its
/// destination. The original port is kept where it is in the range and
/// free; the other candidates follow from a hash of the tuple, so that a connection whose own entry
/// was evicted finds its mapping again.
#[inline(never)]
pub fn reserve<T: Tables>(tables: &T, workspace: &mut Workspace) -> Outcome {
    let Workspace {
        decision, summary, ..
    } = workspace;
    let key = &summary.key;
    begin(key, decision);
    // Who keeps its address keeps its port too, where it can.
    let own_address = decision.pair_key.destination.0 == key.source.0;
    let original = key.source_port.get();
    let first = tables.config(|config| &config.masquerade_port_min);
    let last = tables.config(|config| &config.masquerade_port_max);
    // A checksum of SCTP covers the ports by CRC-32c, which cannot be updated here (RFC 9260,
    // section 6.8), so only the address changes.
    let fixed_port = matches!(key.protocol, Protocol::SCTP);
    if fixed_port && decision.after.destination_port.0 != key.destination_port.0 {
        return Outcome::Drop(DropReason::SctpPortTranslation);
    }
    let attempts = if fixed_port { 1 } else { ATTEMPTS };
    let mut search = Search {
        tables,
        key,
        decision,
        hash: hash_of(key),
        first: u32::from(first),
        last: u32::from(last),
        keeps: u32::from(fixed_port || own_address || (original >= first && original <= last)),
        found: Attempt::Taken as u32,
    };
    tables.repeat(attempts, &mut search);
    let found = search.found;
    if found == Attempt::Reserved as u32 {
        return finish(tables, key, decision);
    }
    if found == Attempt::Failed as u32 {
        return Outcome::Drop(DropReason::CtInsertionFailed);
    }
    tables.signal_garbage();
    Outcome::Drop(DropReason::NoMasqueradeMapping)
}

/// The search for a free port, as a loop that the kernel runs (`bpf_loop`): unrolled by the
/// verifier it would exceed what a program may cost.
struct Search<'a, T> {
    tables: &'a T,
    key: &'a FlowKey,
    decision: &'a mut Decision,
    hash: u32,
    first: u32,
    last: u32,
    /// 1: the first attempt is the original port.
    keeps: u32,
    /// A number of [`Attempt`].
    found: u32,
}

impl<T: Tables> Repeat for Search<'_, T> {
    #[inline(always)]
    fn once(&mut self, attempt: u32) -> bool {
        let port = if attempt == 0 && self.keeps != 0 {
            self.key.source_port
        } else {
            candidate(self.hash, attempt, self.first, self.last)
        };
        let found = try_port(self.tables, self.key, port, self.decision);
        self.found = found as u32;
        if matches!(found, Attempt::Taken) {
            self.tables.count(Counter::MasqueradeRetries);
            if attempt == SIGNAL_AFTER {
                self.tables.signal_garbage();
            }
            return false;
        }
        true
    }
}

/// Everything about the two entries that does not depend on the port.
#[inline(always)]
fn begin(key: &FlowKey, decision: &mut Decision) {
    let Decision {
        entry,
        pair,
        pair_key,
        after,
        ingress_cookie,
        ..
    } = decision;
    entry.kind = entry
        .kind
        .with(Kind::TRANSLATE_SOURCE)
        .with(Kind::MASQUERADE);
    entry.translated_source = pair_key.destination;
    entry.translated_destination = after.destination;
    entry.translated_destination_port = after.destination_port;
    if after.destination.0 != key.destination.0
        || after.destination_port.0 != key.destination_port.0
    {
        entry.kind = entry.kind.with(Kind::TRANSLATE_DESTINATION);
    }
    write_pair(pair, key, entry);
    pair.cookie = *ingress_cookie;
    pair_key.source = after.destination;
    pair_key.source_port = after.destination_port;
    pair_key.protocol = key.protocol;
    pair_key.zone = key.zone;
    pair_key.reserved = 0;
}

/// Stores the entry of the packet's own direction.
#[inline(always)]
fn finish<T: Tables>(tables: &T, key: &FlowKey, decision: &mut Decision) -> Outcome {
    let Decision {
        entry,
        after,
        extended,
        ..
    } = decision;
    after.source = entry.translated_source;
    after.source_port = entry.translated_source_port;
    if entry.translated_source.0 == key.source.0
        && entry.translated_source_port.0 == key.source_port.0
    {
        let translation = Kind::MASQUERADE.with(Kind::TRANSLATE_SOURCE);
        entry.kind = entry.kind.without(translation);
    }
    if entry.kind.translates() {
        write_deltas(key, entry);
    }
    if let Err(errno) = tables.insert_flow(key, entry, Insert::Replace) {
        *extended = errno;
        return Outcome::Drop(DropReason::CtInsertionFailed);
    }
    tables.count(Counter::FlowsCreated);
    Outcome::Forward
}

/// What came of one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Attempt {
    Reserved = 0,
    /// A living flow has it.
    Taken = 1,
    /// The table refused for another reason, which stands in [`Decision::extended`].
    Failed = 2,
}

/// Tries to reserve one port.
#[inline(always)]
fn try_port<T: Tables>(tables: &T, key: &FlowKey, port: Port, decision: &mut Decision) -> Attempt {
    let Decision {
        entry,
        pair,
        pair_key,
        inner_flow: other,
        now,
        extended,
        ..
    } = decision;
    pair_key.destination_port = port;
    entry.translated_source_port = port;
    // A connection that keeps its tuple is not translated on this side.
    let translation = Kind::MASQUERADE.with(Kind::TRANSLATE_DESTINATION);
    let kept = pair_key.destination.0 == key.source.0 && port.0 == key.source_port.0;
    pair.kind = if kept {
        pair.kind.without(translation)
    } else {
        pair.kind.with(translation)
    };
    match tables.insert_flow(pair_key, pair, Insert::Reserve) {
        Ok(()) => return Attempt::Reserved,
        Err(EXISTS) => {}
        Err(errno) => {
            *extended = errno;
            return Attempt::Failed;
        }
    }
    let Some(existing) = tables.flow(pair_key) else {
        // Evicted in between: another try would do, the next candidate does as well.
        return Attempt::Taken;
    };
    // Whose it is: the tuple that answers are translated to, turned round.
    *other = existing.fixed().pair_key(pair_key);
    if *other != *key && !is_stray(key, &existing) {
        let alive = existing.expires() > *now
            || tables
                .flow(other)
                .is_some_and(|forward| forward.expires() > *now);
        if alive {
            return Attempt::Taken;
        }
    }
    match tables.insert_flow(pair_key, pair, Insert::Replace) {
        Ok(()) => Attempt::Reserved,
        Err(errno) => {
            *extended = errno;
            Attempt::Failed
        }
    }
}

/// Whether an entry is to give way where there is no other port: somebody sent and nobody answered. Nearly always that is
/// itself an answer, to the very connection that is mapped, which came after both entries of that were evicted.
#[inline(always)]
fn is_stray(key: &FlowKey, existing: &LiveFlow<'_>) -> bool {
    matches!(key.protocol, Protocol::SCTP)
        && !existing.fixed().kind.contains(Kind::REPLY)
        && !existing.is_answered()
}

/// The port of one attempt: evenly spread over the range, different for neighbouring attempts.
#[inline(always)]
const fn candidate(hash: u32, attempt: u32, first: u32, last: u32) -> Port {
    let range = last.wrapping_sub(first).wrapping_add(1);
    let mixed = hash.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
    let [_, _, _, _, a, b, c, d] = (mixed as u64).wrapping_mul(range as u64).to_le_bytes();
    let [low, high, _, _] = u32::from_le_bytes([a, b, c, d])
        .wrapping_add(first)
        .to_le_bytes();
    Port([high, low])
}
