// SPDX-License-Identifier: Apache-2.0
//! What is said between the command and the daemon, and between the daemon and its sandboxes: one JSON value a line.

mod probe;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{config::Topology, names::Update, object::Object};
pub(crate) use probe::{Exchange, Outcome, Path, ProbeAnswer, ProbeRequest, Series, Span};

/// A transport protocol that probes speak.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
    Icmp,
}

/// What the echo server says about itself and its client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) name: String,
    pub(crate) source: String,
}

/// How many bytes to move over one connection in either direction.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) send: u64,
    pub(crate) receive: u64,
}

/// Flows to keep up for a while.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Flows {
    pub(crate) tcp: u32,
    pub(crate) udp: u32,
    pub(crate) duration_ms: u64,
    pub(crate) pause_us: u64,
    pub(crate) size: u32,
}

/// What the daemon tells a sandbox to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Answer on a port. Every `Serve` is undone by one `Release`.
    Serve {
        protocol: Protocol,
        port: u16,
    },
    Release {
        protocol: Protocol,
        port: u16,
    },
    /// Be the cluster's DNS server on a port.
    ServeNames {
        protocol: Protocol,
        port: u16,
    },
    /// Learn names.
    Names(Update),
    Probe {
        path: Path,
        exchange: Box<Exchange>,
    },
    /// Ask the pod's own resolver for the addresses of a name.
    Resolve {
        name: String,
    },
    /// Only make a TCP connection.
    Connect {
        path: Path,
    },
    /// Ask for an HTTP page; any status from 200 to 399 is good.
    Fetch {
        path: Path,
        page: String,
        host: String,
    },
    Transfer {
        path: Path,
        transfer: Transfer,
    },
    Traffic {
        path: Path,
        flows: Flows,
    },
    Start(Box<Process>),
    /// Send a signal to a process that was started.
    Signal {
        process: String,
        signal: i32,
    },
}

/// A process to be started in a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// What the daemon calls it.
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: Option<PathBuf>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// An order with the number that its reply will carry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) id: u64,
    pub(crate) order: Order,
}

/// What a sandbox tells the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The process that holds the namespaces, by its id outside them.
    Pid(u32),
    /// Namespaces and mounts are in place.
    Ready,
    /// The sandbox could not be made.
    Failed(String),
    Reply {
        id: u64,
        result: Result<Value, String>,
    },
    /// A process ended: its exit code, or 128 and the signal's number.
    Exited { process: String, code: i32 },
}

/// What the command asks of the daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Up {
        topology: Box<Topology>,
        objects: Vec<Object>,
        wait: Option<u64>,
    },
    /// `wait` is the time to wait in milliseconds; absent: do not wait.
    Apply {
        objects: Vec<Object>,
        wait: Option<u64>,
    },
    Delete {
        objects: Vec<Object>,
        wait: Option<u64>,
        /// What pods get instead of their own grace periods, in seconds.
        grace: Option<u64>,
    },
    Get {
        kind: String,
        namespace: Option<String>,
        name: Option<String>,
    },
    Probe {
        requests: Vec<ProbeRequest>,
    },
    Transfer {
        request: ProbeRequest,
        transfer: Transfer,
    },
    Traffic {
        request: ProbeRequest,
        flows: Flows,
    },
    /// Where the namespaces of a pod, node or external host are.
    Locate {
        reference: String,
    },
    Agent {
        node: String,
        action: AgentAction,
    },
    Down,
}

/// What to do with a node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AgentAction {
    Start,
    Stop,
    Restart,
    Kill,
}

/// Where to run a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(crate) pid: u32,
    pub(crate) cgroup: PathBuf,
    pub(crate) own_pid_namespace: bool,
    pub(crate) environment: BTreeMap<String, String>,
}

/// What the daemon answers: any number of `Progress` and `Answer`, then `Done` or `Failed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Response {
    Progress(String),
    Answer(Value),
    Done,
    Failed(String),
}
