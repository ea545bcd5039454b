// SPDX-License-Identifier: Apache-2.0
//! The agent's health.

use serde::{Deserialize, Serialize};

/// Answer of `/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub node_name: String,
    /// Every subsystem is fine.
    pub healthy: bool,
    pub subsystems: Vec<Subsystem>,
    /// The source's revision whose objects are realized in the kernel (lab folder: the number in
    /// the file `revision`).
    pub revision: u64,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// `tunnel` or `native`.
    pub routing_mode: String,
    pub masquerade: bool,
    pub devices: Vec<Device>,
    pub ipam: Vec<IpamPool>,
    pub endpoints: EndpointCounts,
    pub controllers: Vec<Controller>,
    pub events: EventStatus,
    pub maps: Vec<crate::kernel::MapState>,
    pub nodes: Vec<crate::kernel::NodeEntry>,
    /// What services are translated by.
    #[serde(default)]
    pub services: ServiceStatus,
    /// Policy sets: what each costs the kernel. Pods with equal labels share one.
    #[serde(default)]
    pub policy_sets: Vec<PolicySetUse>,
    /// Rows that were found changed or missing and were repaired since the agent started.
    pub repairs: u64,
}

/// One part of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subsystem {
    /// `source`, `kubernetes` (the API server, where it is the source), `world` (what in it cannot be
    /// realized), `devices`, `datapath`, `maps`, `links`, `routes`, `sockets`, `services`, `policy`,
    /// `events`, `endpoints`, `ipam`, `cni`.
    pub name: String,
    pub healthy: bool,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub ifindex: u32,
    pub mtu: u32,
    pub addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    pub cidr: String,
    pub used: u64,
    /// Addresses that pods can get.
    pub capacity: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    pub total: u64,
    pub ready: u64,
}

/// How services are balanced, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Sockets of pods are translated, not only those of the node.
    pub socket_lb: bool,
    /// `random` or `maglev`.
    pub algorithm: String,
    /// `snat` or `dsr`.
    pub mode: String,
    /// Whether drivers forward (XDP): `disabled`, `native`, `best-effort` or `generic`.
    pub acceleration: String,
    /// `reject` or `drop`.
    pub no_backend: String,
    pub node_port_range: String,
    pub services: u64,
    pub frontends: u64,
    pub backends: u64,
    /// Services that have no usable backend.
    pub without_backend: u64,
}

/// A policy set of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySetUse {
    pub set: u32,
    /// Endpoints that share it.
    pub endpoints: u64,
    /// Rows in the map of policies.
    pub rows: u64,
    /// Bytes of these rows in the kernel, keys included.
    pub bytes: u64,
}

/// A recurring job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    pub name: String,
    /// RFC 3339; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    pub consecutive_errors: u64,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    pub received: u64,
    /// Lost in the kernel: no room in the ring buffer.
    pub lost: u64,
    /// Lost on the way to a slow listener.
    pub dropped: u64,
    pub listeners: u64,
}
