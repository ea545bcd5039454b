// SPDX-License-Identifier: Apache-2.0
//! The last step for the first packet of a connection.

use crate::decision::{Decision, Outcome};
use crate::entry::{insert, write_entry};
use crate::flow;
use crate::run::Arrival;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::flow::Kind;
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowKey, Identity, Protocol};
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
    if from_pod && has(features::TUNNEL) && encapsulates(tables, key, decision) {
        return Err(Outcome::Drop(DropReason::EncapsulationProhibited));
    }
    if matches!(arrival.hook, Hook::FromNetdev)
        && decision.destination_identity == Identity::HOST
        && arrival.tunnel_source.is_none()
    {
        // Somebody talks to the node itself. Not followed: whoever scans the node would push the
        // pods' flows out of the table.
        return Err(Outcome::Pass);
    }
    // Policy plugs in here, with `decision.source_identity` and `decision.destination_identity`.

    let mut kind = Kind(0);
    if from_pod || matches!(arrival.hook, Hook::FromHost | Hook::ToNetdev) {
        kind = kind.with(Kind::OUT);
    }
    let bits = flow::own_state(summary, false);
    write_entry(tables, arrival, key, kind, bits, decision);
    decision.entry.created = now;
    decision.entry.packets = 1;
    decision.entry.bytes = u64::from(summary.l3_length);

    let masquerades = from_pod
        && decision.way.to_world
        && has(features::MASQUERADE)
        && !tables.masquerade_exempt(&key.destination);
    if masquerades {
        let node_address = own_address(tables, key.source.is_v4());
        if node_address.0 == Address::UNSPECIFIED.0 {
            return Err(Outcome::Drop(DropReason::NoMasqueradeMapping));
        }
        decision.pair_key.destination = node_address;
        decision.masquerades = true;
        return Ok(());
    }
    if matches!(arrival.hook, Hook::ToNetdev) {
        // The node's own connection takes its tuple like a masqueraded one, and gives way to
        // another port where a pod's connection has it already.
        decision.pair_key.destination = key.source;
        decision.masquerades = true;
        return Ok(());
    }
    flow::write_pair(&mut decision.pair, key, &decision.entry);
    decision.pair_key = key.reversed();
    insert(
        tables,
        &decision.pair_key,
        &decision.pair,
        &mut decision.extended,
    )?;
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

/// A pod that sends tunnel packets to a node could claim to be anybody.
#[inline(always)]
fn encapsulates<T: Tables>(tables: &T, key: &FlowKey, decision: &Decision) -> bool {
    matches!(key.protocol, Protocol::UDP)
        && key.destination_port.0 == tables.config(|config| &config.tunnel_port).0
        && (decision.destination_identity == Identity::HOST
            || decision.destination_identity == Identity::REMOTE_NODE)
}
