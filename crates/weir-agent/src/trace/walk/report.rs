// SPDX-License-Identifier: Apache-2.0
//! What is told of a way: each step, where it ended, and what can be done about that.

use weir_abi::{DropReason, FlowKey, ObservationPoint};
use weir_api::trace::{TraceSide, TraceStep, TraceVerdict};

use crate::trace::frame::has_ports;
use crate::trace::hop::{Hop, socket};
use crate::trace::lookups;
use crate::trace::place::of_address;
use crate::trace::scene::Scene;

/// What there is to know about the backend that was taken.
pub(super) fn choice(scene: &Scene<'_>, hops: &[Hop]) -> Vec<String> {
    let Some(hop) = hops.iter().find(|hop| hop.seen.translated.is_some()) else {
        return Vec::new();
    };
    let row = hop.view.tables.frontends.get(&hop.frontend());
    let internal = hop.is_internal();
    let count = row.map_or(0, |row| {
        if internal {
            row.internal.count
        } else {
            row.external.count
        }
    });
    let mut notes = Vec::new();
    if count > 1 {
        let name = of_address(scene, hop.leaves.destination.to_ip()).name;
        notes.push(format!(
            "{name} is one of {count} backends: other connections are sent to others"
        ));
    }
    if internal && scene.translates_sockets(hop.hook) {
        notes.push(
            "sockets here are translated when they connect; what is sent past them, as this packet, is translated by the program"
                .to_owned(),
        );
    }
    notes
}

/// Where it ended.
pub(super) fn outcome(scene: &Scene<'_>, hops: &[Hop]) -> String {
    let Some(hop) = hops.last() else {
        return String::new();
    };
    let node = &hop.view.node;
    let end = socket(&hop.leaves, false);
    let name = of_address(scene, hop.leaves.destination.to_ip()).name;
    match (hop.seen.dropped, hop.seen.observation) {
        (Some(reason), _) => {
            let told = if hop.seen.rejected {
                "rejected"
            } else {
                "dropped"
            };
            let (program, prose) = (hop.hook.name(), reason.info().prose);
            format!("{told} by {program} on node {node}: {prose}")
        }
        (None, Some(ObservationPoint::ToEndpoint)) => {
            format!("delivered to {name} ({end}) on node {node}")
        }
        (None, Some(ObservationPoint::ToHost)) => {
            format!("reaches node {node} itself ({end})")
        }
        (None, Some(ObservationPoint::ToNetwork | ObservationPoint::ToOverlay)) => {
            format!("leaves node {node} for {name} ({end})")
        }
        (None, _) => format!("left to the network stack of node {node}"),
    }
}

/// What to do about it: said of the objects at hand where they are known.
pub(super) fn hint(
    scene: &Scene<'_>,
    hops: &[Hop],
    reason: DropReason,
    sides: [&TraceSide; 2],
) -> String {
    let plain = reason.info().hint.to_owned();
    if reason == DropReason::PolicyDenied {
        let denied = |side: &&TraceSide| side.verdict == TraceVerdict::Denied;
        let denying = ["egress", "ingress"].into_iter().zip(sides);
        let Some((direction, side)) = denying.into_iter().find(|(_, side)| denied(side)) else {
            return plain;
        };
        let first = side.policies.first().map(ToString::to_string);
        let first = first.unwrap_or_default();
        return match &side.nearest_miss {
            Some(_) => format!(
                "change what the nearest miss names, or add an {direction} rule to {first}; try it first with `--with FILE`"
            ),
            None => format!("add an {direction} rule to {first}; try it first with `--with FILE`"),
        };
    }
    let Some(hop) = hops
        .last()
        .filter(|_| reason == DropReason::ServiceBackendNotFound)
    else {
        return plain;
    };
    hop.view
        .no_backend(&hop.frontend(), hop.is_internal(), &scene.world)
        .unwrap_or(plain)
}

pub(super) fn step(scene: &Scene<'_>, hop: &Hop) -> TraceStep {
    let seen = &hop.seen;
    let verdict = match (seen.dropped, seen.observation) {
        (Some(_), _) if seen.rejected => "rejected",
        (Some(_), _) => "dropped",
        (None, Some(ObservationPoint::ToEndpoint | ObservationPoint::ToHost)) => "delivered",
        (None, _) if seen.redirected => "forwarded",
        (None, _) => "passed",
    };
    let reason = seen.dropped.map(|reason| {
        let extended = match seen.extended {
            0 => String::new(),
            code => format!(", code {code}"),
        };
        format!("{} ({}{extended})", reason.info().prose, reason.number())
    });
    TraceStep {
        node: hop.view.node.to_string(),
        program: hop.hook.name().to_owned(),
        interface: scene.interface(&hop.view, hop.interface),
        evaluated: seen.evaluated,
        packet: packet(&hop.arrives),
        verdict: verdict.to_owned(),
        observation: seen.observation.map(|point| point.name().to_owned()),
        reason,
        lookups: lookups::of(scene, hop),
        translations: translations(scene, hop),
    }
}

fn translations(scene: &Scene<'_>, hop: &Hop) -> Vec<String> {
    let (arrives, leaves) = (&hop.arrives, &hop.leaves);
    let mut all = Vec::new();
    let named = |key: &FlowKey| of_address(scene, key.destination.to_ip()).name;
    if socket(arrives, false) != socket(leaves, false) && has_ports(arrives.protocol) {
        let (from, to) = (socket(arrives, false), socket(leaves, false));
        all.push(format!("destination {from} -> {to} ({})", named(leaves)));
    }
    if arrives.source != leaves.source {
        let (from, to) = (socket(arrives, true), socket(leaves, true));
        all.push(format!("source {from} -> {to} (masqueraded)"));
    }
    all
}

/// `10.8.1.4:51234 -> 10.96.0.9:80 TCP`
fn packet(key: &FlowKey) -> String {
    let (from, to) = (socket(key, true), socket(key, false));
    format!("{from} -> {to} {}", key.protocol)
}
