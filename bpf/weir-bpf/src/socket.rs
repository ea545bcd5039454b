// SPDX-License-Identifier: Apache-2.0
//! The node's and its pods' sockets: translated when they connect and send, and back when they are
//! asked whom they talk to.

use crate::tables::KernelTables;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use core::ptr::{null_mut, read_volatile, write_volatile};
use weir_abi::{Address, Port, Protocol};
use weir_packet::dispatch::Backend;
use weir_verdict::socket::{Answer, Socket, believed, connect};

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `-ECONNREFUSED`
const REFUSED: i32 = -111;
const TABLES: KernelTables = KernelTables { skb: null_mut() };

/// Which address of the context a program may touch: the kernel lets each attach type have its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A socket connects, or sends without being connected.
#[inline(always)]
pub fn to_backend(context: *mut bpf_sock_addr, family: Family) -> i32 {
    let socket = read(context, family);
    let mut backend = Backend {
        address: Address::UNSPECIFIED,
        port: Port::NONE,
    };
    match connect(&TABLES, &socket, &mut backend) {
        Answer::Leave => ALLOW,
        Answer::Translate => {
            write(context, family, &backend.address, backend.port);
            ALLOW
        }
        Answer::Refuse => {
            // SAFETY: the helper takes a plain number.
            unsafe { bpf_set_retval(REFUSED) };
            REFUSE
        }
    }
}

/// A socket is told who sent a datagram, or asked for its peer.
#[inline(always)]
pub fn from_backend(context: *mut bpf_sock_addr, family: Family) -> i32 {
    let socket = read(context, family);
    if let Some(row) = believed(&TABLES, &socket) {
        write(context, family, &row.frontend, row.port);
    }
    ALLOW
}

/// A word of the context. Volatile, so that the compiler does not join loads to wider ones, which
/// the kernel does not know how to translate.
macro_rules! word {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { read_volatile(&raw const (*$context).$($field)+) }
    };
}

#[inline(always)]
fn read(context: *mut bpf_sock_addr, family: Family) -> Socket {
    let address = match family {
        Family::V4 => Address::from_v4(word!(context, user_ip4).to_ne_bytes()),
        Family::V6 => {
            let [a, b, c, d] = word!(context, user_ip6[0]).to_ne_bytes();
            let [e, f, g, h] = word!(context, user_ip6[1]).to_ne_bytes();
            let [i, j, k, l] = word!(context, user_ip6[2]).to_ne_bytes();
            let [m, n, o, p] = word!(context, user_ip6[3]).to_ne_bytes();
            Address([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
        }
    };
    let [high, low, ..] = word!(context, user_port).to_ne_bytes();
    let [protocol, ..] = word!(context, protocol).to_le_bytes();
    Socket {
        // SAFETY: helpers that take the context.
        cookie: unsafe { bpf_get_socket_cookie(context.cast()) },
        // SAFETY: as above.
        namespace: unsafe { bpf_get_netns_cookie(context.cast()) },
        address,
        port: Port([high, low]),
        protocol: Protocol(protocol),
    }
}

#[inline(always)]
fn write(context: *mut bpf_sock_addr, family: Family, address: &Address, port: Port) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    let [high, low] = port.0;
    // SAFETY: the context is valid while the program runs; whole words, as the kernel wants.
    unsafe {
        match family {
            Family::V4 => {
                let octets = address.v4_octets();
                write_volatile(&raw mut (*context).user_ip4, u32::from_ne_bytes(octets));
            }
            Family::V6 => {
                let place = &raw mut (*context).user_ip6;
                let place = place.cast::<u32>();
                write_volatile(place, u32::from_ne_bytes([a, b, c, d]));
                write_volatile(place.add(1), u32::from_ne_bytes([e, f, g, h]));
                write_volatile(place.add(2), u32::from_ne_bytes([i, j, k, l]));
                write_volatile(place.add(3), u32::from_ne_bytes([m, n, o, p]));
            }
        }
        write_volatile(
            &raw mut (*context).user_port,
            u32::from_ne_bytes([high, low, 0, 0]),
        );
    }
}
