// SPDX-License-Identifier: Apache-2.0
//! `kubectl weir`: a command of Weir, run where the answer is known.
//!
//! Finds the agents with `kubectl`, so that whatever leads `kubectl` to the cluster leads here too, and
//! runs the command in them. The binary is the plugin when it is called `kubectl-weir`.

mod agents;
mod fan_out;

use crate::command::{Context, Outcome};
use crate::error::CliError;
use agents::{Agent, Kubectl};
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::{ExitCode, ExitStatus};
use weir_model::{Namespace, NodeName, PodRef};

/// Run a command in the agents of a cluster, as the plugin `kubectl weir`
///
/// A copy of this binary or a link to it, named kubectl-weir and in the path, makes this `kubectl weir`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
                  kubectl weir --node n1 status --verbose\n  \
                  kubectl weir --pod shop/web endpoint get shop/web\n  \
                  kubectl weir --all-nodes monitor --type drop")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    cluster: Cluster,
    /// What is typed after `weir`
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Whom to ask; nothing is needed where there is one agent.
#[derive(clap::Args)]
#[group(multiple = false)]
struct Target {
    /// The agent of this node
    #[arg(long)]
    node: Option<NodeName>,
    /// The agent of the node that this pod runs on
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod)]
    pod: Option<PodRef>,
    /// Every agent, at the same time; each line begins with the node's name
    #[arg(long, short = 'A')]
    all_nodes: bool,
}

/// How `kubectl` finds the cluster.
#[derive(clap::Args)]
struct Cluster {
    /// Namespace of the agents
    #[arg(long, short, default_value = "kube-system")]
    namespace: Namespace,
    /// As for `kubectl`
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// As for `kubectl`
    #[arg(long, value_name = "NAME")]
    context: Option<OsString>,
    /// The `kubectl` to use
    #[arg(long, value_name = "PROGRAM", default_value = "kubectl")]
    kubectl: OsString,
}

fn pod(text: &str) -> Result<PodRef, String> {
    let (namespace, name) = text.split_once('/').ok_or("write it as NAMESPACE/NAME")?;
    Ok(PodRef {
        namespace: namespace
            .parse()
            .map_err(|error: weir_model::InvalidName| error.to_string())?,
        name: name
            .parse()
            .map_err(|error: weir_model::InvalidName| error.to_string())?,
    })
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let kubectl = Kubectl::new(args.cluster);
    let Target {
        node,
        pod,
        all_nodes,
    } = args.target;
    if all_nodes {
        let agents = kubectl.agents(None)?;
        if agents.is_empty() {
            return Err(no_agent());
        }
        return fan_out::run(&kubectl, &agents, &args.command, context);
    }
    let node = match pod {
        Some(pod) => Some(kubectl.node_of(&pod)?),
        None => node,
    };
    let agent = one(kubectl.agents(node.as_ref())?)?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    // With a terminal, what is typed (Ctrl-C) reaches the command in the agent.
    let input = if terminal { "-it" } else { "-i" };
    let mut command = kubectl.exec(&agent, &[input], &args.command);
    let status = command
        .status()
        .map_err(|error| kubectl.cannot_start(&error))?;
    Ok(Outcome::Status(exit_code(status)))
}

fn no_agent() -> CliError {
    CliError::missing(
        "no agent of Weir is there",
        "look with `kubectl get pods -A -l app.kubernetes.io/name=weir`; --namespace says where they are",
    )
}

fn one(mut agents: Vec<Agent>) -> Result<Agent, CliError> {
    match (agents.pop(), agents.len()) {
        (Some(agent), 0) => Ok(agent),
        (None, _) => Err(no_agent()),
        (Some(_), others) => Err(CliError::typed(
            format!("there are {} agents", others + 1),
            "say which with --node NODE or --pod NAMESPACE/NAME, or ask --all-nodes",
        )),
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    // Without a code it was ended by a signal.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(2))
}
