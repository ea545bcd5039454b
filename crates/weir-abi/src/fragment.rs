// SPDX-License-Identifier: Apache-2.0
//! Ports of fragmented datagrams, learned from the first fragment.

use crate::address::{Address, Port, Protocol};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the `fragments` map: what all fragments of a datagram share (RFC 791, section 3.2 and
/// RFC 8200, section 4.5).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    /// The IPv4 identification (in the first two bytes) or the IPv6 one.
    pub identification: [u8; 4],
    pub protocol: Protocol,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub reserved_tail: [u8; 2],
}

/// Value of the `fragments` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FragmentRow {
    pub source_port: Port,
    pub destination_port: Port,
}
