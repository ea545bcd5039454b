// SPDX-License-Identifier: Apache-2.0
//! Pods that stay, and talk to each other all the time: on one node, across nodes over both families, and through a
//! service; behind a policy, so that a pod whose identity is lost is cut off.
//!
//! Lost is: a connection that ended, and a time in which no exchange came to its end on a connection that stays or no new
//! connection was made and answered, longer than [`LONGEST_GAP`]. Where nothing is lost it is less than a second: a packet of a new
//! connection that is lost once makes it 1.4, one that is lost twice 3.4, and the machine is busy with starting what was
//! killed.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, READY_SECONDS};
use crate::cluster::images;
use crate::cluster::place::{Node, Place};
use crate::cluster::pods::{self, Pod};
use crate::cluster::processes::wait_for;

/// Runs in each pod that asks.
const SCRIPT: &str = include_str!("talk.sh");
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// How many gaps are told of.
const TOLD: usize = 8;

/// Something that a pod has noticed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Finding {
    /// Milliseconds since 1970, when it began.
    pub(super) at: u64,
    pub(super) what: String,
}

/// What all pods have noticed.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) findings: Vec<Finding>,
    /// The longest times without an exchange, whether they are too long or not.
    pub(super) gaps: Vec<Finding>,
    pub(super) summary: String,
}

/// Starts them; returns when each has had an answer of each other, with the pods as they are then.
pub(super) fn start(place: &Place, nodes: &[Node]) -> Result<Vec<Pod>> {
    let image = images::name_of("agnhost")?;
    let servers = nodes.iter().map(|node| server(*node, &image));
    let mut objects: Vec<Value> = servers.collect();
    objects.push(service());
    objects.push(policy());
    pods::create(place, &objects)?;
    pods::wait_ready(place, NAMESPACE, READY_SECONDS)?;

    let targets = targets(place)?;
    let clients: Vec<Value> = nodes
        .iter()
        .map(|node| client(*node, &image, &targets))
        .collect();
    pods::create(place, &clients)?;
    pods::wait_ready(place, NAMESPACE, READY_SECONDS)?;
    let talkers = pods::pods(place, Some(NAMESPACE))?;
    let logs = clients.len() * targets.len() * 2;
    wait_for(&format!("an answer in each of {logs} logs"), 60, || {
        read_logs(place, nodes, &talkers).is_ok_and(|found| {
            let answered = |(_, text): &&(String, String)| text.contains(" ok\n");
            found.iter().filter(answered).count() == logs
        })
    })?;
    Ok(talkers)
}

fn server(node: Node, image: &str) -> Value {
    let command = json!(["/agnhost", "netexec"]);
    talker("server", node, image, &command)
}

/// Pods without a request starve for seconds while a kubelet starts beside them, and not for want of a network.
fn talker(app: &str, node: Node, image: &str, command: &Value) -> Value {
    let name = format!("{app}-{node}");
    let mut pod = pods::pod(NAMESPACE, &name, app, &node.to_string(), command);
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = json!(image);
    container["resources"] = json!({"requests": {"cpu": "500m"}});
    pod
}

/// Its backends stay whatever is thought of their health: without a kubelet nobody knows, and they live on.
fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": "servers"},
        "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "publishNotReadyAddresses": true,
            "selector": {"app": "server"},
            "ports": [{"port": 8080}]
        }
    })
}

fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": "servers"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"port": 8080}]
            }]
        }
    })
}

/// `NAME=HOST` for all addresses of the servers and of their service.
fn targets(place: &Place) -> Result<Vec<String>> {
    let family = |address: &str| {
        if address.contains(':') {
            "ipv6"
        } else {
            "ipv4"
        }
    };
    let mut targets = Vec::new();
    for pod in pods::pods(place, Some(NAMESPACE))? {
        let addresses = pod.addresses.iter().map(ToString::to_string);
        targets.extend(addresses.map(|one| format!("{}-{}={one}", pod.name, family(&one))));
    }
    let service = pods::get(place, &["service/servers", "--namespace", NAMESPACE])?;
    let addresses = service["spec"]["clusterIPs"].as_array();
    let addresses = addresses.into_iter().flatten().filter_map(Value::as_str);
    targets.extend(addresses.map(|one| format!("service-{}={one}", family(one))));
    Ok(targets)
}

fn client(node: Node, image: &str, targets: &[String]) -> Value {
    let mut command = vec!["bash", "-c", SCRIPT, "talk"];
    command.extend(targets.iter().map(String::as_str));
    let mut pod = talker("client", node, image, &json!(command));
    // A file: output goes through containerd, which is killed.
    pod["spec"]["volumes"] = json!([{"name": "log", "emptyDir": {}}]);
    let container = &mut pod["spec"]["containers"][0];
    container["volumeMounts"] = json!([{"name": "log", "mountPath": "/log"}]);
    pod
}

/// Reads the logs up to now.
pub(super) fn read(place: &Place, nodes: &[Node], talkers: &[Pod], now: u64) -> Result<Said> {
    let mut said = Said::default();
    let (mut exchanges, mut gaps) = (0, Vec::new());
    let logs = read_logs(place, nodes, talkers)?;
    ensure!(!logs.is_empty(), "the pods that talk have left no log");
    for (name, text) in &logs {
        let log = judge(text, now);
        exchanges += log.exchanges;
        let (length, at) = log.longest;
        gaps.push((length, at, name));
        let with_name = |found: Finding| Finding {
            what: format!("{name}: {}", found.what),
            ..found
        };
        said.findings
            .extend(log.findings.into_iter().map(with_name));
    }
    said.findings.sort_by_key(|found| found.at);
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    said.summary = format!("{exchanges} exchanges on {} paths", logs.len());
    let told = gaps.into_iter().take(TOLD);
    said.gaps = told
        .map(|(length, at, name)| Finding {
            at,
            what: format!("{name}: {length} ms"),
        })
        .collect();
    Ok(said)
}

/// The logs of all clients, through the nodes' file systems.
fn read_logs(place: &Place, nodes: &[Node], talkers: &[Pod]) -> Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for node in nodes {
        let clients = talkers
            .iter()
            .filter(|pod| pod.node == node.to_string() && pod.name.starts_with("client"));
        for pod in clients {
            let folder = place.node_root(*node).join(format!(
                "var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/log",
                pod.uid
            ));
            let files = fs::read_dir(&folder)
                .with_context(|| format!("cannot read {}", folder.display()))?;
            for file in files.flatten() {
                let text = fs::read_to_string(file.path())
                    .with_context(|| format!("cannot read {}", file.path().display()))?;
                let name = file.file_name().to_string_lossy().into_owned();
                logs.push((format!("{} to {name}", pod.name), text));
            }
        }
    }
    Ok(logs)
}

/// What one log says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Log {
    exchanges: u64,
    /// The longest time between two exchanges, in milliseconds, and when it began.
    longest: (u64, u64),
    findings: Vec<Finding>,
}

fn judge(text: &str, now: u64) -> Log {
    let mut log = Log::default();
    let mut last = None;
    let limit = u64::try_from(LONGEST_GAP.as_millis()).unwrap_or(u64::MAX);
    let gap = |log: &mut Log, last: Option<u64>, at: u64| {
        let since = last.unwrap_or(at);
        let length = at.saturating_sub(since);
        log.longest = log.longest.max((length, since));
        if length > limit {
            log.findings.push(Finding {
                at: since,
                what: format!("no exchange for {length} ms"),
            });
        }
    };
    // A line that is being written has no end yet.
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let Some((at, what)) = line.trim_end().split_once(' ') else {
            continue;
        };
        let Ok(at) = at.parse::<u64>() else { continue };
        match what {
            "ok" => {
                gap(&mut log, last, at);
                log.exchanges += 1;
                last = Some(at);
            }
            "lost" => log.findings.push(Finding {
                at,
                what: "a connection was lost or refused".to_owned(),
            }),
            _ => {}
        }
    }
    gap(&mut log, last, now);
    if log.exchanges == 0 {
        log.findings.push(Finding {
            at: now,
            what: "there was no exchange at all".to_owned(),
        });
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_gaps_has_no_finding() {
        let log = judge("1000 open\n1001 ok\n1200 ok\n6000 ok\n90", 6_500);
        assert_eq!((log.exchanges, log.longest), (3, (4_800, 1_200)));
        assert_eq!(log.findings, Vec::new());
    }

    #[test]
    fn gaps_and_losses_are_found_where_they_begin() {
        let check = |text: &str, now, expected: &[(u64, &str)]| {
            let found = judge(text, now).findings;
            let found: Vec<_> = found
                .iter()
                .map(|one| (one.at, one.what.as_str()))
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        let lost = "a connection was lost or refused";
        check("1000 ok\n2000 lost\n3000 ok\n", 3_000, &[(2_000, lost)]);
        check(
            "1000 ok\n7000 ok\n",
            7_000,
            &[(1_000, "no exchange for 6000 ms")],
        );
        check("1000 ok\n", 20_000, &[(1_000, "no exchange for 19000 ms")]);
        check("", 7, &[(7, "there was no exchange at all")]);
    }
}
