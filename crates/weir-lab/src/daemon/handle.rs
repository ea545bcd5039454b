// SPDX-License-Identifier: Apache-2.0
//! The daemon's end of a sandbox: starting it, giving it orders, hearing what it reports.

mod start;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use weir_net::NetNamespace;

use crate::{
    locked,
    place::{end_processes, remove_cgroups},
    protocol::{Numbered, Order, Report},
    sandbox::Specification,
};
use start::Started;

/// Something that happened in a sandbox without being asked for.
#[derive(Debug)]
pub(crate) struct Event {
    /// The sandbox's name.
    pub(crate) sandbox: String,
    /// The process that ended.
    pub(crate) process: String,
    /// Its exit code as a shell gives it.
    pub(crate) code: i32,
}

type Reply = Result<Value, String>;

/// A running sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    name: String,
    pid: u32,
    cgroup: PathBuf,
    writer: Mutex<UnixStream>,
    numbers: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Sender<Reply>>>,
    /// How its process ended, once it has.
    fate: OnceLock<String>,
}

impl Sandbox {
    /// Starts a sandbox and waits until its namespaces are in place.
    pub(crate) fn start(
        specification: &Specification,
        events: &Sender<Event>,
    ) -> Result<Arc<Self>> {
        let name = specification.name.clone();
        let begin = || -> Result<Arc<Self>> {
            let Started { pid, socket, lines } = start::start(specification)?;
            let sandbox = Arc::new(Self {
                name: name.clone(),
                pid,
                cgroup: specification.cgroup.clone(),
                writer: Mutex::new(socket),
                numbers: AtomicU64::new(1),
                waiting: Mutex::default(),
                fate: OnceLock::new(),
            });
            let (listener, events) = (Arc::clone(&sandbox), events.clone());
            thread::Builder::new()
                .name(format!("hear {name}"))
                .spawn(move || listener.listen(lines, &events))?;
            Ok(sandbox)
        };
        begin().with_context(|| format!("cannot make the sandbox of {name}"))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds its namespaces.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A handle on its network namespace.
    pub(crate) fn network(&self) -> Result<NetNamespace> {
        Ok(NetNamespace::of_process(self.pid)?)
    }

    /// Gives an order; the reply arrives on the channel.
    pub(crate) fn send(&self, order: Order) -> Result<Receiver<Reply>> {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (reply, receiver) = channel();
        locked(&self.waiting).insert(id, reply);
        // Checked after the insertion, so that either this sees the end or the listener sees the entry.
        if self.fate.get().is_some() {
            locked(&self.waiting).remove(&id);
            return Err(self.gone());
        }
        let mut line = serde_json::to_vec(&Numbered { id, order })?;
        line.push(b'\n');
        locked(&self.writer)
            .write_all(&line)
            .map_err(|_| self.gone())?;
        Ok(receiver)
    }

    /// Gives an order and waits for the reply.
    pub(crate) fn call(&self, order: Order, limit: Duration) -> Result<Value> {
        let reply = self.send(order)?;
        self.wait(&reply, limit)
    }

    /// Waits for a reply.
    pub(crate) fn wait(&self, reply: &Receiver<Reply>, limit: Duration) -> Result<Value> {
        match reply.recv_timeout(limit) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(anyhow!(error).context(self.name.clone())),
            Err(RecvTimeoutError::Timeout) => bail!("{} does not answer", self.name),
            Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
        }
    }

    /// What is wrong with its process, if anything. Whatever fails because of it should say so.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(fate) = self.fate.get() {
            return Some(fate.clone());
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        trouble_in(self.pid, status.ok().as_deref())
    }

    fn gone(&self) -> anyhow::Error {
        match self.trouble() {
            Some(trouble) => anyhow!("{} is gone: {trouble}", self.name),
            None => anyhow!("{} takes no orders any more", self.name),
        }
    }

    /// Ends everything in it.
    pub(crate) fn end(&self) -> Result<()> {
        end_processes(&self.cgroup)?;
        remove_cgroups(&self.cgroup)
            .with_context(|| format!("cannot remove cgroup {}", self.cgroup.display()))
    }

    fn listen(&self, lines: impl Iterator<Item = std::io::Result<String>>, events: &Sender<Event>) {
        let mut last_words = None;
        for line in lines.map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Report::Reply { id, result }) => {
                    if let Some(waiting) = locked(&self.waiting).remove(&id) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(result);
                    }
                }
                Ok(Report::Exited { process, code }) => {
                    let _ = events.send(Event {
                        sandbox: self.name.clone(),
                        process,
                        code,
                    });
                }
                Ok(Report::Failed(error)) => last_words = Some(error),
                Ok(Report::Pid(_) | Report::Ready) => {
                    tracing::warn!(sandbox = self.name, line, "report out of turn");
                }
                Err(error) => tracing::warn!(sandbox = self.name, %error, "report not understood"),
            }
        }
        // A sandbox hangs up by ending, so this does not take long.
        let mut fate = start::collect(self.pid);
        if let Some(words) = last_words {
            fate.extend([": ", &words]);
        }
        tracing::info!(sandbox = self.name, fate, "the sandbox ended");
        self.fate.set(fate).ok();
        locked(&self.waiting).clear();
    }
}

/// What the kernel's status file of a process says against it; the file is missing when the process is.
fn trouble_in(pid: u32, status: Option<&str>) -> Option<String> {
    let Some(status) = status else {
        return Some(format!("process {pid} is not there"));
    };
    let mut lines = status.lines();
    let state = lines.find_map(|line| line.strip_prefix("State:"))?.trim();
    state
        .starts_with(['Z', 'X'])
        .then(|| format!("process {pid} has ended and is in state {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_live_is_told() {
        let check = |status: Option<&str>, expected: Option<&str>| {
            assert_eq!(trouble_in(7, status).as_deref(), expected, "{status:?}");
        };
        check(None, Some("process 7 is not there"));
        check(
            Some("Name:\tweir\nState:\tZ (zombie)\nTgid:\t7\n"),
            Some("process 7 has ended and is in state Z (zombie)"),
        );
        check(Some("Name:\tweir\nState:\tS (sleeping)\n"), None);
    }
}
