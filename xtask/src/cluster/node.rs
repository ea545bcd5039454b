// SPDX-License-Identifier: Apache-2.0
//! One node: namespaces and cgroups of its own, and in them a process 1 that keeps containerd and the kubelet running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::network::inside;
use super::place::{self, Node, Place};
use super::processes::{self, Process, cgroup_hierarchies, start, wait_for};
use super::programs;
use crate::process::{append, command};

/// Starts a node; its containerd loads the images while the control plane comes up.
pub(super) fn boot(place: &Place, node: Node) -> Result<()> {
    let root = place.node_root(node);
    write_configuration(place, node, &root)?;
    let groups = cgroup_hierarchies()?
        .iter()
        .map(|hierarchy| make_group(Path::new(hierarchy), &place.namespace(node)))
        .collect::<Result<Vec<_>>>()?;

    // Groups first: what is a process' group when its namespace is made, becomes the root of that namespace.
    let mut init = command(place::source().join("join.sh"));
    init.args(groups).arg("--");
    let namespaces = inside(place, node, "unshare");
    append(&mut init, &namespaces)
        .args(["--mount", "--pid", "--uts", "--ipc", "--cgroup"])
        .args(["--fork", "--kill-child"])
        .arg(place::source().join("node-init.sh"))
        .arg(node.to_string())
        .args([root, place::images(), programs::path("kubelet")]);
    let parent = start(place, &format!("{node}.parent"), &mut init)?;

    let mut first = None;
    wait_for(&format!("process 1 of {node}"), 10, || {
        first = child_of(parent).and_then(|id| Process::of(id).ok());
        first.is_some()
    })?;
    first
        .with_context(|| format!("{node} has no process 1"))?
        .record(place, &node.to_string())
}

/// The child of `unshare`. Before it is `unshare`, the process may have short-lived ones of a shell.
fn child_of(parent: Process) -> Option<u32> {
    let folder = PathBuf::from(format!("/proc/{}", parent.id));
    let name = fs::read_to_string(folder.join("comm")).ok()?;
    if name.trim() != "unshare" {
        return None;
    }
    let children = fs::read_to_string(folder.join(format!("task/{}/children", parent.id))).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A command in all namespaces and cgroups of a node.
pub(super) fn run_in(place: &Place, node: &str, arguments: &[String]) -> Result<Command> {
    let first = Process::recorded(place, node)?;
    let mut command = command(place::source().join("join.sh"));
    for hierarchy in cgroup_hierarchies()? {
        command.arg(joinable(&Path::new(&hierarchy).join(place.namespace(node))));
    }
    command
        .args(["--", "nsenter", "--target", &first.id.to_string()])
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"])
        .args(["--", "env", "HOME=/root"])
        .arg("PATH=/opt/kubernetes:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .arg("CONTAINERD_NAMESPACE=k8s.io")
        .args(arguments);
    Ok(command)
}

/// Loads a container image into a node.
pub(super) fn load(place: &Place, node: Node, image: &Path) -> Result<()> {
    let file = fs::File::open(image).with_context(|| format!("cannot read {}", image.display()))?;
    let arguments = ["ctr", "images", "import", "-"].map(str::to_owned);
    let mut import = run_in(place, &node.to_string(), &arguments)?;
    let output = import
        .stdin(file)
        .output()
        .with_context(|| format!("cannot load an image into {node}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{node} does not take the image {}: {}",
        image.display(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

/// Removes what a node leaves behind when its processes have ended.
pub(super) fn remove_groups(place: &Place) -> Result<()> {
    let prefix = place.namespace("");
    for hierarchy in cgroup_hierarchies()? {
        let entries =
            fs::read_dir(&hierarchy).with_context(|| format!("cannot read {hierarchy}"))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                processes::remove_cgroup(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn make_group(hierarchy: &Path, name: &str) -> Result<PathBuf> {
    let group = hierarchy.join(name);
    fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
    // A new group of version 1 has no processors and no memory, and no process may join it.
    for setting in ["cpuset.mems", "cpuset.cpus"] {
        let file = group.join(setting);
        if file.exists() && hierarchy.join(setting).exists() {
            let value = fs::read_to_string(hierarchy.join(setting))?;
            fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    // Version 2: a group has the controllers that the one above hands on.
    let handed_on = hierarchy.join("cgroup.subtree_control");
    if let Ok(controllers) = fs::read_to_string(hierarchy.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            fs::write(&handed_on, format!("+{controller}")).with_context(|| {
                format!("cannot hand on {controller} of {}", hierarchy.display())
            })?;
        }
    }
    Ok(group)
}

/// Where version 2 hands controllers on, processes live in groups below.
fn joinable(group: &Path) -> PathBuf {
    let below = group.join("init");
    if below.is_dir() {
        below
    } else {
        group.to_owned()
    }
}

fn write_configuration(place: &Place, node: Node, root: &Path) -> Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(&etc).with_context(|| format!("cannot make {}", etc.display()))?;
    let copy = |from: PathBuf, name: &str| -> Result<()> {
        fs::copy(&from, etc.join(name))
            .map(drop)
            .with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(place::source().join("containerd.toml"), "containerd.toml")?;
    copy(place::source().join("kubelet.yaml"), "kubelet.yaml")?;
    copy(place.kubeconfig(&node.to_string()), "kubelet.kubeconfig")?;
    // Both families are all that a node without a cloud needs for dual stack.
    let flags = format!(
        "--node-ip={},{} --node-labels=topology.kubernetes.io/zone={}\n",
        node.v4(),
        node.v6(),
        node.zone()
    );
    fs::write(etc.join("kubelet.flags"), flags).context("cannot write the kubelet's flags")
}
