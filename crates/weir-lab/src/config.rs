// SPDX-License-Identifier: Apache-2.0
//! The lab's configuration file and the topology that follows from it.

mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weir_net::Family;

use crate::object::{Object, is_dns_label, is_dns_name};
pub(crate) use ports::PortRange;

/// What forwards the pods' packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dataplane {
    /// Weir's agents.
    #[default]
    Weir,
    /// The kernel's routing alone, for comparison.
    KernelRouting,
    /// The kernel's routing with its own VXLAN devices between nodes, for comparison.
    KernelVxlan,
}

/// The file given by `--config`, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct LabConfig {
    pub(crate) nodes: Vec<NodeConfig>,
    pub(crate) externals: Vec<ExternalConfig>,
    #[serde(rename = "serviceCIDRs")]
    pub(crate) service_cidrs: Option<Vec<IpNet>>,
    /// Where services of type `LoadBalancer` get their addresses from.
    #[serde(rename = "loadBalancerCIDRs")]
    pub(crate) load_balancer_cidrs: Option<Vec<IpNet>>,
    pub(crate) node_port_range: PortRange,
    pub(crate) cluster_domain: Option<String>,
    /// Whether there is a DNS server; absent: where something translates services.
    pub(crate) dns: Option<bool>,
    #[serde(rename = "underlayMTU")]
    pub(crate) underlay_mtu: Option<u32>,
    pub(crate) agent: Map<String, Value>,
    pub(crate) dataplane: Dataplane,
}

/// One node, as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct NodeConfig {
    pub(crate) name: Option<String>,
    pub(crate) addresses: Option<Vec<IpAddr>>,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Option<Vec<IpNet>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) agent: Map<String, Value>,
}

/// One host outside the cluster, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ExternalConfig {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
}

/// A lab with every default filled in and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Topology {
    pub(crate) nodes: Vec<Node>,
    pub(crate) externals: Vec<External>,
    pub(crate) service_cidrs: Vec<IpNet>,
    pub(crate) load_balancer_cidrs: Vec<IpNet>,
    pub(crate) node_ports: PortRange,
    pub(crate) cluster_domain: String,
    /// Whether there is a DNS server.
    pub(crate) dns: bool,
    pub(crate) underlay_mtu: u32,
    pub(crate) dataplane: Dataplane,
}

/// A node to be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) pod_cidrs: Vec<IpNet>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The agent's configuration file.
    pub(crate) agent: Map<String, Value>,
}

/// A host outside the cluster to be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct External {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Node {
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        address_of(&self.addresses, family)
    }

    /// Whether drivers are to run programs.
    pub(crate) fn is_accelerated(&self) -> bool {
        self.agent
            .get("loadBalancerAcceleration")
            .is_some_and(|how| how != "disabled")
    }
}

/// The first address of a family.
pub(crate) fn address_of(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|address| Family::of(*address) == family)
}

impl LabConfig {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_saphyr::from_str(text)?)
    }

    /// Fills in defaults. Node objects, where given, take the place of the configured nodes.
    pub(crate) fn resolve(&self, count: Option<usize>, nodes: &[&Object]) -> Result<Topology> {
        let configured = if nodes.is_empty() {
            let mut configured = self.nodes.clone();
            let wanted = count.unwrap_or(if configured.is_empty() {
                2
            } else {
                configured.len()
            });
            ensure!(wanted >= 1, "a lab needs at least one node");
            ensure!(
                wanted <= 200,
                "{wanted} nodes are more than a lab can hold (200)"
            );
            configured.resize_with(wanted, NodeConfig::default);
            configured
        } else {
            nodes
                .iter()
                .map(|node| from_object(node))
                .collect::<Result<_>>()?
        };
        let topology = Topology {
            nodes: configured
                .iter()
                .zip(1..)
                .map(|(node, number)| self.node(node, number))
                .collect(),
            externals: self.externals(),
            service_cidrs: self
                .service_cidrs
                .clone()
                .unwrap_or_else(|| vec![v4(10, 96, 0, 0, 16), v6([0xfd00, 0x96, 0, 0], 112)]),
            load_balancer_cidrs: self.load_balancer_cidrs.clone().unwrap_or_else(|| {
                vec![
                    v4(203, 0, 113, 128, 25),
                    v6([0x2001, 0xdb8, 0x113, 0x128], 112),
                ]
            }),
            node_ports: self.node_port_range,
            dns: self.dns.unwrap_or(self.dataplane == Dataplane::Weir),
            cluster_domain: self
                .cluster_domain
                .clone()
                .unwrap_or("cluster.local".to_owned()),
            underlay_mtu: self.underlay_mtu.unwrap_or(1500),
            dataplane: self.dataplane,
        };
        topology.check()?;
        Ok(topology)
    }

    fn node(&self, node: &NodeConfig, number: u8) -> Node {
        let index = u16::from(number);
        let mut agent = Map::new();
        // A lab runs many agents on one machine; a table for a big server would only cost memory.
        agent.insert("mapSizes".to_owned(), serde_json::json!({"flows": 65536}));
        merge(&mut agent, &self.agent);
        merge(&mut agent, &node.agent);
        Node {
            name: node.name.clone().unwrap_or_else(|| format!("n{number}")),
            addresses: node.addresses.clone().unwrap_or_else(|| {
                vec![
                    Ipv4Addr::new(172, 18, 0, number.saturating_add(1)).into(),
                    Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, index + 1).into(),
                ]
            }),
            pod_cidrs: node.pod_cidrs.clone().unwrap_or_else(|| {
                vec![
                    v4(10, 244, number, 0, 24),
                    v6([0xfd00, 0x244, index, 0], 64),
                ]
            }),
            labels: node.labels.clone(),
            agent,
        }
    }

    fn externals(&self) -> Vec<External> {
        if self.externals.is_empty() {
            return vec![External {
                name: "world".to_owned(),
                addresses: vec![
                    Ipv4Addr::new(203, 0, 113, 10).into(),
                    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10).into(),
                ],
            }];
        }
        self.externals
            .iter()
            .map(|external| External {
                name: external.name.clone(),
                addresses: external.addresses.clone(),
            })
            .collect()
    }
}

impl Topology {
    fn check(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        let mut ranges: Vec<(IpNet, &str)> = Vec::new();
        for node in &self.nodes {
            let name = node.name.as_str();
            ensure!(
                is_dns_name(name),
                "`{name}` is not a node name (a DNS name in lower case)"
            );
            ensure!(names.insert(name), "two nodes are named {name}");
            ensure!(!node.addresses.is_empty(), "node {name} has no address");
            ensure!(
                !node
                    .agent
                    .get("loadBalancerAcceleration")
                    .is_some_and(|how| how == "native" || how == "best-effort"),
                "node {name}: links of a lab have no driver to speak of, and lose what a program there sends: set \
                 loadBalancerAcceleration to generic"
            );
            for cidr in &node.pod_cidrs {
                if let Some((other, owner)) = ranges.iter().find(|(other, _)| overlap(cidr, other))
                {
                    bail!("pod CIDR {cidr} of node {name} overlaps {other} of node {owner}");
                }
                ranges.push((*cidr, name));
            }
        }
        let mut outside = BTreeSet::new();
        for external in &self.externals {
            let name = external.name.as_str();
            ensure!(
                is_dns_label(name),
                "`{name}` is not a name for an external host"
            );
            ensure!(outside.insert(name), "two external hosts are named {name}");
            ensure!(
                !external.addresses.is_empty(),
                "external host {name} has no address"
            );
        }
        let hosts = self.nodes.iter().map(|node| (&node.name, &node.addresses));
        let hosts = hosts.chain(
            self.externals
                .iter()
                .map(|host| (&host.name, &host.addresses)),
        );
        for (name, own) in hosts {
            for address in own {
                if let Some(other) = addresses.insert(*address, name) {
                    bail!("address {address} belongs to both {other} and {name}");
                }
                if let Some((cidr, owner)) = ranges.iter().find(|(cidr, _)| cidr.contains(address))
                {
                    bail!("address {address} of {name} is inside pod CIDR {cidr} of node {owner}");
                }
            }
        }
        ensure!(
            (1280..=65000).contains(&self.underlay_mtu),
            "underlayMTU {} is not between 1280 and 65000",
            self.underlay_mtu
        );
        Ok(())
    }
}

/// A node as a v1 Node object describes it; what the object leaves out gets the lab's defaults.
fn from_object(node: &Object) -> Result<NodeConfig> {
    let name = node.name().to_owned();
    let mut addresses = Vec::new();
    for entry in node.list("/status/addresses") {
        if entry["type"] == "InternalIP" {
            let text = entry["address"].as_str().unwrap_or_default();
            addresses.push(
                text.parse()
                    .with_context(|| format!("address `{text}` of node {name}"))?,
            );
        }
    }
    let mut pod_cidrs = Vec::new();
    let single = node
        .text("/spec/podCIDR")
        .map(|cidr| Value::from(cidr.to_owned()));
    let list = node.list("/spec/podCIDRs");
    for cidr in if list.is_empty() {
        single.as_slice()
    } else {
        list
    } {
        let text = cidr.as_str().unwrap_or_default();
        pod_cidrs.push(
            text.parse()
                .with_context(|| format!("pod CIDR `{text}` of node {name}"))?,
        );
    }
    Ok(NodeConfig {
        name: Some(name),
        addresses: Some(addresses).filter(|list| !list.is_empty()),
        pod_cidrs: Some(pod_cidrs).filter(|list| !list.is_empty()),
        labels: node.labels(),
        agent: Map::new(),
    })
}

/// Lays one configuration over another; objects are merged field by field.
fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length).into()
}

fn v6([a, b, c, d]: [u16; 4], length: u8) -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Topology> {
        LabConfig::parse(text)?.resolve(None, &[])
    }

    fn check_error(text: &str, expected: &str) {
        let error = format!("{:#}", resolve(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn an_empty_file_is_two_nodes_and_the_world() {
        let topology = resolve("").unwrap();
        let nodes: Vec<_> = topology
            .nodes
            .iter()
            .map(|node| format!("{} {:?} {:?}", node.name, node.addresses, node.pod_cidrs))
            .collect();
        assert_eq!(
            nodes,
            [
                "n1 [172.18.0.2, fd00:18::2] [10.244.1.0/24, fd00:244:1::/64]",
                "n2 [172.18.0.3, fd00:18::3] [10.244.2.0/24, fd00:244:2::/64]",
            ]
        );
        assert_eq!(topology.externals.first().unwrap().name, "world");
        assert_eq!(
            topology.nodes.first().unwrap().agent["mapSizes"]["flows"],
            65536
        );
    }

    #[test]
    fn a_lab_has_no_drivers() {
        let text = "agent: {loadBalancerAcceleration: native}";
        check_error(text, "set loadBalancerAcceleration to generic");
        let text = "agent: {loadBalancerAcceleration: generic}";
        assert!(
            resolve(text)
                .unwrap()
                .nodes
                .iter()
                .all(Node::is_accelerated)
        );
        assert!(!resolve("").unwrap().nodes.iter().any(Node::is_accelerated));
    }

    #[test]
    fn every_field_can_be_set() {
        let topology = resolve(
            r#"
nodes:
- {name: n1, addresses: [172.18.0.2, "fd00:18::2"], podCIDRs: [10.244.1.0/24], labels: {topology.kubernetes.io/zone: a}, agent: {mapSizes: {flows: 7}}}
externals: [{name: world, addresses: [203.0.113.10]}, {name: partner, addresses: [198.51.100.1]}]
serviceCIDRs: [10.96.0.0/16]
loadBalancerCIDRs: [198.51.100.0/24]
nodePortRange: 30000-30100
clusterDomain: example.org
dns: false
underlayMTU: 1400
agent: {routingMode: native, mapSizes: {other: 1}}
dataplane: kernel-vxlan
"#,
        )
        .unwrap();
        let node = topology.nodes.first().unwrap();
        assert_eq!(
            serde_json::to_string(&node.agent).unwrap(),
            r#"{"mapSizes":{"flows":7,"other":1},"routingMode":"native"}"#
        );
        assert_eq!(topology.underlay_mtu, 1400);
        assert_eq!(topology.node_ports.to_string(), "30000-30100");
        assert_eq!(topology.dataplane, Dataplane::KernelVxlan);
        assert_eq!(topology.externals.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
        check_error("nodse: []", "nodse");
        check_error("nodes: [{nam: n1}]", "nam");
        check_error("nodes: [{name: N1}]", "not a node name");
        check_error("nodes: [{name: a}, {name: a}]", "two nodes are named a");
        check_error(
            "nodes: [{podCIDRs: [10.1.0.0/16]}, {podCIDRs: [10.1.2.0/24]}]",
            "overlaps",
        );
        check_error(
            "nodes: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.1]}]",
            "belongs to both",
        );
        check_error("nodes: [{addresses: [10.244.1.7]}]", "inside pod CIDR");
        check_error("underlayMTU: 500", "underlayMTU");
        check_error("nodePortRange: 80", "nodePortRange");
        check_error("nodes: [{addresses: [10.0.0]}]", "addresses");
    }

    #[test]
    fn node_objects_take_the_place_of_configured_nodes() {
        let object = Object::parse_all(
            "apiVersion: v1\nkind: Node\nmetadata: {name: gke-1, labels: {zone: a}}\n\
             spec: {podCIDR: 10.8.1.0/24}\n\
             status: {addresses: [{type: Hostname, address: gke-1}, {type: InternalIP, address: 10.128.0.3}]}",
        )
        .unwrap();
        let topology = LabConfig::default()
            .resolve(None, &object.iter().collect::<Vec<_>>())
            .unwrap();
        let [node] = topology.nodes.as_slice() else {
            panic!("one node")
        };
        assert_eq!(node.name, "gke-1");
        assert_eq!(
            format!("{:?} {:?}", node.addresses, node.pod_cidrs),
            "[10.128.0.3] [10.8.1.0/24]"
        );
        assert_eq!(node.labels["zone"], "a");
    }
}
