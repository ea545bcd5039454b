// SPDX-License-Identifier: Apache-2.0
//! An event as lines, in the shape that people know, with names beside the numbers.

use crate::hex;
use crate::hint::{errno_name, fib_name};
use crate::packet::Packet;
use std::fmt::Write as _;
use weir_abi::{DropReason, Identity};
use weir_api::event::{AgentEvent, Event, LostEvent, PacketEvent, Peer};

/// How much is said.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each a flag of `monitor`"
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Numbers only.
    pub numeric: bool,
    /// Each layer of the packet on a line of its own.
    pub verbose: bool,
    /// The captured bytes.
    pub hex: bool,
    /// The time in front.
    pub time: bool,
}

/// The lines of an event; the first line says what happened, further ones are indented.
pub fn format(event: &Event, style: Style) -> Vec<String> {
    let mut lines = match event {
        Event::Drop(packet) => {
            let mut lines = vec![drop(packet, style)];
            lines.extend(details(packet, style));
            // Last, so that nothing stands between it and the next event.
            lines.extend(packet.hint.iter().map(|hint| format!("   hint: {hint}")));
            lines
        }
        Event::Trace(packet) => with_details(trace(packet, style), packet, style),
        Event::PolicyVerdict(packet) => with_details(verdict(packet, style), packet, style),
        Event::Agent(agent) => vec![agent_line(agent)],
        Event::Lost(lost) => vec![lost_line(lost)],
    };
    if style.time
        && let Some(first) = lines.first_mut()
    {
        first.insert_str(0, &format!("{} ", time(event)));
    }
    lines
}

fn time(event: &Event) -> &str {
    match event {
        Event::Drop(packet) | Event::Trace(packet) | Event::PolicyVerdict(packet) => &packet.time,
        Event::Agent(agent) => &agent.time,
        Event::Lost(lost) => &lost.time,
    }
}

fn with_details(line: String, packet: &PacketEvent, style: Style) -> Vec<String> {
    let mut lines = vec![line];
    lines.extend(details(packet, style));
    lines
}

fn drop(packet: &PacketEvent, style: Style) -> String {
    let mut line = format!("xx drop ({}", packet.reason.as_deref().unwrap_or("unknown"));
    if let Some(name) = &packet.reason_enum {
        let _ = write!(line, "/{name}");
    }
    line += &extended(packet);
    let _ = write!(line, ") flow {:#x}", packet.flow_hash);
    if packet.destination.endpoint != 0 {
        let _ = write!(line, " to endpoint {}", packet.destination.endpoint);
    }
    let _ = write!(line, ", ifindex {}", packet.ifindex);
    if !style.numeric && !packet.interface.is_empty() {
        let _ = write!(line, " ({})", packet.interface);
    }
    let _ = write!(
        line,
        ", hook {}, identity {}: {}",
        packet.hook,
        identities(packet, style),
        tuple(packet, style)
    );
    line += &service(packet);
    line
}

/// ` service shop/web:http to 10.8.3.41:8080 (shop/web-1)`
fn service(packet: &PacketEvent) -> String {
    let mut text = String::new();
    if let Some(name) = &packet.service {
        let _ = write!(text, " service {name}");
    }
    if let Some(destination) = &packet.translated_destination {
        let _ = write!(text, " to {destination}");
        if let Some(name) = &packet.translated_destination_name {
            let _ = write!(text, " ({name})");
        }
    }
    text
}

/// `, -16 (EBUSY)`: the signed number as people search for it, and its name.
fn extended(packet: &PacketEvent) -> String {
    if packet.extended == 0 {
        return String::new();
    }
    let is_fib = packet.reason_code == Some(DropReason::FibLookupFailed.number());
    let name = if is_fib && packet.extended > 0 {
        fib_name(packet.extended)
    } else {
        errno_name(packet.extended)
    };
    match name {
        Some(name) => format!(", {} ({name})", packet.extended),
        None => format!(", {}", packet.extended),
    }
}

fn trace(packet: &PacketEvent, style: Style) -> String {
    let point = packet.observation_point.as_deref().unwrap_or("unknown");
    let (arrow, place) = match point.split_once('-') {
        Some(("to", place)) => ("->", place),
        Some(("from", place)) => ("<-", place),
        _ => ("--", point),
    };
    let mut line = format!("{arrow} {place}");
    if place == "endpoint" {
        let peer = if arrow == "->" {
            &packet.destination
        } else {
            &packet.source
        };
        let _ = write!(line, " {}", peer.endpoint);
    }
    let interface = if style.numeric || packet.interface.is_empty() {
        packet.ifindex.to_string()
    } else {
        packet.interface.clone()
    };
    let _ = write!(
        line,
        " flow {:#x}, identity {} state {} ifindex {interface}",
        packet.flow_hash,
        identities(packet, style),
        packet.state,
    );
    if let Some(original) = &packet.original_source {
        let _ = write!(line, " orig-ip {original}");
    }
    let _ = write!(line, ": {}", tuple(packet, style));
    line += &service(packet);
    line
}

fn verdict(packet: &PacketEvent, style: Style) -> String {
    let ingress = packet.direction == "ingress";
    let (local, remote) = if ingress {
        (&packet.destination, &packet.source)
    } else {
        (&packet.source, &packet.destination)
    };
    let action = if packet.reason_code.is_some() {
        "deny"
    } else {
        "allow"
    };
    let mut line = format!(
        "Policy verdict log: flow {:#x} local EP ID {}, remote ID {}, {}, action {action}",
        packet.flow_hash,
        local.endpoint,
        identity(remote.identity, style),
        packet.direction,
    );
    if let (Some(reason), Some(name)) = (&packet.reason, &packet.reason_enum) {
        let _ = write!(line, " ({reason}/{name})");
    }
    for (what, rules) in [
        ("allowed by", &packet.egress_allowed_by),
        ("allowed by", &packet.ingress_allowed_by),
        ("denied by", &packet.denied_by),
        ("isolated by", &packet.isolated_by),
    ] {
        if !rules.is_empty() {
            let names: Vec<_> = rules.iter().map(ToString::to_string).collect();
            let _ = write!(line, ", {what} {}", names.join(", "));
        }
    }
    let _ = write!(line, ": {}", tuple(packet, style));
    line
}

fn agent_line(event: &AgentEvent) -> String {
    format!(">> {}: {}", event.subtype.replace('-', " "), event.message)
}

fn lost_line(event: &LostEvent) -> String {
    let why = match event.place.as_str() {
        "kernel" => "the ring buffer was full",
        "listener" => "this reader was too slow",
        _ => "unknown place",
    };
    let noun = if event.count == 1 { "event" } else { "events" };
    format!(
        "!! {} {noun} lost on {} ({}: {why})",
        event.count, event.node, event.place
    )
}

fn identities(packet: &PacketEvent, style: Style) -> String {
    format!(
        "{}->{}",
        identity(packet.source.identity, style),
        identity(packet.destination.identity, style)
    )
}

fn identity(number: u32, style: Style) -> String {
    if style.numeric {
        number.to_string()
    } else {
        Identity(number).to_string()
    }
}

/// `10.8.5.9:47110 (shop/cli) -> 10.8.3.41:8080 (shop/web) tcp SYN`, or as much of it as is known.
fn tuple(packet: &PacketEvent, style: Style) -> String {
    let mut text = if packet.source.address.is_empty() && packet.destination.address.is_empty() {
        format!("{} bytes", packet.length)
    } else {
        format!(
            "{} -> {}",
            peer(&packet.source, style),
            peer(&packet.destination, style)
        )
    };
    for word in [
        packet
            .protocol
            .as_deref()
            .unwrap_or_default()
            .to_lowercase(),
        packet.flags.clone(),
    ] {
        if !word.is_empty() {
            let _ = write!(text, " {word}");
        }
    }
    text
}

fn peer(peer: &Peer, style: Style) -> String {
    let mut text = match peer.port {
        Some(port) if peer.address.contains(':') => format!("[{}]:{port}", peer.address),
        Some(port) => format!("{}:{port}", peer.address),
        None => peer.address.clone(),
    };
    if !style.numeric && !peer.name.is_empty() {
        let _ = write!(text, " ({})", peer.name);
    }
    text
}

fn details(packet: &PacketEvent, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    let bytes = hex::decode(&packet.capture).unwrap_or_default();
    if style.verbose {
        let mut text = format!(
            "   node {} hook {} ifindex {} {} length {} captured {}",
            packet.node,
            packet.hook,
            packet.ifindex,
            packet.interface,
            packet.length,
            bytes.len()
        );
        if !packet.direction.is_empty() {
            let _ = write!(text, " {}", packet.direction);
        }
        if packet.reply {
            text += " reply";
        }
        if !style.time {
            let _ = write!(text, " time {}", packet.time);
        }
        lines.push(text);
        let layers = Packet::parse(&bytes).layers();
        lines.extend(layers.iter().map(|layer| format!("   {layer}")));
    }
    if style.hex {
        lines.extend(hex::dump(&bytes).iter().map(|line| format!("   {line}")));
    }
    lines
}
