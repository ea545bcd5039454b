// SPDX-License-Identifier: Apache-2.0
//! Installs Weir on a cluster that has no network yet.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};

use super::node;
use super::place::{API_SERVER, Node, Place};
use super::processes::start;

/// A field of the agent's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    key: String,
    value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text
            .split_once('=')
            .ok_or("expected KEY=VALUE, such as routingMode=native")?;
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Starts an agent on every node.
pub(super) fn install(place: &Place, nodes: u8, weir: &Path, settings: &[Setting]) -> Result<()> {
    let mut configuration = format!("apiServer: {API_SERVER}\n");
    for setting in settings {
        let _ = writeln!(configuration, "{}: {}", setting.key, setting.value);
    }
    for node in Node::all(nodes) {
        let root = place.node_root(node);
        write(&root.join("etc/weir/config.yaml"), configuration.as_bytes())?;
        write(
            &root.join("etc/weir/kubeconfig"),
            &fs::read(place.kubeconfig("admin")).context("cannot read the kubeconfig")?,
        )?;
        for name in ["weir", "weir-cni"] {
            let to = root.join("opt/weir").join(name);
            fs::create_dir_all(root.join("opt/weir")).context("cannot make /opt/weir")?;
            fs::copy(weir.with_file_name(name), &to)
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
        let arguments: Vec<String> = "/opt/weir/weir agent --kubeconfig /etc/weir/kubeconfig \
             --cni-bin-dir /opt/cni/bin --cni-conf-dir /etc/cni/net.d"
            .split_whitespace()
            .chain(["--node-name", &node.to_string()])
            .map(str::to_owned)
            .collect();
        let mut agent = node::run_in(place, &node.to_string(), &arguments)?;
        start(place, &format!("weir-{node}"), &mut agent)?;
    }
    Ok(())
}

fn write(file: &PathBuf, content: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
