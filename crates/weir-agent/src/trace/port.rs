// SPDX-License-Identifier: Apache-2.0
//! Which port and protocol of a destination are meant.

use weir_abi::Protocol;

use super::TraceError;
use super::place::{Party, What};
use super::scene::Scene;

/// A port and protocol, as somebody types it, at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// 0 for protocols without ports.
    pub(super) port: u16,
}

/// What is meant by `80`, `53/UDP`, `http`, `ICMP`, or by nothing at all.
pub(super) fn target(
    scene: &mut Scene<'_>,
    text: Option<&str>,
    destination: &Party,
    v4: bool,
) -> Result<Target, TraceError> {
    let offered = offered(destination);
    let Some(text) = text else {
        let first = offered.first();
        let (port, protocol) = first.map_or((80, Protocol::TCP), |(_, port, protocol)| {
            (*port, *protocol)
        });
        let name = &destination.name;
        let why = if first.is_some() {
            "the first that it has"
        } else {
            "it declares none"
        };
        scene.notes.push(format!(
            "no port was given: {port}/{protocol} of {name} ({why})"
        ));
        return Ok(Target { protocol, port });
    };
    let icmp = if v4 { Protocol::ICMP } else { Protocol::ICMPV6 };
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, Some(protocol)),
        None if text.to_ascii_uppercase().starts_with("ICMP") => ("0", Some("icmp")),
        None => (text, None),
    };
    let protocol = match protocol.map(str::to_ascii_uppercase).as_deref() {
        None | Some("ANY") => None,
        Some("TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some("ICMP" | "ICMPV6" | "ICMPV4") => {
            return Ok(Target {
                protocol: icmp,
                port: 0,
            });
        }
        Some(other) => {
            return Err(TraceError::Invalid {
                message: format!(
                    "`{other}` is no protocol that can be traced: TCP, UDP, SCTP or ICMP"
                ),
            });
        }
    };
    let fits = |(_, _, offered): &&(String, u16, Protocol)| {
        protocol.is_none_or(|wanted| wanted == *offered)
    };
    if let Ok(port) = number.parse::<u16>() {
        let known = offered
            .iter()
            .filter(fits)
            .find(|(_, offered, _)| *offered == port);
        let protocol = protocol.or_else(|| known.map(|(_, _, protocol)| *protocol));
        return Ok(Target {
            protocol: protocol.unwrap_or(Protocol::TCP),
            port,
        });
    }
    let named = offered
        .iter()
        .filter(fits)
        .find(|(name, _, _)| name == number);
    named
        .map(|(_, port, protocol)| Target {
            protocol: *protocol,
            port: *port,
        })
        .ok_or_else(|| TraceError::Missing {
            message: format!("{} has no port named `{number}`", destination.name),
        })
}

/// Name, number and protocol of everything that a destination declares.
fn offered(party: &Party) -> Vec<(String, u16, Protocol)> {
    match &party.what {
        What::Pod(pod) => {
            let ports = pod.container_ports.iter();
            ports
                .map(|port| {
                    (
                        port.name.clone().unwrap_or_default(),
                        port.port,
                        port.protocol,
                    )
                })
                .collect()
        }
        What::Service(service) => {
            let ports = service.ports.iter();
            ports
                .map(|port| (port.name.to_string(), port.port, port.protocol))
                .collect()
        }
        What::Node | What::World => Vec::new(),
    }
}
