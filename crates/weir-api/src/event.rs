// SPDX-License-Identifier: Apache-2.0
//! What happened on a node: one line of `/v1/events` and of `monitor -j`.

use serde::{Deserialize, Serialize};

use crate::policy::PolicyRule;

/// An event with names filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    Drop(PacketEvent),
    Trace(PacketEvent),
    PolicyVerdict(PacketEvent),
    Agent(AgentEvent),
    /// Events were lost here.
    Lost(LostEvent),
}

/// A packet was dropped, seen or decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketEvent {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    pub node: String,
    /// Drop reason's number, for drops (and denied verdicts).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<u8>,
    /// Prose of the reason, for drops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Enum name of the reason, for drops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_enum: Option<String>,
    /// What to do about it, for drops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// `errno` (negative) or the code of a FIB look-up; 0: none.
    pub extended: i32,
    /// `to-endpoint` …, for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation_point: Option<String>,
    /// `new`, `established`, `reply`, `related` …
    pub state: String,
    /// The program.
    pub hook: String,
    pub ifindex: u32,
    pub interface: String,
    pub flow_hash: u32,
    pub length: u32,
    pub source: Peer,
    pub destination: Peer,
    /// `TCP` …; absent where no tuple could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `SYN, ACK` for TCP; the message's name for ICMP.
    pub flags: String,
    pub reply: bool,
    /// `ingress` or `egress`, seen from the pod; empty: not known.
    pub direction: String,
    /// The service that the packet was sent to: `namespace/name:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `10.8.3.41:8080`: the destination after translation, where it was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_destination: Option<String>,
    /// Who has that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_destination_name: Option<String>,
    /// The rules that allowed the packet to leave its source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<PolicyRule>,
    /// The rules that allowed the packet to enter its destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<PolicyRule>,
    /// The rules that denied the packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_by: Vec<PolicyRule>,
    /// The policies that isolate the pod which did not let the packet out or in; none of them
    /// allows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<PolicyRule>,
    /// The rule that would have allowed the packet, but for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_miss: Option<String>,
    /// The source before translation, where it was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_source: Option<String>,
    /// First bytes of the packet, hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub capture: String,
}

/// One end of a packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Empty where no tuple could be read.
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub identity: u32,
    /// Endpoint of this node; 0: none.
    pub endpoint: u16,
    /// `namespace/pod`, `node/NAME`, `world` …
    pub name: String,
    /// `k8s:…`, `reserved:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// Something the agent did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvent {
    pub time: String,
    pub node: String,
    /// `agent-started`, `endpoint-created`, `endpoint-deleted`, `endpoint-regenerated`,
    /// `ipcache-updated`, `services-updated`, `policy-updated`, `row-repaired`, `config-changed` …
    pub subtype: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvent {
    pub time: String,
    pub node: String,
    /// `kernel` (ring buffer full) or `listener` (this reader was too slow).
    pub place: String,
    pub count: u64,
}
