// SPDX-License-Identifier: Apache-2.0
//! What is in the kernel, read back and named.

use serde::{Deserialize, Serialize};

/// One entry of the flow table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// `TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`.
    pub protocol: String,
    /// `OUT` where the node opened the flow, else `IN`.
    pub direction: String,
    /// Packets of this entry answer the direction that opened the flow.
    pub reply: bool,
    pub source: String,
    pub source_port: u16,
    pub destination: String,
    pub destination_port: u16,
    /// `namespace/pod`, `node/NAME`, `world` …
    pub source_name: String,
    pub destination_name: String,
    pub source_identity: u32,
    /// `namespace/name:port` of the service that the flow goes through.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The rules that allowed the flow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<crate::policy::PolicyRule>,
    /// The tuple after translation, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<Translated>,
    /// Half of a masquerade mapping.
    pub masquerade: bool,
    /// Seconds from now; negative: expired, not collected yet.
    pub expires_in: i64,
    pub created_ago: u64,
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags_seen: u8,
    /// Names of the state bits: `Closing`, `PeerClosing`, `SeenNonSyn`, `Answered`.
    pub flags: Vec<String>,
    /// `to-endpoint`, `to-device`, `to-tunnel`, `to-host`, `pass`.
    pub action: String,
    /// Every generation that the entry depends on is current.
    pub current: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Translated {
    pub source: String,
    pub source_port: u16,
    pub destination: String,
    pub destination_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpcacheEntry {
    /// `10.8.5.12/32`.
    pub prefix: String,
    pub identity: u32,
    /// `k8s:…` labels or `reserved:…`.
    pub labels: Vec<String>,
    /// Pod, node or range behind it.
    pub name: String,
    /// Address of the node behind whose tunnel it is; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_endpoint: Option<String>,
    pub flags: Vec<String>,
    /// `k8s`, `agent-local`, `reserved`.
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointEntry {
    pub address: String,
    pub id: u16,
    pub identity: u32,
    pub ifindex: u32,
    pub mac: String,
    pub flags: u16,
    pub name: String,
    /// An address of the node itself.
    pub localhost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricEntry {
    /// The drop reason's number; 0 is "forwarded".
    pub code: u8,
    pub reason: String,
    pub direction: String,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapState {
    pub name: String,
    pub title: String,
    /// `hash`, `lru-hash`, `lpm-trie`, `array`, `percpu-array`, `ringbuf`.
    pub kind: String,
    /// Entries in use; absent where it means nothing (arrays, rings).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    pub size: u64,
    /// Failed updates since the agent started.
    pub errors: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapEntry {
    pub key: String,
    pub value: String,
    /// `sync` (as desired), `foreign` (nobody asked for it), `changed`, `missing`, or `dynamic`
    /// (written by the programs).
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityEntry {
    pub id: u32,
    pub labels: Vec<String>,
    /// Endpoints and remote pods that have it.
    pub references: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEntry {
    pub name: String,
    pub local: bool,
    /// `InternalIP`s.
    pub addresses: Vec<String>,
    pub pod_cidrs: Vec<String>,
    /// Place in the `nodes` map; 0: none (this node, or native routing).
    pub index: u16,
    pub source: String,
}
