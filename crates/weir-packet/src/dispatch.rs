// SPDX-License-Identifier: Apache-2.0
//! A packet that goes to its backend's node as the client sent it, and the backend beside it: Geneve
//! (RFC 8926) with one option.
//!
//! What lies between the UDP header and the inner Ethernet header, 32 bytes:
//!
//! ```text
//! version and option length, flags, protocol (2)     0x06 0x40 0x65 0x58
//! network identifier (3), reserved                   as the tunnel's
//! option: class (2), type, length                    0xff 0x57 0x81 0x05
//! address of the backend (16), its port (2), zero (2)
//! ```

use crate::packet::{PacketRead, PacketWrite, Room, WriteError, load_address};
use crate::summary::Summary;
use crate::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weir_abi::{Address, DatapathConfig, Port};

/// Where a service sends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Backend {
    pub address: Address,
    pub port: Port,
}

impl Backend {
    /// Nowhere.
    pub const NONE: Self = Self {
        address: Address::UNSPECIFIED,
        port: Port::NONE,
    };
}

/// Bytes that the option takes more than a tunnel header without one.
pub const OPTION_LENGTH: u32 = 24;
/// Six words of options, one of them critical: who does not know it must drop the packet (section
/// 3.4), because it would go to the wrong place. Then an Ethernet frame.
const START: [u8; 4] = [0x06, 0x40, 0x65, 0x58];
/// A class of the range for experiments (section 3.5), a type with the critical bit, five words.
const OPTION: [u8; 4] = [0xff, 0x57, 0x81, 0x05];

/// The outer headers of a packet whose outer IP header is of this family.
#[inline(always)]
pub const fn room(is_v4: bool) -> Room {
    if is_v4 {
        Room::DispatchV4
    } else {
        Room::DispatchV6
    }
}

/// Reads the header of a packet to [`DatapathConfig::DISPATCH_PORT`] into `backend`; `false` where it
/// is not exactly of the form above, in an outer header without options or extensions.
#[inline(never)]
pub fn read<P: PacketRead>(packet: &P, summary: &Summary, backend: &mut Backend) -> bool {
    fill(packet, summary, backend).is_some()
}

#[inline(always)]
fn fill<P: PacketRead>(packet: &P, summary: &Summary, backend: &mut Backend) -> Option<()> {
    let header: u32 = if summary.is_v4 { 20 } else { 40 };
    let l4 = ETHERNET_LENGTH.wrapping_add(header);
    if summary.l4_offset != l4 {
        return None;
    }
    let at = l4.wrapping_add(8);
    let start = packet.load::<4>(at)?;
    let [v0, v1, v2, _] = packet.load::<4>(at.wrapping_add(4))?;
    let option = packet.load::<4>(at.wrapping_add(8))?;
    let address = load_address(packet, at.wrapping_add(12))?;
    let [p0, p1, _, _] = packet.load::<4>(at.wrapping_add(28))?;
    let ethertype = packet.load::<2>(at.wrapping_add(32 + 12))?;
    let [n0, n1, n2] = DatapathConfig::VNI;
    let known = u32::from_ne_bytes(start) == u32::from_ne_bytes(START)
        && u32::from_ne_bytes(option) == u32::from_ne_bytes(OPTION)
        && u32::from_ne_bytes([v0, v1, v2, 0]) == u32::from_ne_bytes([n0, n1, n2, 0]);
    let is_ip = u16::from_ne_bytes(ethertype) == u16::from_ne_bytes(ETHERTYPE_IPV4)
        || u16::from_ne_bytes(ethertype) == u16::from_ne_bytes(ETHERTYPE_IPV6);
    if !known || !is_ip {
        return None;
    }
    backend.address = address;
    backend.port = Port([p0, p1]);
    Some(())
}

/// Stores the header behind the outer UDP header, which ends at `at`.
#[inline(always)]
pub fn store<P: PacketWrite>(
    packet: &mut P,
    at: u32,
    address: &Address,
    port: Port,
) -> Result<(), WriteError> {
    let [s0, s1, s2, s3] = START;
    let [v0, v1, v2] = DatapathConfig::VNI;
    let [o0, o1, o2, o3] = OPTION;
    let [p0, p1] = port.0;
    packet.store(at, &[s0, s1, s2, s3, v0, v1, v2, 0, o0, o1, o2, o3])?;
    packet.store(at.wrapping_add(12), &address.0)?;
    packet.store(at.wrapping_add(28), &[p0, p1, 0, 0])
}
