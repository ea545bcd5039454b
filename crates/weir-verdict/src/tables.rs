// SPDX-License-Identifier: Apache-2.0
//! What decisions look up and leave behind.

use crate::decide::decide;
use crate::decision::{Outcome, Workspace};
use crate::live::LiveFlow;
use crate::{policy, service};
use weir_abi::counter::{Counter, Direction};
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::IpcacheRow;
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::service::{
    AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SocketKey, SocketRow,
};
use weir_abi::{
    Address, DatapathConfig, EndpointRow, FlowEntry, FlowKey, Generation, IfIndex, MacAddress,
    NodeIndex, PolicyCookie, Seconds, ServiceId, Slot,
};

use weir_packet::PacketRead;

/// What an insertion does when the key is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// Replace it.
    Replace,
    /// Fail with [`EXISTS`]: the insertion is a reservation.
    Reserve,
}

/// `-EEXIST`.
pub const EXISTS: i32 = -17;

/// The node's own routing table says how an address is reached.
///
/// Laid out so that each MAC address starts at a multiple of four: the kernel build copies it in
/// wide words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Route {
    /// All zero where the next hop's address is not resolved yet.
    pub destination_mac: MacAddress,
    /// Largest IP packet, bytes; 0 where not known.
    pub mtu: u16,
    pub source_mac: MacAddress,
    pub egress: IfIndex,
}

impl Route {
    /// No route.
    pub const NONE: Self = Self {
        destination_mac: MacAddress([0; 6]),
        mtu: 0,
        source_mac: MacAddress([0; 6]),
        egress: IfIndex::NONE,
    };
}

/// The body of a loop that [`Tables::repeat`] runs.
pub trait Repeat {
    /// One turn; `true` ends the loop.
    fn once(&mut self, turn: u32) -> bool;
}

/// The maps of the kernel, or something that answers like them.
///
/// In dry-run mode the writing methods change nothing, but answer as if they had.
pub trait Tables {
    /// A field of the configuration. Written so because the kernel's copy is read-only data that
    /// is filled in after compilation, and must be read anew instead of being folded.
    fn config<V: Copy>(&self, field: impl Fn(&DatapathConfig) -> &V) -> V;

    /// The coarse clock.
    fn now(&self) -> Seconds;

    /// Runs a loop: turns from 0, at most `times`.
    fn repeat<R: Repeat>(&self, times: u32, body: &mut R) {
        for turn in 0..times {
            if body.once(turn) {
                break;
            }
        }
    }

    /// The slow path and steps of it, which the kernel's build replaces by functions that the
    /// verifier reads once, instead of again on each way that leads to them.
    fn decide<P: PacketRead>(&self, packet: &P, workspace: &mut Workspace) -> Outcome
    where
        Self: Sized,
    {
        decide(packet, self, workspace)
    }

    /// As [`Self::decide`].
    fn select_backend(&self, workspace: &mut Workspace, frontend: &FrontendRow) -> Outcome
    where
        Self: Sized,
    {
        service::select(self, workspace, frontend)
    }

    /// As [`Self::decide`].
    fn check_policy(&self, workspace: &mut Workspace) -> Outcome
    where
        Self: Sized,
    {
        policy::check(self, workspace)
    }

    fn flow(&self, key: &FlowKey) -> Option<LiveFlow<'_>>;
    /// Errors are negative errnos.
    fn insert_flow(&self, key: &FlowKey, entry: &FlowEntry, insert: Insert) -> Result<(), i32>;

    fn endpoint(&self, address: &Address) -> Option<EndpointRow>;
    fn ipcache(&self, address: &Address) -> Option<IpcacheRow>;
    fn masquerade_exempt(&self, address: &Address) -> bool;
    /// A row of zeros is "no such node".
    fn node(&self, index: NodeIndex) -> Option<&NodeRow>;
    fn generation(&self, slot: Slot) -> Generation;

    fn frontend(&self, key: &FrontendKey) -> Option<&FrontendRow>;
    /// A place of the `backends` array.
    fn backend(&self, place: u32) -> Option<&BackendRow>;
    fn service_backend(&self, key: &ServiceBackendKey) -> Option<ServiceBackendRow>;
    /// A place of the `maglev` array: an index into the run that the table belongs to.
    fn maglev(&self, place: u32) -> u16;
    /// Whether an address may use a service that is kept to source ranges.
    fn source_range(&self, service: ServiceId, address: &Address) -> bool;
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityRow>;
    fn remember_affinity(&self, key: &AffinityKey, row: &AffinityRow);
    fn socket_service(&self, key: &SocketKey) -> Option<SocketRow>;
    fn remember_socket(&self, key: &SocketKey, row: &SocketRow);
    /// Notes that services send packets to the node's own stack ([`Slot::HOST_BACKENDS`]).
    fn note_host_backend(&self);

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyRow>;
    /// Counts a connection that a rule decided.
    fn count_policy(&self, cookie: PolicyCookie, bytes: u32);

    fn tunnel_mtu(&self, remote: &Address) -> Option<TunnelMtu>;
    fn learn_tunnel_mtu(&self, remote: &Address, mtu: &TunnelMtu);

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRow>;
    fn remember_fragment(&self, key: &FragmentKey, row: &FragmentRow);

    /// Asks the node's routing table. 0, or a code of `bpf_fib_lookup` (positive) or an errno
    /// (negative) and `found` is as it was.
    fn route(&self, source: &Address, destination: &Address, found: &mut Route) -> i32;

    fn count(&self, counter: Counter);
    /// Counts a packet under a drop reason's number, or under 0 as forwarded.
    fn count_packet(&self, reason: u8, direction: Direction, bytes: u32);

    /// Asks the agent to collect garbage soon.
    fn signal_garbage(&self);
}
