// SPDX-License-Identifier: Apache-2.0
//! The bpf(2) system call, as far as aya does not offer what is needed: rows as bytes and in batches, links by their
//! pins, test runs with a context.
//!
//! Each command has a small attribute struct of its own: the kernel takes any prefix of `union bpf_attr` and reads the
//! rest as zero (`bpf_check_uarg_tail_zero`).

pub(crate) mod link;
pub(crate) mod map;
pub(crate) mod pin;
pub(crate) mod run;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use zerocopy::{Immutable, IntoBytes};

/// Commands of bpf(2), with the numbers of `enum bpf_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    Pin = 6,
    Get = 7,
    TestRun = 10,
    Info = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// Calls the kernel; the answer is 0 or a new file descriptor.
///
/// # Safety
///
/// Every address in `attribute` must be valid for what the command reads and writes there, for the time of the call.
unsafe fn call<A: IntoBytes>(command: Command, attribute: &mut A) -> io::Result<i32> {
    // SAFETY: the attribute is initialized memory of the stated size; the caller vouches for what it points to.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as i32,
            std::ptr::from_mut(attribute),
            size_of::<A>(),
        )
    };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As [`call`], for commands that answer with a file descriptor.
///
/// # Safety
///
/// As for [`call`]; and the command must be one that makes a file descriptor.
unsafe fn call_for_fd<A: IntoBytes>(command: Command, attribute: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { call(command, attribute) }?;
    // SAFETY: the kernel has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct InfoAttribute {
    fd: u32,
    length: u32,
    address: u64,
}

/// Fills a struct that is laid out as the beginning of the kernel's `bpf_map_info` or `bpf_link_info`.
fn info<T: zerocopy::FromBytes + IntoBytes>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::new_zeroed();
    let bytes = info.as_mut_bytes();
    let mut attribute = InfoAttribute {
        fd: number(fd),
        length: length(bytes)?,
        address: address_mut(bytes),
    };
    // SAFETY: `address` and `length` describe `info`, which outlives the call; every bit pattern is a valid `T`.
    unsafe { call(Command::Info, &mut attribute) }?;
    Ok(info)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}
