// SPDX-License-Identifier: Apache-2.0
//! The last step for the first packet of a connection.

use crate::arrive::{is_tunnel_port, may_collide};
use crate::decision::{Decision, Outcome};
use crate::direct;
use crate::entry::{insert, write_entry};
use crate::flow;
use crate::run::Arrival;
use crate::tables::{EXISTS, Insert, Tables};
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::flow::{Action, Kind};
use weir_abi::observation::Hook;
use weir_abi::service::{LOOPBACK_V4, LOOPBACK_V6};
use weir_abi::{Address, DropReason, Identity, Protocol};
use weir_packet::Summary;

/// The first packet of a connection.
#[inline(always)]
pub fn open<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let key = &summary.key;
    let now = decision.now;
    let from_pod = matches!(arrival.hook, Hook::FromContainer);
    let has = |feature| tables.config(|config| &config.features) & feature != 0;
    if (from_pod || decision.translated) && encapsulates(tables, decision) {
        return Err(Outcome::Drop(DropReason::EncapsulationProhibited));
    }
    let from_network = matches!(arrival.hook, Hook::FromNetdev);
    let to_node = decision.destination.identity == Identity::HOST;
    if from_network && to_node {
        if !decision.translated && arrival.tunnel_source.is_none() {
            // Somebody talks to the node itself. Not followed: whoever scans the node would push the
            // pods' flows out of the table.
            return Err(Outcome::Pass);
        }
        tables.note_host_backend();
    }
    if matches!(arrival.hook, Hook::ToNetdev) && !may_collide(tables, summary) {
        return Err(Outcome::Pass);
    }

    let mut kind = Kind(0);
    if from_pod || matches!(arrival.hook, Hook::FromHost | Hook::ToNetdev) {
        kind = kind.with(Kind::OUT);
    }
    let bits = flow::own_state(summary, false);
    write_entry(tables, arrival, key, kind, bits, decision);
    decision.entry.cookie = decision.egress_cookie;
    decision.entry.created = now;
    decision.entry.packets = 1;
    decision.entry.bytes = u64::from(summary.l3_length);

    if direct::sends_on(tables, decision) {
        return direct::open(tables, key, decision).into_step();
    }
    let masquerades = from_pod
        && decision.way.to_world
        && has(features::MASQUERADE)
        && !tables.masquerade_exempt(&decision.after.destination);
    // The answers of a backend elsewhere have to come back to this node.
    let relays = from_network
        && decision.translated
        && !to_node
        && !matches!(decision.way.action, Action::ToEndpoint);
    if masquerades || relays {
        let node_address = own_address(tables, key.source.is_v4());
        if node_address.0 == Address::UNSPECIFIED.0 {
            return Err(Outcome::Drop(DropReason::NoMasqueradeMapping));
        }
        decision.pair_key.destination = node_address;
        decision.maps = true;
        return Ok(());
    }
    if decision.translated && decision.after.destination.0 == key.source.0 {
        // A pod that reaches itself through a service would answer itself past its link.
        decision.pair_key.destination = if key.source.is_v4() {
            LOOPBACK_V4
        } else {
            LOOPBACK_V6
        };
        decision.maps = true;
        return Ok(());
    }
    if decision.translated || matches!(arrival.hook, Hook::ToNetdev) {
        decision.pair_key.destination = key.source;
        decision.maps = true;
        return Ok(());
    }
    flow::write_pair(&mut decision.pair, key, &decision.entry);
    decision.pair.cookie = decision.ingress_cookie;
    decision.pair_key = key.reversed();
    match tables.insert_flow(&decision.pair_key, &decision.pair, Insert::Reserve) {
        Ok(()) => {}
        Err(EXISTS) => {
            // Its own from before, or a translated connection's, to which it has to give way.
            decision.pair_key.destination = key.source;
            decision.maps = true;
            return Ok(());
        }
        Err(errno) => {
            decision.extended = errno;
            return Err(Outcome::Drop(DropReason::CtInsertionFailed));
        }
    }
    insert(tables, key, &decision.entry, &mut decision.extended)?;
    tables.count(Counter::FlowsCreated);
    Ok(())
}

/// The address that stands for pods of this family.
#[inline(always)]
fn own_address<T: Tables>(tables: &T, is_v4: bool) -> Address {
    if is_v4 {
        tables.config(|config| &config.node_ipv4)
    } else {
        tables.config(|config| &config.node_ipv6)
    }
}

/// Who sends tunnel packets to a node could claim to be anybody: no pod may, and nobody through a
/// service, because nodes believe other nodes, which relay.
#[inline(always)]
fn encapsulates<T: Tables>(tables: &T, decision: &Decision) -> bool {
    let after = &decision.after;
    matches!(after.protocol, Protocol::UDP)
        && is_tunnel_port(tables, after.destination_port)
        && (decision.destination.identity == Identity::HOST
            || decision.destination.identity == Identity::REMOTE_NODE)
}
