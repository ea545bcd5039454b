// SPDX-License-Identifier: Apache-2.0
//! The lab that cases run in, one after the other: from case to case it changes what differs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::twin::{twin, with_twins};
use crate::netpol::{Answer, Case, Cell, Objects, difference};
use crate::process::root_command;

/// A lab that goes down when it is dropped.
#[derive(Debug)]
pub(super) struct Lab {
    weir: PathBuf,
    name: String,
    nodes: Vec<String>,
    /// The objects that are there.
    objects: Objects,
}

/// One probe.
#[derive(Clone, Debug)]
pub(super) struct Probe(Value);

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |field: &str| self.0[field].as_str().unwrap_or_default();
        write!(
            f,
            "{} -> {} {}/{} IPv{}",
            text("from"),
            text("to"),
            self.0["port"],
            text("protocol"),
            self.0["family"]
        )
    }
}

impl Probe {
    pub(super) fn new(cell: &Cell, family: u8, by_service: bool, limit: u32) -> Self {
        // An address stands for its host, which has the twin too.
        let end = |text: &str| match text.strip_prefix("ip:") {
            Some(address) if family == 6 => twin(address).unwrap_or_else(|| address.to_owned()),
            Some(address) => address.to_owned(),
            None => text.to_owned(),
        };
        let to = match by_service.then(|| cell.to.split_once('/')).flatten() {
            Some((namespace, pod)) => format!("svc:{namespace}/{}", service_name(pod)),
            None => end(&cell.to),
        };
        Self(json!({
            "from": end(&cell.from), "to": to, "port": cell.port, "protocol": cell.protocol,
            "family": family, "timeout_ms": limit, "serve": true,
        }))
    }
}

impl Probe {
    pub(super) fn family(&self) -> u64 {
        self.0["family"].as_u64().unwrap_or_default()
    }

    /// The same as a line of `weir trace --batch`.
    pub(super) fn question(&self) -> String {
        let text = |field: &str| self.0[field].as_str().unwrap_or_default();
        let to = match text("to") {
            address if !address.contains('/') && address.matches(':').count() > 1 => {
                format!("[{address}]")
            }
            other => other.to_owned(),
        };
        let (port, protocol) = (&self.0["port"], text("protocol"));
        format!("{} {to}:{port}/{protocol}", text("from"))
    }
}

impl Lab {
    /// Builds a lab with the nodes and outside hosts of a case, and nothing else.
    pub(super) fn up(weir: &Path, routing: &str, case: &Case) -> Result<Self> {
        let both = |value: &Value| -> Vec<String> {
            let text = value.as_str().unwrap_or_default();
            let mut both = vec![text.to_owned()];
            both.extend(twin(text));
            both
        };
        let nodes: Vec<Value> = case
            .nodes
            .iter()
            .map(|node| {
                json!({"name": node["name"], "addresses": both(&node["ip"]), "podCIDRs": both(&node["podCIDR"])})
            })
            .collect();
        // The default, for cases that name nobody outside.
        let mut externals = vec![json!({"name": "ext-1", "ip": "203.0.113.10"})];
        externals.extend(case.externals.iter().skip(1).cloned());
        let externals: Vec<Value> = externals
            .iter()
            .map(|host| json!({"name": host["name"], "addresses": both(&host["ip"])}))
            .collect();
        let config = json!({
            "nodes": nodes, "externals": externals, "dns": false,
            "agent": {"routingMode": routing},
        });
        let name = format!("netpol-{routing}-{}", std::process::id());
        let file = std::env::temp_dir().join(format!("{name}.yaml"));
        std::fs::write(&file, config.to_string())?;
        let names = case.nodes.iter();
        let lab = Self {
            weir: weir.to_owned(),
            name,
            nodes: names
                .filter_map(|node| node["name"].as_str().map(ToOwned::to_owned))
                .collect(),
            objects: Objects::new(),
        };
        let path = file.display().to_string();
        let up = lab.verb(&["up", "--config", &path], "");
        std::fs::remove_file(&file).ok();
        up?;
        Ok(lab)
    }

    /// Whether probes can speak a protocol.
    #[expect(
        clippy::unused_self,
        reason = "it depends on the machine that the lab runs on"
    )]
    pub(super) fn speaks(&self, protocol: &str) -> bool {
        matches!(protocol, "tcp" | "udp" | "sctp")
    }

    /// Changes what differs between the objects that are there and those that shall be.
    pub(super) fn become_like(&mut self, objects: &Objects) -> Result<()> {
        let both = |(key, object): (&_, &Value)| (Clone::clone(key), with_twins(object.clone()));
        let mut wanted: Objects = objects.iter().map(both).collect();
        for (key, object) in wanted.clone() {
            if key.0 == "Pod" {
                for object in service(&object) {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    let kind = object["kind"].as_str().unwrap_or_default();
                    let own = (kind.to_owned(), key.1.clone(), name.to_owned());
                    wanted.insert(own, object);
                }
            }
        }
        let (gone, new) = difference(&self.objects, &wanted);
        for (verb, objects) in [("delete", gone), ("apply", new)] {
            if !objects.is_empty() {
                let manifest = json!({"apiVersion": "v1", "kind": "List", "items": objects});
                self.verb(&[verb, "-f", "-"], &manifest.to_string())?;
            }
        }
        self.objects = wanted;
        Ok(())
    }

    pub(super) fn restart_agents(&self) -> Result<()> {
        for node in &self.nodes {
            self.verb(&["restart-agent", node], "")?;
        }
        Ok(())
    }

    /// Sends all probes at once.
    pub(super) fn probe(&self, probes: &[Probe]) -> Result<Vec<Answer>> {
        let lines: Vec<String> = probes.iter().map(|probe| probe.0.to_string()).collect();
        let output = self.run(&["probe", "--batch", "-"], &lines.join("\n"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<Answer> = text
            .lines()
            .map(|line| {
                let answer: Value = serde_json::from_str(line)?;
                let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
                Ok(Answer {
                    allowed: answer["allowed"] == true,
                    outcome: text("outcome"),
                    error: text("error"),
                })
            })
            .collect::<Result<_>>()?;
        ensure!(
            answers.len() == lines.len(),
            "{} of {} probes were answered: {}",
            answers.len(),
            lines.len(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(answers)
    }

    /// What the first node's agent says would become of packets.
    pub(super) fn trace(&self, family: u64, questions: &[String]) -> Result<Vec<Value>> {
        let weir = self.weir.display().to_string();
        let node = self.nodes.first().context("there is no node")?;
        let family = family.to_string();
        let words = [
            "node", node, "--", &weir, "trace", "--family", &family, "--batch", "-",
        ];
        let output = self.run(&words, &questions.join("\n"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        ensure!(
            answers.len() == questions.len(),
            "{} of {} traces were answered: {}",
            answers.len(),
            questions.len(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(answers)
    }

    fn verb(&self, words: &[&str], input: &str) -> Result<()> {
        let output = self.run(words, input)?;
        if !output.status.success() {
            bail!(
                "weir lab {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(())
    }

    fn run(&self, words: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command()?;
        let (verb, rest) = words.split_first().context("no verb")?;
        command.args(["lab", verb, "--name", &self.name]).args(rest);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start weir")?;
        let stdin = child.stdin.take().context("its input is not piped")?;
        // It reads everything before it writes anything.
        send(stdin, input)?;
        Ok(child.wait_with_output()?)
    }

    fn command(&self) -> Result<Command> {
        root_command(&self.weir)
    }
}

fn send(mut stdin: impl std::io::Write, input: &str) -> Result<()> {
    stdin
        .write_all(input.as_bytes())
        .context("weir does not read its input")
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.verb(&["down"], "") {
            crate::output::error(&error);
        }
    }
}

fn service_name(pod: &str) -> String {
    format!("only-{pod}")
}

/// A service that has one pod behind it, whatever labels that has: its slices are made by hand.
fn service(pod: &Value) -> Vec<Value> {
    let metadata = &pod["metadata"];
    let name = service_name(metadata["name"].as_str().unwrap_or_default());
    let ips = pod["status"]["podIPs"].as_array();
    let ips: Vec<&str> = ips
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["ip"].as_str())
        .collect();
    let mut ports = Vec::new();
    for protocol in ["TCP", "UDP", "SCTP"] {
        for number in [53, 80, 81, 5000] {
            let port = format!("{}-{number}", protocol.to_lowercase());
            ports.push(json!({"name": port, "port": number, "protocol": protocol}));
        }
    }
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "spec": {"ipFamilyPolicy": "PreferDualStack", "ports": ports},
    })];
    for ip in ips {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", family.to_lowercase()),
                "namespace": metadata["namespace"],
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family, "ports": ports, "endpoints": [{"addresses": [ip]}],
        }));
    }
    objects
}
