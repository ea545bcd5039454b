// SPDX-License-Identifier: Apache-2.0
//! Services at the socket: a connection is opened to a backend at once, so its packets need no
//! translation.
//!
//! What a socket asks for is left alone where packets serve it better: pods' connections that have
//! to be refused (the refusal is an event, and a connected UDP socket finds a backend that comes
//! later), and those whose client address has to be looked at.

use crate::service::{Client, Scope, choose, has_services};
use crate::tables::Tables;
use weir_abi::ipcache::flags::SERVICE;
use weir_abi::service::{AffinityKey, FrontendKey, SocketKey, SocketRow, flags};
use weir_abi::{Address, Port, Protocol, ServiceId};
use weir_packet::dispatch::Backend;

/// A socket and whom it wants to talk to.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// As the kernel numbers it.
    pub cookie: u64,
    /// Its network namespace, as the kernel numbers it.
    pub namespace: u64,
    pub address: Address,
    pub port: Port,
    pub protocol: Protocol,
}

/// What becomes of a connect or send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Answer {
    /// It goes on as it is.
    Leave = 0,
    /// It goes to the backend instead.
    Translate = 1,
    /// It fails: the service has no backend.
    Refuse = 2,
}

/// Chooses a backend for a socket and remembers what its answers have to look like.
#[inline(always)]
pub fn connect<T: Tables>(tables: &T, socket: &Socket, backend: &mut Backend) -> Answer {
    if !has_services(socket.protocol) {
        return Answer::Leave;
    }
    let of_node = socket.namespace == tables.config(|config| &config.node_namespace);
    if !of_node && (tables.config(|config| &config.pod_sockets) == 0 || is_loopback(socket)) {
        return Answer::Leave;
    }
    let key = FrontendKey::new(socket.address, socket.port, socket.protocol);
    let Some(frontend) = tables.frontend(&key) else {
        // Packets of pods are refused where they come out; the node's would leave it.
        let lost = of_node
            && tables
                .ipcache(&socket.address)
                .is_some_and(|row| row.flags & SERVICE != 0);
        return if lost { Answer::Refuse } else { Answer::Leave };
    };
    if frontend.flags & flags::SOURCE_RANGES != 0 {
        if !of_node {
            return Answer::Leave;
        }
        let own = if socket.address.is_v4() {
            tables.config(|config| &config.node_ipv4)
        } else {
            tables.config(|config| &config.node_ipv6)
        };
        if !tables.source_range(frontend.service, &own) {
            return Answer::Refuse;
        }
    }
    let service = frontend.service;
    let client = Client {
        affinity: AffinityKey {
            client: namespace_address(socket.namespace),
            service,
            reserved: 0,
        },
        // One socket keeps its backend, whatever it sends.
        tuple: fold(socket.cookie),
        now: tables.now(),
    };
    let Some(chosen) = choose(tables, frontend, Scope::Internal, &client) else {
        return if of_node {
            Answer::Refuse
        } else {
            Answer::Leave
        };
    };
    *backend = chosen;
    remember(tables, socket, backend, service);
    Answer::Translate
}

#[inline(always)]
fn remember<T: Tables>(tables: &T, socket: &Socket, backend: &Backend, service: ServiceId) {
    let key = SocketKey {
        cookie: socket.cookie,
        backend: backend.address,
        port: backend.port,
        protocol: socket.protocol,
        reserved: 0,
        reserved_tail: 0,
    };
    let row = SocketRow {
        frontend: socket.address,
        service,
        port: socket.port,
        reserved: [0; 2],
    };
    tables.remember_socket(&key, &row);
}

/// Whom a socket believes to talk to, where that is not who answers.
#[inline(always)]
pub fn believed<T: Tables>(tables: &T, socket: &Socket) -> Option<SocketRow> {
    let key = SocketKey {
        cookie: socket.cookie,
        backend: socket.address,
        port: socket.port,
        protocol: socket.protocol,
        reserved: 0,
        reserved_tail: 0,
    };
    tables.socket_service(&key)
}

/// 127.0.0.0/8 and `::1` are each namespace's own.
#[inline(always)]
fn is_loopback(socket: &Socket) -> bool {
    let [first, ..] = socket.address.v4_octets();
    if socket.address.is_v4() {
        first == 127
    } else {
        socket.address.0 == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    }
}

/// A namespace in the place of a client's address.
#[inline(always)]
const fn namespace_address(cookie: u64) -> Address {
    let [a, b, c, d, e, f, g, h] = cookie.to_be_bytes();
    Address([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

#[inline(always)]
const fn fold(number: u64) -> u32 {
    let [a, b, c, d, e, f, g, h] = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h])
}
