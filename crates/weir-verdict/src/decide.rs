// SPDX-License-Identifier: Apache-2.0
//! The slow path: everything that is decided about the first packet of a flow, and again whenever
//! something that its entry depends on has changed.
//!
//! Source → connection → (service) → way → (policy) → masquerade → entries. A service's translation
//! will come between connection and way; policy after the way is known, with both identities at
//! hand: for local delivery egress of the source and ingress of the destination in one pass.

use crate::carry_on::carry_on;
use crate::decision::{Outcome, Workspace};
use crate::flow::{self, Connection, Standing};
use crate::masquerade;
use crate::open::open;
use crate::related;
use crate::source;
use crate::tables::Tables;
use crate::way;
use weir_abi::counter::Counter;
use weir_abi::flow::Dependencies;
use weir_abi::{Address, Slot, TraceReason};
use weir_packet::{PacketClass, PacketRead};

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
            Ok(()) => related::unrelated(arrival, summary),
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
