// SPDX-License-Identifier: Apache-2.0
//! The kernel side of Weir: entry points, maps, packet load and store, events.
//!
//! Decisions are not made here: each hook hands the packet to `weir-verdict` and carries out its
//! answer. Start reading at the entry points below; [`hook::handle`] is what those at packets share.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod driver;
mod event;
mod frame;
mod hook;
mod maps;
mod ring;
mod route;
mod skb;
mod socket;
mod steps;
mod tables;
mod window;

use crate::socket::Family;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::{cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};
use weir_abi::DatapathConfig;
use weir_abi::observation::Hook;

/// Filled in by the loader before verification.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static CONFIG: DatapathConfig = DatapathConfig::DEFAULT;

/// What pods send: tcx ingress of the host side of their links.
#[classifier]
pub fn from_container(context: TcContext) -> i32 {
    enter(&context, Hook::FromContainer)
}

/// What the network brings: tcx ingress of the underlay devices.
#[classifier]
pub fn from_netdev(context: TcContext) -> i32 {
    enter(&context, Hook::FromNetdev)
}

/// What the node sends to the network: tcx egress of the underlay devices.
#[classifier]
pub fn to_netdev(context: TcContext) -> i32 {
    enter(&context, Hook::ToNetdev)
}

/// What the node sends to pods: tcx egress of `weir_host`.
#[classifier]
pub fn from_host(context: TcContext) -> i32 {
    enter(&context, Hook::FromHost)
}

/// What the network brings, at the driver of an underlay device: before `from_netdev`, and only
/// what is known to go on by the same device.
#[xdp]
pub fn at_driver(context: XdpContext) -> u32 {
    driver::handle(context.ctx)
}

macro_rules! socket_programs {
    ($($(#[$doc:meta])* $name:ident: $action:ident, $family:ident;)*) => {
        $(
            $(#[$doc])*
            #[cgroup_sock_addr($name)]
            pub fn $name(context: SockAddrContext) -> i32 {
                socket::$action(context.sock_addr, Family::$family)
            }
        )*
    };
}

socket_programs! {
    /// A socket connects over IPv4.
    connect4: to_backend, V4;
    /// A socket connects over IPv6.
    connect6: to_backend, V6;
    /// An unconnected socket sends over IPv4.
    sendmsg4: to_backend, V4;
    /// An unconnected socket sends over IPv6.
    sendmsg6: to_backend, V6;
    /// A datagram was received over IPv4.
    recvmsg4: from_backend, V4;
    /// A datagram was received over IPv6.
    recvmsg6: from_backend, V6;
    /// A socket is asked for its peer over IPv4.
    getpeername4: from_backend, V4;
    /// A socket is asked for its peer over IPv6.
    getpeername6: from_backend, V6;
}

#[inline(always)]
fn enter(context: &TcContext, hook: Hook) -> i32 {
    let skb: *mut __sk_buff = context.skb.skb;
    hook::handle(skb, hook)
}

/// The licence that the kernel asks for before it lends GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
