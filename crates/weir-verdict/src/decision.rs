// SPDX-License-Identifier: Apache-2.0
//! What the slow path found out: the entry to apply, and what an event needs to tell.

use crate::run::Arrival;
use crate::tables::Route;
use crate::way::Way;
use weir_abi::counter::Direction;
use weir_abi::observation::Hook;
use weir_abi::{
    DropReason, EndpointId, FlowEntry, FlowKey, Identity, IfIndex, ObservationPoint, Seconds,
    TraceReason,
};
use weir_packet::Summary;
use weir_packet::icmp::Inner;

/// How a step of the slow path ends. One byte, so that the kernel can return it from functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing against the packet: on to the next step; after the last one, apply
    /// [`Decision::entry`].
    Forward,
    /// Leave the packet alone: it is not Weir's to handle.
    Pass,
    Drop(DropReason),
}

impl Outcome {
    /// The outcome of a step.
    #[inline(always)]
    pub fn of(step: Result<(), Self>) -> Self {
        match step {
            Ok(()) => Self::Forward,
            Err(outcome) => outcome,
        }
    }
}

/// A packet's decision with everything that explains it. Lives in per-CPU memory in the kernel:
/// two entries would fill the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Decision {
    /// How this packet, and later ones of its direction, are handled.
    pub entry: FlowEntry,
    /// The packet's tuple after its translation.
    pub after: FlowKey,
    /// Where it goes.
    pub way: Way,
    /// What the node's routing table said, where it was asked.
    pub route: Route,
    /// The time that the decision is made under.
    pub now: Seconds,
    /// The other direction, as far as it is known.
    pub pair: FlowEntry,
    pub pair_key: FlowKey,
    /// The packet inside an ICMP error; meaningful with `related`.
    pub inner: Inner,
    /// The tuple by which an ICMP error's flow was found.
    pub inner_flow: FlowKey,
    /// The packet is an ICMP error about a flow.
    pub related: bool,
    /// The flow needs a mapping of its own before its entries are stored.
    pub masquerades: bool,
    /// Hand the packet to the kernel's neighbour code, which resolves and confirms the next hop.
    pub through_neighbour: bool,
    /// Send a trace event.
    pub report: bool,
    pub observation: ObservationPoint,
    pub trace_reason: TraceReason,
    pub direction: Direction,
    /// The direction that opened the flow is the other one.
    pub reply: bool,
    pub source_identity: Identity,
    pub destination_identity: Identity,
    pub source_endpoint: EndpointId,
    pub destination_endpoint: EndpointId,
    /// An errno or a code of the FIB look-up; 0: none.
    pub extended: i32,
}

impl Decision {
    /// Nothing known yet.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.related = false;
        self.masquerades = false;
        self.through_neighbour = false;
        self.report = false;
        self.observation = ObservationPoint::ToStack;
        self.trace_reason = TraceReason::Unknown;
        self.direction = Direction::Unspecified;
        self.reply = false;
        self.source_identity = Identity::UNKNOWN;
        self.destination_identity = Identity::UNKNOWN;
        self.source_endpoint = EndpointId::NONE;
        self.destination_endpoint = EndpointId::NONE;
        self.extended = 0;
    }
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            entry: FlowEntry::default(),
            after: FlowKey::default(),
            way: Way::NOWHERE,
            route: Route::NONE,
            now: Seconds(0),
            pair: FlowEntry::default(),
            pair_key: FlowKey::default(),
            inner: Inner::EMPTY,
            inner_flow: FlowKey::default(),
            related: false,
            masquerades: false,
            through_neighbour: false,
            report: false,
            observation: ObservationPoint::ToStack,
            trace_reason: TraceReason::Unknown,
            direction: Direction::Unspecified,
            reply: false,
            source_identity: Identity::UNKNOWN,
            destination_identity: Identity::UNKNOWN,
            source_endpoint: EndpointId::NONE,
            destination_endpoint: EndpointId::NONE,
            extended: 0,
        }
    }
}

/// Memory that a packet's handling needs beside the packet; afterwards it explains the verdict.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Workspace {
    pub decision: Decision,
    pub arrival: Arrival,
    /// The packet as it came (inside the tunnel, where it came by one); meaningful with `parsed`.
    pub summary: Summary,
    pub parsed: bool,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            decision: Decision::default(),
            arrival: Arrival {
                hook: Hook::FromContainer,
                ifindex: IfIndex::NONE,
                tunnel_source: None,
            },
            summary: Summary::EMPTY,
            parsed: false,
        }
    }
}
