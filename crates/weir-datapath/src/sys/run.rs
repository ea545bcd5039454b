// SPDX-License-Identifier: Apache-2.0
//! `BPF_PROG_TEST_RUN`: a program's answer to a packet that nobody sent.

use std::io;
use std::os::fd::BorrowedFd;

use zerocopy::{Immutable, IntoBytes};

use super::{Command, address, address_mut, call, length, number};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RunAttribute {
    program: u32,
    verdict: u32,
    packet_in_size: u32,
    packet_out_size: u32,
    packet_in: u64,
    packet_out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// What came out, beside the bytes.
pub(crate) struct Answer {
    pub(crate) verdict: i32,
    pub(crate) packet_length: usize,
    pub(crate) nanoseconds: u32,
}

/// Runs a program `repeat` times over one packet; every run sees what the one before made of it.
pub(crate) fn test(
    program: BorrowedFd<'_>,
    packet_in: &[u8],
    packet_out: &mut [u8],
    context_in: &[u8],
    context_out: &mut [u8],
    repeat: u32,
) -> io::Result<Answer> {
    let mut attribute = RunAttribute {
        program: number(program),
        verdict: 0,
        packet_in_size: length(packet_in)?,
        packet_out_size: length(packet_out)?,
        packet_in: address(packet_in),
        packet_out: address_mut(packet_out),
        repeat,
        nanoseconds: 0,
        context_in_size: length(context_in)?,
        context_out_size: length(context_out)?,
        context_in: address(context_in),
        context_out: address_mut(context_out),
        flags: 0,
        cpu: 0,
        batch_size: 0,
        padding: 0,
    };
    // SAFETY: the addresses and sizes describe the four slices, which outlive the call.
    while let Err(error) = unsafe { call(Command::TestRun, &mut attribute) } {
        // A signal ends a long run.
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    Ok(Answer {
        verdict: attribute.verdict.cast_signed(),
        packet_length: attribute.packet_out_size as usize,
        nanoseconds: attribute.nanoseconds,
    })
}
