// SPDX-License-Identifier: Apache-2.0
//! Objects by their path in the BPF file system.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use zerocopy::{Immutable, IntoBytes};

use super::{Command, address, call, call_for_fd, number};

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PathAttribute {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens the object behind a pin.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attribute = PathAttribute {
        path: address(path.as_bytes_with_nul()),
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path ends with a zero byte and outlives the call, which makes a descriptor.
    unsafe { call_for_fd(Command::Get, &mut attribute) }
}

/// Pins an object.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attribute = PathAttribute {
        path: address(path.as_bytes_with_nul()),
        fd: number(object),
        flags: 0,
    };
    // SAFETY: the path ends with a zero byte and outlives the call.
    unsafe { call(Command::Pin, &mut attribute) }.map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}
