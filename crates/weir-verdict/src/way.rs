// SPDX-License-Identifier: Apache-2.0
//! Where does a packet for this address go from here?

use crate::decision::{Decision, Outcome, Workspace};
use crate::direct;
use crate::run::Arrival;
use crate::source::world;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::flow::Action;
use weir_abi::observation::Hook;
use weir_abi::{
    Address, BlockGroup, DatapathConfig, DropReason, FlowKey, Identity, IfIndex, MacAddress,
    NodeIndex, ObservationPoint, endpoint, ipcache,
};

/// The next step of a packet's way; laid out as [`crate::Route`] is, for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Way {
    pub destination_mac: MacAddress,
    /// Largest IP packet that fits, before encapsulation; 0: not limited.
    pub mtu: u16,
    pub source_mac: MacAddress,
    pub node: NodeIndex,
    pub egress: IfIndex,
    pub action: Action,
    /// The address lies outside of the cluster.
    pub to_world: bool,
}

impl Way {
    /// No step taken.
    pub const NOWHERE: Self = Self {
        action: Action::Pass,
        egress: IfIndex::NONE,
        mtu: 0,
        source_mac: MacAddress([0; 6]),
        destination_mac: MacAddress([0; 6]),
        node: NodeIndex::NONE,
        to_world: false,
    };

    /// Whether the way depends on the node's routing table.
    #[inline(always)]
    pub const fn is_routed(&self) -> bool {
        matches!(self.action, Action::ToDevice | Action::ToTunnel)
    }
}

/// Second step of the slow path: finds the way to the destination of [`Decision::after`] into
/// [`Decision::way`], and notes who is at its end.
#[inline(never)]
pub fn find<T: Tables>(tables: &T, workspace: &mut Workspace) -> Outcome {
    let Workspace {
        decision, arrival, ..
    } = workspace;
    match towards(tables, arrival, decision) {
        Ok(way) => {
            decision.way = way;
            Outcome::Forward
        }
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn towards<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    decision: &mut Decision,
) -> Result<Way, Outcome> {
    let FlowKey {
        source,
        destination,
        ..
    } = &decision.after;
    if destination.is_multicast() {
        return Err(match arrival.hook {
            Hook::FromContainer => Outcome::Drop(DropReason::MulticastHandled),
            Hook::FromNetdev | Hook::ToNetdev | Hook::FromHost => Outcome::Pass,
        });
    }
    if matches!(arrival.hook, Hook::ToNetdev) {
        let row = tables.ipcache(destination);
        decision.destination.identity = row.map_or(world(destination), |row| row.identity);
        decision.observation = ObservationPoint::ToNetwork;
        return Ok(Way {
            egress: arrival.ifindex,
            ..Way::NOWHERE
        });
    }
    let endpoint = tables.endpoint(destination);
    // Who names a backend means a pod of this node; and a connection that was sent on for a pod of
    // another node has no answers here, should its address have moved.
    let named = direct::is_named(tables, arrival);
    let sent_on = direct::sends_on(tables, decision);
    if (sent_on && endpoint.is_some()) || (named && (sent_on || endpoint.is_none())) {
        return Err(Outcome::Drop(DropReason::StaleOrUnroutable));
    }
    if let Some(row) = endpoint {
        decision.destination.set_endpoint(&row);
        decision.observation = ObservationPoint::ToEndpoint;
        if row.flags & endpoint::flags::READY == 0 {
            return Err(Outcome::Drop(DropReason::EndpointNotReady));
        }
        return Ok(Way {
            action: Action::ToEndpoint,
            egress: row.ifindex,
            source_mac: MacAddress::GATEWAY,
            destination_mac: row.mac,
            ..Way::NOWHERE
        });
    }
    let row = tables.ipcache(destination);
    let (identity, blocks) = row.map_or((world(destination), BlockGroup::NONE), |row| {
        (row.identity, row.blocks)
    });
    decision.destination.set_other(identity, blocks);
    if identity == Identity::HOST {
        decision.observation = ObservationPoint::ToHost;
        return Ok(to_host(tables, arrival));
    }
    if row.is_some_and(|row| row.flags & ipcache::flags::LOCAL_RANGE != 0) {
        return Err(Outcome::Drop(DropReason::StaleOrUnroutable));
    }
    if row.is_some_and(|row| row.flags & ipcache::flags::SERVICE != 0) {
        decision.rejects = true;
        return Err(Outcome::Drop(DropReason::NoServicePort));
    }
    // What a service sends on, and the answers to what it sent, is this node's to forward.
    if matches!(arrival.hook, Hook::FromNetdev) && !decision.translated {
        // The node may be a router for others; what came by the tunnel was meant for this node.
        return Err(match arrival.tunnel_source {
            Some(_) => Outcome::Drop(DropReason::StaleOrUnroutable),
            None => Outcome::Pass,
        });
    }
    let node = row.map_or(NodeIndex::NONE, |row| row.node);
    if direct::opens(tables, arrival, decision, identity, node) {
        decision.direct = true;
    }
    let tunnels =
        node != NodeIndex::NONE && tables.config(|config| &config.features) & features::TUNNEL != 0;
    if tunnels || direct::sends_on(tables, decision) {
        return through_tunnel(tables, node, decision);
    }
    if matches!(arrival.hook, Hook::FromHost) {
        // Nothing of the cluster that this node knows: the node's routing sent it here in error.
        return Err(Outcome::Drop(DropReason::StaleOrUnroutable));
    }
    if destination.is_link_local() {
        return Err(Outcome::Drop(DropReason::UnknownL3Target));
    }
    decision.observation = ObservationPoint::ToNetwork;
    let code = tables.route(source, destination, &mut decision.route);
    if code != 0 {
        decision.extended = code;
        return Err(Outcome::Drop(DropReason::FibLookupFailed));
    }
    let route = &decision.route;
    Ok(Way {
        action: Action::ToDevice,
        egress: route.egress,
        mtu: route.mtu,
        source_mac: route.source_mac,
        destination_mac: route.destination_mac,
        node: NodeIndex::NONE,
        to_world: identity.is_world(),
    })
}

/// To the node's own stack: packets from the underlay are on their way to it already, others go
/// through `weir_host`.
#[inline(always)]
fn to_host<T: Tables>(tables: &T, arrival: &Arrival) -> Way {
    let plain = matches!(arrival.hook, Hook::FromNetdev) && arrival.tunnel_source.is_none();
    if plain || matches!(arrival.hook, Hook::FromHost) {
        return Way {
            egress: arrival.ifindex,
            ..Way::NOWHERE
        };
    }
    Way {
        action: Action::ToHost,
        egress: tables.config(|config| &config.host),
        source_mac: MacAddress::GATEWAY,
        destination_mac: MacAddress::HOST,
        ..Way::NOWHERE
    }
}

#[inline(always)]
fn through_tunnel<T: Tables>(
    tables: &T,
    index: NodeIndex,
    decision: &mut Decision,
) -> Result<Way, Outcome> {
    decision.observation = ObservationPoint::ToOverlay;
    let Some(node) = tables.node(index) else {
        return Err(Outcome::Drop(DropReason::NoTunnelEndpoint));
    };
    if node.remote.0 == Address::UNSPECIFIED.0 {
        return Err(Outcome::Drop(DropReason::NoTunnelEndpoint));
    }
    let code = tables.route(&node.local, &node.remote, &mut decision.route);
    if code != 0 {
        decision.extended = code;
        return Err(Outcome::Drop(DropReason::FibLookupFailed));
    }
    let route = &decision.route;
    let overhead = match (direct::sends_on(tables, decision), node.remote.is_v4()) {
        (false, true) => DatapathConfig::TUNNEL_OVERHEAD_V4,
        (false, false) => DatapathConfig::TUNNEL_OVERHEAD_V6,
        (true, true) => DatapathConfig::DISPATCH_OVERHEAD_V4,
        (true, false) => DatapathConfig::DISPATCH_OVERHEAD_V6,
    };
    let mut outer = if route.mtu == 0 {
        tables.config(|config| &config.underlay_mtu)
    } else {
        route.mtu
    };
    if let Some(learned) = tables.tunnel_mtu(&node.remote)
        && learned.expires > decision.now
        && learned.mtu < u32::from(outer)
    {
        outer = low_half(learned.mtu);
    }
    Ok(Way {
        action: Action::ToTunnel,
        egress: route.egress,
        mtu: outer.saturating_sub(overhead),
        source_mac: route.source_mac,
        destination_mac: route.destination_mac,
        node: index,
        to_world: false,
    })
}

#[inline(always)]
const fn low_half(number: u32) -> u16 {
    let [a, b, _, _] = number.to_le_bytes();
    u16::from_le_bytes([a, b])
}
