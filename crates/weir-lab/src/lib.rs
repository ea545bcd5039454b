// SPDX-License-Identifier: Apache-2.0
//! Answers one question: how does a whole cluster run on one machine?
//!
//! `weir lab` builds nodes, pods and hosts outside the cluster from namespaces, takes Kubernetes objects, starts the
//! real agents and real workloads, and sends probes. It is the stand-in for API server, kubelets and wires. It must not
//! know how Weir forwards or decides: it speaks to agents through their API and a folder of objects only.
//!
//! One daemon for each lab ([`daemon`]) owns everything; the verbs ([`verbs`]) talk to it. Inside each namespace runs a
//! [`sandbox`]. What a lab makes hangs below one folder and one cgroup directory ([`place`]), so that `down` works
//! after any crash. Start reading at [`protocol`], which lists everything that is said between these processes.

mod args;
mod config;
mod daemon;
mod names;
mod object;
mod place;
mod protocol;
mod sandbox;
mod verbs;

use std::{
    ffi::OsStr,
    process::{Command, ExitCode},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use args::Args;

/// Runs one verb. Call it before any other thread is started: some verbs move the process into namespaces.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    verbs::run(args)
}

/// The crate's only way to start processes.
#[expect(
    clippy::disallowed_methods,
    reason = "starting workloads and agents is what a lab does"
)]
fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Locks a mutex. A thread that panicked while it held one has been reported; the data stays usable because every
/// change under a lock is a single step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
