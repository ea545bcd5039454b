// SPDX-License-Identifier: Apache-2.0
//! Direct server return: a client outside the cluster is answered by its backend's node itself.
//!
//! The node that is asked chooses the backend and sends the packet on as it came, with the backend
//! beside it (`weir_packet::dispatch`). The backend's node treats it as if it had been asked and had
//! chosen that backend itself: its flow entries translate there and back. So there is one
//! translation, on the node that sees both directions, and none that another node would have to
//! undo (ADR 0012).

use crate::decision::{Decision, Outcome, Workspace};
use crate::entry::insert;
use crate::flow::{Connection, Standing};
use crate::run::Arrival;
use crate::service::{depend_on, has_services};
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::flow::{Kind, state};
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, FlowEntry, FlowKey, Identity, NodeIndex};
use weir_packet::dispatch::Backend;

/// Whether backends answer themselves. What asks this first costs nothing where they do not: the
/// kernel takes out what can never be reached.
#[inline(always)]
fn is_on<T: Tables>(tables: &T) -> bool {
    tables.config(|config| &config.features) & features::DIRECT_RETURN != 0
}

/// Whether a packet came with its backend beside it.
#[inline(always)]
pub fn is_named<T: Tables>(tables: &T, arrival: &Arrival) -> bool {
    is_on(tables) && arrival.dispatched
}

/// Whether the flow's packets leave with their backend beside them.
#[inline(always)]
pub fn is_sent_on<T: Tables>(tables: &T, entry: &FlowEntry) -> bool {
    is_on(tables) && entry.kind.contains(Kind::DIRECT)
}

/// Whether the packet that is decided about is of such a flow.
#[inline(always)]
pub fn sends_on<T: Tables>(tables: &T, decision: &Decision) -> bool {
    is_on(tables) && decision.direct
}

/// Whether an entry stems from a time when backends answered themselves.
#[inline(always)]
pub fn is_outdated<T: Tables>(tables: &T, kind: Kind) -> bool {
    !is_on(tables) && kind.contains(Kind::DIRECT)
}

/// Whether a new connection to a backend that is known by this identity, behind this node, is sent
/// on with its backend beside it.
///
/// Clients inside the cluster are relayed: their nodes take an answer in the name of another node
/// for a forgery. So are clients of backends in a node's own network, whose answers do not meet the
/// program that would translate them back.
#[inline(always)]
pub fn opens<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    decision: &Decision,
    identity: Identity,
    node: NodeIndex,
) -> bool {
    is_on(tables)
        && matches!(arrival.hook, Hook::FromNetdev)
        && arrival.tunnel_source.is_none()
        && decision.translated
        && !decision.continued
        && !decision.related
        && decision.source.identity.is_world()
        && identity != Identity::REMOTE_NODE
        && node != NodeIndex::NONE
}

/// Stores the only entry that such a connection has on this node: the answers come from elsewhere.
#[inline(never)]
pub fn open<T: Tables>(tables: &T, key: &FlowKey, decision: &mut Decision) -> Outcome {
    let Decision {
        entry,
        after,
        extended,
        ..
    } = decision;
    entry.kind = entry
        .kind
        .with(Kind::TRANSLATE_DESTINATION)
        .with(Kind::DIRECT);
    entry.translated_source = after.source;
    entry.translated_destination = after.destination;
    entry.translated_source_port = after.source_port;
    entry.translated_destination_port = after.destination_port;
    if let Err(outcome) = insert(tables, key, entry, extended) {
        return outcome;
    }
    tables.count(Counter::FlowsCreated);
    Outcome::Forward
}

/// What a packet adds to the state of an entry that stands alone. The other side's FIN is not seen
/// here, so the client's own ends the flow: what comes after it keeps the entry alive by itself.
#[inline(always)]
pub fn closing<T: Tables>(tables: &T, kind: Kind, bits: u32) -> u32 {
    if is_on(tables) && kind.contains(Kind::DIRECT) && bits & state::CLOSING != 0 {
        bits | state::PEER_CLOSING
    } else {
        bits
    }
}

/// Whether a packet that names its backend may have come from there, for a client like that.
#[inline(never)]
pub fn check_sender<T: Tables>(tables: &T, outer: &Address, client: Identity) -> Outcome {
    let from_node = tables
        .ipcache(outer)
        .is_some_and(|row| row.identity == Identity::REMOTE_NODE);
    if !from_node {
        return Outcome::Drop(DropReason::UnknownSender);
    }
    // Nodes relay for everybody else.
    if !client.is_world() {
        return Outcome::Drop(DropReason::InvalidIdentity);
    }
    Outcome::Forward
}

/// The backend of a packet that names it: that one. A connection goes on with it, and begins anew
/// where it had another one, or was sent on by this node so far. Nothing else moves it: whether the
/// backend may still be had is the business of the node that was asked, and this one may not even
/// know the service's address.
#[inline(never)]
pub fn serve<T: Tables>(
    tables: &T,
    workspace: &mut Workspace,
    connection: &mut Connection<'_>,
) -> Outcome {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
    let Backend { address, port } = &arrival.backend;
    if matches!(connection.standing, Standing::Continued) {
        let moves = decision.direct
            || decision.reply
            || decision.after.destination.0 != address.0
            || decision.after.destination_port.0 != port.0;
        if !moves {
            return Outcome::Forward;
        }
        *connection = Connection::NONE;
        decision.begin_anew(&summary.key);
    }
    if !has_services(summary.key.protocol) {
        return Outcome::Drop(DropReason::InvalidPacket);
    }
    decision.translated = true;
    decision.after.destination = *address;
    decision.after.destination_port = *port;
    depend_on(tables, decision);
    Outcome::Forward
}

/// Whether an entry may be used for a packet that names its backend.
#[inline(never)]
pub fn agrees(arrival: &Arrival, entry: &FlowEntry) -> bool {
    let Backend { address, port } = &arrival.backend;
    !entry.kind.contains(Kind::DIRECT)
        && entry.kind.contains(Kind::TRANSLATE_DESTINATION)
        && entry.translated_destination.0 == address.0
        && entry.translated_destination_port.0 == port.0
}
