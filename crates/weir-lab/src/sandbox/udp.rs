// SPDX-License-Identifier: Apache-2.0
//! The UDP half of the built-in server. Answers leave from the address that the question came to, which a socket
//! bound to all addresses does not do by itself.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    dns::{self, Transport},
    echo::Service,
    socket::{self, plain},
};
use crate::protocol::{Greeting, Protocol};

/// A UDP socket that knows the destination of what it receives.
#[derive(Debug)]
pub(crate) struct Server(UdpSocket);

impl Server {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let socket = socket::open_server(Protocol::Udp, port)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        // Room for a burst of big datagrams.
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
        Ok(Self(socket::datagram(socket)?))
    }
}

/// Answers until aborted.
pub(crate) async fn answer(service: Service, server: Server) {
    let mut buffer = vec![0; 65536];
    loop {
        let received = server
            .0
            .async_io(Interest::READABLE, || receive(&server.0, &mut buffer))
            .await;
        // Errors are ICMP messages about earlier answers.
        let Ok((length, peer, own)) = received else {
            continue;
        };
        let payload = buffer.get(..length).unwrap_or_default();
        let reply = match &service {
            Service::Echo(name) => echo(name, peer, payload),
            Service::Names(table) => dns::answer(&table.borrow(), payload, Transport::Datagram),
        };
        if let Some(reply) = reply {
            let _ = server
                .0
                .async_io(Interest::WRITABLE, || send(&server.0, &reply, &peer, own))
                .await;
        }
    }
}

fn echo(name: &str, peer: SockaddrIn6, payload: &[u8]) -> Option<Vec<u8>> {
    let greeting = Greeting {
        name: name.to_owned(),
        source: plain(SocketAddr::V6(peer.into())).to_string(),
    };
    let mut reply = serde_json::to_vec(&greeting).ok()?;
    reply.push(b'\n');
    // 65507 is the most that a datagram carries over IPv4.
    if reply.len() + payload.len() <= 65507 {
        reply.extend_from_slice(payload);
    }
    Some(reply)
}

fn receive(
    fd: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SockaddrIn6, Option<libc::in6_pktinfo>)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn6>(
        fd.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let own = message.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
            Some(info)
        } else {
            None
        }
    });
    let peer = message.address.ok_or(io::ErrorKind::InvalidData)?;
    Ok((message.bytes, peer, own))
}

fn send(
    fd: &UdpSocket,
    bytes: &[u8],
    peer: &SockaddrIn6,
    own: Option<libc::in6_pktinfo>,
) -> io::Result<usize> {
    // The interface is left to routing.
    let own = own.map(|info| libc::in6_pktinfo {
        ipi6_ifindex: 0,
        ..info
    });
    let control: Vec<_> = own.iter().map(ControlMessage::Ipv6PacketInfo).collect();
    let slices = [IoSlice::new(bytes)];
    Ok(sendmsg(
        fd.as_raw_fd(),
        &slices,
        &control,
        MsgFlags::empty(),
        Some(peer),
    )?)
}
