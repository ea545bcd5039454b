// SPDX-License-Identifier: Apache-2.0
//! The lab's configuration file; `topology` is what follows from it.

mod ports;
mod resolve;
#[cfg(test)]
mod tests;
mod topology;

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use ports::PortRange;
pub(crate) use topology::{External, Node, Topology, address_of};

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

impl LabConfig {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_saphyr::from_str(text)?)
    }
}
