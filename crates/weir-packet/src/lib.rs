// SPDX-License-Identifier: Apache-2.0
//! What does a packet say, and how is it rewritten without breaking its checksums?
//!
//! Header views over anything that can hand out bytes at an offset ([`PacketRead`]): the kernel's
//! `__sk_buff` in the programs, a byte vector on the host. IPv4 and IPv6 come out as one
//! [`Summary`] with one [`weir_abi::FlowKey`].
//!
//! The crate must not know any map, any policy or where packets go: that is `weir-verdict`.
//!
//! Start reading at [`summary`].
#![no_std]
// What would panic in user space would not pass the verifier, or wrap, in the kernel.
#![cfg_attr(
    not(any(test, feature = "memory")),
    warn(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::integer_division
    )
)]

#[cfg(any(test, feature = "memory"))]
extern crate alloc;

pub mod checksum;
pub mod dispatch;
pub mod hash;
pub mod icmp;
pub mod packet;
pub mod summary;
pub mod tunnel;

#[cfg(any(test, feature = "memory"))]
pub mod memory;

pub use packet::{PacketRead, PacketWrite, Room, WriteError};
pub use summary::{Fragment, Malformed, PacketClass, Summary};

/// Length of an Ethernet header without VLAN tag.
pub const ETHERNET_LENGTH: u32 = 14;
/// Ethertypes (IEEE 802 numbers) in network order.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// TCP flag bits (RFC 9293, section 3.1).
pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}
