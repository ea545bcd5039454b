// SPDX-License-Identifier: Apache-2.0
//! What every entry point does: hand the packet over, report, carry out the verdict.

use crate::event::{self, What};
use crate::maps;
use crate::skb::Skb;
use crate::tables::KernelTables;
use crate::window::field;
use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use core::ptr::null_mut;
use weir_abi::config::features;
use weir_abi::event::kind;
use weir_abi::observation::Hook;
use weir_abi::{DropReason, IfIndex};
use weir_packet::PacketRead;
use weir_packet::dispatch::OPTION_LENGTH;
use weir_verdict::run::direction;
use weir_verdict::{Redirect, Tables};

/// Packets that Weir sends to a device carry this mark, so that the program at that device's
/// egress lets them by. Bits that kube-proxy and the field's other users of marks do not use.
const MARK_DONE: u32 = 0x5700_0000;

/// Bytes that must be directly accessible: Ethernet, IP and the ports; from the network, where
/// they can stand inside a tunnel packet, more.
const fn headers(hook: Hook) -> u32 {
    match hook {
        Hook::FromContainer | Hook::ToNetdev | Hook::FromHost => 54,
        Hook::FromNetdev => 118,
    }
}

/// No kind of record.
const NO_EVENT: u8 = 0;

#[inline(always)]
pub fn handle(raw: *mut __sk_buff, hook: Hook) -> i32 {
    // SAFETY: the context is valid while the program runs.
    if matches!(hook, Hook::ToNetdev) && field(unsafe { &raw const (*raw).mark }) == MARK_DONE {
        return TC_ACT_OK;
    }
    let mut skb = Skb { raw };
    let tables = KernelTables { skb: raw };
    let on = tables.config(|config| &config.features);
    let names_backends = matches!(hook, Hook::FromNetdev) && on & features::DIRECT_RETURN != 0;
    skb.pull(headers(hook) + if names_backends { OPTION_LENGTH } else { 0 });
    // SAFETY: as above.
    let ifindex = IfIndex(field(unsafe { &raw const (*raw).ifindex }));
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        tables.count_packet(
            DropReason::ScratchMissing.number(),
            direction(hook),
            skb.length(),
        );
        return TC_ACT_SHOT;
    };
    // SAFETY: per-CPU memory; programs of one CPU do not interrupt each other here, and this is
    // the only reference.
    let scratch = unsafe { &mut *scratch };
    let fate = weir_verdict::start(&mut skb, &tables, hook, ifindex, &mut scratch.workspace);
    let workspace = &scratch.workspace;
    // A dry run fills in the record of every packet.
    let dry = tables.config(|config| &config.features) & features::DRY_RUN != 0;
    let traces = tables.config(|config| &config.features) & features::TRACE != 0;
    let reason = fate.reason();
    // In one place for both kinds, so that it is no call.
    let (kind, subtype) = if reason != 0 {
        let length = if workspace.parsed {
            workspace.summary.l3_length
        } else {
            skb.length()
        };
        tables.count_packet(reason, workspace.decision.direction, length);
        let quiet = reason == DropReason::MulticastHandled.number()
            || reason == DropReason::IgmpHandled.number();
        (if dry || !quiet { kind::DROP } else { NO_EVENT }, reason)
    } else if dry || (traces && workspace.decision.report) {
        (kind::TRACE, workspace.decision.observation as u8)
    } else {
        (NO_EVENT, 0)
    };
    if kind != NO_EVENT {
        event::send(
            &skb,
            scratch,
            What {
                kind,
                subtype,
                hook,
            },
        );
    }
    let fate = weir_verdict::conclude(&mut skb, &tables, &scratch.workspace, fate);
    match fate.way_out() {
        Some(redirect) => carry_out(raw, redirect),
        None if fate.is_drop() => TC_ACT_SHOT,
        None => TC_ACT_OK,
    }
}

#[inline(always)]
fn carry_out(raw: *mut __sk_buff, redirect: Redirect) -> i32 {
    // SAFETY: helpers that take plain numbers (and no parameters for the neighbour: the packet's
    // own destination is looked up).
    let code = unsafe {
        match redirect {
            Redirect::Peer(ifindex) => bpf_redirect_peer(ifindex.0, 0),
            Redirect::Egress(ifindex) => {
                (*raw).mark = MARK_DONE;
                bpf_redirect(ifindex.0, 0)
            }
            Redirect::Neighbour(ifindex) => {
                (*raw).mark = MARK_DONE;
                bpf_redirect_neigh(ifindex.0, null_mut(), 0, 0)
            }
            Redirect::Ingress(ifindex) => bpf_redirect(ifindex.0, u64::from(BPF_F_INGRESS)),
        }
    };
    code as i32
}
