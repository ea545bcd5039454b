// SPDX-License-Identifier: Apache-2.0
//! The two seams between packet code and packet memory: the kernel's `__sk_buff` and a vector.

use weir_abi::Address;

/// Read access to a packet. Offset 0 is the Ethernet header.
pub trait PacketRead {
    /// `N` bytes at an offset (below 65,536), or nothing where the packet ends before.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// `4 * N` bytes at an offset as words, each as it lies in the packet. Where many bytes are
    /// wanted at once, this is one check of bounds and as many loads as there are words.
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Bytes of the packet, Ethernet header included.
    fn length(&self) -> u32;

    /// Payload bytes of each segment that this packet will become, 0 where it is no
    /// segmentation-offload packet.
    fn segment_size(&self) -> u32;
}

/// The packet memory refused a change (kernel: the errno of the helper, negative).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteError(pub i32);

/// Room between the Ethernet header and the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// For an outer IPv4 + UDP + VXLAN + inner Ethernet header (50 bytes).
    TunnelV4,
    /// The same with IPv6 (70 bytes).
    TunnelV6,
    /// For the outer headers of a packet that names its backend, over IPv4 (74 bytes).
    DispatchV4,
    /// The same over IPv6 (94 bytes).
    DispatchV6,
    /// For IPv4 + ICMP (28 bytes) before the start of the original packet.
    IcmpV4,
    /// For IPv6 + ICMPv6 (48 bytes).
    IcmpV6,
}

impl Room {
    /// Bytes of room.
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::TunnelV4 => 50,
            Self::TunnelV6 => 70,
            Self::DispatchV4 => 74,
            Self::DispatchV6 => 94,
            Self::IcmpV4 => 28,
            Self::IcmpV6 => 48,
        }
    }
}

/// Write access to a packet.
pub trait PacketWrite: PacketRead {
    /// Replaces bytes. The caller keeps checksums right: either the bytes are covered by none, or
    /// the checksum that covers them is updated by the same amount.
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Result<(), WriteError>;

    /// Adds `delta` to the transport checksum at `offset`, which may be a partial one that a
    /// device will finish: then only changes of the pseudo header (`addresses`) count.
    /// `zero_is_none` is for UDP, where a checksum of zero means "none" (RFC 768).
    fn update_transport_checksum(
        &mut self,
        offset: u32,
        delta: [u8; 2],
        addresses: bool,
        zero_is_none: bool,
    ) -> Result<(), WriteError>;

    /// A byte that no checksum in the packet covers changed by `delta` (hop limit, traffic class):
    /// tells a checksum that the receiving device made over the whole packet.
    fn note_uncovered_change(&mut self, delta: [u8; 2]);

    /// Opens room after the Ethernet header; the new bytes are undefined until stored.
    fn open_room(&mut self, room: Room) -> Result<(), WriteError>;

    /// Removes tunnel headers of this size; `next_v4` tells
    /// the family of the IP header that is stored next behind the Ethernet header, or comes out.
    fn close_room(&mut self, room: Room, next_v4: bool) -> Result<(), WriteError>;

    /// Cuts the packet off at `length` bytes.
    fn truncate(&mut self, length: u32) -> Result<(), WriteError>;
}

/// Offset of the source address in an IP header; the destination follows it.
#[inline(always)]
pub const fn address_offset(is_v4: bool) -> u32 {
    if is_v4 { 12 } else { 8 }
}

/// Length of one address in an IP header.
#[inline(always)]
pub const fn address_length(is_v4: bool) -> u32 {
    if is_v4 { 4 } else { 16 }
}

/// Loads an IPv6 address. By halves, because as a whole it may be carried over the kernel's stack at
/// an odd place, where the verifier refuses wide words.
#[inline(always)]
pub fn load_address<P: PacketRead>(packet: &P, offset: u32) -> Option<Address> {
    let [a, b, c, d, e, f, g, h] = packet.load::<8>(offset)?;
    let [i, j, k, l, m, n, o, p] = packet.load::<8>(offset.wrapping_add(8))?;
    Some(Address([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]))
}

/// Stores an address in its wire form.
#[inline(always)]
pub fn store_address<P: PacketWrite>(
    packet: &mut P,
    offset: u32,
    address: &Address,
) -> Result<(), WriteError> {
    if address.is_v4() {
        packet.store(offset, &address.v4_octets())
    } else {
        packet.store(offset, &address.0)
    }
}

/// A length in the sixteen bits that headers have for it; longer ones (before segmentation) are
/// written anew by whoever cuts the packet.
#[inline(always)]
pub(crate) const fn low_half(length: u32) -> [u8; 2] {
    let [_, _, a, b] = length.to_be_bytes();
    [a, b]
}
