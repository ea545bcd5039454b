// SPDX-License-Identifier: Apache-2.0
//! `up` and `down`: from nothing to nodes that are ready, and back to nothing.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::control_plane::kubectl;
use super::network;
use super::place::{self, DNS, Name, Node, Place};
use super::processes::{self, run, wait_for};
use super::weir::Weir;
use super::{control_plane, keys, node};
use crate::output;
use crate::process::{command, stdout_of};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// A field of the agent's configuration, such as routingMode=native
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Everything is built already
    #[arg(long, hide = true)]
    pub(super) built: bool,
}

/// Brings a cluster up, as root.
pub(super) fn up(name: &Name, args: &Args, weir: &Weir) -> Result<()> {
    let place = Place::of(name);
    ensure!(
        !place.state().exists(),
        "cluster {name} is up: `cargo xtask cluster down --name {name}` takes it down"
    );
    let start = Instant::now();
    let done = |what: &str| {
        output::say(format_args!("{:4} s  {what}", start.elapsed().as_secs()));
    };
    output::step(format_args!("cluster {name} of {} nodes", args.nodes));
    make_folders(&place, args.nodes)?;
    check_file_system(&place)?;
    let built = build(&place, args, weir, &done);
    if built.is_err() {
        output::say(format_args!(
            "hint: logs are in {} and, for each node, in {}/nodeN/var/log",
            place.logs().display(),
            place.state().display()
        ));
    }
    built
}

/// Brings up the network of nodes on which nothing runs. Whoever makes that takes it away again with [`down`].
pub(crate) fn up_network(place: &Place, nodes: u8) -> Result<()> {
    make_folders(place, nodes)?;
    network::build(place, nodes)
}

/// The same with an API server and its store.
pub(crate) fn up_bare(place: &Place, nodes: u8) -> Result<()> {
    up_network(place, nodes)?;
    keys::write(place, nodes)?;
    control_plane::start_api_server(place)
}

fn make_folders(place: &Place, nodes: u8) -> Result<()> {
    for folder in [place.logs(), place.processes(), place.keys()] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(place.state().join("nodes"), nodes.to_string())
        .context("cannot write the number of nodes")
}

fn build(place: &Place, args: &Args, weir: &Weir, done: &impl Fn(&str)) -> Result<()> {
    keys::write(place, args.nodes)?;
    network::build(place, args.nodes)?;
    for node in Node::all(args.nodes) {
        node::boot(place, node)?;
    }
    done("network, keys and nodes' file systems");
    control_plane::start_all(place)?;
    done("API server ready");
    apply(place, &place::source().join("coredns.yaml"))?;
    for node in Node::all(args.nodes) {
        let mut ranges = Vec::new();
        wait_for(&format!("{node} to register"), 180, || {
            ranges = pod_ranges(place, node);
            ranges.len() == 2
        })?;
        network::route_pods(place, node, &ranges)?;
    }
    done("nodes registered");
    weir.install(place, args.nodes, &args.set)?;
    run(kubectl(place)
        .args(["wait", "--for=condition=Ready", "node", "--all"])
        .arg("--timeout=180s"))
    .context("the nodes do not get ready: the agent has not installed its network")?;
    done("nodes ready");
    run(kubectl(place)
        .args([
            "--namespace=kube-system",
            "rollout",
            "status",
            "deployment/coredns",
        ])
        .arg("--timeout=180s"))
    .context("the pods of CoreDNS do not get ready")?;
    wait_for(
        "the cluster's DNS to answer at its service address",
        60,
        || dns_answers(place),
    )?;
    done("DNS answers");
    Ok(())
}

/// Asked from within a node: addresses of services are translated for its processes alone.
fn dns_answers(place: &Place) -> bool {
    let server = format!("@{DNS}");
    let question = "kubernetes.default.svc.cluster.local";
    let dig = ["dig", &server, "+time=1", "+tries=1", "+short", question].map(str::to_owned);
    node::run_in(place, "node1", &dig)
        .and_then(|mut dig| stdout_of(&mut dig))
        .is_ok_and(|answer| answer.trim() == "10.96.0.1")
}

/// The ranges of a node's pods, as far as it has got them.
pub(super) fn pod_ranges(place: &Place, node: Node) -> Vec<String> {
    let ranges = stdout_of(kubectl(place).args([
        "get",
        "node",
        &node.to_string(),
        "--output=jsonpath={.spec.podCIDRs[*]}",
    ]));
    ranges
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn apply(place: &Place, manifest: &std::path::Path) -> Result<()> {
    run(kubectl(place).args(["apply", "--filename"]).arg(manifest))
}

/// Containers' file systems are overlays, and an overlay cannot lie on another one.
fn check_file_system(place: &Place) -> Result<()> {
    let kind = stdout_of(
        command("stat")
            .args(["--file-system", "--format=%T"])
            .arg(place.state()),
    )?;
    ensure!(
        !kind.contains("overlay"),
        "{} is an overlay file system, which cannot hold nodes: set WEIR_CLUSTER_DIR to a folder on another one",
        place.state().display()
    );
    Ok(())
}

/// The number of nodes of a cluster that is up.
pub(super) fn nodes_of(place: &Place) -> Result<u8> {
    let file = place.state().join("nodes");
    fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .with_context(|| {
            format!(
                "cluster {0} is not up: `cargo xtask cluster up --name {0}`",
                place.name()
            )
        })
}

/// Removes everything, as root; goes on after an error and tells the first one.
pub(crate) fn down(name: &Name) -> Result<()> {
    let place = Place::of(name);
    let steps = [
        processes::end_all(&place),
        node::remove_groups(&place),
        network::remove(&place),
        remove_state(&place),
    ];
    steps.into_iter().collect()
}

fn remove_state(place: &Place) -> Result<()> {
    match fs::remove_dir_all(place.state()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", place.state().display()))
        }
        _ => Ok(()),
    }
}
