// SPDX-License-Identifier: Apache-2.0
//! `cluster`: real Kubernetes on this machine with Weir as its network, and the official tests of Kubernetes' network.
//!
//! A node is a set of namespaces and cgroups with a containerd and a kubelet; the control plane runs beside the nodes,
//! in a namespace of its own. Nothing is pulled from a registry: Kubernetes is built from its Go modules, images are
//! packed from these programs and Debian's. `tests/cluster` holds what is not Rust, `docs/test-cluster.md` the facts.

mod article;
mod checks;
pub(crate) mod control_plane;
mod crowd;
mod e2e;
mod images;
mod keys;
mod kills;
mod netpol;
pub(crate) mod network;
mod node;
mod packages;
pub(crate) mod place;
mod pods;
pub(crate) mod processes;
pub(crate) mod programs;
mod remains;
mod report;
mod select;
mod tree;
pub(crate) mod up;
mod weir;

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::host;
use crate::process::{display, is_root, root_command};
use place::{Name, Place};
use weir::Weir;

/// Real Kubernetes on this machine, with Weir, and the official tests of the network
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the cluster; clusters of different names run side by side
    #[arg(long, global = true, default_value = "kube")]
    name: Name,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Builds the programs and images that are missing
    Build,
    /// Brings a cluster up, with Weir, and returns when its nodes are ready and its DNS answers
    Up(up::Args),
    /// Removes everything that `up` made, also after a crash
    Down,
    /// Runs the official tests of the network: all but those of network policy unless told otherwise
    E2e(e2e::Args),
    /// Runs the commands of tests/article, each as it is printed there, and checks what they are said to do
    Article,
    /// Creates many pods on one node at once, checks each, deletes them, and looks for what is left
    Crowd(crowd::Args),
    /// Kills agents, kubelets, containerds and the API server at random while pods talk, come and go
    Kills(kills::Args),
    /// Replays cases of tests/netpol, drawn at random, with real containers and policies from the API server
    Netpol(netpol::Args),
    /// Runs kubectl as the administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs a command in a node, such as `node node1 weir status`
    Node {
        node: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Build => build_all(),
        Verb::Up(up) if up.built => up::up(&args.name, up, &Weir::built()),
        Verb::Up(up) => {
            host::require()?;
            build_all()?;
            let weir = Weir::build()?;
            if is_root() {
                up::up(&args.name, up, &weir)
            } else {
                as_root(&["--built"])
            }
        }
        Verb::Down if is_root() => up::down(&args.name),
        Verb::E2e(e2e) if is_root() || !e2e.needs_root() => {
            programs::build()?;
            e2e::run(&args.name, e2e)
        }
        Verb::Netpol(netpol) if is_root() => netpol::run(&Place::of(&args.name), netpol),
        Verb::Article if is_root() => article::run(&Place::of(&args.name)),
        Verb::Crowd(crowd) if is_root() => crowd::run(&Place::of(&args.name), crowd),
        Verb::Kills(kills) if is_root() => kills::run(&Place::of(&args.name), kills),
        Verb::Kubectl { arguments } if is_root() => {
            let mut kubectl = control_plane::kubectl(&Place::of(&args.name));
            pass_through(kubectl.args(arguments))
        }
        Verb::Node { node, arguments } if is_root() => {
            pass_through(&mut node::run_in(&Place::of(&args.name), node, arguments)?)
        }
        Verb::Down
        | Verb::E2e(_)
        | Verb::Article
        | Verb::Crowd(_)
        | Verb::Kills(_)
        | Verb::Netpol(_)
        | Verb::Kubectl { .. }
        | Verb::Node { .. } => as_root(&[]),
    }
}

/// The folder with `etcd` and `kube-apiserver`, where there is one: what `KUBEBUILDER_ASSETS` names, or what was built.
pub(crate) fn api_server() -> Option<PathBuf> {
    programs::api_server()
}

/// Everything that is built as the user.
fn build_all() -> Result<()> {
    packages::ensure()?;
    programs::build()?;
    images::build()
}

/// The same command line again, as root.
pub(crate) fn as_root(more: &[&str]) -> Result<()> {
    let this = env::current_exe().context("cannot find this program")?;
    let mut again = root_command("env")?;
    // What sudo does not hand on by itself.
    for name in [
        "CARGO_TARGET_DIR",
        "KUBEBUILDER_ASSETS",
        "PATH",
        "WEIR_CLUSTER_DIR",
    ] {
        if let Some(value) = env::var_os(name) {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            again.arg(setting);
        }
    }
    again.arg(this).args(env::args_os().skip(1)).args(more);
    pass_through(&mut again)
}

/// Becomes the command, so that its exit status is what the caller sees.
fn pass_through(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", display(command)))
}
