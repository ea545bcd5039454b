// SPDX-License-Identifier: Apache-2.0
//! Does a node hold exactly what its pods need? Asked of the API server, the agent, the kernel and the agent's files, which
//! must all say the same; and, when pods are gone, whether everything is as many as it was before they came.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_abi::map;
use weir_api::endpoint::{Endpoint, EndpointState};
use weir_api::kernel::{EndpointEntry, MapEntry, MetricEntry};
use weir_api::service::ServicesCompared;
use weir_api::status::Status;
use weir_api::{Client, path};

use super::checks::until_none;
use super::network::inside;
use super::place::{Node, Place};
use super::pods::{self, Pod};
use super::processes::Process;
use super::up::nodes_of;
use crate::process::stdout_of;

/// How the agent calls the node's ends of pods' links.
const POD_LINK: &str = "weir";
/// Its other links.
const OWN_LINKS: [&str; 2] = ["weir_host", "weir_net"];

/// What there was of everything, in numbers, on each node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Before(BTreeMap<String, Counts>);

type Counts = BTreeMap<String, usize>;

impl Before {
    /// Counts what there is now.
    fn take(place: &Place) -> Result<Self> {
        let nodes = Node::all(nodes_of(place)?);
        nodes
            .map(|node| Ok((node.to_string(), count(place, node)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Waits until every node holds what it should, and counts then.
    pub(super) fn at_rest(place: &Place, seconds: u64) -> Result<Self> {
        let found = until_none("the cluster to be at rest", seconds, || strays(place))?;
        ensure!(
            found.is_empty(),
            "the cluster is not at rest: {}",
            found.join("; ")
        );
        Self::take(place)
    }

    /// What is not as it was; with everything of [`strays`].
    pub(super) fn differences(&self, place: &Place) -> Result<Vec<String>> {
        let mut found = strays(place)?;
        if found.is_empty() {
            found = self.compare(&Self::take(place)?);
        }
        Ok(found)
    }

    fn compare(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (node, before) in &self.0 {
            let none = Counts::new();
            let now = now.0.get(node).unwrap_or(&none);
            let kinds: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for kind in kinds {
                let number = |counts: &Counts| counts.get(kind).copied().unwrap_or_default();
                let (before, now) = (number(before), number(now));
                if before != now {
                    found.push(format!("{node}: {now} {kind}, and {before} before"));
                }
            }
        }
        found
    }
}

/// The agent of a node, through the node's file system.
pub(super) fn agent(place: &Place, node: Node) -> Result<Client> {
    Ok(Client::new(
        root(place, node)?.join(path::DEFAULT_SOCKET.trim_start_matches('/')),
    ))
}

/// The node's file system, as its processes see it.
fn root(place: &Place, node: Node) -> Result<PathBuf> {
    let first = Process::recorded(place, &node.to_string())?;
    Ok(PathBuf::from(format!("/proc/{}/root", first.id)))
}

/// On every node: pods without network, network without pod, rows that are not as they should be.
pub(super) fn strays(place: &Place) -> Result<Vec<String>> {
    let pods = pods::pods(place, None)?;
    let mut found = Vec::new();
    for node in Node::all(nodes_of(place)?) {
        let of_node = compare_pods(place, node, &pods)?
            .into_iter()
            .chain(compare_rows(&agent(place, node)?)?);
        found.extend(of_node.map(|problem| format!("{node}: {problem}")));
    }
    let known: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
    found.extend(unknown_announcements(
        &pods::get(place, &["nodepods"])?,
        &known,
    ));
    Ok(found)
}

/// Addresses that are announced for pods that are no more.
fn unknown_announcements(announced: &Value, known: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for node in pods::list(&announced["items"]) {
        for pod in pods::list(&node["pods"]) {
            if !pod["uid"].as_str().is_some_and(|uid| known.contains(uid)) {
                found.push(format!(
                    "{} announces {}/{}, which is no more",
                    node["metadata"]["name"], pod["namespace"], pod["name"]
                ));
            }
        }
    }
    found
}

/// The node's pods against everything that should be there once for each of them.
fn compare_pods(place: &Place, node: Node, pods: &[Pod]) -> Result<Vec<String>> {
    let root = root(place, node)?;
    let agent = agent(place, node)?;
    let endpoints: Vec<Endpoint> = agent.get(path::ENDPOINTS)?;
    let mut found = Vec::new();

    let wanted: BTreeMap<String, BTreeSet<IpAddr>> = pods
        .iter()
        .filter(|pod| pod.node == node.to_string() && !pod.host_network)
        .map(|pod| (pod.full_name(), pod.addresses.clone()))
        .collect();
    let connected: BTreeMap<String, BTreeSet<IpAddr>> = endpoints
        .iter()
        .map(|one| {
            let name = one.status.external_identifiers.pod_name.clone();
            (name, addresses(one))
        })
        .collect();
    compare("endpoint", &wanted, &connected, &mut found);
    if connected.len() != endpoints.len() {
        found.push("a pod has several endpoints".to_owned());
    }
    let wrong = endpoints
        .iter()
        .filter(|one| one.status.state != EndpointState::Ready);
    found.extend(wrong.map(|one| {
        let name = &one.status.external_identifiers.pod_name;
        format!("endpoint of {name} is {:?}", one.status.state)
    }));

    let links = endpoints
        .iter()
        .map(|one| one.status.networking.interface_name.clone());
    let pod_links = links_of(place, node)?
        .into_iter()
        .filter(|name| name.starts_with(POD_LINK) && !OWN_LINKS.contains(&name.as_str()));
    compare_names("link", links.collect(), pod_links.collect(), &mut found);

    let files = endpoints.iter().map(|one| format!("{}.json", one.id));
    let there = names_in(&root.join("var/lib/weir/endpoints"))?;
    compare_names("file", files.collect(), there, &mut found);

    let kernel: Vec<EndpointEntry> = agent.get(path::KERNEL_ENDPOINTS)?;
    let rows = kernel.iter().filter(|row| !row.localhost);
    let rows = rows.filter_map(|row| row.address.parse().ok());
    let wanted: BTreeSet<IpAddr> = wanted.into_values().flatten().collect();
    let taken = wanted.len();
    compare_names("row of endpoint", wanted, rows.collect(), &mut found);

    let status: Status = agent.get(path::STATUS)?;
    let used: u64 = status.ipam.iter().map(|pool| pool.used).sum();
    if used != taken as u64 {
        found.push(format!("{used} addresses are given out to {taken}"));
    }
    let namespaces = names_in(&root.join("run/netns"))?.len();
    if namespaces != endpoints.len() {
        found.push(format!(
            "{namespaces} network namespaces for {} pods",
            endpoints.len()
        ));
    }
    let unwell = status.subsystems.iter().filter(|one| !one.healthy);
    found.extend(unwell.map(|one| format!("{} is not healthy: {}", one.name, one.message)));
    Ok(found)
}

fn addresses(endpoint: &Endpoint) -> BTreeSet<IpAddr> {
    let all = endpoint.status.networking.addressing.iter();
    all.flat_map(|one| [one.ipv4.as_deref(), one.ipv6.as_deref()])
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// Every row of every map against the one that the agent wants to be there.
fn compare_rows(agent: &Client) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for map in map::ALL.iter().filter(|map| map.pinned) {
        let wrong = rows(agent, map.name)?
            .into_iter()
            .filter(|row| row.state != "sync" && row.state != "dynamic");
        found.extend(wrong.map(|row| {
            let (state, key, value) = (row.state, row.key, row.value);
            format!("row of map {}: {state}: {key} {value}", map.name)
        }));
    }
    Ok(found)
}

/// What `weir service update` finds. It repairs what it finds, so it is asked once, when nothing else is on its way.
pub(super) fn compare_services(place: &Place) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in Node::all(nodes_of(place)?) {
        let services: ServicesCompared = agent(place, node)?.post(path::SERVICES_COMPARE)?;
        let wrong = services.repaired.into_iter().chain(services.failed);
        found.extend(wrong.map(|row| format!("{node}: row of services: {row}")));
    }
    Ok(found)
}

fn rows(agent: &Client, map: &str) -> Result<Vec<MapEntry>> {
    let request = path::MAP.replace("{name}", map);
    agent
        .get(&request)
        .with_context(|| format!("cannot read the rows of map {map}"))
}

/// Numbers that pods must not leave greater than they were.
fn count(place: &Place, node: Node) -> Result<Counts> {
    let root = root(place, node)?;
    let agent = agent(place, node)?;
    let mut counts = Counts::new();
    for map in map::ALL.iter().filter(|map| map.pinned) {
        let rows = rows(&agent, map.name)?;
        let owned = rows.iter().filter(|row| row.state != "dynamic").count();
        counts.insert(format!("rows of map {}", map.name), owned);
    }
    for (kind, arguments) in [
        ("links", "-oneline link"),
        ("addresses of links", "-oneline address"),
        ("routes", "-4 route show table all"),
        ("routes over IPv6", "-6 route show table all"),
        ("neighbours that stay", "neighbour show nud permanent"),
    ] {
        let lines = stdout_of(inside(place, node, "ip").args(arguments.split(' ')))?;
        counts.insert(kind.to_owned(), lines.lines().count());
    }
    for (kind, folder) in [
        ("network namespaces", "run/netns"),
        ("pinned objects", "sys/fs/bpf"),
    ] {
        counts.insert(kind.to_owned(), count_files(&root.join(folder))?);
    }
    // Some of the agent's own files come with the node's first pod, and hold what is counted above; what else is there was
    // to become one of them.
    let files = names_in(&root.join("var/lib/weir"))?;
    let torn = files
        .iter()
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "new"));
    counts.insert("torn files of the agent".to_owned(), torn.count());
    Ok(counts)
}

/// Packets that the programs of a node have dropped, by reason; an agent's end changes no counter.
pub(super) fn drops(place: &Place, node: Node) -> Result<BTreeMap<String, u64>> {
    let counters: Vec<MetricEntry> = agent(place, node)?.get(path::KERNEL_METRICS)?;
    let mut drops = BTreeMap::new();
    for counter in counters.into_iter().filter(|one| one.code != 0) {
        *drops.entry(counter.reason).or_default() += counter.packets;
    }
    Ok(drops)
}

fn links_of(place: &Place, node: Node) -> Result<BTreeSet<String>> {
    let lines = stdout_of(inside(place, node, "ip").args(["-oneline", "link"]))?;
    // `7: weir0a@if2: <BROADCAST,...`
    let name = |line: &str| {
        let (name, _) = line.split_once(": ")?.1.split_once(": ")?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    Ok(lines.lines().filter_map(name).collect())
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.map(|entry| entry.map(|one| one.file_name().to_string_lossy().into()));
    names
        .collect::<io::Result<_>>()
        .with_context(|| format!("cannot read {}", folder.display()))
}

fn count_files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for name in names_in(folder)? {
        let entry = folder.join(name);
        if entry.is_dir() {
            count += count_files(&entry)?;
        } else {
            count += 1;
        }
    }
    Ok(count)
}

fn compare_names<T: Debug + Ord>(
    kind: &str,
    wanted: BTreeSet<T>,
    there: BTreeSet<T>,
    found: &mut Vec<String>,
) {
    let with_nothing = |names: BTreeSet<T>| names.into_iter().map(|name| (name, ())).collect();
    compare(kind, &with_nothing(wanted), &with_nothing(there), found);
}

fn compare<K: Debug + Ord, V: Debug + Eq>(
    kind: &str,
    wanted: &BTreeMap<K, V>,
    there: &BTreeMap<K, V>,
    found: &mut Vec<String>,
) {
    for (key, value) in wanted {
        match there.get(key) {
            None => found.push(format!("{kind} {key:?} is missing")),
            Some(other) if other != value => {
                found.push(format!("{kind} {key:?} is {other:?} instead of {value:?}"));
            }
            Some(_) => {}
        }
    }
    let strange = there.keys().filter(|key| !wanted.contains_key(key));
    found.extend(strange.map(|key| format!("{kind} {key:?} is nobody's")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_strange_or_different_is_found() {
        let wanted = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let mut found = Vec::new();
        compare("row", &wanted, &wanted, &mut found);
        assert_eq!(found, Vec::<String>::new());
        let there = BTreeMap::from([("a", 1), ("b", 7), ("d", 4)]);
        compare("row", &wanted, &there, &mut found);
        assert_eq!(
            found,
            [
                "row \"b\" is 7 instead of 2",
                "row \"c\" is missing",
                "row \"d\" is nobody's"
            ]
        );
    }

    #[test]
    fn numbers_must_be_the_same_again() {
        let of = |links| {
            let counts = Counts::from([("links".to_owned(), links), ("routes".to_owned(), 5)]);
            Before(BTreeMap::from([("node1".to_owned(), counts)]))
        };
        assert_eq!(of(2).compare(&of(2)), Vec::<String>::new());
        assert_eq!(of(2).compare(&of(3)), ["node1: 3 links, and 2 before"]);
    }

    #[test]
    fn announcements_of_pods_that_are_gone_are_found() {
        let announced = json!({"items": [{
            "metadata": {"name": "node1"},
            "pods": [
                {"namespace": "a", "name": "b", "uid": "1"},
                {"namespace": "a", "name": "c", "uid": "2"}
            ]
        }]});
        let known = BTreeSet::from(["1"]);
        assert_eq!(
            unknown_announcements(&announced, &known),
            ["\"node1\" announces \"a\"/\"c\", which is no more"]
        );
    }
}
