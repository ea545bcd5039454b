// SPDX-License-Identifier: Apache-2.0
//! Where a packet begins: the address and port that a client would use, a connection that nobody has,
//! and the program that it meets first.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use weir_abi::MacAddress;
use weir_abi::observation::Hook;

use super::Place;
use crate::trace::TraceError;
use crate::trace::frame::Opening;
use crate::trace::place::{Party, What};
use crate::trace::port::Target;
use crate::trace::scene::Scene;

/// Source ports that a trace asks from: above those that kernels hand out by themselves
/// (`net.ipv4.ip_local_port_range`, up to 60,999), so that hardly any belongs to a connection.
pub(super) const SOURCE_PORTS: RangeInclusive<u16> = 61_321..=61_576;

/// The address and port that a client would use.
pub(super) fn aim(
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

/// A connection that nobody has, from the first of these ports that is free; those before it and it itself are taken
/// out. `None`: the ports are used up.
pub(super) fn opening(
    scene: &Scene<'_>,
    ports: &mut RangeInclusive<u16>,
    (source, destination): (IpAddr, IpAddr),
    target: Target,
) -> Result<Option<Opening>, TraceError> {
    for source_port in ports {
        let opening = Opening {
            source,
            destination,
            protocol: target.protocol,
            source_port,
            port: target.port,
        };
        if !scene.is_followed(&opening.key())? {
            return Ok(Some(opening));
        }
    }
    Ok(None)
}

/// The first program, and the MAC addresses that it sees.
pub(super) fn start(
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
