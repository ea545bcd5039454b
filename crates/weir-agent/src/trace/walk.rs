// SPDX-License-Identifier: Apache-2.0
//! The way of a packet: from program to program, until it is delivered, dropped or out of sight.

mod report;
mod start;

use weir_abi::observation::Hook;
use weir_abi::{DropReason, FlowKey, IfIndex, ObservationPoint};
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
use start::{aim, opening, start};

/// Programs that one packet meets, at most: pod, node with the frontend, node with the backend, and one more.
const HOPS: usize = 5;

/// Where a packet comes in next.
struct Place {
    node: NodeName,
    hook: Hook,
    interface: IfIndex,
}

/// Follows the first packet of a connection.
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
    let opening = opening(scene, from, to, target.protocol, port)?;
    let (mut place, macs) = start(scene, source, destination, from)?;
    let mut frame = opening.frame(macs.0, macs.1);
    let mut notes = scene.notes.clone();
    let mut hops: Vec<Hop> = Vec::new();
    loop {
        let hop = meet(scene, &place, &frame, &mut notes)?;
        let next = if hops.len() + 1 < HOPS {
            onward(scene, &hop)?
        } else {
            None
        };
        frame.clone_from(&hop.seen.packet);
        hops.push(hop);
        match next {
            Some(next) => place = next,
            None => break,
        }
    }
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

fn meet(
    scene: &Scene<'_>,
    place: &Place,
    frame: &[u8],
    notes: &mut Vec<String>,
) -> Result<Hop, TraceError> {
    let view = scene.view(&place.node)?;
    let (seen, beside) = scene.run(&view, place.hook, place.interface, frame)?;
    if let Some(beside) = beside.filter(|beside| !seen.agrees(beside)) {
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
