// SPDX-License-Identifier: Apache-2.0
//! Services: what answers at an address and port, and who is behind it. Field names are those that
//! scripts know from the peers.

use serde::{Deserialize, Serialize};

/// One frontend of a service. A service has one for each of its ports and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceSpec {
    pub id: u32,
    pub frontend_address: FrontendAddress,
    pub flags: ServiceFlags,
    pub backend_addresses: Vec<BackendAddress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendAddress {
    pub ip: String,
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFlags {
    /// `ClusterIP`, `NodePort`, `ExternalIPs`, `LoadBalancer`, `HostPort`.
    #[serde(rename = "type")]
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Name of the port, where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_name: String,
    /// `Cluster` or `Local`: for clients outside the node.
    pub ext_traffic_policy: String,
    /// `Cluster` or `Local`: for clients on the node.
    pub int_traffic_policy: String,
    /// Seconds for which a client sticks to its backend; 0: it does not.
    #[serde(default)]
    pub affinity_timeout: u32,
    /// Who may connect; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendAddress {
    pub ip: String,
    pub port: u16,
    pub protocol: String,
    /// `active`, `terminating`, `terminating, not ready`, `not ready` …
    pub state: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// `namespace/pod`, where it is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// New connections from this node's pods and from the node may go there.
    pub internal: bool,
    /// New connections from outside may go there.
    pub external: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceStatus {
    /// The rows in the kernel are as desired.
    pub realized: bool,
    /// Why no backend takes connections from this node; absent: some do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_backend: Option<String>,
    /// The same for connections from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_external_backend: Option<String>,
}

/// What a comparison of all service rows with the kernel found, and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicesCompared {
    pub services: u64,
    pub frontends: u64,
    pub backends: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// One line for each row that was not as desired and was put right; empty: nothing differed.
    pub repaired: Vec<String>,
    /// Rows that the kernel refused, with the reason.
    pub failed: Vec<String>,
    pub took_ms: u64,
}
