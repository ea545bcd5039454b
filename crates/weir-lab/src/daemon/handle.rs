// SPDX-License-Identifier: Apache-2.0
//! The daemon's end of a sandbox: starting it, giving it orders, hearing what it reports.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{sys::wait::waitpid, unistd::Pid};
use serde_json::Value;
use weir_net::NetNamespace;

use crate::{
    command, locked,
    place::{end_processes, remove_cgroups},
    protocol::{Numbered, Order, Report},
    sandbox::Specification,
};

/// A namespace that takes longer than this to be made is not coming.
const START_LIMIT: Duration = Duration::from_secs(20);

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
    ended: AtomicBool,
}

impl Sandbox {
    /// Starts a sandbox and waits until its namespaces are in place.
    pub(crate) fn start(
        specification: &Specification,
        events: &Sender<Event>,
    ) -> Result<Arc<Self>> {
        let name = specification.name.clone();
        let begin = || -> Result<Arc<Self>> {
            fs::create_dir_all(&specification.cgroup)?;
            let (ours, theirs) = UnixStream::pair()?;
            let mut child = command("/proc/self/exe")
                .arg0("weir")
                .args(["lab", "sandbox", &serde_json::to_string(specification)?])
                .stdin(OwnedFd::from(theirs))
                .spawn()?;
            let mut lines = BufReader::new(ours.try_clone()?).lines();
            ours.set_read_timeout(Some(START_LIMIT))?;
            let mut pid = child.id();
            loop {
                let line = lines.next().context("its process ended")??;
                match serde_json::from_str(&line)? {
                    Report::Pid(own) => {
                        pid = own;
                        // A sandbox with a PID namespace is a child of the process that was started, which ends now;
                        // the sandbox becomes a child of the daemon, which is a subreaper.
                        if own != child.id() {
                            child.wait()?;
                        }
                    }
                    Report::Ready => break,
                    Report::Failed(error) => bail!(error),
                    Report::Reply { .. } | Report::Exited { .. } => bail!("it speaks out of turn"),
                }
            }
            ours.set_read_timeout(None)?;
            let sandbox = Arc::new(Self {
                name: name.clone(),
                pid,
                cgroup: specification.cgroup.clone(),
                writer: Mutex::new(ours),
                numbers: AtomicU64::new(1),
                waiting: Mutex::default(),
                ended: AtomicBool::new(false),
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
        if self.ended.load(Ordering::SeqCst) {
            locked(&self.waiting).remove(&id);
            bail!("{} is gone", self.name);
        }
        let mut line = serde_json::to_vec(&Numbered { id, order })?;
        line.push(b'\n');
        locked(&self.writer)
            .write_all(&line)
            .with_context(|| format!("{} is gone", self.name))?;
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
            Err(RecvTimeoutError::Disconnected) => bail!("{} is gone", self.name),
        }
    }

    /// Ends everything in it.
    pub(crate) fn end(&self) -> Result<()> {
        end_processes(&self.cgroup)?;
        remove_cgroups(&self.cgroup)
            .with_context(|| format!("cannot remove cgroup {}", self.cgroup.display()))
    }

    fn listen(&self, lines: impl Iterator<Item = std::io::Result<String>>, events: &Sender<Event>) {
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
                Ok(Report::Pid(_) | Report::Ready | Report::Failed(_)) => {}
                Err(error) => tracing::warn!(sandbox = self.name, %error, "report not understood"),
            }
        }
        self.ended.store(true, Ordering::SeqCst);
        locked(&self.waiting).clear();
        let _ = waitpid(Pid::from_raw(self.pid.cast_signed()), None);
    }
}
