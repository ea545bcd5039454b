// SPDX-License-Identifier: Apache-2.0
//! Sockets of a network namespace: which UDP sockets are connected to whom, and ending one.
//!
//! The messages of `sock_diag` (`include/uapi/linux/inet_diag.h`) are two fixed structs, so they are written and read
//! here as bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use crate::{Error, NetNamespace, Result};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST: u16 = 0x01;
const ACKNOWLEDGE: u16 = 0x04;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `TCP_ESTABLISHED`, which for UDP is "connected".
const CONNECTED: u32 = 1 << 1;
/// Bytes of a message's header.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_sockid`.
const ID: usize = 48;
const BUFFER_SIZE: usize = 64 * 1024;

/// A connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSocket {
    /// The kernel's number of the socket, as programs at sockets see it.
    pub cookie: u64,
    /// Its own address and port.
    pub local: SocketAddr,
    /// Where it is connected to.
    pub remote: SocketAddr,
    family: u8,
    /// As the kernel wants to be told which one is meant.
    id: [u8; ID],
}

/// A connection to the part of the kernel that knows sockets, in one network namespace.
pub struct SocketDiagnosis {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for SocketDiagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketDiagnosis").finish_non_exhaustive()
    }
}

impl SocketDiagnosis {
    /// Connects in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::kernel("open", "sock_diag socket", source);
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&NetlinkAddress::new(0, 0)).map_err(failed)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Connects in another network namespace; the caller stays where it is.
    pub fn open_in(namespace: &NetNamespace) -> Result<Self> {
        namespace.run_in(Self::open)?
    }

    /// All connected UDP sockets of both families.
    pub fn connected_udp(&mut self) -> Result<Vec<UdpSocket>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).unwrap_or_default();
            let request = request(family, CONNECTED, &[0; ID]);
            self.ask(BY_FAMILY, REQUEST | DUMP, &request, |body| {
                found.extend(decode(body));
            })
            .map_err(|source| Error::kernel("list", "UDP sockets", source))?;
        }
        Ok(found)
    }

    /// Ends a socket: its owner gets `ECONNABORTED` from the next call. False: it is gone already.
    pub fn end(&mut self, socket: &UdpSocket) -> Result<bool> {
        let request = request(socket.family, CONNECTED, &socket.id);
        match self.ask(DESTROY, REQUEST | ACKNOWLEDGE, &request, |_| ()) {
            Ok(()) => Ok(true),
            // The socket is gone, or another one has its address.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {
                Ok(false)
            }
            Err(source) => {
                let object = format!("UDP socket {} -> {}", socket.local, socket.remote);
                Err(Error::kernel("end", object, source))
            }
        }
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        self.socket.send(&message, 0)?;
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            let read = match self.socket.recv(&mut buffer.as_mut_slice(), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let mut rest = buffer.get(..read).unwrap_or_default();
            while let Some((message, after)) = split(rest) {
                rest = after;
                if number(message, 8) != Some(self.sequence) {
                    continue;
                }
                let body = message.get(HEADER..).unwrap_or_default();
                match message
                    .get(4..6)
                    .and_then(|two| two.try_into().ok())
                    .map(u16::from_ne_bytes)
                {
                    Some(DONE) => return Ok(()),
                    Some(ERROR) => {
                        return match number(body, 0).map(u32::cast_signed) {
                            Some(0) => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(-code)),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ => each(body),
                }
            }
        }
    }
}

/// `struct inet_diag_req_v2`
fn request(family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let protocol = u8::try_from(libc::IPPROTO_UDP).unwrap_or_default();
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

/// `struct inet_diag_msg`
fn decode(body: &[u8]) -> Option<UdpSocket> {
    let family = *body.first()?;
    let id: [u8; ID] = body.get(4..4 + ID)?.try_into().ok()?;
    let port = |at: usize| {
        let two: [u8; 2] = id.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(two))
    };
    let address = |at: usize| -> Option<IpAddr> {
        if i32::from(family) == libc::AF_INET {
            let four: [u8; 4] = id.get(at..at + 4)?.try_into().ok()?;
            return Some(Ipv4Addr::from(four).into());
        }
        let sixteen: [u8; 16] = id.get(at..at + 16)?.try_into().ok()?;
        // A socket of both families that talks IPv4.
        Some(Ipv6Addr::from(sixteen).to_canonical())
    };
    let cookie: [u8; 8] = id.get(40..48)?.try_into().ok()?;
    Some(UdpSocket {
        cookie: u64::from_ne_bytes(cookie),
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        family,
        id,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four))
}

/// The first message and what comes after it; messages start at multiples of four.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let message = bytes.get(..length).filter(|_| length >= HEADER)?;
    let after = length.next_multiple_of(4).min(bytes.len());
    Some((message, bytes.get(after..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_off_messages_are_no_message() {
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[200, 0, 0, 0, 1]), None);
        assert!(decode(&[2; 20]).is_none());
    }
}
