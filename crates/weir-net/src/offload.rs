// SPDX-License-Identifier: Apache-2.0
//! What a device does for the kernel (`SIOCETHTOOL`; netlink has it too, but for a generic family that would have to be
//! looked up first).

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::ptr::from_mut;

use crate::{Error, Result};

/// `ETHTOOL_STXCSUM`
const SEND_CHECKSUMS: u32 = 0x17;

/// The kernel's `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Has the kernel finish the checksums of what an interface of the calling thread's network namespace sends. A device
/// would do it on the wire; one end of a pair of links leaves them unfinished.
pub fn finish_checksums(interface: &str) -> Result<()> {
    let failed = |source: io::Error| Error::kernel("change the offloads of", interface, source);
    let valid = (1..libc::IFNAMSIZ).contains(&interface.len());
    if !valid {
        return Err(Error::InvalidInterfaceName(interface.to_owned()));
    }
    let mut value = EthtoolValue {
        command: SEND_CHECKSUMS,
        data: 0,
    };
    // SAFETY: all zero is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = from_mut(&mut value).cast();
    let socket = UnixDatagram::unbound().map_err(failed)?;
    // SAFETY: `request` and the value that it points to live until the call returns.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCETHTOOL,
            from_mut(&mut request),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(failed(io::Error::last_os_error()))
    }
}
