// SPDX-License-Identifier: Apache-2.0
//! The slow path: everything that is decided about the first packet of a flow, and again whenever
//! something that its entry depends on has changed.
//!
//! Source → connection → (service) → way → (policy) → masquerade → entries. A service's translation
//! will come between connection and way; policy after the way is known, with both identities at
//! hand: for local delivery egress of the source and ingress of the destination in one pass.

use crate::decision::{Decision, Outcome, Workspace};
use crate::flow::{self, Connection, Standing};
use crate::masquerade;
use crate::related;
use crate::run::Arrival;
use crate::source;
use crate::tables::{Insert, Tables};
use crate::way;
use weir_abi::config::features;
use weir_abi::counter::Counter;
use weir_abi::flow::{Dependencies, Kind};
use weir_abi::observation::Hook;
use weir_abi::{
    Address, DropReason, FlowEntry, FlowKey, Generation, Identity, NodeIndex, Port, Protocol,
    Seconds, Slot, TraceReason,
};
use weir_packet::{PacketClass, PacketRead, Summary};

/// Decides on one packet, in three steps that the kernel compiles as functions of their own: what
/// is it, where does it go, what follows. They hand over by the workspace, because together they
/// would fill more than the 512 bytes of stack that a program has.
#[inline(always)]
pub fn decide<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    workspace: &mut Workspace,
) -> Outcome {
    workspace.decision.reset();
    tables.count(Counter::SlowPath);
    workspace.decision.now = tables.now();
    let mut connection = Connection::NONE;
    let known = if matches!(workspace.summary.class, PacketClass::IcmpError) {
        related::examine(packet, tables, workspace)
    } else {
        examine(tables, workspace, &mut connection)
    };
    if !matches!(known, Outcome::Forward) {
        return known;
    }
    let reachable = way::find(tables, workspace);
    if !matches!(reachable, Outcome::Forward) {
        return reachable;
    }
    if workspace.decision.related {
        related::settle(&mut workspace.decision);
        return Outcome::Forward;
    }
    let settled = settle(tables, workspace, &connection);
    if matches!(settled, Outcome::Forward) && workspace.decision.masquerades {
        return masquerade::reserve(tables, workspace);
    }
    settled
}

/// First step: the connection, and whether the packet may come from where it came.
#[inline(never)]
fn examine<'t, T: Tables>(
    tables: &'t T,
    workspace: &mut Workspace,
    connection: &mut Connection<'t>,
) -> Outcome {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
    if !matches!(summary.class, PacketClass::Flow) {
        return match source::check(tables, arrival, summary, decision) {
            Ok(()) => other_icmp(arrival, summary),
            Err(outcome) => outcome,
        };
    }
    let key = &summary.key;
    *connection = flow::find(tables, summary, decision.now, &mut decision.pair_key);
    decision.after = match &connection.own {
        Some(own) => own.fixed().translated(key),
        None => *key,
    };
    // Generations are read before the rows that they stand for: a row that changes in between
    // leaves an entry that is out of date, never one that looks current.
    decision.entry.dependencies = dependencies(tables, &key.source, &decision.after.destination);
    Outcome::of(source::check(tables, arrival, summary, decision))
}

/// Last step: the entries.
#[inline(never)]
fn settle<T: Tables>(
    tables: &T,
    workspace: &mut Workspace,
    connection: &Connection<'_>,
) -> Outcome {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
    decision.report = true;
    decision.through_neighbour = decision.way.is_routed();
    Outcome::of(match connection.standing {
        Standing::Continued => carry_on(tables, arrival, summary, connection, decision),
        Standing::New => {
            decision.trace_reason = TraceReason::New;
            open(tables, arrival, summary, decision)
        }
        Standing::Reopened => {
            decision.trace_reason = TraceReason::Reopened;
            open(tables, arrival, summary, decision)
        }
    })
}

/// ICMP that is neither an echo nor an error: the node's own business, or nobody's.
#[inline(always)]
fn other_icmp(arrival: &Arrival, summary: &Summary) -> Outcome {
    match arrival.hook {
        Hook::FromNetdev | Hook::ToNetdev if arrival.tunnel_source.is_none() => Outcome::Pass,
        Hook::FromContainer | Hook::FromNetdev | Hook::ToNetdev | Hook::FromHost => {
            Outcome::Drop(if summary.is_v4 {
                DropReason::UnknownIcmpv4Type
            } else {
                DropReason::UnknownIcmpv6Type
            })
        }
    }
}

/// The present generations of what a decision between two addresses depends on.
#[inline(always)]
fn dependencies<T: Tables>(tables: &T, source: &Address, destination: &Address) -> Dependencies {
    let slots = [
        Slot::of_address(source),
        Slot::of_address(destination),
        Slot::ALL,
        Slot::ROUTES,
    ];
    let [a, b, c, d] = slots;
    let generations = [
        tables.generation(a),
        tables.generation(b),
        tables.generation(c),
        tables.generation(d),
    ];
    Dependencies { slots, generations }
}

/// The first packet of a connection.
#[inline(always)]
fn open<T: Tables>(
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
        if !masquerade::supported(key.protocol) {
            return Err(Outcome::Drop(DropReason::MasqueradeUnsupported));
        }
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

/// A packet of a known connection whose entry cannot be used as it is.
#[inline(always)]
fn carry_on<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    connection: &Connection<'_>,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let key = &summary.key;
    let now = decision.now;
    let reply = connection.reply;
    decision.reply = reply;
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
            let (out, cookie) = connection.pair.map_or((0, 0), |pair| {
                (pair.fixed().kind.0 & Kind::OUT.0, pair.fixed().cookie)
            });
            let kind = Kind(out | if reply { Kind::REPLY.0 } else { 0 });
            (kind, now, cookie, 0, 0, 0)
        }
    };
    // Policy is asked again here when the generation it was decided under has passed.

    let mut state = old_state | flow::own_state(summary, connection.own.is_some());
    if reply {
        state |= weir_abi::flow::state::ANSWERED;
    }
    let Kind(kept) = kind;
    let kept = Kind(kept & !Kind::FROM_TUNNEL.0);
    write_entry(tables, arrival, key, kept, state, decision);
    let Decision { entry, after, .. } = &mut *decision;
    entry.created = created;
    entry.cookie = cookie;
    entry.packets = packets.wrapping_add(1);
    entry.bytes = bytes.wrapping_add(u64::from(summary.l3_length));
    if kept.translates() {
        entry.translated_source = after.source;
        entry.translated_destination = after.destination;
        entry.translated_source_port = after.source_port;
        entry.translated_destination_port = after.destination_port;
        flow::write_deltas(key, entry);
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
    match connection.pair {
        Some(pair) => {
            let bits = flow::pair_state(summary, reply);
            pair.add_state(bits);
            let timeout = flow::timeout(tables, key.protocol, pair.state() | bits);
            let closing = timeout == u32::from(tables.config(|config| &config.timeout_tcp_closing));
            if closing && matches!(key.protocol, Protocol::TCP) {
                pair.set_expires(Seconds(now.0.wrapping_add(timeout)));
            }
        }
        None => {
            // The other half was evicted: put it back, or its packets would open a connection of
            // their own.
            flow::write_pair(&mut decision.pair, key, &decision.entry);
            decision.pair_key = decision.after.reversed();
            insert(
                tables,
                &decision.pair_key,
                &decision.pair,
                &mut decision.extended,
            )?;
        }
    }
    Ok(())
}

/// Whether two entries treat packets alike, under the same generations.
#[inline(always)]
fn same_way(old: &FlowEntry, new: &FlowEntry) -> bool {
    old.action == new.action
        && old.kind == new.kind
        && old.ingress == new.ingress
        && old.egress == new.egress
        && old.mtu == new.mtu
        && old.node == new.node
        && old.destination_mac.0 == new.destination_mac.0
        && old.source_mac.0 == new.source_mac.0
        && old.dependencies.slots == new.dependencies.slots
        && old.dependencies.generations == new.dependencies.generations
}

/// Fills in everything but translation, counters and origin.
#[inline(always)]
fn write_entry<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    key: &FlowKey,
    kind: Kind,
    state: u32,
    decision: &mut Decision,
) {
    let Decision {
        entry, way, now, ..
    } = decision;
    let interval = u32::from(tables.config(|config| &config.report_interval));
    let unresolved = way.is_routed() && way.destination_mac.0 == [0; 6];
    // Ask again soon where the next hop was not resolved yet.
    entry.last_report = if unresolved {
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
    if !way.is_routed() {
        let Dependencies {
            slots: [.., slot],
            generations: [.., generation],
        } = &mut entry.dependencies;
        (*slot, *generation) = (Slot::NONE, Generation(0));
    }
    entry.egress = way.egress;
    entry.action = way.action as u8;
    entry.mtu = way.mtu;
    entry.destination_mac = way.destination_mac;
    entry.source_mac = way.source_mac;
    if arrival.tunnel_source.is_some() {
        entry.kind = kind.with(Kind::FROM_TUNNEL);
        // The node that the tunnel must come from; `source::check` found it by the same row.
        entry.node = tables
            .ipcache(&key.source)
            .map_or(NodeIndex::NONE, |row| row.node);
    } else {
        entry.kind = kind;
        entry.node = way.node;
    }
    // RFC 7348, section 5: from the dynamic range, by a hash of the inner flow.
    let [low, high, _, _] = masquerade::hash_of(key).to_le_bytes();
    entry.tunnel_source_port = Port([high | 0xc0, low]);
    entry.translated_source = Address::UNSPECIFIED;
    entry.translated_destination = Address::UNSPECIFIED;
    entry.translated_source_port = Port::NONE;
    entry.translated_destination_port = Port::NONE;
    entry.address_delta = [0; 2];
    entry.port_delta = [0; 2];
    entry.cookie = 0;
}

#[inline(always)]
fn insert<T: Tables>(
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
