// SPDX-License-Identifier: Apache-2.0
//! A record about a packet as an event: its numbers in names, beside what the captured bytes show.

use super::policy::judge;
use crate::hex;
use crate::hint::{Evidence, hint};
use crate::names::{Names, best};
use crate::packet::{Inner, Packet, tcp_flags};
use weir_abi::event::{EventRecord, flags, kind};
use weir_abi::observation::Hook;
use weir_abi::{
    Address, DropReason, EndpointId, Identity, ObservationPoint, PolicyCookie, Port, Protocol,
    TraceReason,
};
use weir_api::event::{PacketEvent, Peer};
use weir_api::policy::PolicyRule;
use weir_packet::hash::hash_of_flow;

pub(super) fn packet_event(record: &EventRecord, names: &impl Names) -> PacketEvent {
    let captured = record
        .capture
        .get(..usize::from(record.captured))
        .unwrap_or_default();
    let packet = if record.flags & flags::LAYER_3 == 0 {
        Packet::parse_ethernet(captured)
    } else {
        Packet::parse_layer3(captured)
    };
    // The programs know a pod's endpoint only when its source address is right; its link says it
    // also when that is the very reason of the drop.
    let record = &EventRecord {
        source_endpoint: sender(record, names),
        ..*record
    };
    let (source, destination) = peers(record, &packet, names);
    let has_key = record.flags & flags::HAS_KEY != 0;
    let mut event = PacketEvent {
        time: names.time(record.timestamp),
        node: names.node().to_owned(),
        extended: record.extended,
        state: known(TraceReason::from_number(record.trace_reason).map(TraceReason::name)),
        hook: Hook::from_number(record.hook).map_or_else(
            || format!("hook-{}", record.hook),
            |hook| hook.name().to_owned(),
        ),
        ifindex: record.ifindex.get(),
        interface: names.interface(record.ifindex).unwrap_or_default(),
        flow_hash: if has_key {
            hash_of_flow(&record.key)
        } else {
            0
        },
        length: record.packet_length,
        source,
        destination,
        protocol: if has_key {
            Some(record.key.protocol.to_string())
        } else {
            packet.protocol()
        },
        flags: flags_of(record, &packet),
        reply: record.flags & flags::REPLY != 0,
        direction: known(match record.flags & (flags::INGRESS | flags::EGRESS) {
            flags::INGRESS => Some("ingress"),
            flags::EGRESS => Some("egress"),
            _ => None,
        }),
        original_source: (record.original_source != Address::UNSPECIFIED)
            .then(|| record.original_source.to_string()),
        service: names.service(record.service),
        translated_destination: (record.translated_destination != Address::UNSPECIFIED).then(
            || {
                socket(
                    record.translated_destination,
                    record.translated_destination_port,
                )
            },
        ),
        translated_destination_name: names.peer(record.translated_destination),
        egress_allowed_by: rules(record.egress_cookie, names),
        ingress_allowed_by: rules(record.ingress_cookie, names),
        capture: hex::encode(captured),
        ..PacketEvent::default()
    };
    judge(&mut event, record, names);
    match record.kind {
        kind::TRACE => {
            event.observation_point =
                Some(ObservationPoint::from_number(record.subtype).map_or_else(
                    || format!("point-{}", record.subtype),
                    |point| point.name().to_owned(),
                ));
        }
        kind::DROP => explain(&mut event, record, &packet, names),
        // An allowed verdict has no reason.
        kind::POLICY_VERDICT if record.subtype != 0 => explain(&mut event, record, &packet, names),
        _ => {}
    }
    event
}

fn rules(cookie: PolicyCookie, names: &impl Names) -> Vec<PolicyRule> {
    if cookie == PolicyCookie::NONE {
        return Vec::new();
    }
    names.rules(cookie)
}

fn socket(address: Address, port: Port) -> String {
    std::net::SocketAddr::new(address.to_ip(), port.get()).to_string()
}

/// Reason, enum name and hint of a drop.
fn explain(event: &mut PacketEvent, record: &EventRecord, packet: &Packet, names: &impl Names) {
    event.reason_code = Some(record.subtype);
    if let Some(reason) = DropReason::from_number(record.subtype) {
        event.reason = Some(reason.info().prose.to_owned());
        event.reason_enum = Some(reason.info().enum_name.to_owned());
        let endpoint = names.endpoint(record.source_endpoint);
        let evidence = Evidence {
            sender: endpoint.as_deref(),
            // It takes a look at the whole service, which is worth it for this alone.
            no_backend: (reason == DropReason::ServiceBackendNotFound)
                .then(|| names.no_backend(record.service))
                .flatten(),
        };
        event.hint = Some(hint(reason, event, packet, &evidence));
    } else {
        // A newer program: the drop is real although its reason has no name here.
        event.reason = Some(format!("reason {}", record.subtype));
        event.hint = Some(
            "the programs are newer than the agent that read this: see `weir version`".to_owned(),
        );
    }
}

fn flags_of(record: &EventRecord, packet: &Packet) -> String {
    if record.flags & flags::HAS_KEY == 0 {
        return packet.flags();
    }
    if record.key.protocol == Protocol::TCP {
        return tcp_flags(record.tcp_flags);
    }
    // What was captured may be the answer to the packet: its flags would be another packet's.
    described(record, packet).map_or_else(String::new, |packet| packet.flags())
}

/// The packet that the tuple is about: the captured one itself or the one inside the tunnel.
fn described(record: &EventRecord, packet: &Packet) -> Option<Packet> {
    let is_it = |packet: &Packet| {
        packet.ip().is_some_and(|ip| {
            Address::from(ip.source) == record.key.source
                && Address::from(ip.destination) == record.key.destination
                && ip.protocol == record.key.protocol
        })
    };
    [Some(*packet), packet.inner.map(Inner::packet)]
        .into_iter()
        .flatten()
        .find(is_it)
}

fn sender(record: &EventRecord, names: &impl Names) -> EndpointId {
    let from_pod = record.hook == Hook::FromContainer as u8;
    if from_pod && record.source_endpoint == EndpointId::NONE {
        names.link(record.ifindex).unwrap_or(EndpointId::NONE)
    } else {
        record.source_endpoint
    }
}

fn peers(record: &EventRecord, packet: &Packet, names: &impl Names) -> (Peer, Peer) {
    let key = (record.flags & flags::HAS_KEY != 0).then_some(record.key);
    let addresses = match (&key, packet.ip()) {
        (Some(key), _) => Some((key.source, key.destination)),
        (None, Some(ip)) => Some((ip.source.into(), ip.destination.into())),
        (None, None) => None,
    };
    // The identifier of an echo stands in the place of a port and is none.
    let port = |port: Port| {
        key.filter(|key| matches!(key.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP))
            .map(|_| port.get())
    };
    let peer = |address: Option<Address>, port, endpoint, identity: Identity| Peer {
        address: address
            .map(|address| address.to_string())
            .unwrap_or_default(),
        port,
        identity: identity.0,
        endpoint,
        name: String::new(),
        labels: names.labels(identity),
    };
    let (source, destination) = (addresses.map(|pair| pair.0), addresses.map(|pair| pair.1));
    let mut from = peer(
        source,
        key.and_then(|key| port(key.source_port)),
        record.source_endpoint.get(),
        record.source_identity,
    );
    let mut to = peer(
        destination,
        key.and_then(|key| port(key.destination_port)),
        record.destination_endpoint.get(),
        record.destination_identity,
    );
    from.name = best(
        names,
        source,
        record.source_endpoint,
        record.source_identity,
    );
    to.name = best(
        names,
        destination,
        record.destination_endpoint,
        record.destination_identity,
    );
    (from, to)
}

fn known(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}
