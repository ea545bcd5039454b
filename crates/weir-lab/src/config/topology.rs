// SPDX-License-Identifier: Apache-2.0
//! What is built: every node and outside host of a lab, with addresses that do not meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weir_net::Family;

use super::{Dataplane, PortRange};
use crate::object::{is_dns_label, is_dns_name};

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

impl Topology {
    pub(super) fn check(&self) -> Result<()> {
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

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
