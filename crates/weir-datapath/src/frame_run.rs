// SPDX-License-Identifier: Apache-2.0
//! The answer of the program at drivers to a frame that no device received (`BPF_PROG_TEST_RUN`).

use std::os::fd::AsFd as _;

use weir_abi::IfIndex;
use zerocopy::{FromZeros as _, Immutable, IntoBytes, KnownLayout};

use crate::{Error, Programs, Result, sys};

/// Room that the program may grow a frame by.
const HEADROOM: usize = 256;

/// The kernel's `struct xdp_md`.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FrameContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// What the program made of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameOutput {
    /// The program's answer (`XDP_…`).
    pub verdict: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// Mean time of a run.
    pub nanoseconds: u32,
}

impl Programs {
    /// Runs the program at drivers over a frame of this interface, `repeat` times: each run sees the frame as the run
    /// before left it. The interface must be loopback, or one whose driver runs such a program.
    pub fn run_at_driver(
        &self,
        interface: IfIndex,
        frame: &[u8],
        repeat: u32,
    ) -> Result<FrameOutput> {
        let program = self.at_driver();
        let failed = |source| Error::Run {
            program: program.name(),
            length: frame.len(),
            source,
        };
        let context = FrameContext {
            data_end: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            ingress_ifindex: interface.get(),
            ..FrameContext::new_zeroed()
        };
        let mut after = FrameContext::new_zeroed();
        let mut out = vec![0; frame.len() + HEADROOM];
        let answer = sys::run::test(
            program.as_fd(),
            frame,
            &mut out,
            context.as_bytes(),
            after.as_mut_bytes(),
            repeat,
        )
        .map_err(failed)?;
        out.truncate(answer.packet_length);
        Ok(FrameOutput {
            verdict: answer.verdict,
            frame: out,
            nanoseconds: answer.nanoseconds,
        })
    }
}
