// SPDX-License-Identifier: Apache-2.0
//! From what is written to what is built: every default filled in.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use super::{Dataplane, External, LabConfig, Node, NodeConfig, Topology};
use crate::object::Object;

impl LabConfig {
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

fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length).into()
}

fn v6([a, b, c, d]: [u16; 4], length: u8) -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length).into()
}
