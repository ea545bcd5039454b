// SPDX-License-Identifier: Apache-2.0
//! The kernel's packet as `weir-packet` sees it.

use crate::window::{Window, field, result};
use aya_ebpf::bindings::{
    __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
    BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_pull_data,
};
use weir_packet::{
    ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketRead, PacketWrite, Room, WriteError,
};

/// A packet in the kernel's hands.
pub struct Skb {
    pub raw: *mut __sk_buff,
}

/// `-EALREADY`: what `bpf_skb_adjust_room` answers about a packet that is encapsulated for the kernel.
const ALREADY: i64 = -114;

impl Window for Skb {
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

impl Skb {
    /// Makes the first bytes directly accessible where a packet keeps its headers elsewhere.
    #[inline(always)]
    pub fn pull(&self, wanted: u32) {
        const PULL_MAX: u32 = 256;
        let length = self.length();
        if self.data() + (wanted.min(length) as usize) > self.data_end() {
            // SAFETY: the context is valid; a failure leaves the packet as it is and shows as a
            // truncated header.
            let _ = unsafe { bpf_skb_pull_data(self.raw, length.min(PULL_MAX)) };
        }
    }
}

impl PacketRead for Skb {
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
        field(unsafe { &raw const (*self.raw).len })
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        field(unsafe { &raw const (*self.raw).gso_size })
    }
}

impl PacketWrite for Skb {
    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Result<(), WriteError> {
        self.put(offset, bytes)
    }

    #[inline(always)]
    fn update_transport_checksum(
        &mut self,
        offset: u32,
        delta: [u8; 2],
        addresses: bool,
        zero_is_none: bool,
    ) -> Result<(), WriteError> {
        let mut flags = 0;
        if addresses {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if zero_is_none {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        let delta = u64::from(u16::from_ne_bytes(delta));
        // With no size in the flags, the last value is a difference to add.
        // SAFETY: the context is valid; the helper checks the offset.
        result(unsafe { bpf_l4_csum_replace(self.raw, offset, 0, delta, flags) })
    }

    #[inline(always)]
    fn note_uncovered_change(&mut self, delta: [u8; 2]) {
        // SAFETY: the context is valid. The helper refuses where the packet carries no checksum
        // over all of it, and then there is nothing to update.
        let _ = unsafe { bpf_csum_update(self.raw, u32::from(u16::from_ne_bytes(delta))) };
    }

    #[inline(always)]
    fn open_room(&mut self, room: Room) -> Result<(), WriteError> {
        const TUNNEL: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
            | (ETHERNET_LENGTH as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let flags = match room {
            Room::TunnelV4 | Room::DispatchV4 => TUNNEL | u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4),
            Room::TunnelV6 | Room::DispatchV6 => TUNNEL | u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV6),
            Room::IcmpV4 | Room::IcmpV6 => 0,
        };
        let grow = |flags| {
            // SAFETY: the context is valid.
            unsafe { bpf_skb_adjust_room(self.raw, room.bytes() as i32, BPF_ADJ_ROOM_MAC, flags) }
        };
        let code = grow(flags);
        if code != ALREADY {
            return result(code);
        }
        // The packet came by a tunnel and the kernel still keeps where its inner headers are: they
        // have not moved, and are the inner ones again.
        result(grow(u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)))
    }

    #[inline(always)]
    fn close_room(&mut self, room: Room, next_v4: bool) -> Result<(), WriteError> {
        let family = if next_v4 {
            BPF_F_ADJ_ROOM_DECAP_L3_IPV4
        } else {
            BPF_F_ADJ_ROOM_DECAP_L3_IPV6
        };
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO) | u64::from(family);
        // SAFETY: the context is valid.
        result(unsafe {
            bpf_skb_adjust_room(self.raw, -(room.bytes() as i32), BPF_ADJ_ROOM_MAC, flags)
        })?;
        self.store(
            12,
            if next_v4 {
                &ETHERTYPE_IPV4
            } else {
                &ETHERTYPE_IPV6
            },
        )
    }

    #[inline(always)]
    fn truncate(&mut self, length: u32) -> Result<(), WriteError> {
        // SAFETY: the context is valid.
        result(unsafe { bpf_skb_change_tail(self.raw, length, 0) })
    }
}
