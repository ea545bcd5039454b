// SPDX-License-Identifier: Apache-2.0
//! The ring buffer towards the agent.

use crate::maps;
use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{
    bpf_ringbuf_output, bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit,
};
use core::ptr::write_volatile;
use weir_abi::event::{EVENT_VERSION, EventRecord, kind};

/// Room for a record in the ring itself, which saves a copy; it holds what was there before. Must be
/// handed to [`submit`].
#[inline(always)]
pub fn reserve<'r>() -> Option<&'r mut EventRecord> {
    // SAFETY: the map lives as long as the program.
    let room = unsafe { bpf_ringbuf_reserve(ring(), size_of::<EventRecord>() as u64, 0) };
    // SAFETY: null, or memory of that size at a multiple of eight, which is this program's alone.
    unsafe { room.cast::<EventRecord>().as_mut() }
}

/// Sends a record. `sent` counts those of this processor.
#[inline(always)]
pub fn submit(record: &mut EventRecord, sent: &mut u32) {
    *sent = sent.wrapping_add(1);
    let flags = if sent.is_multiple_of(LOOK_EVERY) && is_filling() {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: what `reserve` answered, once.
    unsafe { bpf_ringbuf_submit((&raw mut *record).cast(), u64::from(flags)) };
}

#[inline(always)]
fn ring() -> *mut c_void {
    (&raw const maps::EVENTS).cast_mut().cast()
}

/// A processor looks how full the ring is each time that it has sent so many records.
const LOOK_EVERY: u32 = 32;

/// Waking the reader costs more than all the rest of an event, so it is left to the reader's own
/// clock (it looks ten times a second), but for the few looks at which a quarter of the ring has just
/// come to wait for it: a few, because several processors may fill it at the same time.
#[inline(always)]
fn is_filling() -> bool {
    const FEW: u64 = 8 * LOOK_EVERY as u64 * size_of::<EventRecord>() as u64;
    // SAFETY: the map lives as long as the program.
    let waiting = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA)) };
    // SAFETY: as above.
    let quarter = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_RING_SIZE)) } / 4;
    waiting >= quarter && waiting < quarter + FEW
}

/// Asks the agent for something.
#[inline(always)]
pub fn signal(subtype: u8) {
    let mut head = 0;
    // One store: built up byte by byte it would be misaligned in places.
    // SAFETY: a local variable.
    unsafe {
        write_volatile(
            &raw mut head,
            u64::from_ne_bytes([kind::SIGNAL, EVENT_VERSION, subtype, 0, 0, 0, 0, 0]),
        )
    };
    // SAFETY: a map and a number that both live long enough. A lost signal is followed by others.
    let _ = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const head).cast_mut().cast(),
            8,
            u64::from(BPF_RB_FORCE_WAKEUP),
        )
    };
}
