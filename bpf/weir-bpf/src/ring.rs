// SPDX-License-Identifier: Apache-2.0
//! The ring buffer towards the agent.

use crate::maps;
use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{bpf_ringbuf_output, bpf_ringbuf_query};
use core::ptr::write_volatile;
use weir_abi::event::{EVENT_VERSION, EventRecord, kind};

/// Sends a record; `false` where there was no room.
#[inline(always)]
pub fn send(record: &EventRecord) -> bool {
    // SAFETY: a map and a record that both live long enough; the helper copies the record.
    let code = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const *record).cast_mut().cast(),
            size_of::<EventRecord>() as u64,
            urgency(),
        )
    };
    code == 0
}

#[inline(always)]
fn ring() -> *mut c_void {
    (&raw const maps::EVENTS).cast_mut().cast()
}

/// Waking the reader costs more than all the rest of an event, so it is left to the reader's own
/// clock (it looks ten times a second), but for the few events with which the ring passes a quarter
/// of its size: a few, because several processors may pass it at the same time.
#[inline(always)]
fn urgency() -> u64 {
    const FEW: u64 = 8 * size_of::<EventRecord>() as u64;
    // SAFETY: the map lives as long as the program.
    let waiting = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA)) };
    // SAFETY: as above.
    let quarter = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_RING_SIZE)) } / 4;
    if waiting >= quarter && waiting < quarter + FEW {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
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
    // SAFETY: as in `send`. A lost signal is followed by others.
    let _ = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const head).cast_mut().cast(),
            8,
            u64::from(BPF_RB_FORCE_WAKEUP),
        )
    };
}
