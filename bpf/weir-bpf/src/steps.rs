// SPDX-License-Identifier: Apache-2.0
//! Steps of the decision as global functions: the verifier reads each of them once, for any
//! workspace, instead of again on every way that leads to it.
//!
//! What the kernel knows of an argument is the size of the type behind the pointer, so a null
//! pointer has to be ruled out.

use crate::skb::Skb;
use crate::tables::KernelTables;
use aya_ebpf::bindings::__sk_buff;
use core::ptr::null_mut;
use weir_abi::DropReason;
use weir_abi::service::FrontendRow;
use weir_verdict::{Outcome, Workspace, policy, service};

/// For steps that never ask the routing table.
const TABLES: KernelTables = KernelTables { skb: null_mut() };

/// The whole slow path: the number of an [`Outcome`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn decide(skb: *mut __sk_buff, workspace: *mut Workspace) -> u32 {
    // SAFETY: the caller's own, for the time of the call.
    match unsafe { workspace.as_mut() } {
        Some(workspace) => {
            let tables = KernelTables { skb };
            weir_verdict::decide::decide(&Skb { raw: skb }, &tables, workspace).to_number()
        }
        None => MISSING,
    }
}

/// Which backend: the number of an [`Outcome`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn select_backend(
    workspace: *mut Workspace,
    frontend: *const FrontendRow,
) -> u32 {
    // SAFETY: the caller's own and a row of a map, for the time of the call.
    match unsafe { (workspace.as_mut(), frontend.as_ref()) } {
        (Some(workspace), Some(frontend)) => {
            service::select(&TABLES, workspace, frontend).to_number()
        }
        _ => MISSING,
    }
}

/// May it: the number of an [`Outcome`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn check_policy(workspace: *mut Workspace) -> u32 {
    // SAFETY: as above.
    match unsafe { workspace.as_mut() } {
        Some(workspace) => policy::check(&TABLES, workspace).to_number(),
        None => MISSING,
    }
}

const MISSING: u32 = Outcome::Drop(DropReason::ScratchMissing).to_number();
