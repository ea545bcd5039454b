// SPDX-License-Identifier: Apache-2.0
//! What do the agent and its callers say to each other?
//!
//! HTTP/JSON on a unix socket; streams are newline-delimited JSON. The CLI, the CNI plugin and the
//! lab use these types and this client and nothing else. Fields are only ever added.
//!
//! The crate must not know how the agent answers (`weir-agent`) nor how answers are printed
//! (`weir-cli`). Start reading at [`path`], the list of what can be asked.

pub mod client;
pub mod endpoint;
pub mod event;
pub mod kernel;
pub mod lb;
pub mod path;
pub mod policy;
pub mod problem;
pub mod service;
pub mod status;
pub mod trace;

pub use client::{Client, ClientError};
pub use problem::Problem;
