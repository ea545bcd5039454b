// SPDX-License-Identifier: Apache-2.0
//! Records for the agent.

use crate::maps;
use crate::skb::{Skb, field};
use crate::tables::KernelTables;
use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::{
    bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query, bpf_skb_load_bytes,
};
use core::ptr::write_volatile;
use weir_abi::counter::{Counter, Direction};
use weir_abi::event::{CAPTURE_MAX, EVENT_VERSION, EventRecord, flags, kind};
use weir_abi::observation::Hook;
use weir_abi::{Address, IfIndex};
use weir_packet::{PacketRead, Summary};
use weir_verdict::masquerade::hash_of;
use weir_verdict::{Tables, Workspace};

/// Sends a record about a packet; `subtype` is a drop reason or an observation point.
///
/// The packet is captured as it is now: call before rewriting to show what came in.
#[inline(never)]
pub fn send(
    skb: &Skb,
    record: &mut EventRecord,
    workspace: &Workspace,
    what: What,
) {
    let Workspace { decision, summary, parsed, arrival: _ } = workspace;
    let tables = KernelTables { skb: skb.raw };
    record.kind = what.kind;
    record.version = EVENT_VERSION;
    record.subtype = what.subtype;
    record.hook = what.hook as u8;
    // SAFETY: the context is valid while the program runs.
    record.ifindex = IfIndex(field(unsafe { &raw const (*skb.raw).ifindex }));
    // SAFETY: the helper has no preconditions.
    record.timestamp = unsafe { bpf_ktime_get_ns() };
    record.packet_length = skb.length();
    record.source_identity = decision.source_identity;
    record.destination_identity = decision.destination_identity;
    record.source_endpoint = decision.source_endpoint;
    record.destination_endpoint = decision.destination_endpoint;
    record.trace_reason = decision.trace_reason as u8;
    record.extended = decision.extended;
    record.cookie = 0;
    record.reserved = 0;
    record.reserved_tail = [0; 6];
    record.original_source = Address::UNSPECIFIED;
    let mut bits = match decision.direction {
        Direction::Unspecified => 0,
        Direction::Ingress => flags::INGRESS,
        Direction::Egress => flags::EGRESS,
    };
    if decision.reply {
        bits |= flags::REPLY;
    }
    if *parsed {
        bits |= flags::HAS_KEY;
        record.key = summary.key;
        record.tcp_flags = summary.tcp_flags;
        // Equal for both directions: the sum of both hashes.
        record.flow_hash = hash_of(&summary.key).wrapping_add(hash_of(&summary.key.reversed()));
    } else {
        record.key = Summary::EMPTY.key;
        record.tcp_flags = 0;
        record.flow_hash = 0;
    }
    record.flags = bits;
    let wanted = u32::from(tables.config(|config| &config.capture_length));
    let length = wanted.min(skb.length()).min(CAPTURE_MAX as u32);
    record.captured = 0;
    if length > 0 && length <= CAPTURE_MAX as u32 {
        let to = (&raw mut record.capture).cast();
        // SAFETY: `capture` has room for CAPTURE_MAX bytes.
        if unsafe { bpf_skb_load_bytes(skb.raw.cast_const().cast(), 0, to, length) } == 0 {
            record.captured = length as u16;
        }
    }
    output(&tables, record);
}

/// What an event is about.
#[derive(Clone, Copy)]
pub struct What {
    pub kind: u8,
    pub subtype: u8,
    pub hook: Hook,
}

#[inline(always)]
fn output(tables: &KernelTables, record: &EventRecord) {
    // SAFETY: a map and a record that both live long enough; the helper copies the record.
    let code = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const *record).cast_mut().cast(),
            size_of::<EventRecord>() as u64,
            urgency(),
        )
    };
    if code != 0 {
        tables.count(Counter::EventsLost);
    }
}

#[inline(always)]
fn ring() -> *mut c_void {
    (&raw const maps::EVENTS).cast_mut().cast()
}

/// Waking the reader costs more than all the rest of an event, so it is left to the reader's own
/// clock (it looks ten times a second) until a quarter of the ring is full.
#[inline(always)]
fn urgency() -> u64 {
    // SAFETY: the map lives as long as the program.
    let waiting = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA)) };
    // SAFETY: as above.
    let size = unsafe { bpf_ringbuf_query(ring(), u64::from(BPF_RB_RING_SIZE)) };
    if waiting > size / 4 {
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
    unsafe { write_volatile(&raw mut head, u64::from_ne_bytes([kind::SIGNAL, EVENT_VERSION, subtype, 0, 0, 0, 0, 0])) };
    // SAFETY: as in `output`. A lost signal is followed by others.
    let _ = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const head).cast_mut().cast(),
            8,
            u64::from(BPF_RB_FORCE_WAKEUP),
        )
    };
}
