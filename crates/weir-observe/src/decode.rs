// SPDX-License-Identifier: Apache-2.0
//! From bytes of the ring buffer to an event.
//!
//! Programs of another version may still be attached after an upgrade, and a ring buffer is memory
//! that anybody with enough rights can write: whatever the bytes are, the answer is an event or a
//! [`DecodeProblem`].

use crate::hex;
use crate::hint::{Evidence, hint};
use crate::names::{Denial, Names, best};
use crate::packet::{Inner, Packet, tcp_flags};
use weir_abi::event::{EVENT_VERSION, EventRecord, flags, kind, policy_flags, signal};
use weir_abi::observation::Hook;
use weir_abi::policy::PolicyDirection;
use weir_abi::{
    Address, DropReason, EndpointId, Identity, ObservationPoint, PolicyCookie, Port, Protocol,
    TraceReason,
};
use weir_api::event::{Event, PacketEvent, Peer};
use weir_api::policy::PolicyRule;
use weir_packet::hash::hash_of_flow;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// What a record says.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record is an event, and a box would be one more allocation for each"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    Event(Event),
    Signal(Signal),
}

/// What the programs want from the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Ports or entries run out.
    CollectGarbage,
}

/// Why a record says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeProblem {
    #[error("record of {length} bytes is too short")]
    Short { length: usize },
    #[error("record has version {version}, known is {EVENT_VERSION}")]
    Version { version: u8 },
    #[error("record has the unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("record asks for the unknown thing {subtype}")]
    Signal { subtype: u8 },
}

/// How often each [`DecodeProblem`] was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Problems {
    pub short: u64,
    pub version: u64,
    pub kind: u64,
    pub signal: u64,
}

impl Problems {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.short + self.version + self.kind + self.signal
    }

    const fn count(&mut self, problem: DecodeProblem) {
        let counter = match problem {
            DecodeProblem::Short { .. } => &mut self.short,
            DecodeProblem::Version { .. } => &mut self.version,
            DecodeProblem::Kind { .. } => &mut self.kind,
            DecodeProblem::Signal { .. } => &mut self.signal,
        };
        *counter += 1;
    }
}

/// [`decode`], with its problems counted.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    problems: Problems,
}

impl Decoder {
    /// Nothing met yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The event or signal of a record; `None`: a problem, counted.
    pub fn decode(&mut self, record: &[u8], names: &impl Names) -> Option<Decoded> {
        match decode(record, names) {
            Ok(decoded) => Some(decoded),
            Err(problem) => {
                self.problems.count(problem);
                None
            }
        }
    }

    /// What could not be decoded so far.
    pub const fn problems(&self) -> Problems {
        self.problems
    }
}

/// The event or signal of a record. The record may end with the captured bytes.
pub fn decode(bytes: &[u8], names: &impl Names) -> Result<Decoded, DecodeProblem> {
    let head = Head::read(bytes)?;
    if head.kind == kind::SIGNAL {
        return match head.subtype {
            signal::COLLECT_GARBAGE => Ok(Decoded::Signal(Signal::CollectGarbage)),
            subtype => Err(DecodeProblem::Signal { subtype }),
        };
    }
    if !matches!(head.kind, kind::DROP | kind::TRACE | kind::POLICY_VERDICT) {
        return Err(DecodeProblem::Kind { kind: head.kind });
    }
    let record = read(bytes)?;
    let event = |make: fn(PacketEvent) -> Event| Decoded::Event(make(packet_event(&record, names)));
    match record.kind {
        kind::DROP => Ok(event(Event::Drop)),
        kind::TRACE => Ok(event(Event::Trace)),
        kind::POLICY_VERDICT => Ok(event(Event::PolicyVerdict)),
        kind => Err(DecodeProblem::Kind { kind }),
    }
}

/// What every record begins with; a signal has nothing more.
struct Head {
    kind: u8,
    subtype: u8,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, DecodeProblem> {
        let Some(&[kind, version, subtype]) = bytes.first_chunk() else {
            return Err(DecodeProblem::Short {
                length: bytes.len(),
            });
        };
        // Before anything else: the rest of another version is not ours to judge.
        if version != EVENT_VERSION {
            return Err(DecodeProblem::Version { version });
        }
        Ok(Self { kind, subtype })
    }
}

/// The numbers of a record about a packet, as they are.
pub fn record(bytes: &[u8]) -> Result<EventRecord, DecodeProblem> {
    let head = Head::read(bytes)?;
    if matches!(head.kind, kind::DROP | kind::TRACE | kind::POLICY_VERDICT) {
        read(bytes)
    } else {
        Err(DecodeProblem::Kind { kind: head.kind })
    }
}

fn read(bytes: &[u8]) -> Result<EventRecord, DecodeProblem> {
    if bytes.len() < core::mem::offset_of!(EventRecord, capture) {
        return Err(DecodeProblem::Short {
            length: bytes.len(),
        });
    }
    let mut record = EventRecord::new_zeroed();
    let most = bytes.len().min(size_of::<EventRecord>());
    if let (Some(to), Some(from)) = (record.as_mut_bytes().get_mut(..most), bytes.get(..most)) {
        to.copy_from_slice(from);
    }
    let there = most - core::mem::offset_of!(EventRecord, capture);
    record.captured = record.captured.min(u16::try_from(there).unwrap_or(0));
    Ok(record)
}

fn packet_event(record: &EventRecord, names: &impl Names) -> PacketEvent {
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

/// Who did not let the packet out or in. A rule that denies has its cookie where one that allows would have it.
fn judge(event: &mut PacketEvent, record: &EventRecord, names: &impl Names) {
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

/// The connection that a record is about, as the policies of one side are asked about it.
pub fn denial(record: &EventRecord, direction: PolicyDirection) -> Denial {
    let key = &record.key;
    let translated = record.translated_destination != Address::UNSPECIFIED;
    let (destination, port) = if translated {
        (
            record.translated_destination,
            record.translated_destination_port,
        )
    } else {
        (key.destination, key.destination_port)
    };
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

fn rules(cookie: PolicyCookie, names: &impl Names) -> Vec<PolicyRule> {
    if cookie == PolicyCookie::NONE {
        return Vec::new();
    }
    names.rules(cookie)
}

fn socket(address: Address, port: Port) -> String {
    std::net::SocketAddr::new(address.to_ip(), port.get()).to_string()
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
