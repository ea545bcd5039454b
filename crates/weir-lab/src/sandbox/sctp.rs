// SPDX-License-Identifier: Apache-2.0
//! The first two packets of SCTP (RFC 9260) over raw sockets, for kernels without it: INIT, and INIT ACK or ABORT.
//!
//! The state cookie of the INIT ACK carries the server's greeting, so that a probe tells as much as over TCP. A packet
//! whose checksum is wrong counts as lost, as it does for every SCTP.

mod packet;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use tokio::{net::UdpSocket, time::timeout};

use super::{
    exchange::{RESEND, Reply},
    socket::{self, plain},
};
use crate::protocol::{Greeting, Path, Protocol};
use packet::{Chunk, Packet};

thread_local! {
    /// The ports that are answered, with the names of those who answer.
    static PORTS: RefCell<Option<BTreeMap<u16, String>>> = const { RefCell::new(None) };
}

/// Whether the kernel speaks SCTP itself.
pub(crate) fn is_in_kernel() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match socket::open(false, Protocol::Sctp) {
        Err(error) => error.raw_os_error() != Some(libc::EPROTONOSUPPORT),
        Ok(_) => true,
    })
}

/// Answers on a port until it is dropped.
#[derive(Debug)]
pub(crate) struct Port(u16);

impl Port {
    pub(crate) fn open(name: String, port: u16) -> io::Result<Self> {
        let starts = PORTS.with_borrow(Option::is_none);
        if starts {
            for ipv6 in [false, true] {
                match socket::open_raw_sctp(ipv6) {
                    Ok(socket) => {
                        let socket = socket::datagram(socket)?;
                        tokio::task::spawn_local(answer_all(socket, ipv6));
                    }
                    // A machine without IPv6.
                    Err(error) if ipv6 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        PORTS.with_borrow_mut(|ports| ports.get_or_insert_default().insert(port, name));
        Ok(Self(port))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        PORTS.with_borrow_mut(|ports| {
            if let Some(ports) = ports {
                ports.remove(&self.0);
            }
        });
    }
}

async fn answer_all(socket: UdpSocket, ipv6: bool) {
    let mut buffer = vec![0; 65536];
    loop {
        // Errors are ICMP messages about earlier answers.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if let Some(reply) = reply_to(payload(bytes, ipv6), peer.ip()) {
            let to = SocketAddr::new(peer.ip(), 0);
            let _ = socket.send_to(&reply.to_bytes(), to).await;
        }
    }
}

/// A raw IPv4 socket hands the header out too.
fn payload(bytes: &[u8], ipv6: bool) -> &[u8] {
    let header = match bytes.first() {
        Some(first) if !ipv6 => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    bytes.get(header..).unwrap_or_default()
}

fn reply_to(bytes: &[u8], from: IpAddr) -> Option<Packet> {
    let request = Packet::parse(bytes)?;
    let Chunk::Init { tag } = request.chunk else {
        return None;
    };
    let name = PORTS.with_borrow(|ports| ports.as_ref()?.get(&request.destination).cloned());
    let chunk = match name {
        None => Chunk::Abort,
        Some(name) => {
            let client = plain(SocketAddr::new(from, request.source));
            let greeting = Greeting {
                name,
                source: client.to_string(),
            };
            Chunk::InitAck {
                tag: random(),
                cookie: serde_json::to_vec(&greeting).ok()?,
            }
        }
    };
    Some(Packet {
        source: request.destination,
        destination: request.source,
        tag,
        chunk,
    })
}

/// Asks a server for its greeting.
pub(crate) async fn ask(path: &Path) -> io::Result<Reply> {
    let ipv6 = path.destination.is_ipv6();
    let socket = socket::datagram(socket::open_raw_sctp(ipv6)?)?;
    if let Some(source) = path.source {
        socket::bind_to(&socket, SocketAddr::new(source, 0))?;
    }
    socket
        .connect(SocketAddr::new(path.destination.ip(), 0))
        .await?;
    let own = random();
    let source = path.source_port.unwrap_or_else(ephemeral);
    let request = Packet {
        source,
        destination: path.destination.port(),
        tag: 0,
        chunk: Chunk::Init { tag: own },
    };
    loop {
        socket.send(&request.to_bytes()).await?;
        let answer = receive(&socket, ipv6, |packet| {
            let ports = (packet.source, packet.destination);
            ports == (request.destination, source) && packet.tag == own
        });
        let Ok(answer) = timeout(RESEND, answer).await else {
            continue;
        };
        return match answer?.chunk {
            Chunk::InitAck { cookie, .. } => {
                let greeting = serde_json::from_slice(&cookie);
                let greeting = greeting.map_err(|_| io::Error::other("not an echo server"))?;
                Ok(Reply {
                    greeting: Some(greeting),
                    remote: Some(path.destination),
                    ..Reply::default()
                })
            }
            Chunk::Abort | Chunk::Init { .. } => {
                Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
            }
        };
    }
}

async fn receive(
    socket: &UdpSocket,
    ipv6: bool,
    fits: impl Fn(&Packet) -> bool,
) -> io::Result<Packet> {
    let mut buffer = vec![0; 65536];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        let packet = Packet::parse(payload(bytes, ipv6));
        if let Some(packet) = packet.filter(|packet| fits(packet)) {
            return Ok(packet);
        }
    }
}

fn random() -> u32 {
    let number = RandomState::new().hash_one(0);
    u32::try_from(number >> 32).unwrap_or_default() | 1
}

/// The ports that nobody asks for, one after the other: one that was used a moment ago may still have a state on the way.
/// Sandboxes begin at different ones, because whoever masquerades SCTP cannot change them.
fn ephemeral() -> u16 {
    const FIRST: u16 = 32768;
    const COUNT: u16 = 28_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let start = random() % u32::from(COUNT);
        AtomicU16::new(u16::try_from(start).unwrap_or_default())
    });
    FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT
}
