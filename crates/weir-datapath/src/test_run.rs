// SPDX-License-Identifier: Apache-2.0
//! A loaded program's answer to a packet that nobody sent (`BPF_PROG_TEST_RUN`).
//!
//! What it cannot show: where a redirect would have gone. The program has only asked for it when the run ends.
//! Interfaces are those of the calling thread's network namespace.

use std::os::fd::AsFd as _;

use weir_abi::IfIndex;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use crate::{Error, Program, Result, sys};

/// Room that a program may grow a packet by (outer headers of the tunnel, ICMP errors around it).
const HEADROOM: usize = 512;

/// The kernel's `struct __sk_buff`: what a program sees of a packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SkBuff {
    pub length: u32,
    pub packet_type: u32,
    pub mark: u32,
    pub queue_mapping: u32,
    pub protocol: u32,
    pub vlan_present: u32,
    pub vlan_tci: u32,
    pub vlan_protocol: u32,
    pub priority: u32,
    pub ingress_ifindex: u32,
    pub ifindex: u32,
    pub tc_index: u32,
    pub control: [u32; 5],
    pub hash: u32,
    pub tc_classid: u32,
    pub data: u32,
    pub data_end: u32,
    pub napi_id: u32,
    pub family: u32,
    pub remote_ip4: u32,
    pub local_ip4: u32,
    pub remote_ip6: [u32; 4],
    pub local_ip6: [u32; 4],
    pub remote_port: u32,
    pub local_port: u32,
    pub data_meta: u32,
    pub flow_keys: u64,
    pub timestamp: u64,
    pub wire_length: u32,
    pub gso_segments: u32,
    pub socket: u64,
    pub gso_size: u32,
    pub timestamp_type: u8,
    pub padding: [u8; 3],
    pub hardware_timestamp: u64,
}

/// A packet and its surroundings.
#[derive(Clone, Debug)]
pub struct TestRun<'packet> {
    packet: &'packet [u8],
    context: SkBuff,
    repeat: u32,
}

/// What a program made of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestOutput {
    /// The program's answer (`TC_ACT_…`).
    pub verdict: i32,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
    /// The rest of it.
    pub context: SkBuff,
    /// Mean time of a run.
    pub nanoseconds: u32,
}

impl<'packet> TestRun<'packet> {
    /// A frame from its Ethernet header on; at least 14 bytes.
    pub fn new(packet: &'packet [u8]) -> Self {
        Self {
            packet,
            context: SkBuff::new_zeroed(),
            repeat: 1,
        }
    }

    /// The interface that the packet is on; the kernel takes the loopback interface where none is named. It must
    /// exist and, but for loopback, be up.
    #[must_use]
    pub fn device(mut self, interface: IfIndex) -> Self {
        self.context.ifindex = interface.get();
        self
    }

    /// The interface that the packet came in by.
    #[must_use]
    pub fn ingress(mut self, interface: IfIndex) -> Self {
        self.context.ingress_ifindex = interface.get();
        self
    }

    /// The packet's mark.
    #[must_use]
    pub fn mark(mut self, mark: u32) -> Self {
        self.context.mark = mark;
        self
    }

    /// The packet stands for `segments` packets with `size` bytes of payload each.
    #[must_use]
    pub fn gso(mut self, size: u32, segments: u32) -> Self {
        self.context.gso_size = size;
        self.context.gso_segments = segments;
        self
    }

    /// Runs the program that many times. Each run sees the packet as the run before left it.
    #[must_use]
    pub fn repeat(mut self, times: u32) -> Self {
        self.repeat = times;
        self
    }

    /// Runs a program.
    pub fn run(&self, program: &Program) -> Result<TestOutput> {
        let mut packet = vec![0; self.packet.len() + HEADROOM];
        let mut context = SkBuff::new_zeroed();
        let answer = sys::run::test(
            program.as_fd(),
            self.packet,
            &mut packet,
            self.context.as_bytes(),
            context.as_mut_bytes(),
            self.repeat,
        )
        .map_err(|source| Error::Run {
            program: program.name(),
            length: self.packet.len(),
            source,
        })?;
        packet.truncate(answer.packet_length);
        Ok(TestOutput {
            verdict: answer.verdict,
            packet,
            context,
            nanoseconds: answer.nanoseconds,
        })
    }
}

/// Mean nanoseconds of a program over some packets, each run `repeat` times in a row.
///
/// A program that changes a packet sees its own changes in the next run: give packets a time-to-live above `repeat`,
/// and flows whose rewritten packet still belongs to them.
#[expect(
    clippy::cast_precision_loss,
    reason = "sums of nanoseconds are far below 2^52"
)]
pub fn per_packet(program: &Program, packets: &[TestRun<'_>], repeat: u32) -> Result<f64> {
    let mut total = 0_u64;
    for packet in packets {
        total += u64::from(packet.clone().repeat(repeat).run(program)?.nanoseconds);
    }
    Ok(total as f64 / packets.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_laid_out_as_in_the_kernel() {
        assert_eq!(std::mem::offset_of!(SkBuff, family), 88);
        assert_eq!(std::mem::offset_of!(SkBuff, flow_keys), 144);
        assert_eq!(std::mem::offset_of!(SkBuff, gso_size), 176);
        assert_eq!(std::mem::offset_of!(SkBuff, hardware_timestamp), 184);
        assert_eq!(size_of::<SkBuff>(), 192);
    }
}
