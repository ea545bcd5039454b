// SPDX-License-Identifier: Apache-2.0
//! The process inside a pod, node, external host or the underlay: it holds the namespaces, answers on ports, sends
//! probes and starts workloads, so that every socket belongs to the right namespace and cgroup.
//!
//! It talks with the daemon over its standard input, which is a socket, and ends when the daemon does.

mod bulk;
mod connect;
mod control;
mod dns;
mod echo;
mod exchange;
mod flows;
mod icmp;
mod probe;
mod process;
mod sctp;
mod series;
mod setup;
mod socket;
mod udp;

use std::{os::unix::net::UnixStream, process::ExitCode};

use anyhow::{Context, Result};

pub(crate) use setup::{Kind, Specification};

/// Becomes the sandbox that a specification (JSON) describes.
pub(crate) fn run(specification: &str) -> Result<ExitCode> {
    let specification: Specification = serde_json::from_str(specification)?;
    let control = setup::take_control_socket()?;
    match become_sandbox(&specification, &control) {
        // The daemon says what went wrong. Where it does not listen any more, its log takes standard error.
        Err(error) => {
            let words = format!("{error:#}");
            setup::report(&control, &crate::protocol::Report::Failed(words)).map_err(|_| error)?;
            Ok(ExitCode::from(2))
        }
        Ok(code) => Ok(code),
    }
}

fn become_sandbox(specification: &Specification, control: &UnixStream) -> Result<ExitCode> {
    if setup::enter(specification, control)? == setup::Side::Parent {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make the sandbox's runtime")?;
    setup::report(control, &crate::protocol::Report::Ready)?;
    runtime.block_on(control::serve(specification, control.try_clone()?))?;
    Ok(ExitCode::SUCCESS)
}
