// SPDX-License-Identifier: Apache-2.0
//! Which agents there are, asked with `kubectl`.

use super::Cluster;
use crate::error::CliError;
use serde_json::Value;
use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};
use weir_model::{NodeName, PodRef};

/// What the pods of agents carry, whatever their DaemonSet is called.
const SELECTOR: &str = "app.kubernetes.io/name=weir,k8s-app=cilium";
const CONTAINER: &str = "cilium-agent";

/// An agent's pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agent {
    pub(super) node: String,
    pub(super) pod: String,
}

/// `kubectl` with whatever leads it to the cluster.
pub(super) struct Kubectl(Cluster);

impl Kubectl {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self(cluster)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a plugin of kubectl has nobody else to ask"
    )]
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0.kubectl);
        for (flag, value) in [
            ("--kubeconfig", &self.0.kubeconfig),
            ("--context", &self.0.context),
        ] {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        command
    }

    /// Those of a node, or all of them, by node.
    pub(super) fn agents(&self, node: Option<&NodeName>) -> Result<Vec<Agent>, CliError> {
        let mut command = self.command();
        command
            .args(["get", "pods", "--output=json", "--selector", SELECTOR])
            .args(["--namespace", self.0.namespace.as_str()]);
        if let Some(node) = node {
            command.arg(format!("--field-selector=spec.nodeName={node}"));
        }
        agents(&serde_json::from_str(&self.output(command)?)?)
    }

    /// Where a pod runs.
    pub(super) fn node_of(&self, pod: &PodRef) -> Result<NodeName, CliError> {
        let mut command = self.command();
        command
            .args(["get", "pod", pod.name.as_str()])
            .args(["--namespace", pod.namespace.as_str()])
            .arg("--output=jsonpath={.spec.nodeName}");
        let node = self.output(command)?;
        node.parse().map_err(|_| {
            CliError::missing(
                format!("pod {}/{} is on no node yet", pod.namespace, pod.name),
                "`kubectl describe pod` says why it is not scheduled",
            )
        })
    }

    /// A command of Weir in an agent.
    pub(super) fn exec(&self, agent: &Agent, flags: &[&str], words: &[OsString]) -> Command {
        let mut command = self.command();
        command
            .arg("exec")
            .args(flags)
            .args(["--namespace", self.0.namespace.as_str()])
            .args([&agent.pod, "--container", CONTAINER, "--", "weir"])
            .args(words);
        command
    }

    pub(super) fn cannot_start(&self, error: &io::Error) -> CliError {
        CliError::missing(
            format!("cannot start {}: {error}", self.0.kubectl.display()),
            "install kubectl, or name it with --kubectl",
        )
    }

    fn output(&self, mut command: Command) -> Result<String, CliError> {
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| self.cannot_start(&error))?;
        if !output.status.success() {
            return Err(CliError::missing(
                format!("{} has failed", self.0.kubectl.display()),
                "its own words are above",
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Reads a list of pods.
fn agents(list: &Value) -> Result<Vec<Agent>, CliError> {
    let pods = list["items"].as_array();
    let pods = pods.ok_or_else(|| CliError::missing("kubectl gave no list", "is it kubectl?"))?;
    let mut agents: Vec<Agent> = pods
        .iter()
        .filter_map(|pod| {
            let node = pod["spec"]["nodeName"].as_str()?;
            let name = pod["metadata"]["name"].as_str()?;
            // One that ends has a successor, or none and no answer.
            let ending = !pod["metadata"]["deletionTimestamp"].is_null();
            (!ending).then(|| Agent {
                node: node.to_owned(),
                pod: name.to_owned(),
            })
        })
        .collect();
    agents.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(agents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn agents_are_listed_by_node_without_those_that_end() {
        let pod = |node: Value, name: &str, ends: Value| json!({"metadata": {"name": name, "deletionTimestamp": ends}, "spec": {"nodeName": node}});
        let list = json!({"items": [
            pod(json!("n2"), "weir-b", Value::Null),
            pod(json!("n1"), "weir-old", json!("2026-01-01T00:00:00Z")),
            pod(json!("n1"), "weir-a", Value::Null),
            pod(Value::Null, "weir-waits", Value::Null),
        ]});
        let found = agents(&list).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|a| (a.node.as_str(), a.pod.as_str()))
            .collect();
        assert_eq!(found, [("n1", "weir-a"), ("n2", "weir-b")]);
        assert!(agents(&json!({})).is_err());
    }
}
