// SPDX-License-Identifier: Apache-2.0
//! Who owns the state of a node, and who is told?
//!
//! The daemon of a node: one loop (`core.rs`) owns everything that can change, takes inputs in order
//! and realizes them; readers get snapshots; the API server hands requests to the loop. Stopping or
//! killing it changes nothing about forwarding.
//!
//! The crate must not know how rows are computed (`weir-compile`), how they get into the kernel
//! (`weir-datapath`) or how interfaces are made (`weir-net`). Start reading at `core.rs`.

mod announced;
mod api;
pub mod args;
pub mod cni;
mod collect;
pub mod config;
mod core;
mod directory;
mod endpoint;
mod error;
mod events;
mod health_check;
mod installed;
pub mod ipam;
mod memory;
mod names;
mod observed;
mod policy_log;
mod proxy_health;
mod ring;
mod run;
mod shared;
mod snapshot;
mod source;
mod stale;
mod store;
mod telemetry;
mod time;
mod trace;
mod usage;

pub use args::Args;
pub use error::AgentError;
pub use run::run;
