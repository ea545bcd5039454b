// SPDX-License-Identifier: Apache-2.0
//! A device's frame as `weir-packet` sees it: no packet of the kernel's yet, so nothing of it is
//! left for a device to finish, and its checksums are those of the wire.

use crate::window::{Window, field, opaque, result};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use weir_packet::checksum::transport_updated;
use weir_packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketRead, PacketWrite, Room, WriteError};

/// A frame in the driver's hands.
pub struct Frame {
    pub raw: *mut xdp_md,
}

/// What helpers answer to something that cannot be.
const INVALID: WriteError = WriteError(-22);
/// The two addresses of an Ethernet header.
const MACS: usize = 12;

impl Window for Frame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        field(unsafe { &raw const (*self.raw).data }) as usize
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: as above.
        field(unsafe { &raw const (*self.raw).data_end }) as usize
    }
}

impl Frame {
    /// Moves where the frame begins, and its Ethernet addresses with it.
    #[inline(always)]
    fn move_head(&mut self, by: i32) -> Result<(), WriteError> {
        let macs = self.bytes::<MACS>(0).ok_or(INVALID)?;
        // SAFETY: the context is valid.
        result(unsafe { bpf_xdp_adjust_head(self.raw, by) })?;
        self.put(0, &macs)
    }
}

impl PacketRead for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes(offset)
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.words(offset)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // Opaque, because the verifier knows the difference of two pointers, and nothing of sums in which half of one
        // of them stands.
        opaque(self.data_end() - self.data()) as u32
    }

    /// What devices receive is cut already.
    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }
}

impl PacketWrite for Frame {
    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Result<(), WriteError> {
        self.put(offset, bytes)
    }

    #[inline(always)]
    fn update_transport_checksum(
        &mut self,
        offset: u32,
        delta: [u8; 2],
        _addresses: bool,
        zero_is_none: bool,
    ) -> Result<(), WriteError> {
        let old = self.bytes::<2>(offset).ok_or(INVALID)?;
        self.put(offset, &transport_updated(old, delta, zero_is_none))
    }

    /// No device has summed up the frame for the kernel: that comes after this program.
    #[inline(always)]
    fn note_uncovered_change(&mut self, _: [u8; 2]) {}

    #[inline(always)]
    fn open_room(&mut self, room: Room) -> Result<(), WriteError> {
        self.move_head(-(room.bytes() as i32))
    }

    #[inline(always)]
    fn close_room(&mut self, room: Room, next_v4: bool) -> Result<(), WriteError> {
        self.move_head(room.bytes() as i32)?;
        let ethertype = if next_v4 {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        self.put(MACS as u32, &ethertype)
    }

    #[inline(always)]
    fn truncate(&mut self, length: u32) -> Result<(), WriteError> {
        let by = length as i32 - self.length() as i32;
        // SAFETY: the context is valid.
        result(unsafe { bpf_xdp_adjust_tail(self.raw, by) })
    }
}
