// SPDX-License-Identifier: Apache-2.0
//! The command line of `weir lab`.

mod sending;

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Dataplane;

pub(crate) use sending::{Probe, Traffic, TransferArgs};

/// A whole cluster on one machine: nodes and pods are namespaces, the eBPF is the real one.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the lab; several can run side by side.
    #[arg(long, global = true, default_value = "lab")]
    pub(crate) name: String,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build nodes, start agents, apply manifests; returns when all is ready.
    Up(Up),
    /// Create or change objects, like `kubectl apply`.
    Apply(Manifests),
    /// Delete the objects that manifests name, like `kubectl delete`.
    Delete(Delete),
    /// Show objects with their status.
    Get(Get),
    /// Run a command in a pod's namespaces.
    Exec(Exec),
    /// Run a command on a node.
    Node(OnNode),
    /// Run a command on a host outside the cluster.
    World(World),
    /// Run a command in the network between the nodes.
    #[command(hide = true)]
    Underlay(Underlay),
    /// Send traffic and say whether it arrived.
    Probe(Box<Probe>),
    /// Move bytes over one TCP connection, both ways at once, and compare checksums.
    #[command(hide = true)]
    Transfer(TransferArgs),
    /// Keep flows running for a while and count what was lost.
    #[command(hide = true)]
    Traffic(Traffic),
    /// Stop a node's agent and start it again.
    RestartAgent(RestartAgent),
    /// Stop a node's agent; what it put into the kernel stays.
    StopAgent(AgentOf),
    /// Start a node's agent.
    StartAgent(AgentOf),
    /// Remove everything the lab made, also after a crash.
    Down(Down),
    /// The process behind a lab.
    #[command(hide = true)]
    Daemon,
    /// The process inside a pod, node or external host.
    #[command(hide = true)]
    Sandbox {
        /// What to be, as JSON.
        specification: String,
    },
}

/// How long to wait for a change to be realized.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Waiting {
    /// Return at once instead of waiting until every agent has realized the change and every pod is ready.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Give up after this time and say what is missing.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Up {
    /// Number of nodes (2 unless the configuration or the manifests name nodes).
    #[arg(long)]
    pub(crate) nodes: Option<usize>,
    /// Configuration of the lab (YAML).
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Manifests to apply; `-` is standard input.
    #[arg(short, long = "filename", num_args = 1..)]
    pub(crate) filenames: Vec<PathBuf>,
    /// What forwards packets: Weir, or for comparison the kernel alone.
    #[arg(long, hide = true)]
    pub(crate) dataplane: Option<Dataplane>,
    /// The same as `--dataplane kernel-routing`.
    #[arg(long, hide = true, conflicts_with = "dataplane")]
    pub(crate) no_agents: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Manifests {
    /// Manifests, multi-document YAML or List objects; `-` is standard input.
    #[arg(short, long = "filename", required = true, num_args = 1..)]
    pub(crate) filenames: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) manifests: Manifests,
    /// Seconds that pods get to end, instead of what they say themselves; 0: they are gone at once.
    #[arg(long)]
    pub(crate) grace_period: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Get {
    /// Kind of object, in the forms kubectl takes (`pods`, `pod`, `po`, `Pod`).
    pub(crate) kind: String,
    /// Name of one object; all of the kind when absent.
    pub(crate) object: Option<String>,
    /// Namespace; with a name it defaults to `default`, without one to all.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// All namespaces, which is what happens without a name anyway.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Exec {
    /// NAMESPACE/POD.
    pub(crate) pod: String,
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct OnNode {
    /// Name of the node.
    pub(crate) node: String,
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct World {
    /// Which host outside the cluster; the first one when absent.
    #[arg(long)]
    pub(crate) external: Option<String>,
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Underlay {
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct AgentOf {
    /// Name of the node.
    pub(crate) node: String,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct RestartAgent {
    /// Name of the node.
    pub(crate) node: String,
    /// Kill it (SIGKILL) instead of asking it to stop.
    #[arg(long)]
    pub(crate) kill: bool,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Down {
    /// Remove every lab of this machine.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Reads `250ms`, `1.5s`, `2m` or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a time (examples: 250ms, 1.5s, 2m)");
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(invalid()),
    };
    let number = f64::from_str(number).map_err(|_| invalid())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| invalid())
}

/// An address given where a reference is expected.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_usual_forms() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("1s", Some(Duration::from_secs(1))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("2m", Some(Duration::from_mins(2))),
            ("3", Some(Duration::from_secs(3))),
            ("-1s", None),
            ("1d", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_duration(text).ok(), expected, "{text}");
        }
    }
}
