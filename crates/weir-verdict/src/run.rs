// SPDX-License-Identifier: Apache-2.0
//! A packet's whole stay at a hook: parse, find or decide, rewrite.

use crate::answer::{conclude, refused, unfit};
use crate::arrive::{concerns_flows, fate_of, follow_fragments, link_local, parse};
use crate::decision::{Outcome, Workspace};
use crate::direct;
use crate::established;
use crate::fate::{Fate, Verdict};
use crate::related;
use crate::rewrite;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction};
use weir_abi::event::policy_flags;
use weir_abi::observation::Hook;
use weir_abi::{Address, DropReason, IfIndex};
use weir_packet::dispatch::Backend;
use weir_packet::{Fragment, PacketClass, PacketWrite};

/// Where and how a packet came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub hook: Hook,
    pub ifindex: IfIndex,
    /// The outer source address, where the packet came by the tunnel.
    pub tunnel_source: Option<Address>,
    /// The packet names its backend; the address above is that of the node that chose it.
    pub dispatched: bool,
    /// Meaningful with `dispatched`.
    pub backend: Backend,
}

/// Handles one packet; afterwards `workspace` explains the verdict.
pub fn run<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    ifindex: IfIndex,
    workspace: &mut Workspace,
) -> Verdict {
    let fate = start(packet, tables, hook, ifindex, workspace);
    conclude(packet, tables, workspace, fate).verdict()
}

/// First half of [`run`]: everything but turning a packet into the error that answers it, so that
/// events in between can show the packet as it came.
#[inline(always)]
pub fn start<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    hook: Hook,
    ifindex: IfIndex,
    workspace: &mut Workspace,
) -> Fate {
    workspace.parsed = false;
    workspace.decision.report = false;
    workspace.decision.direction = direction(hook);
    workspace.arrival = Arrival {
        hook,
        ifindex,
        tunnel_source: None,
        dispatched: false,
        // Left as it is: most packets name none, and these bytes would be written for each.
        backend: workspace.arrival.backend,
    };
    let mut tunnel = None;
    let parsed = parse(packet, tables, workspace, &mut tunnel);
    if !parsed.is_open() {
        workspace.decision.reset();
        return parsed;
    }
    if matches!(hook, Hook::ToNetdev) && !concerns_flows(tables, &workspace.summary) {
        return Fate::PASS;
    }
    workspace.parsed = true;
    if !matches!(workspace.summary.fragment, Fragment::Whole) {
        let followed = follow_fragments(tables, workspace);
        if !followed.is_open() {
            workspace.decision.reset();
            return followed;
        }
    }
    let class = workspace.summary.class;
    if matches!(class, PacketClass::LinkLocal) && matches!(hook, Hook::FromContainer) {
        workspace.decision.reset();
        return fate_of(link_local(packet, &workspace.summary), ifindex);
    }

    // The only look at the clock: it costs as much as a look-up.
    let now = tables.now();
    workspace.decision.now = now;
    let segment_size = packet.segment_size();
    let mut through_neighbour = false;
    // A dry run is asked for reasons, which the fast path does not know.
    let dry = tables.config(|config| &config.features) & features::DRY_RUN != 0;
    let mut absent = false;
    let established = if matches!(class, PacketClass::Flow) && !dry {
        let Workspace {
            arrival, summary, ..
        } = &*workspace;
        let found = tables.flow(&summary.key);
        absent = found.is_none();
        established::if_usable(tables, arrival, summary, segment_size, found, now)
    } else {
        None
    };
    let entry = if let Some(flow) = established {
        established::touch(tables, &workspace.summary, &flow, now);
        flow.fixed()
    } else {
        workspace.absent = absent;
        let outcome = tables.decide(packet, workspace);
        if workspace.decision.policy & policy_flags::INGRESS_DENIED != 0 {
            workspace.decision.direction = Direction::Ingress;
        }
        let refusal = match outcome {
            Outcome::Forward => {
                let reason = unfit(&workspace.summary, segment_size, &workspace.decision.entry);
                // Pods are told what their packets ran into. The network has routers for that, but
                // to whom a service is offered here, the node is the router.
                workspace.decision.rejects = match hook {
                    Hook::FromContainer => true,
                    Hook::FromNetdev => workspace.decision.translated,
                    Hook::ToNetdev | Hook::FromHost => false,
                };
                reason
            }
            Outcome::Pass => {
                tables.count_packet(0, direction(hook), workspace.summary.l3_length);
                return Fate::PASS;
            }
            Outcome::Drop(reason) => Some(reason),
        };
        if let Some(reason) = refusal {
            return refused(tables, workspace, reason);
        }
        if workspace.decision.related {
            tables.count(Counter::IcmpErrorsTranslated);
            let sent_on = direct::sends_on(tables, &workspace.decision);
            if !sent_on && !related::translate(packet, workspace) {
                return Fate::drop(DropReason::ChecksumL4);
            }
        }
        through_neighbour = workspace.decision.through_neighbour;
        &workspace.decision.entry
    };
    let summary = &workspace.summary;
    tables.count_packet(0, direction(hook), summary.l3_length);
    rewrite::apply(
        packet,
        tables,
        hook,
        summary,
        entry,
        tunnel,
        through_neighbour,
    )
}

/// Which way a packet at this hook travels, seen from pods and node.
#[inline(always)]
pub const fn direction(hook: Hook) -> Direction {
    match hook {
        Hook::FromContainer | Hook::FromHost | Hook::ToNetdev => Direction::Egress,
        Hook::FromNetdev => Direction::Ingress,
    }
}
