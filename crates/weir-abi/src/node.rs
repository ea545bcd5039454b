// SPDX-License-Identifier: Apache-2.0
//! Tunnel ends: the other nodes of the cluster.

use crate::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the `nodes` array; the place is a [`crate::NodeIndex`]. All zero is "no such node".
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NodeRow {
    /// Outer source address: this node's, in the family of `remote`.
    pub local: Address,
    /// Outer destination address.
    pub remote: Address,
}

/// Value of the `tunnel_mtu` map (key: the remote node's [`Address`]): what the programs learned
/// from "fragmentation needed" and "packet too big" about the way to a node.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TunnelMtu {
    /// Largest outer IP packet, bytes.
    pub mtu: u32,
    /// Forgotten from this second on (RFC 1191, section 6.3 suggests ten minutes).
    pub expires: crate::number::Seconds,
}
