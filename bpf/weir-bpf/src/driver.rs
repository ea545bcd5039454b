// SPDX-License-Identifier: Apache-2.0
//! What the entry point at a device's driver does.

use crate::frame::Frame;
use crate::maps;
use crate::tables::KernelTables;
use crate::window::field;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use core::ptr::null_mut;
use weir_abi::IfIndex;
use weir_abi::observation::Hook;
use weir_packet::PacketRead;
use weir_verdict::run::direction;
use weir_verdict::{Redirect, Tables, accelerate};

#[inline(always)]
pub fn handle(raw: *mut xdp_md) -> u32 {
    let mut frame = Frame { raw };
    // Routes are not asked for here.
    let tables = KernelTables { skb: null_mut() };
    // Without it the programs behind, which miss it as well, say so.
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return XDP_PASS;
    };
    // SAFETY: per-CPU memory; programs of one CPU do not interrupt each other here, and this is
    // the only reference.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: the context is valid while the program runs.
    let ifindex = IfIndex(field(unsafe { &raw const (*raw).ingress_ifindex }));
    let fate = accelerate::forward(&mut frame, &tables, ifindex, &mut scratch.workspace);
    if fate.is_drop() {
        // Half rewritten, for want of room: nothing that the programs behind could make good.
        tables.count_packet(fate.reason(), direction(Hook::FromNetdev), frame.length());
        return XDP_DROP;
    }
    match fate.way_out() {
        Some(Redirect::Egress(_)) => XDP_TX,
        Some(Redirect::Peer(_) | Redirect::Neighbour(_) | Redirect::Ingress(_)) | None => XDP_PASS,
    }
}
