// SPDX-License-Identifier: Apache-2.0
//! Running a command inside a pod, on a node or on a host outside the cluster.

use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::ExitCode,
};

use anyhow::{Context, Result};
use nix::sys::{
    prctl::set_pdeathsig,
    signal::{SigHandler, Signal, signal},
};
use weir_net::{
    cgroup,
    netns::{Namespace, enter_process},
};

use super::client;
use crate::{
    command,
    place::Place,
    protocol::{Location, Request},
};

/// Enters the namespaces behind a reference and becomes the command, or waits for it where a PID namespace makes
/// another process necessary.
pub(crate) fn run(place: &Place, reference: &str, argv: &[String]) -> Result<ExitCode> {
    let request = Request::Locate {
        reference: reference.to_owned(),
    };
    let location: Location = serde_json::from_value(client::ask_one(place, &request)?)?;
    let (program, arguments) = argv.split_first().context("no command is given")?;
    cgroup::join(&location.cgroup)?;
    let mut namespaces = vec![
        Namespace::Network,
        Namespace::Mount,
        Namespace::Uts,
        Namespace::Cgroup,
    ];
    if location.own_pid_namespace {
        namespaces.push(Namespace::Pid);
    }
    enter_process(location.pid, &namespaces)?;
    // The search path of the namespaces decides where the program is found, not that of the caller.
    let found = search(program, location.environment.get("PATH"));
    let mut command = command(&found);
    command
        .arg0(program)
        .args(arguments)
        .envs(&location.environment);
    if !location.own_pid_namespace {
        return Err(command.exec()).with_context(|| format!("cannot run `{program}`"));
    }
    // SAFETY: prctl is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    // Ctrl-C is for the command; this process stays to pass its exit code on.
    for number in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    let status = child.wait()?;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(2);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

fn search(program: &str, path: Option<&String>) -> String {
    if program.contains('/') {
        return program.to_owned();
    }
    path.into_iter()
        .flat_map(|path| path.split(':'))
        .map(|folder| format!("{folder}/{program}"))
        .find(|file| std::path::Path::new(file).is_file())
        .unwrap_or_else(|| program.to_owned())
}
