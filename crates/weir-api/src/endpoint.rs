// SPDX-License-Identifier: Apache-2.0
//! Endpoints: the pods of a node, as the agent sees them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a container runtime's plugin (or the lab) asks for when a pod comes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointRequest {
    pub container_id: String,
    /// Path of the pod's network namespace, as the agent sees it.
    pub netns: String,
    /// Name of the interface inside the pod, usually `eth0`.
    pub interface: String,
    pub namespace: String,
    pub pod: String,
    /// That of the pod object, where the runtime says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Addresses that the pod must get, out of the node's pod CIDRs; empty: the agent chooses one
    /// of each family that the node has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_addresses: Vec<IpAddr>,
}

/// What the pod got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCreated {
    pub id: u16,
    /// Host side of the link.
    pub interface: String,
    /// The pod's MAC address.
    pub mac: String,
    /// That of the host side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_mac: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    pub mtu: u32,
}

/// What a comparison of a pod's network with what was made for it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChecked {
    pub id: u16,
    /// One line for each difference; empty: everything is as it was made.
    pub problems: Vec<String>,
}

/// The state machine of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Known to the runtime; the pod object with its labels has not been seen yet.
    WaitingForIdentity,
    /// Something it depends on changed; its rows are not rebuilt yet.
    WaitingToRegenerate,
    /// Its rows are being rebuilt.
    Regenerating,
    /// Its rows are in the kernel.
    Ready,
    /// Its rows are in the kernel, but something about it failed since.
    NotReady,
    /// Found after a restart, not compared with the desired state yet.
    Restoring,
    Disconnecting,
    Disconnected,
    /// It cannot be networked; the log says why.
    Invalid,
}

/// An endpoint with everything the agent knows of it. Scripts read these fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: u16,
    pub status: EndpointStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    pub state: EndpointState,
    pub external_identifiers: ExternalIdentifiers,
    pub identity: EndpointIdentity,
    pub networking: Networking,
    pub health: EndpointHealth,
    pub policy: PolicyStatus,
    /// Named container ports: name to number and protocol.
    #[serde(default)]
    pub named_ports: BTreeMap<String, String>,
    /// Newest first.
    pub log: Vec<LogEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExternalIdentifiers {
    pub container_id: String,
    pub k8s_namespace: String,
    pub k8s_pod_name: String,
    /// `namespace/name`.
    pub pod_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointIdentity {
    pub id: u32,
    /// `k8s:key=value`, `reserved:name`.
    pub labels: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Networking {
    pub addressing: Vec<Addressing>,
    pub mac: String,
    pub host_mac: String,
    pub interface_index: u32,
    pub interface_name: String,
    pub container_interface_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressing {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// `OK`, `Bootstrap`, `Pending`, `Warning`, `Failure` or `Disabled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthLevel {
    #[serde(rename = "OK")]
    Ok,
    Bootstrap,
    Pending,
    Warning,
    Failure,
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHealth {
    pub overall_health: HealthLevel,
    pub bpf: HealthLevel,
    pub policy: HealthLevel,
    pub connected: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyStatus {
    /// Whether policies select the endpoint in this direction.
    pub ingress_enforced: bool,
    pub egress_enforced: bool,
    /// Number of the rows that the endpoint shares with others of its labels; 0: none.
    #[serde(default)]
    pub set: u32,
    /// Policies that isolate it for what comes in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_policies: Vec<crate::policy::PolicyRule>,
    /// Policies that isolate it for what goes out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_policies: Vec<crate::policy::PolicyRule>,
    /// Its rows in the kernel with their counters; only where one endpoint is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub realized: Vec<crate::policy::PolicyRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// RFC 3339.
    pub timestamp: String,
    /// `OK`, `Warning` or `Failure`.
    pub code: String,
    pub state: EndpointState,
    pub message: String,
}

/// What `regenerate` found and repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regenerated {
    pub id: u16,
    /// One line for each row, link or route that was not as desired; empty: nothing differed.
    pub repaired: Vec<String>,
}
