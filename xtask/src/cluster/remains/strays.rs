// SPDX-License-Identifier: Apache-2.0
//! Pods without network, network without pod, rows that are not as they should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;
use weir_abi::map;
use weir_api::endpoint::{Endpoint, EndpointState};
use weir_api::kernel::EndpointEntry;
use weir_api::status::Status;
use weir_api::{Client, path};

use super::{agent, names_in, root, rows};
use crate::cluster::network::inside;
use crate::cluster::place::{Node, Place};
use crate::cluster::pods::{self, Pod};
use crate::cluster::up::nodes_of;
use crate::process::stdout_of;

/// How the agent calls the node's ends of pods' links.
const POD_LINK: &str = "weir";
/// Its other links.
const OWN_LINKS: [&str; 2] = ["weir_host", "weir_net"];

/// On every node: pods without network, network without pod, rows that are not as they should be.
pub(in crate::cluster) fn strays(place: &Place) -> Result<Vec<String>> {
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

fn links_of(place: &Place, node: Node) -> Result<BTreeSet<String>> {
    let lines = stdout_of(inside(place, node, "ip").args(["-oneline", "link"]))?;
    // `7: weir0a@if2: <BROADCAST,...`
    let name = |line: &str| {
        let (name, _) = line.split_once(": ")?.1.split_once(": ")?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    Ok(lines.lines().filter_map(name).collect())
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
