// SPDX-License-Identifier: Apache-2.0
//! A packet in memory, with the checksum state that a freshly received packet has in the kernel
//! (nothing left for a device to fill in).

use crate::checksum::transport_updated;
use crate::packet::{PacketRead, PacketWrite, Room, WriteError};
use crate::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use alloc::vec::Vec;

/// A frame as bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPacket {
    bytes: Vec<u8>,
    segment_size: u32,
}

impl MemoryPacket {
    /// A frame that is no segmentation-offload packet.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            segment_size: 0,
        }
    }

    /// The frame as a segmentation-offload packet with this payload in each segment.
    #[must_use]
    pub fn with_segment_size(mut self, segment_size: u32) -> Self {
        self.segment_size = segment_size;
        self
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, offset: u32, length: usize) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// What the kernel's helpers answer to an offset outside of the packet.
const OUTSIDE: WriteError = WriteError(-14);

impl PacketRead for MemoryPacket {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(self.range(offset, N)?)?.try_into().ok()
    }

    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.bytes.get(self.range(offset, N.checked_mul(4)?)?)?;
        let (chunks, _) = bytes.as_chunks::<4>();
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u32::from_ne_bytes(*chunk);
        }
        Some(words)
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }
}

impl PacketWrite for MemoryPacket {
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Result<(), WriteError> {
        let range = self.range(offset, N).ok_or(OUTSIDE)?;
        self.bytes
            .get_mut(range)
            .ok_or(OUTSIDE)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn update_transport_checksum(
        &mut self,
        offset: u32,
        delta: [u8; 2],
        _addresses: bool,
        zero_is_none: bool,
    ) -> Result<(), WriteError> {
        let field = self.load::<2>(offset).ok_or(OUTSIDE)?;
        self.store(offset, &transport_updated(field, delta, zero_is_none))
    }

    fn note_uncovered_change(&mut self, _delta: [u8; 2]) {}

    fn open_room(&mut self, room: Room) -> Result<(), WriteError> {
        let at = 14..14;
        if self.bytes.len() < 14 {
            return Err(OUTSIDE);
        }
        self.bytes
            .splice(at, core::iter::repeat_n(0, room.bytes() as usize));
        Ok(())
    }

    fn close_room(&mut self, room: Room, next_v4: bool) -> Result<(), WriteError> {
        let range = self.range(14, room.bytes() as usize).ok_or(OUTSIDE)?;
        self.bytes.drain(range);
        self.store(
            12,
            if next_v4 {
                &ETHERTYPE_IPV4
            } else {
                &ETHERTYPE_IPV6
            },
        )
    }

    fn truncate(&mut self, length: u32) -> Result<(), WriteError> {
        self.bytes
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }
}
