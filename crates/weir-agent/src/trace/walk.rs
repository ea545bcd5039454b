// SPDX-License-Identifier: Apache-2.0
//! The way of a packet: from program to program, until it is delivered, dropped or out of sight.

mod report;
mod start;

use weir_abi::observation::Hook;
use weir_abi::{DropReason, FlowKey, IfIndex, ObservationPoint, Protocol};
use weir_api::trace::{Evaluated, Trace, TraceVerdict};
use weir_model::NodeName;

use super::TraceError;
use super::frame::tuple;
use super::hop::Hop;
use super::place::{Party, of_address};
use super::port::Target;
use super::run::Seen;
use super::scene::Scene;
use super::side::{egress, ingress};
use report::{choice, hint, outcome, step};
use start::{SOURCE_PORTS, aim, opening, start};

/// Programs that one packet meets, at most: pod, node with the frontend, node with the backend, and one more.
const HOPS: usize = 5;

/// Where a packet comes in next.
struct Place {
    node: NodeName,
    hook: Hook,
    interface: IfIndex,
}

/// Where a packet came along.
struct Way {
    hops: Vec<Hop>,
    notes: Vec<String>,
}

impl Way {
    /// Whether a connection from another port might find a mapping where this one did not: of SCTP nothing but the port
    /// that it has can be taken, and another connection to the same backend has that.
    fn ends_at_a_taken_port(&self, protocol: Protocol) -> bool {
        let last = self.hops.last();
        protocol == Protocol::SCTP && last.is_some_and(|hop| hop.seen.finds_no_mapping())
    }
}

/// Asks what becomes of the first packet of a connection that nobody has.
pub(super) fn walk(
    scene: &Scene<'_>,
    source: &Party,
    destination: &Party,
    target: Target,
    v4: bool,
) -> Result<Trace, TraceError> {
    let missing = || TraceError::Missing {
        message: "an end has no address of this family".to_owned(),
    };
    let from = source.address(v4).ok_or_else(missing)?;
    let (to, port) = aim(scene, source, destination, target, v4).ok_or_else(missing)?;
    let aimed = Target { port, ..target };
    let mut ports = SOURCE_PORTS;
    let mut found = None;
    while let Some(opening) = opening(scene, &mut ports, (from, to), aimed)? {
        let (place, macs) = start(scene, source, destination, from)?;
        let way = follow(scene, place, opening.frame(macs.0, macs.1))?;
        let again = way.ends_at_a_taken_port(target.protocol);
        found = Some(way);
        if !again {
            break;
        }
    }
    let Some(Way { hops, notes: more }) = found else {
        let (first, last) = (SOURCE_PORTS.start(), SOURCE_PORTS.end());
        return Err(TraceError::Missing {
            message: format!(
                "there is no free port to ask from: {} has connections to {} from each of the ports {first} to {last}",
                source.name, destination.name
            ),
        });
    };
    let mut notes = scene.notes.clone();
    notes.extend(more);
    if hops
        .iter()
        .any(|hop| hop.seen.evaluated == Evaluated::Compiled)
        && scene.hypothetical.is_empty()
    {
        let note = "steps that say `compiled` are of other nodes, whose kernels this node cannot ask: the programs' code decided over the rows that those nodes should have";
        notes.push(note.to_owned());
    }
    notes.extend(choice(scene, &hops));
    let seen = hops.last().map(|hop| &hop.seen);
    let dropped = seen.and_then(|seen| seen.dropped);
    let (out, into) = (
        egress(scene, source, &hops)?,
        ingress(scene, source, &hops)?,
    );
    let denied = dropped.is_some();
    Ok(Trace {
        verdict: if denied {
            TraceVerdict::Denied
        } else {
            TraceVerdict::Allowed
        },
        source: source.end(from),
        destination: destination.end(to),
        protocol: target.protocol.to_string(),
        port: target.port,
        family: if v4 { 4 } else { 6 },
        outcome: outcome(scene, &hops),
        reason: dropped.map(|reason| reason.info().prose.to_owned()),
        reason_enum: dropped.map(|reason| reason.info().enum_name.to_owned()),
        reason_code: dropped.map(DropReason::number),
        hint: dropped.map(|reason| hint(scene, &hops, reason, [&out, &into])),
        steps: hops.iter().map(|hop| step(scene, hop)).collect(),
        egress: out,
        ingress: into,
        hypothetical: scene.hypothetical.clone(),
        notes,
    })
}

/// Follows a packet from its first program on.
fn follow(scene: &Scene<'_>, mut place: Place, mut frame: Vec<u8>) -> Result<Way, TraceError> {
    let mut way = Way {
        hops: Vec::new(),
        notes: Vec::new(),
    };
    loop {
        let hop = meet(scene, &place, &frame, &mut way.notes)?;
        let next = if way.hops.len() + 1 < HOPS {
            onward(scene, &hop)?
        } else {
            None
        };
        frame.clone_from(&hop.seen.packet);
        way.hops.push(hop);
        match next {
            Some(next) => place = next,
            None => return Ok(way),
        }
    }
}

fn meet(
    scene: &Scene<'_>,
    place: &Place,
    frame: &[u8],
    notes: &mut Vec<String>,
) -> Result<Hop, TraceError> {
    let view = scene.view(&place.node)?;
    let (seen, beside) = scene.run(&view, place.hook, place.interface, frame)?;
    let differs = |beside: &Seen| !seen.finds_no_mapping() && !seen.agrees(beside);
    if let Some(beside) = beside.filter(differs) {
        let said = |seen: &Seen| match seen.dropped {
            Some(reason) => reason.info().prose.to_owned(),
            None => "lets it pass".to_owned(),
        };
        notes.push(format!(
            "the kernel's answer ({}) and that of the same code over what was read back ({}) differ: this is a bug, please report it",
            said(&seen),
            said(&beside)
        ));
    }
    let unreadable = || TraceError::Invalid {
        message: "the packet cannot be read".to_owned(),
    };
    let arrives = tuple(frame).ok_or_else(unreadable)?;
    let leaves = match (seen.dropped, seen.translated) {
        (None, _) => tuple(&seen.packet).unwrap_or(arrives),
        (Some(_), Some((destination, destination_port))) => FlowKey {
            destination,
            destination_port,
            ..arrives
        },
        (Some(_), None) => arrives,
    };
    Ok(Hop {
        view,
        hook: place.hook,
        interface: place.interface,
        arrives,
        leaves,
        seen,
    })
}

/// The next program, if there is one.
fn onward(scene: &Scene<'_>, hop: &Hop) -> Result<Option<Place>, TraceError> {
    use ObservationPoint::{ToNetwork, ToOverlay};
    let goes_on = matches!(hop.seen.observation, Some(ToNetwork | ToOverlay));
    if !goes_on {
        return Ok(None);
    }
    let next = of_address(scene, hop.leaves.destination.to_ip()).node;
    let Some(node) = next.filter(|node| *node != hop.view.node) else {
        return Ok(None);
    };
    let interface = scene.view(&node)?.device;
    Ok(Some(Place {
        node,
        hook: Hook::FromNetdev,
        interface,
    }))
}
