// SPDX-License-Identifier: Apache-2.0
//! Records for the agent.

use crate::maps::Scratch;
use crate::ring;
use crate::skb::Skb;
use crate::tables::KernelTables;
use crate::window::field;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes};
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction};
use weir_abi::event::{CAPTURE_MAX, EVENT_VERSION, EventRecord, flags};
use weir_abi::observation::Hook;
use weir_abi::{Address, IfIndex, Port};
use weir_packet::{PacketRead, Summary};
use weir_verdict::{Tables, Workspace};

/// Sends a record about a packet; a dry run only fills it in, into the scratch memory.
///
/// The packet is captured as it is now: call before rewriting to show what came in.
#[inline(always)]
pub fn send(skb: &Skb, scratch: &mut Scratch, what: What) {
    let Scratch {
        record,
        workspace,
        sent,
    } = scratch;
    let tables = KernelTables { skb: skb.raw };
    let dry = tables.config(|config| &config.features) & features::DRY_RUN != 0;
    let room = if dry { Some(record) } else { ring::reserve() };
    let Some(room) = room else {
        tables.count(Counter::EventsLost);
        return;
    };
    fill(skb, room, workspace, what);
    if !dry {
        ring::submit(room, sent);
    }
}

/// Writes every field but what lies behind the captured bytes.
#[inline(always)]
fn fill(skb: &Skb, record: &mut EventRecord, workspace: &Workspace, what: What) {
    let Workspace {
        decision,
        summary,
        parsed,
        ..
    } = workspace;
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
    record.source_identity = decision.source.identity;
    record.destination_identity = decision.destination.identity;
    record.source_endpoint = decision.source.endpoint;
    record.destination_endpoint = decision.destination.endpoint;
    record.trace_reason = decision.trace_reason as u8;
    record.extended = decision.extended;
    record.reserved = 0;
    record.reserved_head = 0;
    record.reserved_tail = [0; 3];
    record.egress_cookie = decision.egress_cookie;
    record.ingress_cookie = decision.ingress_cookie;
    record.policy = decision.policy;
    record.service = decision.service;
    record.original_source = Address::UNSPECIFIED;
    if decision.translated {
        record.translated_destination = decision.after.destination;
        record.translated_destination_port = decision.after.destination_port;
    } else {
        record.translated_destination = Address::UNSPECIFIED;
        record.translated_destination_port = Port::NONE;
    }
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
    } else {
        record.key = Summary::EMPTY.key;
        record.tcp_flags = 0;
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
}

/// What an event is about.
#[derive(Clone, Copy)]
pub struct What {
    pub kind: u8,
    pub subtype: u8,
    pub hook: Hook,
}
