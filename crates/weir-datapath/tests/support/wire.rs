// SPDX-License-Identifier: Apache-2.0
//! Frames on a link, past the node's stack.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use weir_abi::IfIndex;

const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a link.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    pub(crate) fn open(interface: IfIndex) -> Self {
        let every = u16::to_be(libc::ETH_P_ALL.try_into().unwrap());
        // SAFETY: socket takes three numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(every)) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just returned this descriptor, so nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zero is a valid value of this plain C struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.try_into().unwrap();
        address.sll_protocol = every;
        address.sll_ifindex = interface.get().try_into().unwrap();
        let length = size_of::<libc::sockaddr_ll>().try_into().unwrap();
        // SAFETY: the address is a whole one of that length.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the bytes outlive the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(
            usize::try_from(sent).ok(),
            Some(frame.len()),
            "{}",
            io::Error::last_os_error()
        );
    }

    /// Waits for a frame among those that pass here; tells whether it came.
    pub(crate) fn sees(&self, wanted: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            let mut poll = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one descriptor, for the time of the call.
            if unsafe { libc::poll(&raw mut poll, 1, 100) } < 1 {
                continue;
            }
            // SAFETY: the buffer has room for the bytes that are asked for.
            let read = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            let read = usize::try_from(read).unwrap_or_default();
            if buffer.get(..read) == Some(wanted) {
                return true;
            }
        }
        false
    }
}
