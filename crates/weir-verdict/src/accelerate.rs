// SPDX-License-Identifier: Apache-2.0
//! Forwarding at the device's driver, before the kernel has made anything of a packet (XDP).
//!
//! What is done there is the fast path of the node as a load balancer and nothing else: a packet
//! whose flow entry sends it out again by the device that it came in by. Everything else is left to
//! the programs behind, which decide, report and drop. So the driver's program has no decisions of
//! its own, and whether it is there changes nothing but the time that a packet takes.

use crate::arrive::parse;
use crate::decision::Workspace;
use crate::established;
use crate::fate::Fate;
use crate::rewrite;
use crate::run::{Arrival, direction};
use crate::tables::Tables;
use weir_abi::counter::Counter;
use weir_abi::flow::Action;
use weir_abi::observation::Hook;
use weir_abi::{FlowEntry, IfIndex};
use weir_packet::{Fragment, PacketClass, PacketWrite};

/// Forwards a packet that came in by this device, or passes it on as it is.
#[inline(always)]
pub fn forward<P: PacketWrite, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: IfIndex,
    workspace: &mut Workspace,
) -> Fate {
    // The entries that apply are those of the program behind.
    let hook = Hook::FromNetdev;
    workspace.arrival = Arrival {
        hook,
        ifindex,
        tunnel_source: None,
        dispatched: false,
        backend: workspace.arrival.backend,
    };
    let mut tunnel = None;
    // Changes no packet from the network; what is wrong with one is told by the program behind.
    if !parse(packet, tables, workspace, &mut tunnel).is_open() {
        return Fate::PASS;
    }
    let Workspace {
        arrival, summary, ..
    } = &*workspace;
    if !matches!(summary.class, PacketClass::Flow) || !matches!(summary.fragment, Fragment::Whole) {
        return Fate::PASS;
    }
    let Some(found) = tables.flow(&summary.key) else {
        return Fate::PASS;
    };
    if !returns_by(found.fixed(), ifindex) {
        return Fate::PASS;
    }
    let now = tables.now();
    if !established::usable(tables, arrival, summary, packet.segment_size(), &found, now) {
        return Fate::PASS;
    }
    established::touch(tables, summary, &found, now);
    tables.count_packet(0, direction(hook), summary.l3_length);
    tables.count(Counter::Accelerated);
    rewrite::apply(packet, tables, hook, summary, found.fixed(), tunnel, false)
}

/// Whether an entry sends packets out of this device, to a next hop that is known.
#[inline(always)]
fn returns_by(entry: &FlowEntry, ifindex: IfIndex) -> bool {
    let leaves = match Action::from_number(entry.action) {
        Some(Action::ToDevice | Action::ToTunnel) => true,
        Some(Action::Pass | Action::ToHost | Action::ToEndpoint) | None => false,
    };
    leaves && entry.egress == ifindex && entry.destination_mac.0 != [0; 6]
}
