// SPDX-License-Identifier: Apache-2.0
//! How does a container runtime ask for a pod's network?
//!
//! The CNI plugin `weir-cni` (spec 1.1: ADD, DEL, CHECK, GC, STATUS, VERSION): reads what the runtime
//! asks for from its environment and stdin, hands it to the agent of the node, and prints the answer
//! in the runtime's words. It waits for an agent that is being started again, and never longer than
//! its deadline.
//!
//! The crate must not know how a pod gets its link and its addresses: it changes nothing itself and
//! keeps no state, so there is nothing that could contradict the agent. Start reading at `request.rs`
//! (what is asked), then `agent.rs` (what is done about it).

mod agent;
mod config;
mod failure;
mod request;
mod result;
mod version;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use failure::Failure;
use request::{Call, Environment};
use serde_json::Value;
use version::SpecVersion;

/// The largest configuration that is read; a GC of thousands of containers has some hundred KiB.
const LARGEST_INPUT: u64 = 16 << 20;

/// How much longer than its deadline a call may take: undoing what it began, and printing.
const GRACE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let since = Instant::now();
    let mut input = String::new();
    let read = io::stdin().take(LARGEST_INPUT).read_to_string(&mut input);
    // Even a refusal is said in the version that the runtime speaks.
    let version = SpecVersion::spoken(&input);
    let answer = read
        .map_err(Failure::Input)
        .and_then(|_| Call::read(&Environment::of_process(), &input))
        .and_then(|call| bounded(call, since));
    let (text, status) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value, ExitCode::SUCCESS),
        Err(failure) => (failure.object(version), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text:#}").and_then(|()| stdout.flush()) {
        Ok(()) => status,
        // A result that nobody has read is no success: the runtime undoes it.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Carries a call out on a thread of its own: whatever an operation of the kernel waits for, the
/// runtime has its answer in time.
fn bounded(call: Call, since: Instant) -> Result<Option<Value>, Failure> {
    let patience = call.patience();
    let deadline = since + patience;
    let (tell, told) = channel();
    let worker = thread::Builder::new().name("call".to_owned());
    worker
        .spawn(move || {
            let _ = tell.send(agent::carry_out(&call, deadline));
        })
        .map_err(Failure::Input)?;
    let left = (deadline + GRACE).saturating_duration_since(Instant::now());
    match told.recv_timeout(left) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Failure::Stuck {
            after: patience + GRACE,
        }),
    }
}
