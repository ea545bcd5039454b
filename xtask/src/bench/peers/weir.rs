// SPDX-License-Identifier: Apache-2.0
//! A node with Weir: an agent with the API server as its source, and pods that it connects.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use weir_api::endpoint::{EndpointCreated, EndpointRequest};
use weir_api::status::Status;
use weir_api::{Client, path};

use super::objects::{self, NAMESPACE};
use super::pods::Pod;
use super::source::{Objects, Source};
use crate::cluster::network::inside;
use crate::cluster::place::{Node, Place};
use crate::cluster::processes::{Process, cgroup_hierarchies, start, wait_for};

/// Makes the cgroup of a node: what is attached there translates the sockets of the node's pods and of nobody else.
pub(super) fn make_group(place: &Place, node: Node) -> Result<PathBuf> {
    let hierarchies = cgroup_hierarchies()?;
    let version_2 = hierarchies
        .iter()
        .map(Path::new)
        .find(|hierarchy| hierarchy.join("cgroup.controllers").exists())
        .context("no cgroup hierarchy of version 2 is mounted")?;
    let group = version_2.join(place.namespace(node));
    fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
    Ok(group)
}

/// Starts the agent and has it connect the node's pods, whose namespaces are there.
pub(super) fn start_agent(
    place: &Place,
    source: &Source,
    node: Node,
    group: &Path,
    weir: &Path,
) -> Result<Process> {
    let state = place.state();
    let socket = state.join("weir.sock");
    // Pins on a file system of its own, which goes with the agent.
    let mut agent = inside(place, node, "unshare");
    agent.args(["--mount", "--propagation", "slave", "sh", "-c"]);
    agent.args([
        "mount -t bpf bpf /sys/fs/bpf && exec \"$0\" \"$@\"",
        &weir.to_string_lossy(),
        "agent",
        "--metrics-address=none",
    ]);
    let settings = [
        ("node-name", node.to_string()),
        match &source.objects {
            Objects::Server(_) => (
                "kubeconfig",
                place.kubeconfig("admin").display().to_string(),
            ),
            Objects::Folder(folder) => ("objects", folder.path().display().to_string()),
        },
        ("socket", socket.display().to_string()),
        ("state", state.join("weir").display().to_string()),
        (
            "policy-log",
            state.join("policy_action.log").display().to_string(),
        ),
        ("cgroup-root", group.display().to_string()),
    ];
    agent.args(settings.map(|(name, value)| format!("--{name}={value}")));
    let process = start(place, "weir-agent", &mut agent)?;

    let client = Client::new(socket);
    wait_for("the agent to have realized what the server has", 60, || {
        client
            .get::<Status>(path::STATUS)
            .is_ok_and(|status| status.revision > 0)
    })?;
    for pod in Pod::all() {
        connect(place, source, node, pod, &client)?;
    }
    Ok(process)
}

/// Does what the kubelet and its container runtime do for a pod.
fn connect(place: &Place, source: &Source, node: Node, pod: Pod, agent: &Client) -> Result<()> {
    let name = pod.name();
    let mut object = objects::pod(&name, node);
    let uid = source.add_pod(&object)?;
    let request = EndpointRequest {
        container_id: name.clone(),
        netns: place.namespace_file(pod.part(node)).display().to_string(),
        interface: "eth0".to_owned(),
        namespace: NAMESPACE.to_owned(),
        pod: name.clone(),
        uid,
        requested_addresses: vec![pod.address(source.family)],
    };
    agent
        .put::<_, EndpointCreated>(path::ENDPOINTS, &request)
        .with_context(|| format!("the agent does not connect the pod {name}"))?;
    let address = pod.address(source.family);
    object["status"] = serde_json::json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
    });
    source.pod_runs(&object)
}
