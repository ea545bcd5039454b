// SPDX-License-Identifier: Apache-2.0
//! The objects of a case as the cluster gets them: its pods on the cluster's nodes, with a server that is there, and its
//! policies about the addresses that the cluster gave.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::netpol::{Case, Objects, list, text};

/// A process for each port, which answers over TCP and UDP; the container ends when one of them does.
const SERVE: &str = r#"for port; do /agnhost netexec --http-port="$port" --udp-port="$port" & done; wait -n; exit 1"#;

/// Why a case cannot be replayed on a cluster of so many nodes.
pub(super) fn obstacle(case: &Case, nodes: usize) -> Option<&'static str> {
    let states = case.steps.iter().map(|step| &step.objects);
    let states = [&case.objects].into_iter().chain(states);
    let pods: Vec<&Value> = states
        .flatten()
        .filter(|(key, _)| key.0 == "Pod")
        .map(|(_, pod)| pod)
        .collect();
    if case.nodes.len() > nodes {
        Some("more nodes than there are")
    } else if pods.iter().any(|pod| pod["spec"]["hostNetwork"] == true) {
        Some("pods in the network of their node")
    } else if pods.iter().any(|pod| pod["status"]["phase"] != "Running") {
        Some("pods that do not run")
    } else {
        None
    }
}

/// The pod, with its declared ports and a server on those that are asked about: a port that nobody declares is served
/// too, so that a connection to it tells what policy says.
pub(super) fn pod(case: &Case, pod: &Value, image: &str, ports: &[u16]) -> Value {
    let is_its = |node: &Value| node["name"] == pod["spec"]["nodeName"];
    let node = case.nodes.iter().position(is_its).unwrap_or_default() + 1;
    let mut command = vec!["/bin/bash".to_owned(), "-c".to_owned()];
    command.extend([SERVE.to_owned(), "serve".to_owned()]);
    command.extend(ports.iter().map(ToString::to_string));
    let declared: Vec<&Value> = list(&pod["spec"]["containers"])
        .iter()
        .flat_map(|container| list(&container["ports"]))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"],
        "spec": {
            "nodeName": format!("node{node}"),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "server", "image": image, "imagePullPolicy": "Never",
                "command": command, "ports": declared,
            }],
        },
    })
}

/// What the cluster has in place of the addresses that a case names.
#[derive(Debug)]
pub(super) struct Places {
    /// A node's range in the case, and its ranges on the cluster.
    nodes: Vec<(String, Vec<String>)>,
    /// A pod's address in the case, and its addresses on the cluster.
    pods: Vec<(Ipv4Addr, Vec<IpAddr>)>,
}

impl Places {
    pub(super) fn new(
        case: &Case,
        objects: &Objects,
        ranges: &[Vec<String>],
        addresses: impl Fn(&str, &str) -> Vec<IpAddr>,
    ) -> Self {
        let nodes = case.nodes.iter().map(|node| text(&node["podCIDR"]));
        let pods = objects.iter().filter(|(key, _)| key.0 == "Pod");
        Self {
            nodes: nodes.zip(ranges.iter().cloned()).collect(),
            pods: pods
                .filter_map(|(key, pod)| {
                    let address = pod["status"]["podIP"].as_str()?.parse().ok()?;
                    Some((address, addresses(&key.1, &key.2)))
                })
                .collect(),
        }
    }

    /// The policy with blocks of the cluster's addresses, of both families.
    pub(super) fn policy(&self, policy: &Value) -> Value {
        let mut policy = policy.clone();
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            let rules = policy.pointer_mut(&format!("/spec/{direction}"));
            let rules = rules.and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                // Indexing would add a field that is not there.
                if let Some(peers) = rule.get_mut(side).and_then(Value::as_array_mut) {
                    *peers = peers.iter().flat_map(|peer| self.peer(peer)).collect();
                }
            }
        }
        policy
    }

    fn peer(&self, peer: &Value) -> Vec<Value> {
        let Some(range) = peer["ipBlock"]["cidr"].as_str() else {
            return vec![peer.clone()];
        };
        let except: Vec<String> = list(&peer["ipBlock"]["except"])
            .iter()
            .flat_map(|range| self.ranges(&text(range)))
            .collect();
        let block = |cidr: String| {
            let v6 = cidr.contains(':');
            let except: Vec<_> = except.iter().filter(|r| r.contains(':') == v6).collect();
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        };
        self.ranges(range).into_iter().map(block).collect()
    }

    /// A node's range becomes that of the cluster's node, another one with pods in it their addresses; the one that
    /// holds everything does so in both families, and one without pods stays.
    fn ranges(&self, range: &str) -> Vec<String> {
        if let Some((_, ranges)) = self.nodes.iter().find(|(known, _)| known == range) {
            return ranges.clone();
        }
        if range.ends_with("/0") {
            return vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        }
        let inside: Vec<String> = self
            .pods
            .iter()
            .filter(|(address, _)| holds(range, *address))
            .flat_map(|(_, addresses)| addresses)
            .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
            .collect();
        if inside.is_empty() {
            vec![range.to_owned()]
        } else {
            inside
        }
    }
}

fn holds(range: &str, address: Ipv4Addr) -> bool {
    let parts = range.split_once('/').and_then(|(network, length)| {
        let network: Ipv4Addr = network.parse().ok()?;
        Some((u32::from(network), length.parse::<u32>().ok()?))
    });
    parts.is_some_and(|(network, length)| {
        let apart = network ^ u32::from(address);
        apart.checked_shr(32 - length.min(32)).unwrap_or(0) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let pod = |last: u8, real: u8| {
            let v4 = IpAddr::from([10, 200, 0, real]);
            let v6 = IpAddr::from([0xfd00, 0x200, 0, 0, 0, 0, 0, u16::from(real)]);
            (Ipv4Addr::new(10, 244, 1, last), vec![v4, v6])
        };
        Places {
            nodes: vec![(
                "10.244.1.0/24".to_owned(),
                vec!["10.200.0.0/24".to_owned(), "fd00:200::/64".to_owned()],
            )],
            pods: vec![pod(17, 3), pod(80, 4), pod(95, 5), pod(96, 6)],
        }
    }

    #[test]
    fn blocks_are_about_the_clusters_addresses() {
        for (range, expected) in [
            ("10.244.1.0/24", vec!["10.200.0.0/24", "fd00:200::/64"]),
            (
                "10.244.1.80/28",
                vec![
                    "10.200.0.4/32",
                    "fd00:200::4/128",
                    "10.200.0.5/32",
                    "fd00:200::5/128",
                ],
            ),
            ("10.244.1.17/32", vec!["10.200.0.3/32", "fd00:200::3/128"]),
            ("0.0.0.0/0", vec!["0.0.0.0/0", "::/0"]),
            ("0.0.0.0/31", vec!["0.0.0.0/31"]),
        ] {
            assert_eq!(places().ranges(range), expected, "{range}");
        }
    }

    #[test]
    fn exceptions_stay_with_blocks_of_their_family_and_other_peers_as_they_are() {
        let peers = json!([
            {"podSelector": {}},
            {"ipBlock": {"cidr": "10.244.1.0/24", "except": ["10.244.1.96/28"]}},
        ]);
        let policy = json!({"spec": {"egress": [{"to": peers}], "ingress": [{}]}});
        assert_eq!(
            places().policy(&policy)["spec"],
            json!({"ingress": [{}], "egress": [{"to": [
                {"podSelector": {}},
                {"ipBlock": {"cidr": "10.200.0.0/24", "except": ["10.200.0.6/32"]}},
                {"ipBlock": {"cidr": "fd00:200::/64", "except": ["fd00:200::6/128"]}},
            ]}]})
        );
    }
}
