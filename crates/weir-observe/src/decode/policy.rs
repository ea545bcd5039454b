// SPDX-License-Identifier: Apache-2.0
//! What policy decided on the packet of a record, and what its policies are asked about it.

use super::read;
use crate::names::{Denial, Names};
use weir_abi::event::{EventRecord, flags, kind, policy_flags};
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Port, Protocol, TraceReason};
use weir_api::event::{Event, PacketEvent};

/// Who did not let the packet out or in. A rule that denies has its cookie where one that allows would have it.
pub(super) fn judge(event: &mut PacketEvent, record: &EventRecord, names: &impl Names) {
    let sides = [
        (
            policy_flags::EGRESS_DENIED,
            PolicyDirection::Egress,
            record.source_endpoint,
            &mut event.egress_allowed_by,
        ),
        (
            policy_flags::INGRESS_DENIED,
            PolicyDirection::Ingress,
            record.destination_endpoint,
            &mut event.ingress_allowed_by,
        ),
    ];
    for (flag, direction, endpoint, allowed_by) in sides {
        if record.policy & flag != 0 {
            event.denied_by = std::mem::take(allowed_by);
            if event.denied_by.is_empty() {
                event.isolated_by = names.isolating(endpoint, direction);
                event.nearest_miss = names.nearest_miss(&denial(record, direction));
            }
            direction.name().clone_into(&mut event.direction);
        }
    }
}

/// Where the packet of a record went: to a service's backend, or where its client sent it.
pub fn reached(record: &EventRecord) -> (Address, Port) {
    if record.translated_destination == Address::UNSPECIFIED {
        (record.key.destination, record.key.destination_port)
    } else {
        (
            record.translated_destination,
            record.translated_destination_port,
        )
    }
}

/// The connection that a record is about, as the policies of one side are asked about it.
pub fn denial(record: &EventRecord, direction: PolicyDirection) -> Denial {
    let key = &record.key;
    let (destination, port) = reached(record);
    let (source, target) = (record.source_identity, record.destination_identity);
    let (subject, peer, peer_address) = match direction {
        PolicyDirection::Egress => (source, target, destination),
        PolicyDirection::Ingress => (target, source, key.source),
    };
    let has_ports = matches!(key.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    Denial {
        direction,
        subject,
        peer,
        peer_address,
        protocol: key.protocol,
        port: if has_ports { port.get() } else { 0 },
    }
}

/// What policy decided on the packet of a record, as events of their own: one for each side that was asked. The
/// programs send one record for everything that they know about a packet.
pub fn verdicts(bytes: &[u8], event: &Event) -> Vec<Event> {
    let (Event::Drop(packet) | Event::Trace(packet)) = event else {
        return Vec::new();
    };
    let Ok(record) = read(bytes) else {
        return Vec::new();
    };
    // Later packets of a connection go on with what was decided on its first one.
    let later = record.kind == kind::TRACE
        && (record.trace_reason != TraceReason::New as u8 || record.flags & flags::REPLY != 0);
    if later {
        return Vec::new();
    }
    let policy = record.policy;
    let sides = [
        (
            policy_flags::EGRESS_ASKED,
            policy_flags::EGRESS_DENIED,
            PolicyDirection::Egress,
        ),
        (
            policy_flags::INGRESS_ASKED,
            policy_flags::INGRESS_DENIED,
            PolicyDirection::Ingress,
        ),
    ];
    sides
        .into_iter()
        .filter(|(asked, ..)| policy & asked != 0)
        .map(|(_, denied, direction)| {
            Event::PolicyVerdict(verdict(packet, policy & denied != 0, direction))
        })
        .collect()
}

fn verdict(packet: &PacketEvent, denied: bool, direction: PolicyDirection) -> PacketEvent {
    let mut verdict = PacketEvent {
        observation_point: None,
        direction: direction.name().to_owned(),
        ..packet.clone()
    };
    if !denied {
        verdict.reason_code = None;
        verdict.reason = None;
        verdict.reason_enum = None;
        verdict.hint = None;
        verdict.extended = 0;
        verdict.denied_by.clear();
        verdict.isolated_by.clear();
        verdict.nearest_miss = None;
    }
    match direction {
        PolicyDirection::Egress => verdict.ingress_allowed_by.clear(),
        PolicyDirection::Ingress => verdict.egress_allowed_by.clear(),
    }
    verdict
}
