// SPDX-License-Identifier: Apache-2.0
//! Services: what stands at an address and port, and which backends are behind it (ADR 0009).
//!
//! A frontend's row names two runs of places in the `backends` array, one for each scope: clients of
//! this node (its pods and the node itself) use the internal one, packets that the network brings
//! use the external one. A run is written before the row that names it and never changed while a
//! row does, so the programs see either the old set or the new one, whole.

use crate::address::{Address, Port, Protocol};
use crate::number::{FrontendId, Seconds, ServiceId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the `frontends` map.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct FrontendKey {
    pub address: Address,
    pub port: Port,
    pub protocol: Protocol,
    /// Zero.
    pub reserved: u8,
    /// Zero. (Every field lies at a multiple of its size, which the verifier asks of the stack.)
    pub reserved_tail: u32,
}

impl FrontendKey {
    /// The key of an address and port.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: Protocol) -> Self {
        let [a, b] = address.words();
        // Whole words, because that is how a key is hashed.
        let [high, low] = port.0;
        let tail = u64::from_ne_bytes([high, low, protocol.0, 0, 0, 0, 0, 0]);
        zerocopy::transmute!([a, b, tail])
    }
}

/// What kind of address a frontend is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FrontendKind {
    /// Reachable from inside the cluster only.
    ClusterIp = 1,
    /// A port on the node's own addresses.
    NodePort = 2,
    /// `spec.externalIPs`.
    ExternalIps = 3,
    /// An ingress address of a load balancer.
    LoadBalancer = 4,
    /// A pod's `hostPort`.
    HostPort = 5,
}

impl FrontendKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: &[Self] = &[
        Self::ClusterIp,
        Self::NodePort,
        Self::ExternalIps,
        Self::LoadBalancer,
        Self::HostPort,
    ];

    /// The kind with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ClusterIp),
            2 => Some(Self::NodePort),
            3 => Some(Self::ExternalIps),
            4 => Some(Self::LoadBalancer),
            5 => Some(Self::HostPort),
            _ => None,
        }
    }

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::ExternalIps => "ExternalIPs",
            Self::LoadBalancer => "LoadBalancer",
            Self::HostPort => "HostPort",
        }
    }
}

/// A run of places in the `backends` array.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct BackendRun {
    /// The first place.
    pub first: u32,
    /// How many; 0: there is no usable backend.
    pub count: u32,
    /// One more than the number of the run's table in `maglev`; 0: none, choose by hash.
    pub maglev: u32,
}

/// Value of the `frontends` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrontendRow {
    /// The frontend's number in listings.
    pub id: FrontendId,
    /// The service port behind it, which may have several frontends: affinity and backend states
    /// belong to it.
    pub service: ServiceId,
    /// For clients of this node.
    pub internal: BackendRun,
    /// For packets that the network brings.
    pub external: BackendRun,
    /// How long a client sticks to its backend after its last connection, seconds; 0: not at all.
    pub affinity_timeout: u32,
    /// A number of [`FrontendKind`].
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Bits of [`FrontendRow::flags`].
pub mod flags {
    /// The external scope keeps to backends of this node, and the client's address is preserved.
    pub const EXTERNAL_LOCAL: u8 = 0x01;
    /// The internal scope keeps to backends of this node.
    pub const INTERNAL_LOCAL: u8 = 0x02;
    /// Only sources in `source_ranges` may connect.
    pub const SOURCE_RANGES: u8 = 0x04;
}

/// Value of the `backends` array: one place of a run. All zero is "unused".
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct BackendRow {
    pub address: Address,
    /// The service port that the place belongs to now. The programs compare it with the frontend's,
    /// so that a place which passes to another service is never mistaken.
    pub service: ServiceId,
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Key of the `service_backends` map: whether a service still has a backend.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct ServiceBackendKey {
    pub address: Address,
    pub service: ServiceId,
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of the `service_backends` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ServiceBackendRow {
    /// Bits of [`backend_flags`].
    pub flags: u32,
}

/// Bits of [`ServiceBackendRow::flags`]. A row without a scope's bit keeps the connections that the
/// backend has (it is terminating, or in another zone) and lets no new one stick to it.
pub mod backend_flags {
    /// Takes new connections of the internal scope.
    pub const INTERNAL: u32 = 0x01;
    /// Takes new connections of the external scope.
    pub const EXTERNAL: u32 = 0x02;
    /// The backend is about to end.
    pub const TERMINATING: u32 = 0x04;
    /// The backend runs on this node.
    pub const LOCAL: u32 = 0x08;
}

/// Key of the `affinity` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct AffinityKey {
    /// The client's address; for a translated socket the cookie of its network namespace, in the
    /// last eight bytes (a socket has no address before it connects).
    pub client: Address,
    pub service: ServiceId,
    /// Zero.
    pub reserved: u32,
}

/// Value of the `affinity` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct AffinityRow {
    pub backend: Address,
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 2],
    pub last_used: Seconds,
}

/// Key of the `socket_services` map: what a translated socket talks to in truth.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SocketKey {
    /// The socket, as the kernel numbers it.
    pub cookie: u64,
    pub backend: Address,
    pub port: Port,
    pub protocol: Protocol,
    /// Zero.
    pub reserved: u8,
    /// Zero. (Every field lies at a multiple of its size, which the verifier asks of the stack.)
    pub reserved_tail: u32,
}

/// Value of the `socket_services` map: what the program believes to talk to.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SocketRow {
    pub frontend: Address,
    pub service: ServiceId,
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Key of the `source_ranges` longest-prefix map.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct SourceRangeKey {
    /// Bits of service and address that count: 32 for the service and 0 to 128 for the address.
    pub length: u32,
    pub service: ServiceId,
    pub address: Address,
}

/// A pod that reaches itself through a service sees this address as its client, because it could
/// not answer itself through its link (IPv4: as in the field; IPv6: a unique local address).
pub const LOOPBACK_V4: Address = Address::from_v4([169, 254, 42, 1]);
/// The same for IPv6.
pub const LOOPBACK_V6: Address = Address([
    0xfd, 0x57, 0x65, 0x69, 0x72, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_that_they_are_found_by() {
        for kind in FrontendKind::ALL {
            assert_eq!(FrontendKind::from_number(*kind as u8), Some(*kind));
        }
        assert_eq!(FrontendKind::from_number(0), None);
    }
}
