// SPDX-License-Identifier: Apache-2.0
//! Sockets as the sandbox needs them; the only place of the crate that speaks to libc.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen, setsockopt, sockopt};

use crate::protocol::{Outcome, Path, Protocol};

/// A socket for SCTP packets as they are.
pub(crate) fn open_raw_sctp(ipv6: bool) -> io::Result<OwnedFd> {
    open_number(ipv6, libc::SOCK_RAW, libc::IPPROTO_SCTP)
}

/// Binds a socket to an address.
pub(crate) fn bind_to(socket: &impl AsRawFd, address: SocketAddr) -> io::Result<()> {
    Ok(bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?)
}

/// A non-blocking socket. nix has no name for ICMP and SCTP.
pub(crate) fn open(ipv6: bool, protocol: Protocol) -> io::Result<OwnedFd> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Protocol::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Protocol::Sctp => (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        Protocol::Icmp if ipv6 => (libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        Protocol::Icmp => (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    };
    open_number(ipv6, kind, number)
}

fn open_number(ipv6: bool, kind: i32, number: i32) -> io::Result<OwnedFd> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: socket takes three integers and no pointer.
    let fd = unsafe {
        libc::socket(
            family,
            kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            number,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket that answers on a port at every address of both families.
pub(crate) fn open_server(protocol: Protocol, port: u16) -> io::Result<OwnedFd> {
    let (socket, any) = match open(true, protocol) {
        Ok(socket) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            (socket, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        }
        // A machine without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            (open(false, protocol)?, IpAddr::from([0, 0, 0, 0]))
        }
        Err(error) => return Err(error),
    };
    if protocol != Protocol::Udp {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(any, port)),
    )?;
    if protocol != Protocol::Udp {
        listen(&socket, Backlog::new(4096)?)?;
    }
    Ok(socket)
}

/// A socket bound to the source of a path and about to be connected to its destination.
pub(crate) fn open_client(protocol: Protocol, path: &Path) -> io::Result<OwnedFd> {
    let socket = open_bound(protocol, path)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(path.destination)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// A socket bound to the source of a path.
pub(crate) fn open_bound(protocol: Protocol, path: &Path) -> io::Result<OwnedFd> {
    let ipv6 = path.destination.is_ipv6();
    let socket = open(ipv6, protocol)?;
    let any = || {
        if ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            IpAddr::from([0, 0, 0, 0])
        }
    };
    let source = path.source.unwrap_or_else(any);
    if protocol == Protocol::Udp && path.source_port.is_none() {
        bind_in_turn(&socket, source)?;
    } else if path.source.is_some() || path.source_port.is_some() {
        if path.source_port.is_some() {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        } else if protocol != Protocol::Icmp {
            // Leaves the choice of a port to connect, which knows the whole four-tuple.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        }
        bind_to(
            &socket,
            SocketAddr::new(source, path.source_port.unwrap_or(0)),
        )?;
    }
    if protocol == Protocol::Udp || protocol == Protocol::Icmp {
        receive_errors(&socket, ipv6)?;
    }
    Ok(socket)
}

/// The ports that datagram sockets take, one after the other: the range that Linux gives out by itself.
const PORTS: std::ops::Range<u16> = 32_768..61_000;

/// Binds a datagram socket to a port that none had for as long as there are others. To a network, datagrams from a port
/// that was used a moment ago belong to the flow of before: they may rightly go to another peer than those of a new one.
fn bind_in_turn(socket: &OwnedFd, source: IpAddr) -> io::Result<()> {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.len();
    // Processes that share a network begin at different places.
    let begin = std::process::id().wrapping_mul(7919) as usize;
    for _ in 0..count {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) as usize;
        let place = begin.wrapping_add(turn) % count;
        let port = PORTS.clone().nth(place).unwrap_or(PORTS.start);
        match bind_to(socket, SocketAddr::new(source, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Turns a connecting stream socket into a stream once it is connected.
pub(crate) async fn connected(socket: OwnedFd) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Asks for ICMP errors that the kernel would otherwise keep to itself on datagram sockets.
fn receive_errors(socket: &OwnedFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    }
    Ok(())
}

/// A datagram socket for tokio; ICMP sockets are datagram sockets too.
pub(crate) fn datagram(socket: OwnedFd) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(socket.into())
}

/// The outcome that an error of a socket stands for.
pub(crate) fn outcome_of(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => Outcome::Refused,
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT) => {
            Outcome::Unreachable
        }
        Some(libc::ETIMEDOUT) => Outcome::Timeout,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Outcome::Reset,
        _ if error.kind() == io::ErrorKind::UnexpectedEof => Outcome::Reset,
        _ => Outcome::Error,
    }
}

/// An address as the client knows it: IPv4 clients of a socket for both families look like `::ffff:a.b.c.d`.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip @ IpAddr::V4(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}
