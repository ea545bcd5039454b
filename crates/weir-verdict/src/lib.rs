// SPDX-License-Identifier: Apache-2.0
//! What happens to this packet, and why?
//!
//! The decisions of every hook as functions over [`Tables`]: compiled into the kernel programs,
//! where the tables are maps, and into user space, where they are memory or a read-back of the
//! maps. The same code decides and explains (ADR 0002).
//!
//! The crate must not know maps, sockets, clocks or Kubernetes. It has no panicking paths, no
//! recursion and only constant loop bounds, because the kernel's verifier reads it too.
//!
//! Start reading at [`mod@run`]: parse ([`arrive`]), look for a usable flow entry
//! ([`established`]), else [`mod@decide`], then [`rewrite`]. What the slow path consults stands in one
//! file each: [`source`] (may this packet come from there), [`flow`] (does it belong to a
//! connection), [`service`] (which backend), [`way`] (where does it go), [`policy`] (may it); then
//! [`open`] or [`carry_on`] write the entries, and [`mapping`] reserves the tuple of a translated
//! connection's answers. [`direct`] is what differs where backends answer clients themselves, and
//! [`accelerate`] is the fast path alone, for devices whose driver runs it.
#![cfg_attr(not(any(test, feature = "memory")), no_std)]
// What would panic in user space would not pass the verifier, or wrap, in the kernel.
#![cfg_attr(
    not(any(test, feature = "memory")),
    warn(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::integer_division
    )
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod accelerate;
pub mod answer;
pub mod arrive;
pub mod carry_on;
pub mod decide;
pub mod decision;
pub mod direct;
pub mod entry;
pub mod established;
pub mod fate;
pub mod flow;
pub mod live;
pub mod mapping;
pub mod open;
pub mod policy;
pub mod related;
pub mod rewrite;
pub mod run;
pub mod service;
pub mod socket;
pub mod source;
pub mod tables;
pub mod way;

#[cfg(any(test, feature = "memory"))]
pub mod memory;

pub use answer::conclude;
pub use decision::{Decision, Outcome, Workspace};
pub use fate::{Fate, Redirect, Verdict};
pub use live::LiveFlow;
pub use run::{Arrival, run, start};
pub use tables::{Insert, Route, Tables};
