// SPDX-License-Identifier: Apache-2.0
//! The cluster that cases are replayed on, one after the other: from case to case it changes what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::objects::{self, Places};
use crate::cluster::control_plane::kubectl;
use crate::cluster::place::{Node, Place};
use crate::cluster::pods::{self, Pod};
use crate::cluster::{images, up};
use crate::netpol::{Answer, Case, Cell, Key, Objects, difference};
use crate::process::stdout_of;

/// A connection that shall be denied is given up after a second; one that shall be answered may take this long on a
/// busy machine.
const DENIED_SECONDS: &str = "1";
const ALLOWED_SECONDS: &str = "5";

/// Sends all probes of a pod at once. Arguments: number, protocol, address, port and seconds of each; it prints the
/// number and what became of it.
const PROBE: &str = r#"
probe() {
    if [ "$2" = tcp ]; then
        said=$(nc -z -v -w "$5" "$3" "$4" 2>&1)
        status=$?
    else
        exec 3<>"/dev/udp/$3/$4"
        echo hostname >&3
        said=$( { read -r -n 1 -t "$5" -u 3; } 2>&1)
        status=$?
        if [ $status -gt 128 ]; then said="timed out"; fi
    fi
    case "$status $said" in
    0*) said=ok ;;
    *"timed out"*) said=timeout ;;
    esac
    echo "$1 ${said//$'\n'/ }"
}
while [ $# -gt 0 ]; do
    probe "${@:1:5}" &
    shift 5
done
wait
"#;

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe<'a> {
    pub(super) cell: &'a Cell,
    pub(super) family: u8,
}

impl fmt::Display for Probe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cell, family } = self;
        let Cell {
            from,
            to,
            port,
            protocol,
            ..
        } = cell;
        write!(f, "{from} -> {to} {port}/{protocol} IPv{family}")
    }
}

/// A cluster, and what cases have put there.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    place: &'a Place,
    image: String,
    /// The ranges of each node's pods, of both families.
    ranges: Vec<Vec<String>>,
    objects: Objects,
    /// Of pods, by namespace and name.
    addresses: BTreeMap<(String, String), Vec<IpAddr>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(place: &'a Place, nodes: u8) -> Result<Self> {
        Ok(Self {
            place,
            image: images::name_of("agnhost")?,
            ranges: Node::all(nodes)
                .map(|node| up::pod_ranges(place, node))
                .collect(),
            objects: Objects::new(),
            addresses: BTreeMap::new(),
        })
    }

    /// Deletes whatever these cases may have left.
    pub(super) fn clear(&mut self, cases: &[&Case]) -> Result<()> {
        let states = cases.iter().flat_map(|case| {
            let steps = case.steps.iter().map(|step| &step.objects);
            [&case.objects].into_iter().chain(steps)
        });
        let all: Objects = states
            .flatten()
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        let default = default_namespace();
        let (gone, _) = difference(&all, &[default].into());
        self.delete(&gone)?;
        self.objects = Objects::new();
        Ok(())
    }

    /// Changes what differs between the objects that are there and those that shall be. Policies come last: those with
    /// blocks of addresses need those of the pods.
    pub(super) fn become_like(
        &mut self,
        case: &Case,
        objects: &Objects,
        ports: &[u16],
    ) -> Result<()> {
        let ports: BTreeSet<u16> = ports.iter().copied().collect();
        let ports: Vec<u16> = ports.into_iter().collect();
        let mut wanted: Objects = [default_namespace()].into();
        for (key, object) in objects {
            let object = match key.0.as_str() {
                "Pod" => objects::pod(case, object, &self.image, &ports),
                // As it was, for now.
                "NetworkPolicy" => match self.objects.get(key) {
                    Some(old) => old.clone(),
                    None => continue,
                },
                _ => object.clone(),
            };
            wanted.insert(key.clone(), object);
        }
        self.change_to(wanted.clone())?;
        self.find_addresses()?;
        let places = Places::new(case, objects, &self.ranges, |namespace, name| {
            let pod = (namespace.to_owned(), name.to_owned());
            self.addresses.get(&pod).cloned().unwrap_or_default()
        });
        for (key, object) in objects.iter().filter(|(key, _)| key.0 == "NetworkPolicy") {
            wanted.insert(key.clone(), places.policy(object));
        }
        self.change_to(wanted)
    }

    fn change_to(&mut self, wanted: Objects) -> Result<()> {
        // What a pod runs cannot be changed.
        let is_other = |key: &Key, old: &Value| {
            let new = wanted.get(key);
            key.0 == "Pod" && new.is_some_and(|new| new["spec"] != old["spec"])
        };
        let mut kept = self.objects.clone();
        kept.retain(|key, old| !is_other(key, old));
        let (replaced, _) = difference(&self.objects, &kept);
        let (mut gone, new) = difference(&kept, &wanted);
        gone.extend(replaced);
        self.delete(&gone)?;
        if !new.is_empty() {
            self.kubectl(&["apply"], &new)?;
        }
        let pods: Vec<Value> = new
            .into_iter()
            .filter(|object| object["kind"] == "Pod")
            .collect();
        if !pods.is_empty() {
            self.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s"], &pods)?;
        }
        self.objects = wanted;
        Ok(())
    }

    fn delete(&self, objects: &[Value]) -> Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        let words = ["delete", "--ignore-not-found", "--timeout=120s"];
        self.kubectl(&words, objects)
    }

    fn kubectl(&self, words: &[&str], objects: &[Value]) -> Result<()> {
        let manifest = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        pods::feed(self.place, words, &manifest.to_string())
    }

    fn find_addresses(&mut self) -> Result<()> {
        let pods = pods::pods(self.place, None)?.into_iter();
        let entry = |pod: Pod| {
            (
                (pod.namespace, pod.name),
                pod.addresses.into_iter().collect(),
            )
        };
        self.addresses = pods.map(entry).collect();
        Ok(())
    }

    /// Sends all probes, those of all pods at once.
    pub(super) fn look(&self, probes: &[Probe<'_>]) -> Result<Vec<Answer>> {
        let mut by_source: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (number, probe) in probes.iter().enumerate() {
            let cell = probe.cell;
            let (address, port) = (self.address(&cell.to, probe.family)?, cell.port.to_string());
            let limit = if cell.allowed {
                ALLOWED_SECONDS
            } else {
                DENIED_SECONDS
            };
            by_source.entry(&cell.from).or_default().extend([
                number.to_string(),
                cell.protocol.clone(),
                address.to_string(),
                port,
                limit.to_owned(),
            ]);
        }
        let said: Result<Vec<String>> = thread::scope(|scope| {
            let asked: Vec<_> = by_source
                .iter()
                .map(|(pod, words)| scope.spawn(|| self.probe_from(pod, words)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<String>>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            asked.into_iter().map(join).collect()
        });
        let said = said?.concat();
        let answers: BTreeMap<usize, &str> = said
            .lines()
            .filter_map(|line| {
                let (number, outcome) = line.split_once(' ')?;
                Some((number.parse().ok()?, outcome))
            })
            .collect();
        (0..probes.len())
            .map(|number| {
                let outcome = answers.get(&number);
                let outcome =
                    outcome.with_context(|| format!("{} was not sent", probes[number]))?;
                Ok(Answer {
                    allowed: *outcome == "ok",
                    outcome: (*outcome).to_owned(),
                    error: String::new(),
                })
            })
            .collect()
    }

    fn probe_from(&self, pod: &str, words: &[String]) -> Result<String> {
        let (namespace, name) = pod.split_once('/').context("a pod has no namespace")?;
        let mut exec = kubectl(self.place);
        exec.args(["exec", "--namespace", namespace, name, "--"])
            .args(["bash", "-c", PROBE, "probe"])
            .args(words);
        stdout_of(&mut exec).with_context(|| format!("{pod} sends no probes"))
    }

    fn address(&self, pod: &str, family: u8) -> Result<IpAddr> {
        let (namespace, name) = pod.split_once('/').context("a pod has no namespace")?;
        let addresses = self.addresses.get(&(namespace.to_owned(), name.to_owned()));
        addresses
            .into_iter()
            .flatten()
            .find(|address| address.is_ipv4() == (family == 4))
            .copied()
            .with_context(|| format!("{pod} has no address of IPv{family}"))
    }
}

/// It is there before all cases and after them; nobody can delete it.
fn default_namespace() -> (Key, Value) {
    let metadata = json!({"name": "default", "labels": {"kubernetes.io/metadata.name": "default"}});
    (
        ("Namespace".to_owned(), String::new(), "default".to_owned()),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
    )
}
