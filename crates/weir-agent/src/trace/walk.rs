// SPDX-License-Identifier: Apache-2.0
//! The way of a packet: from program to program, until it is delivered, dropped or out of sight.

use std::net::IpAddr;

use weir_abi::observation::Hook;
use weir_abi::service::FrontendKey;
use weir_abi::{DropReason, FlowKey, IfIndex, MacAddress, ObservationPoint, Protocol};
use weir_api::trace::{Evaluated, Trace, TraceSide, TraceStep, TraceVerdict};
use weir_model::NodeName;

use super::TraceError;
use super::frame::{Opening, has_ports, tuple};
use super::hop::{Hop, socket};
use super::lookups;
use super::place::{Party, Target, What, of_address};
use super::run::Seen;
use super::scene::Scene;
use super::side::{egress, ingress};

/// Programs that one packet meets, at most: pod, node with the frontend, node with the backend, and one more.
const HOPS: usize = 5;
/// Source ports that are tried until one belongs to no connection.
const FIRST_PORT: u16 = 54_321;
const PORTS: u16 = 256;

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

/// What there is to know about the backend that was taken.
fn choice(scene: &Scene<'_>, hops: &[Hop]) -> Vec<String> {
    let Some(hop) = hops.iter().find(|hop| hop.seen.translated.is_some()) else {
        return Vec::new();
    };
    let key = &hop.arrives;
    let frontend = FrontendKey::new(key.destination, key.destination_port, key.protocol);
    let row = hop.view.tables.frontends.get(&frontend);
    let internal = hop.hook != Hook::FromNetdev;
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

/// The address and port that a client would use.
fn aim(
    scene: &Scene<'_>,
    source: &Party,
    destination: &Party,
    target: Target,
    v4: bool,
) -> Option<(IpAddr, u16)> {
    let plain = || Some((destination.address(v4)?, target.port));
    let What::Service(service) = &destination.what else {
        return plain();
    };
    if source.what != What::World || destination.exact {
        return plain();
    }
    // From outside: by what is meant for clients outside.
    let outward = service
        .load_balancer_ips()
        .chain(service.external_ips.iter().copied());
    if let Some(address) = outward.into_iter().find(|ip| ip.is_ipv4() == v4) {
        return Some((address, target.port));
    }
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.port == target.port && port.protocol == target.protocol);
    let node_port = port.and_then(|port| service.node_port(port));
    let node = scene.world.node(&scene.shared.node);
    let address = node.and_then(|node| if v4 { node.ipv4() } else { node.ipv6() });
    node_port
        .zip(address)
        .map(|(port, address)| (address, port))
        .or_else(plain)
}

/// A connection that nobody has.
fn opening(
    scene: &Scene<'_>,
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
) -> Result<Opening, TraceError> {
    let with = |source_port| Opening {
        source,
        destination,
        protocol,
        source_port,
        port,
    };
    for source_port in FIRST_PORT..FIRST_PORT + PORTS {
        let opening = with(source_port);
        if !scene.is_followed(&opening.key())? {
            return Ok(opening);
        }
    }
    Ok(with(FIRST_PORT))
}

/// The first program, and the MAC addresses that it sees.
fn start(
    scene: &Scene<'_>,
    source: &Party,
    destination: &Party,
    from: IpAddr,
) -> Result<(Place, (MacAddress, MacAddress)), TraceError> {
    let own = scene.shared.node.clone();
    let missing = |message: String| TraceError::Missing { message };
    match &source.what {
        What::Pod(pod) => {
            let node = source
                .node
                .clone()
                .ok_or_else(|| missing(format!("pod {} runs on no node yet", pod.reference)))?;
            let view = scene.view(&node)?;
            let row = view.tables.endpoints.get(&from.into()).ok_or_else(|| {
                missing(format!(
                    "node {node} has no endpoint with the address {from} of pod {}",
                    pod.reference
                ))
            })?;
            let place = Place {
                node,
                hook: Hook::FromContainer,
                interface: row.ifindex,
            };
            Ok((place, (row.mac, MacAddress::GATEWAY)))
        }
        What::Node => {
            let node = source.node.clone().unwrap_or(own);
            let view = scene.view(&node)?;
            // What the node sends to pods and services goes through `weir_host`; for the rest Weir only follows it.
            let plain = matches!(destination.what, What::Node | What::World);
            let (hook, interface) = if plain {
                (Hook::ToNetdev, view.device)
            } else {
                (Hook::FromHost, view.host)
            };
            let place = Place {
                node,
                hook,
                interface,
            };
            Ok((place, (MacAddress::HOST, MacAddress::GATEWAY)))
        }
        What::World | What::Service(_) => {
            let node = destination.node.clone().unwrap_or(own);
            let view = scene.view(&node)?;
            let place = Place {
                node,
                hook: Hook::FromNetdev,
                interface: view.device,
            };
            Ok((place, (MacAddress::GATEWAY, MacAddress::HOST)))
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

/// Where it ended.
fn outcome(scene: &Scene<'_>, hops: &[Hop]) -> String {
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
fn hint(scene: &Scene<'_>, hops: &[Hop], reason: DropReason, sides: [&TraceSide; 2]) -> String {
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
    let key = &hop.arrives;
    let frontend = FrontendKey::new(key.destination, key.destination_port, key.protocol);
    let internal = hop.hook != Hook::FromNetdev;
    hop.view
        .no_backend(&frontend, internal, &scene.world)
        .unwrap_or(plain)
}

fn step(scene: &Scene<'_>, hop: &Hop) -> TraceStep {
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
