// SPDX-License-Identifier: Apache-2.0
//! The kernel side of Weir: entry points, maps, packet load and store, events.
//! Decisions are not made here: each hook loads the packet, calls `weir-verdict` and carries out its answer.
//! Start reading at the entry points below.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::TC_ACT_OK,
    btf_maps::Array,
    macros::{btf_map, classifier},
    programs::TcContext,
};

#[btf_map]
static SEEN: Array<u64, 1> = Array::new();

#[classifier]
pub fn from_container(_ctx: TcContext) -> i32 {
    if let Some(count) = SEEN.get_ptr_mut(0) {
        // SAFETY: the map hands out a pointer to one live, aligned u64.
        unsafe { *count += 1 };
    }
    TC_ACT_OK
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
