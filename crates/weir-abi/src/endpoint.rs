// SPDX-License-Identifier: Apache-2.0
//! Endpoints of this node, by address.

use crate::address::MacAddress;
use crate::identity::Identity;
use crate::number::{BlockGroup, EndpointId, IfIndex, PolicySet};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the `endpoints` map; the key is an [`crate::Address`]. An endpoint has a row for each
/// of its addresses; the row also proves that a packet with this source came from this link.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EndpointRow {
    /// The host side of the pod's link.
    pub ifindex: IfIndex,
    pub identity: Identity,
    pub id: EndpointId,
    /// Bits of [`flags`].
    pub flags: u16,
    /// The pod's own MAC address.
    pub mac: MacAddress,
    /// Zero.
    pub reserved: [u8; 2],
    /// The policy set that decides for this endpoint, where one of the `ENFORCE` bits is set.
    pub policy_set: PolicySet,
    /// The `ipBlock`s that the address lies in.
    pub blocks: BlockGroup,
}

/// Bits of [`EndpointRow::flags`].
pub mod flags {
    /// Policy is realized and traffic may flow; without it, packets are dropped as 203.
    pub const READY: u16 = 0x0001;
    /// Policies isolate the pod for what comes in: only what the set allows may.
    pub const ENFORCE_INGRESS: u16 = 0x0002;
    /// Policies isolate the pod for what goes out.
    pub const ENFORCE_EGRESS: u16 = 0x0004;
}
