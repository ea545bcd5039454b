// SPDX-License-Identifier: Apache-2.0
//! The slow path: everything that is decided about the first packet of a flow, and again whenever
//! something that its entry depends on has changed.
//!
//! Source → connection → service → way → policy → entries → mapping. Policy is asked once both
//! identities are at hand: for local delivery egress of the source and ingress of the destination
//! in one pass.

use crate::carry_on::carry_on;
use crate::decision::{Outcome, Workspace};
use crate::direct;
use crate::flow::{self, Connection, Standing};
use crate::mapping;
use crate::open::open;
use crate::policy;
use crate::related;
use crate::service;
use crate::source;
use crate::tables::Tables;
use crate::way;
use weir_abi::counter::Counter;
use weir_abi::flow::Dependencies;
use weir_abi::observation::Hook;
use weir_abi::{FlowKey, Protocol, Slot, TraceReason};
use weir_packet::{PacketClass, PacketRead};

/// Decides on one packet, in steps that the kernel compiles as functions of their own: what is it,
/// which backend, where does it go, may it, what follows. They hand over by the workspace, because together they
/// would fill more than the 512 bytes of stack that a program has.
#[inline(always)]
pub fn decide<P: PacketRead, T: Tables>(
    packet: &P,
    tables: &T,
    workspace: &mut Workspace,
) -> Outcome {
    workspace.decision.reset();
    tables.count(Counter::SlowPath);
    let mut connection = Connection::NONE;
    let known = if matches!(workspace.summary.class, PacketClass::IcmpError) {
        related::examine(packet, tables, workspace)
    } else {
        examine(tables, workspace, &mut connection)
    };
    if !matches!(known, Outcome::Forward) {
        return known;
    }
    if !workspace.decision.related && !matches!(workspace.arrival.hook, Hook::ToNetdev) {
        let served = serve(tables, workspace, &mut connection);
        if !matches!(served, Outcome::Forward) {
            return served;
        }
    }
    let reachable = way::find(tables, workspace);
    if !matches!(reachable, Outcome::Forward) {
        return reachable;
    }
    if workspace.decision.related {
        related::settle(&mut workspace.decision);
        return Outcome::Forward;
    }
    if policy::is_asked(&workspace.decision) {
        let allowed = tables.check_policy(workspace);
        if !matches!(allowed, Outcome::Forward) {
            return allowed;
        }
    }
    let settled = settle(tables, workspace, &connection);
    if matches!(settled, Outcome::Forward) && workspace.decision.maps {
        return mapping::reserve(tables, workspace);
    }
    settled
}

/// Second step: a backend for a new connection to a service, and for one that cannot go on with the
/// backend that it had, or that had none. A connection of TCP ends with its backend; what has no end,
/// what has not begun yet and what begins again goes on with another one.
#[inline(always)]
fn serve<T: Tables>(
    tables: &T,
    workspace: &mut Workspace,
    connection: &mut Connection<'_>,
) -> Outcome {
    if direct::is_named(tables, &workspace.arrival) {
        return direct::serve(tables, workspace, connection);
    }
    if matches!(connection.standing, Standing::Continued) {
        let Workspace {
            arrival,
            summary,
            decision,
            ..
        } = &mut *workspace;
        let key = &summary.key;
        let lost = connection.may_move(summary) && {
            let opening = connection.is_opening(summary);
            if connection.is_to_service() {
                !service::keeps_backend(tables, arrival, key, &decision.after, opening)
            } else {
                // What nobody served when it began may have a service by now.
                (opening || !matches!(key.protocol, Protocol::TCP))
                    && service::addressed(tables, key, &mut decision.frontend).is_some()
            }
        };
        if !lost {
            return Outcome::Forward;
        }
        *connection = Connection::NONE;
        decision.begin_anew(key);
    }
    let wanted = &mut workspace.decision.frontend;
    match service::addressed(tables, &workspace.summary.key, wanted) {
        Some(frontend) => tables.select_backend(workspace, frontend),
        None => Outcome::Forward,
    }
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
        absent,
        ..
    } = workspace;
    if !matches!(summary.class, PacketClass::Flow) {
        return match source::check(tables, arrival, summary, decision) {
            Ok(()) => related::unrelated(arrival, summary),
            Err(outcome) => outcome,
        };
    }
    let key = &summary.key;
    let asked = *absent;
    *connection = flow::find(tables, summary, asked, decision.now, &mut decision.pair_key);
    decision.continued = matches!(connection.standing, Standing::Continued);
    decision.reply = connection.reply;
    decision.after = *key;
    if let Some(own) = &connection.own {
        decision.after = own.fixed().translated(key);
        decision.translated = own.fixed().kind.translates();
        decision.direct = direct::is_sent_on(tables, own.fixed());
    }
    // Generations are read before the rows that they stand for: a row that changes in between
    // leaves an entry that is out of date, never one that looks current.
    decision.everything = tables.generation(Slot::ALL);
    decision.entry.dependencies = dependencies(tables, key, &decision.after);
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

/// The present generations of what a decision depends on: sender, receiver, the address that the
/// packet was sent to where that is another one, and routes.
#[inline(always)]
fn dependencies<T: Tables>(tables: &T, key: &FlowKey, after: &FlowKey) -> Dependencies {
    let receiver = Slot::of_address(&after.destination);
    let service = if after.destination.0 == key.destination.0 {
        Slot::NONE
    } else {
        Slot::of_address(&key.destination)
    };
    let slots = [
        Slot::of_address(&key.source),
        receiver,
        service,
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
