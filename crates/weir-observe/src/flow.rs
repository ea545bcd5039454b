// SPDX-License-Identifier: Apache-2.0
//! Packets as flows: one line for each, with names first, and the filters that people know from flow viewers.

mod filter;

pub use filter::{End, FlowFilter, FlowFilterError, LabelFilter, Pattern, PodFilter, Verdict};

use std::fmt::Write as _;

use weir_abi::Identity;
use weir_api::event::{Event, PacketEvent, Peer};
use weir_api::policy::PolicyRule;

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowStyle {
    /// Addresses instead of names.
    pub numeric: bool,
    /// What to do about drops, on a line of its own.
    pub hints: bool,
    /// The node's name in front.
    pub node: bool,
}

/// The packet of an event that is about one.
pub const fn packet(event: &Event) -> Option<&PacketEvent> {
    match event {
        Event::Drop(packet) | Event::Trace(packet) | Event::PolicyVerdict(packet) => Some(packet),
        Event::Agent(_) | Event::Lost(_) => None,
    }
}

/// The lines of an event; none where it is not about a packet.
pub fn lines(event: &Event, style: FlowStyle) -> Vec<String> {
    let (packet, what) = match event {
        Event::Drop(packet) => (packet, dropped(packet)),
        Event::Trace(packet) => (packet, forwarded(packet)),
        Event::PolicyVerdict(packet) => (packet, verdict(packet)),
        Event::Agent(_) => return Vec::new(),
        Event::Lost(lost) => {
            return vec![format!(
                "{}: {} events lost on {} ({})",
                lost.time, lost.count, lost.node, lost.place
            )];
        }
    };
    let mut line = format!("{}: ", packet.time);
    if style.node {
        let _ = write!(line, "[{}] ", packet.node);
    }
    // Neither drops nor verdicts say that the packet went anywhere.
    let arrow = match event {
        Event::Trace(packet) if packet.reply => "<-",
        Event::Trace(_) => "->",
        Event::Drop(_) | Event::PolicyVerdict(_) | Event::Agent(_) | Event::Lost(_) => "<>",
    };
    let (first, second) = if arrow == "<-" {
        (&packet.destination, &packet.source)
    } else {
        (&packet.source, &packet.destination)
    };
    let _ = write!(
        line,
        "{} {arrow} {} {what}",
        peer(first, style),
        peer(second, style)
    );
    let flags = flags(packet);
    if !flags.is_empty() {
        let _ = write!(line, " ({flags})");
    }
    line += &service(packet);
    line += &policies(packet);
    let mut lines = vec![line];
    if style.hints {
        lines.extend(packet.hint.iter().map(|hint| format!("  hint: {hint}")));
    }
    lines
}

fn dropped(packet: &PacketEvent) -> String {
    let reason = packet.reason.as_deref().unwrap_or("unknown reason");
    match &packet.reason_enum {
        Some(name) => format!("{reason} ({name}) DROPPED"),
        None => format!("{reason} DROPPED"),
    }
}

fn forwarded(packet: &PacketEvent) -> String {
    let point = packet.observation_point.as_deref().unwrap_or("unknown");
    format!("{point} FORWARDED")
}

fn verdict(packet: &PacketEvent) -> String {
    let action = if packet.reason_code.is_some() {
        "DENIED"
    } else {
        "ALLOWED"
    };
    format!(
        "policy-verdict {} {action}",
        packet.direction.to_uppercase()
    )
}

/// `shop/cli:47110 (ID:20990)`, `203.0.113.10:80 (world)`.
fn peer(peer: &Peer, style: FlowStyle) -> String {
    let port = |host: &str| match peer.port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let identity = Identity(peer.identity);
    let what = identity
        .reserved_name()
        .map_or_else(|| format!("ID:{}", peer.identity), str::to_owned);
    let known = peer.name.contains('/') && !style.numeric;
    let host = if known {
        // The colon of `svc:` is no port.
        match peer.port {
            Some(number) => format!("{}:{number}", peer.name),
            None => peer.name.clone(),
        }
    } else if peer.address.is_empty() {
        return format!("({what})");
    } else {
        port(&peer.address)
    };
    format!("{host} ({what})")
}

fn flags(packet: &PacketEvent) -> String {
    match (packet.protocol.as_deref(), packet.flags.as_str()) {
        (Some("TCP"), flags) if !flags.is_empty() => format!("TCP Flags: {flags}"),
        (Some(protocol), "") => protocol.to_owned(),
        (Some(protocol), what) => format!("{protocol} {what}"),
        (None, what) => what.to_owned(),
    }
}

fn service(packet: &PacketEvent) -> String {
    let mut text = String::new();
    if let Some(name) = &packet.service {
        let _ = write!(text, " service {name}");
    }
    if let Some(destination) = &packet.translated_destination {
        let name = packet.translated_destination_name.as_deref();
        let _ = write!(text, " to {}", name.unwrap_or(destination));
    }
    text
}

fn policies(packet: &PacketEvent) -> String {
    let mut text = String::new();
    for (what, rules) in [
        ("egress allowed by", &packet.egress_allowed_by),
        ("ingress allowed by", &packet.ingress_allowed_by),
        ("denied by", &packet.denied_by),
        ("isolated by", &packet.isolated_by),
    ] {
        if !rules.is_empty() {
            let names: Vec<_> = rules.iter().map(PolicyRule::to_string).collect();
            let _ = write!(text, ", {what} {}", names.join(", "));
        }
    }
    if let Some(miss) = &packet.nearest_miss {
        let _ = write!(text, ", nearest {miss}");
    }
    text
}

#[cfg(test)]
mod tests;
