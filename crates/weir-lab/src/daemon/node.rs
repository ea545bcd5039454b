// SPDX-License-Identifier: Apache-2.0
//! A node of a running lab and its agent.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, mpsc::Sender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use weir_api::{Client, path::STATUS, status::Status};

use super::{
    Say,
    handle::{Event, Sandbox},
    kernel::Pool,
    store::{new_uid, now},
};
use crate::{
    config, locked,
    object::Object,
    place::Place,
    protocol::{Order, Process, Response},
    sandbox::{Kind, Specification},
};

/// The name of the agent among its node's processes.
pub(crate) const AGENT: &str = "agent";
/// What the lab shows inside a node lies here.
const INSIDE: &str = "/run/weir";
/// The first pause between two questions to an agent how far it is, and the longest: an answer costs the agent work.
const ASK_AGAIN: Duration = Duration::from_millis(5);
const ASK_SELDOM: Duration = Duration::from_millis(80);
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// An agent that was killed is gone when the kernel has let go of its programs and maps, which on a machine with more work
/// than processors takes its time.
const END_LIMIT: Duration = Duration::from_mins(1);

/// The folder of a pod as processes on its node see it.
pub(crate) fn pod_folder_inside(pod: &Path) -> PathBuf {
    PathBuf::from(INSIDE)
        .join("pods")
        .join(pod.file_name().unwrap_or_default())
}

/// Whether a node's agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentState {
    /// The lab has no agents, or this one was stopped on request.
    Stopped,
    Running,
    /// It ended by itself, with the given code.
    Dead(i32),
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) own: config::Node,
    pub(crate) sandbox: Arc<Sandbox>,
    /// Addresses of pods, where the lab hands them out because there is no agent.
    pub(crate) pool: Mutex<Pool>,
    folder: PathBuf,
    /// Keeps the folder of the agent's socket reachable by a short path, however long the lab's own path is.
    socket_folder: File,
    agent: Mutex<AgentState>,
    changed: Condvar,
}

impl Node {
    /// Starts the node's sandbox; it has no links yet.
    pub(crate) fn start(place: &Place, own: &config::Node, events: &Sender<Event>) -> Result<Self> {
        let folder = place.node(&own.name);
        for part in [
            "run/objects",
            "run/bin",
            "run/pods",
            "etc",
            "lib",
            "log",
            "scratch",
        ] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::create_dir_all(place.folder().join("pods"))?;
        let yaml = serde_saphyr::to_string(&own.agent)?;
        fs::write(folder.join("etc/config.yaml"), yaml)?;
        let specification = Specification {
            name: format!("node:{}", own.name),
            hostname: own.name.clone(),
            kind: Kind::Node,
            cgroup: place.cgroup()?.join(&own.name),
            binds: vec![
                // First into the folder that becomes /run/weir, which hides the lab's own folder.
                (place.objects(), folder.join("run/objects")),
                (place.commands(), folder.join("run/bin")),
                (place.folder().join("pods"), folder.join("run/pods")),
                (folder.join("etc"), "/etc/weir".into()),
                (folder.join("lib"), "/var/lib/weir".into()),
                (folder.join("log"), "/var/log/network".into()),
                (folder.join("run"), INSIDE.into()),
            ],
            scratch: folder.join("scratch"),
        };
        let sandbox = Sandbox::start(&specification, events)?;
        Ok(Self {
            own: own.clone(),
            sandbox,
            pool: Mutex::default(),
            socket_folder: File::open(folder.join("run"))?,
            folder,
            agent: Mutex::new(AgentState::Stopped),
            changed: Condvar::new(),
        })
    }

    /// The variables of processes on the node.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        super::environment(&self.own.name, &format!("{INSIDE}/bin"))
    }

    /// A caller of the node's agent.
    pub(crate) fn client(&self) -> Client {
        Client::new(format!(
            "/proc/self/fd/{}/weir.sock",
            self.socket_folder.as_raw_fd()
        ))
        .with_timeout(Duration::from_secs(20))
    }

    pub(crate) fn agent(&self) -> AgentState {
        locked(&self.agent).clone()
    }

    /// Starts the agent; it may not answer yet.
    pub(crate) fn start_agent(&self) -> Result<()> {
        if self.agent() == AgentState::Running {
            return Ok(());
        }
        let argv = [
            &format!("{INSIDE}/bin/weir"),
            "agent",
            "--node-name",
            &self.own.name,
            "--objects",
            &format!("{INSIDE}/objects"),
            "--config",
            "/etc/weir/config.yaml",
        ];
        let process = Process {
            name: AGENT.to_owned(),
            argv: argv.map(ToOwned::to_owned).to_vec(),
            environment: self.environment(),
            directory: None,
            log: "/var/log/network/agent.log".into(),
        };
        // The state comes first: the report of an agent that ends at once must find it running.
        *locked(&self.agent) = AgentState::Running;
        let started = self
            .sandbox
            .call(Order::Start(Box::new(process)), ORDER_LIMIT);
        if started.is_err() {
            *locked(&self.agent) = AgentState::Stopped;
        }
        started.context("cannot start the agent").map(drop)
    }

    /// Stops the agent and waits until it is gone.
    pub(crate) fn stop_agent(&self, signal: i32) -> Result<()> {
        let mut state = locked(&self.agent);
        if *state != AgentState::Running {
            *state = AgentState::Stopped;
            return Ok(());
        }
        drop(state);
        self.sandbox.call(
            Order::Signal {
                process: AGENT.to_owned(),
                signal,
            },
            ORDER_LIMIT,
        )?;
        let mut state = locked(&self.agent);
        let deadline = Instant::now() + END_LIMIT;
        while *state == AgentState::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the agent of {} does not stop", self.own.name);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|poison| poison.into_inner().0, |(state, _)| state);
        }
        *state = AgentState::Stopped;
        Ok(())
    }

    /// Takes notice of the agent's end.
    pub(crate) fn agent_ended(&self, code: i32) {
        *locked(&self.agent) = AgentState::Dead(code);
        self.changed.notify_all();
    }

    /// The revision that the agent has realized; none while it does not answer yet. Fails when it has ended.
    pub(crate) fn realized(&self) -> Result<Option<u64>> {
        if let AgentState::Dead(code) = self.agent() {
            bail!(
                "the agent of {} ended with code {code}; its last words:\n{}",
                self.own.name,
                self.last_words()
            );
        }
        Ok(self
            .client()
            .get::<Status>(STATUS)
            .ok()
            .map(|status| status.revision))
    }

    /// Waits until the agent has realized a revision. An agent that was stopped on request is not waited for.
    pub(crate) fn wait_realized(
        &self,
        revision: u64,
        deadline: Instant,
        say: Say<'_>,
    ) -> Result<()> {
        let mut next_word = Instant::now() + Duration::from_secs(2);
        let mut pause = ASK_AGAIN;
        loop {
            if self.agent() == AgentState::Stopped {
                return Ok(());
            }
            let realized = self.realized()?;
            if realized.is_some_and(|realized| realized >= revision) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let name = &self.own.name;
                let words = self.last_words();
                match realized {
                    Some(realized) => bail!(
                        "the agent of {name} has realized revision {realized} of {revision} only; its last words:\n{words}"
                    ),
                    None => bail!("the agent of {name} does not answer; its last words:\n{words}"),
                }
            }
            if Instant::now() >= next_word {
                say(Response::Progress(format!(
                    "waiting for the agent of {}",
                    self.own.name
                )))?;
                next_word += Duration::from_secs(2);
            }
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(ASK_SELDOM);
        }
    }

    /// The end of the agent's log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log/agent.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// The node as a Kubernetes object, for labs whose manifests have none.
    pub(crate) fn object(&self) -> Result<Object> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), self.own.name.clone()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ]);
        labels.extend(self.own.labels.clone());
        let mut addresses: Vec<_> = self
            .own
            .addresses
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        addresses.push(json!({"type": "Hostname", "address": self.own.name}));
        Object::new(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.own.name, "uid": new_uid(), "labels": labels},
            "spec": {
                "podCIDR": self.own.pod_cidrs.first(),
                "podCIDRs": self.own.pod_cidrs,
            },
            "status": {
                "addresses": addresses,
                "conditions": [{
                    "type": "Ready",
                    "status": "True",
                    "reason": "LabNode",
                    "lastTransitionTime": now(),
                }],
            },
        }))
    }
}
