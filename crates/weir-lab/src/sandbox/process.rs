// SPDX-License-Identifier: Apache-2.0
//! Workloads and agents: processes that the sandbox starts for the daemon.

use std::{collections::BTreeMap, fs::OpenOptions, process::Stdio};

use anyhow::{Context, Result};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{command, protocol::Process};

/// The processes that are running, by id.
#[derive(Debug, Default)]
pub(crate) struct Processes(BTreeMap<i32, String>);

impl Processes {
    /// Starts a process and returns its id as seen from inside.
    pub(crate) fn start(&mut self, process: &Process) -> Result<i32> {
        let (program, arguments) = process.argv.split_first().context("an empty command")?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&process.log)
            .with_context(|| format!("cannot write {}", process.log.display()))?;
        let mut command = command(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&process.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(directory) = &process.directory {
            command.current_dir(directory);
        }
        // The handle is dropped on purpose: `reap` collects every child, whoever started it.
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{program}`"))?;
        let id = i32::try_from(child.id())?;
        self.0.insert(id, process.name.clone());
        Ok(id)
    }

    /// Sends a signal; tells whether the process is there.
    pub(crate) fn signal(&self, name: &str, signal: i32) -> Result<bool> {
        let signal = Signal::try_from(signal)?;
        match self.0.iter().find(|(_, process)| *process == name) {
            Some((id, _)) => {
                kill(Pid::from_raw(*id), signal)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Collects the processes that have ended, with their codes as a shell gives them.
    pub(crate) fn reap(&mut self) -> Vec<(String, i32)> {
        let mut ended = Vec::new();
        loop {
            let (id, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(id, code)) => (id, code),
                Ok(WaitStatus::Signaled(id, signal, _)) => (id, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return ended,
                Ok(_) => continue,
            };
            ended.extend(self.0.remove(&id.as_raw()).map(|name| (name, code)));
        }
    }
}
