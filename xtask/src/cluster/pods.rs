// SPDX-License-Identifier: Apache-2.0
//! Pods as the API server has them, and those that verbs of the cluster make.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::control_plane::kubectl;
use super::place::Place;
use super::processes::{run, succeeds, wait_for};
use crate::process::{self, display, stdout_of};

/// Bash, curl and a busybox: packed with every cluster.
pub(super) const TOOLS: &str = "busybox:1.36";

/// Answers `GET /name` on port 8080 over both families with the pod's name.
pub(super) const NAME_SERVER: &str =
    "mkdir -p /www; hostname >/www/name; exec httpd -f -p [::]:8080 -h /www";

/// Asks every host that it is given, eight at a time, and prints `HOST NAME` for each.
const ASK_NAMES: &str = r#"printf '%s\n' "$@" | xargs -P 8 -I {} bash -c 'echo "{} $(curl -gsm 20 http://{}:8080/name)"'"#;

/// A pod of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
    /// None for those in the network of their node.
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) host_network: bool,
    pub(super) running: bool,
    pub(super) ready: bool,
    pub(super) restarts: u64,
}

impl Pod {
    fn read(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let host_network = pod["spec"]["hostNetwork"] == true;
        let addresses = list(&pod["status"]["podIPs"])
            .filter_map(|one| one["ip"].as_str()?.parse().ok())
            .filter(|_| !host_network)
            .collect();
        Self {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            addresses,
            host_network,
            running: pod["status"]["phase"] == "Running",
            ready: list(&pod["status"]["conditions"])
                .any(|one| one["type"] == "Ready" && one["status"] == "True"),
            restarts: list(&pod["status"]["containerStatuses"])
                .filter_map(|one| one["restartCount"].as_u64())
                .sum(),
        }
    }

    /// As the agents call it.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its addresses as they stand in an URL.
    pub(super) fn hosts(&self) -> impl Iterator<Item = String> {
        self.addresses.iter().map(|address| match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        })
    }
}

/// The entries of a list, where it is there.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What the API server answers to `kubectl get`.
pub(super) fn get(place: &Place, arguments: &[&str]) -> Result<Value> {
    let mut get = kubectl(place);
    get.args(["get", "--output=json", "--request-timeout=20s"])
        .args(arguments);
    let text = stdout_of(&mut get)?;
    serde_json::from_str(&text).with_context(|| format!("`{}` prints no JSON", display(&get)))
}

/// All pods, or those of one namespace.
pub(super) fn pods(place: &Place, namespace: Option<&str>) -> Result<Vec<Pod>> {
    let scope = namespace.map_or("--all-namespaces".to_owned(), |name| {
        format!("--namespace={name}")
    });
    let answer = get(place, &["pods", &scope])?;
    Ok(list(&answer["items"]).map(Pod::read).collect())
}

/// A pod on a node that runs a command and is ended a second after it was told to.
pub(super) fn pod(namespace: &str, name: &str, app: &str, node: &str, command: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": app,
                "image": TOOLS,
                "imagePullPolicy": "Never",
                "command": command
            }]
        }
    })
}

/// Hands objects to kubectl.
pub(super) fn feed(place: &Place, arguments: &[&str], objects: &str) -> Result<()> {
    let mut command = kubectl(place);
    command.args(arguments).arg("--filename=-");
    process::feed(&mut command, objects).map(drop)
}

/// Makes objects, all in one call.
pub(super) fn create(place: &Place, objects: &[Value]) -> Result<()> {
    let all = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    feed(place, &["create"], &all.to_string())
}

/// An empty namespace in which pods can be made; one that an earlier run left is taken away first.
pub(super) fn make_namespace(place: &Place, name: &str) -> Result<()> {
    remove_namespace(place, name)?;
    run(kubectl(place).args(["create", "namespace", name]))?;
    wait_for(&format!("the account of namespace {name}"), 60, || {
        succeeds(kubectl(place).args(["get", "serviceaccount/default", "--namespace", name]))
    })
}

/// Returns when nothing of it is left at the API server.
pub(super) fn remove_namespace(place: &Place, name: &str) -> Result<()> {
    run(kubectl(place)
        .args(["delete", "namespace", name, "--ignore-not-found"])
        .arg("--timeout=300s"))
}

/// Waits until every pod of a namespace is ready.
pub(super) fn wait_ready(place: &Place, namespace: &str, seconds: u64) -> Result<()> {
    run(kubectl(place)
        .args([
            "wait",
            "--for=condition=Ready",
            "pods",
            "--all",
            "--namespace",
        ])
        .arg(namespace)
        .arg(format!("--timeout={seconds}s")))
}

/// Asks pods that run [`NAME_SERVER`], over each of their addresses, from within another pod; who does not answer with
/// its own name is a problem.
pub(super) fn ask_names(place: &Place, from: &Pod, pods: &[Pod]) -> Result<Vec<String>> {
    let asked: Vec<(String, &Pod)> = pods
        .iter()
        .flat_map(|pod| pod.hosts().map(move |host| (host, pod)))
        .collect();
    let answers = stdout_of(
        kubectl(place)
            .args(["exec", "--namespace", &from.namespace, &from.name])
            .args(["--", "bash", "-c", ASK_NAMES, "ask"])
            .args(asked.iter().map(|(host, _)| host)),
    )?;
    Ok(unanswered(&asked, &answers))
}

fn unanswered(asked: &[(String, &Pod)], answers: &str) -> Vec<String> {
    let answers: BTreeSet<&str> = answers.lines().collect();
    asked
        .iter()
        .filter(|(host, pod)| !answers.contains(format!("{host} {}", pod.name).as_str()))
        .map(|(host, pod)| {
            let found = answers
                .iter()
                .find_map(|line| line.strip_prefix(&format!("{host} ")))
                .filter(|name| !name.is_empty())
                .unwrap_or("nobody");
            format!("{found} answers at {host} instead of {}", pod.full_name())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Pod {
        Pod::read(&json!({
            "metadata": {"namespace": "a", "name": "b", "uid": "1"},
            "spec": {"nodeName": "node1"},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"restartCount": 2}]
            }
        }))
    }

    #[test]
    fn pods_are_read() {
        let pod = example();
        assert_eq!(pod.full_name(), "a/b");
        assert_eq!(pod.hosts().collect::<Vec<_>>(), ["10.0.0.7", "[fd00::7]"]);
        assert!(pod.running && pod.ready && !pod.host_network);
        assert_eq!(pod.restarts, 2);
    }

    #[test]
    fn each_address_must_answer_with_its_pod() {
        let pod = example();
        let asked: Vec<_> = pod.hosts().map(|host| (host, &pod)).collect();
        assert_eq!(
            unanswered(&asked, "[fd00::7] b\n10.0.0.7 b\n"),
            Vec::<String>::new()
        );
        assert_eq!(
            unanswered(&asked, "10.0.0.7 c\n[fd00::7] \n"),
            [
                "c answers at 10.0.0.7 instead of a/b",
                "nobody answers at [fd00::7] instead of a/b"
            ]
        );
    }
}
