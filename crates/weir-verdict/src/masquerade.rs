// SPDX-License-Identifier: Apache-2.0
//! Which of the node's ports stands for a pod's connection to the world?
//!
//! The mapping is the reply entry itself: inserting it under the tuple that replies will carry,
//! only where that key is free, reserves the port for this destination. No two flows can share a
//! mapping, and a port can serve any number of destinations (RFC 4787, "address and port-dependent
//! mapping", which is what tables of a busy node need).

use crate::decision::{Decision, Outcome};
use crate::flow::write_pair;
use crate::tables::{EXISTS, Insert, Tables};
use weir_abi::counter::Counter;
use weir_abi::flow::Kind;
use weir_abi::{Address, DropReason, FlowKey, Port, Protocol, Seconds};

/// Ports that are tried for a connection, at most.
pub const ATTEMPTS: u32 = 64;
/// After so many tries the agent is asked to collect garbage.
const SIGNAL_AFTER: u32 = 32;

/// Whether a protocol has a field that can tell mappings apart.
#[inline(always)]
pub const fn supported(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMPV6
    )
}

/// Reserves a mapping for the flow under `key` and writes it into the decision: the entry's
/// translation, the pair, and the pair's key.
///
/// `decision.entry` must be filled in but for its translation. The original port is kept where it
/// is in the range and free; the other candidates follow from a hash of the tuple, so that a
/// connection whose own entry was evicted finds its mapping again.
#[inline(never)]
pub fn reserve<T: Tables>(
    tables: &T,
    key: &FlowKey,
    node_address: &Address,
    decision: &mut Decision,
) -> Outcome {
    let now = decision.now;
    let first = u32::from(tables.config(|config| &config.masquerade_port_min));
    let last = u32::from(tables.config(|config| &config.masquerade_port_max));
    let original = u32::from(key.source_port.get());
    let keeps = original >= first && original <= last;
    // A checksum of SCTP covers the ports by CRC-32c, which cannot be updated here (RFC 9260,
    // section 6.8), so only the address changes.
    let fixed_port = matches!(key.protocol, Protocol::SCTP);
    let hash = hash_of(key);
    let entry = &mut decision.entry;
    entry.kind = entry
        .kind
        .with(Kind::TRANSLATE_SOURCE)
        .with(Kind::MASQUERADE);
    entry.translated_source = *node_address;
    entry.translated_destination = key.destination;
    entry.translated_destination_port = key.destination_port;
    write_pair(&mut decision.pair, key, &decision.entry);
    decision.pair_key = FlowKey {
        source: key.destination,
        destination: *node_address,
        source_port: key.destination_port,
        destination_port: Port::NONE,
        protocol: key.protocol,
        zone: key.zone,
    };

    for attempt in 0..ATTEMPTS {
        let port = if fixed_port || (attempt == 0 && keeps) {
            key.source_port
        } else {
            candidate(hash, attempt, first, last)
        };
        decision.pair_key.destination_port = port;
        decision.entry.translated_source_port = port;
        match try_port(tables, key, now, decision) {
            Ok(true) => return Outcome::FORWARD,
            Ok(false) => {}
            Err(errno) => {
                decision.extended = errno;
                return Outcome::drop(DropReason::CtInsertionFailed);
            }
        }
        if fixed_port {
            break;
        }
        tables.count(Counter::MasqueradeRetries);
        if attempt == SIGNAL_AFTER {
            tables.signal_garbage();
        }
    }
    tables.signal_garbage();
    Outcome::drop(DropReason::NoMasqueradeMapping)
}

/// Tries to reserve [`Decision::pair_key`]; `false`: it is taken by a living flow.
#[inline(always)]
fn try_port<T: Tables>(
    tables: &T,
    key: &FlowKey,
    now: Seconds,
    decision: &Decision,
) -> Result<bool, i32> {
    match tables.insert_flow(&decision.pair_key, &decision.pair, Insert::Reserve) {
        Ok(()) => return Ok(true),
        Err(EXISTS) => {}
        Err(errno) => return Err(errno),
    }
    let Some(existing) = tables.flow(&decision.pair_key) else {
        // Evicted in between: another try would do, the next candidate does as well.
        return Ok(false);
    };
    let forward_key = existing.fixed().pair_key(&decision.pair_key);
    let own = forward_key == *key;
    let alive = existing.expires() > now
        || tables
            .flow(&forward_key)
            .is_some_and(|forward| forward.expires() > now);
    if own || !alive {
        tables.insert_flow(&decision.pair_key, &decision.pair, Insert::Replace)?;
        return Ok(true);
    }
    Ok(false)
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

/// A hash of a tuple (64-bit multiply-mix); equal in the kernel and on the host.
#[inline(always)]
pub fn hash_of(key: &FlowKey) -> u32 {
    let mut hash: u64 = 0x51_7c_c1_b7_27_22_0a_95;
    let (chunks, _) = key.source.0.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    let (chunks, _) = key.destination.0.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    let ([a, b], [c, d]) = (key.source_port.0, key.destination_port.0);
    hash = mix(
        hash,
        u64::from_le_bytes([a, b, c, d, key.protocol.0, 0, 0, 0]),
    );
    let [_, _, _, _, e, f, g, h] = hash.to_le_bytes();
    u32::from_le_bytes([e, f, g, h])
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}
