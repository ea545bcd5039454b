// SPDX-License-Identifier: Apache-2.0
//! Records of the `events` ring buffer.
//!
//! Every record starts with its kind and version, so that a reader can decode records of older
//! programs that are still attached after an upgrade.

use crate::address::Address;
use crate::address::Port;
use crate::flow::FlowKey;
use crate::identity::Identity;
use crate::number::{EndpointId, IfIndex, PolicyCookie, ServiceId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of [`EventRecord`].
pub const EVENT_VERSION: u8 = 2;

/// Packet bytes in an event, at most.
pub const CAPTURE_MAX: usize = 128;

/// Kinds of records, with the field's numbers where there are such.
pub mod kind {
    /// A packet was dropped; `subtype` is a [`crate::DropReason`].
    pub const DROP: u8 = 1;
    /// A packet was seen; `subtype` is a [`crate::ObservationPoint`].
    pub const TRACE: u8 = 4;
    /// Policy decided; `subtype` is 0 for allow, else the drop reason.
    pub const POLICY_VERDICT: u8 = 5;
    /// The agent did something (never in the ring buffer: made in user space).
    pub const AGENT: u8 = 130;
    /// The programs ask the agent for something; `subtype` is one of [`super::signal`].
    pub const SIGNAL: u8 = 131;
}

/// Subtypes of [`kind::SIGNAL`].
pub mod signal {
    /// Ports or entries run out: collect garbage now.
    pub const COLLECT_GARBAGE: u8 = 1;
}

/// Bits of [`EventRecord::flags`].
pub mod flags {
    /// The packet goes against the direction that opened its flow.
    pub const REPLY: u8 = 0x01;
    /// The packet came out of the tunnel, or goes into it.
    pub const TUNNEL: u8 = 0x02;
    /// `key` could be read from the packet.
    pub const HAS_KEY: u8 = 0x04;
    /// The capture begins with the IP header, not with an Ethernet header.
    pub const LAYER_3: u8 = 0x08;
    /// Direction of travel seen from the pods, where known.
    pub const INGRESS: u8 = 0x10;
    pub const EGRESS: u8 = 0x20;
}

/// Bits of [`EventRecord::policy`]: what policy had to do with the packet.
pub mod policy_flags {
    /// The source's egress policy was asked.
    pub const EGRESS_ASKED: u8 = 0x01;
    /// The destination's ingress policy was asked.
    pub const INGRESS_ASKED: u8 = 0x02;
    /// The source's egress policy denied.
    pub const EGRESS_DENIED: u8 = 0x04;
    /// The destination's ingress policy denied.
    pub const INGRESS_DENIED: u8 = 0x08;
}

/// One event: what happened, to which packet, where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct EventRecord {
    /// One of [`kind`].
    pub kind: u8,
    /// [`EVENT_VERSION`] of the program that wrote it.
    pub version: u8,
    pub subtype: u8,
    /// A number of [`crate::observation::Hook`].
    pub hook: u8,
    pub ifindex: IfIndex,
    /// Nanoseconds of the kernel's monotonic clock.
    pub timestamp: u64,
    /// Zero. (Programs of version 2 wrote a hash of the key here, which readers can work out.)
    pub reserved_head: u32,
    /// Length of the packet on the wire, Ethernet header included.
    pub packet_length: u32,
    pub source_identity: Identity,
    pub destination_identity: Identity,
    pub source_endpoint: EndpointId,
    pub destination_endpoint: EndpointId,
    /// A number of [`crate::TraceReason`].
    pub trace_reason: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// TCP flags of the packet, 0 for other protocols.
    pub tcp_flags: u8,
    pub reserved: u8,
    /// An errno (negative) or a code of `bpf_fib_lookup` (positive) that explains more; else 0.
    pub extended: i32,
    /// Resolve to the rules that allowed the packet to leave its source and to enter its destination;
    /// 0 where policy was not asked, or found nothing that allows.
    pub egress_cookie: PolicyCookie,
    pub ingress_cookie: PolicyCookie,
    /// The service whose address the packet was sent to; 0: none.
    pub service: ServiceId,
    /// The tuple as it stood in the packet when the event was made.
    pub key: FlowKey,
    /// The source before translation, unspecified where nothing was translated.
    pub original_source: Address,
    /// The destination after translation, unspecified where nothing was translated.
    pub translated_destination: Address,
    pub translated_destination_port: Port,
    /// Bytes of `capture` that are of the packet.
    pub captured: u16,
    /// Bits of [`policy_flags`].
    pub policy: u8,
    pub reserved_tail: [u8; 3],
    pub capture: [u8; CAPTURE_MAX],
}

impl Default for EventRecord {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}
