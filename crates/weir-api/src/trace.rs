// SPDX-License-Identifier: Apache-2.0
//! Where would a packet go, and who decides? Asked without sending one.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::policy::PolicyRule;

/// A question about packets from one place to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    pub source: Place,
    pub destination: Place,
    /// `80`, `53/UDP`, `http`, `ICMP`; empty: what the destination offers first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// 4 or 6; absent: IPv4 where both ends have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// Objects, as the text of a manifest, that are taken for applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// Policies (`namespace/name`) that are taken for deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// One end, in any of the ways to name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Place {
    /// `namespace/name`
    Pod(String),
    /// `namespace/name`
    Service(String),
    Node(String),
    Address(IpAddr),
    /// Number of an identity of this node.
    Identity(u32),
    /// Number of an endpoint of this node.
    Endpoint(u16),
    /// `app=web`, `k8s:app=web`, `reserved:host`.
    Labels(Vec<String>),
    /// A pod, or something that makes pods, as the text of a manifest.
    Manifest(String),
    /// Somebody outside the cluster.
    World,
}

/// `allowed` or `denied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceVerdict {
    Allowed,
    Denied,
}

/// Who has worked out a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluated {
    /// The programs of this node over its live maps.
    Kernel,
    /// The same code in user space, over the rows that a node should have by what is known of the
    /// cluster here: for other nodes, and for what is only supposed.
    Compiled,
}

/// The way of one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub verdict: TraceVerdict,
    pub source: TraceEnd,
    /// As it was asked for.
    pub destination: TraceEnd,
    pub protocol: String,
    /// Destination port as it was asked for; 0: the protocol has none.
    pub port: u16,
    pub family: u8,
    pub egress: TraceSide,
    pub ingress: TraceSide,
    /// Where it ends: a sentence.
    pub outcome: String,
    /// Why the packet does not arrive: prose, name and number of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_enum: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<u8>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub steps: Vec<TraceStep>,
    /// What was supposed; empty: the answer is about what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hypothetical: Vec<String>,
    /// What the reader should know about the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Who is at an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceEnd {
    /// `namespace/pod`, `svc:namespace/name`, `node/NAME`, `world`.
    pub name: String,
    pub address: String,
    /// Where it is; absent: outside the cluster, or on no single node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceSide {
    pub verdict: TraceVerdict,
    /// Allowed: the rules that allow it; empty where no policy was asked. Denied: the policies that
    /// isolate the pod, none of which allows it.
    pub policies: Vec<PolicyRule>,
    /// A sentence.
    pub reason: String,
    /// The pod whose policies these are; empty: this end is no pod.
    #[serde(default)]
    pub subject: String,
    /// Whether any policy isolates the pod in this direction.
    #[serde(default)]
    pub enforced: bool,
    pub evaluated: Evaluated,
    /// Denied: the rule that comes nearest, and what keeps it from matching.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<String>,
}

/// A program that the packet meets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceStep {
    pub node: String,
    /// `from_container` …
    pub program: String,
    pub interface: String,
    pub evaluated: Evaluated,
    /// `1.2.3.4:5 -> 6.7.8.9:80 TCP`, as the packet comes to the program.
    pub packet: String,
    /// `delivered`, `forwarded`, `passed` or `dropped`.
    pub verdict: String,
    /// `to-endpoint` …; absent where the packet is dropped before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was looked up, in order.
    pub lookups: Vec<Lookup>,
    /// `destination 10.96.0.9:80 -> 10.8.1.4:8080 (shop/web-1)`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translations: Vec<String>,
}

/// A row that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The map.
    pub table: String,
    pub key: String,
    /// What was found, in names; `none`.
    pub found: String,
}
