// SPDX-License-Identifier: Apache-2.0
//! What the slow path found out: the entry to apply, and what an event needs to tell.

use crate::run::Arrival;
use crate::tables::Route;
use crate::way::Way;
use weir_abi::counter::Direction;
use weir_abi::fragment::FragmentKey;
use weir_abi::observation::Hook;
use weir_abi::service::FrontendKey;
use weir_abi::{
    BlockGroup, DropReason, EndpointId, EndpointRow, FlowEntry, FlowKey, Generation, Identity,
    IfIndex, ObservationPoint, PolicyCookie, PolicySet, Seconds, ServiceId, TraceReason,
};
use weir_packet::Summary;
use weir_packet::dispatch::Backend;
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
    /// The outcome as a number, for steps that the kernel verifies on their own.
    #[inline(always)]
    pub const fn to_number(self) -> u32 {
        match self {
            Self::Forward => 0,
            Self::Pass => 1,
            Self::Drop(reason) => reason.number() as u32,
        }
    }

    /// The outcome with this number.
    ///
    /// # Safety
    /// The number must come from [`Self::to_number`].
    #[inline(always)]
    pub const unsafe fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Forward,
            1 => Self::Pass,
            _ => {
                let [reason, ..] = number.to_le_bytes();
                // SAFETY: a reason's own number, by the promise of the caller. Not looked up, because
                // the verifier would follow every reason from here on.
                Self::Drop(unsafe { core::mem::transmute::<u8, DropReason>(reason) })
            }
        }
    }

    /// Goes on where the step says so: the way back from [`Self::of`].
    #[inline(always)]
    pub fn into_step(self) -> Result<(), Self> {
        if matches!(self, Self::Forward) {
            Ok(())
        } else {
            Err(self)
        }
    }

    /// The outcome of a step.
    #[inline(always)]
    pub fn of(step: Result<(), Self>) -> Self {
        match step {
            Ok(()) => Self::Forward,
            Err(outcome) => outcome,
        }
    }
}

/// One end of a packet's way, as policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Party {
    pub identity: Identity,
    pub blocks: BlockGroup,
    /// The endpoint's set; meaningful with an `ENFORCE` bit in `flags`.
    pub policy_set: PolicySet,
    /// [`EndpointId::NONE`] for what is not on this node.
    pub endpoint: EndpointId,
    /// Bits of [`weir_abi::endpoint::flags`]; 0 for what is no endpoint.
    pub flags: u16,
}

impl Party {
    /// Nothing known.
    pub const UNKNOWN: Self = Self {
        identity: Identity::UNKNOWN,
        blocks: BlockGroup::NONE,
        policy_set: PolicySet::NONE,
        endpoint: EndpointId::NONE,
        flags: 0,
    };

    /// Notes an endpoint of this node.
    #[inline(always)]
    pub fn set_endpoint(&mut self, row: &EndpointRow) {
        self.identity = row.identity;
        self.blocks = row.blocks;
        self.policy_set = row.policy_set;
        self.endpoint = row.id;
        self.flags = row.flags;
    }

    /// Notes somebody who is no endpoint of this node.
    #[inline(always)]
    pub fn set_other(&mut self, identity: Identity, blocks: BlockGroup) {
        self.identity = identity;
        self.blocks = blocks;
        if identity == Identity::HOST {
            self.endpoint = EndpointId::HOST;
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
    /// The address that a service was looked for under.
    pub frontend: FrontendKey,
    /// The packet is an ICMP error about a flow.
    pub related: bool,
    /// The flow is translated: the tuple that its answers carry has to be reserved before its entries
    /// are stored.
    pub maps: bool,
    /// The sender is to be told that the packet was refused.
    pub rejects: bool,
    /// The packet continues a connection.
    pub continued: bool,
    /// [`Self::after`] differs from the packet's own tuple.
    pub translated: bool,
    /// The packet goes on as it came, with its backend beside it ([`mod@crate::direct`]).
    pub direct: bool,
    /// Hand the packet to the kernel's neighbour code, which resolves and confirms the next hop.
    pub through_neighbour: bool,
    /// Send a trace event.
    pub report: bool,
    pub observation: ObservationPoint,
    pub trace_reason: TraceReason,
    pub direction: Direction,
    /// The direction that opened the flow is the other one.
    pub reply: bool,
    pub source: Party,
    pub destination: Party,
    /// The generation of everything, read before anything else.
    pub everything: Generation,
    /// The service whose address the packet was sent to.
    pub service: ServiceId,
    /// Rules that allowed the connection to leave its source and to enter its destination.
    pub egress_cookie: PolicyCookie,
    pub ingress_cookie: PolicyCookie,
    /// Bits of [`weir_abi::event::policy_flags`].
    pub policy: u8,
    /// An errno or a code of the FIB look-up; 0: none.
    pub extended: i32,
}

impl Decision {
    /// Nothing known yet but the direction, which the hook tells.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.related = false;
        self.maps = false;
        self.rejects = false;
        self.continued = false;
        self.translated = false;
        self.direct = false;
        self.through_neighbour = false;
        self.report = false;
        self.observation = ObservationPoint::ToStack;
        self.trace_reason = TraceReason::Unknown;
        self.reply = false;
        self.source = Party::UNKNOWN;
        self.destination = Party::UNKNOWN;
        self.service = ServiceId::NONE;
        self.egress_cookie = PolicyCookie::NONE;
        self.ingress_cookie = PolicyCookie::NONE;
        self.policy = 0;
        self.extended = 0;
    }
}

impl Decision {
    /// The packet opens a connection after all.
    #[inline(always)]
    pub fn begin_anew(&mut self, key: &FlowKey) {
        self.after = *key;
        self.translated = false;
        self.direct = false;
        self.continued = false;
        self.reply = false;
        // The address that the packet was sent to is the receiver again.
        let [_, receiver, service, _] = &mut self.entry.dependencies.slots;
        *receiver = *service;
        let [_, receiver, service, _] = &mut self.entry.dependencies.generations;
        *receiver = *service;
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
            frontend: FrontendKey::default(),
            related: false,
            maps: false,
            rejects: false,
            continued: false,
            translated: false,
            direct: false,
            through_neighbour: false,
            report: false,
            observation: ObservationPoint::ToStack,
            trace_reason: TraceReason::Unknown,
            direction: Direction::Unspecified,
            reply: false,
            source: Party::UNKNOWN,
            destination: Party::UNKNOWN,
            everything: Generation(0),
            service: ServiceId::NONE,
            egress_cookie: PolicyCookie::NONE,
            ingress_cookie: PolicyCookie::NONE,
            policy: 0,
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
    /// What a fragment's ports were looked for under: here, because it would fill the stack.
    pub fragment: FragmentKey,
    pub parsed: bool,
    /// The flow table has been asked for the packet's own tuple and has no entry.
    pub absent: bool,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            decision: Decision::default(),
            arrival: Arrival {
                hook: Hook::FromContainer,
                ifindex: IfIndex::NONE,
                tunnel_source: None,
                dispatched: false,
                backend: Backend::NONE,
            },
            summary: Summary::EMPTY,
            fragment: FragmentKey::default(),
            parsed: false,
            absent: false,
        }
    }
}
