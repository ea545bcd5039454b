// SPDX-License-Identifier: Apache-2.0
//! Services as they are in the kernel, read back and named.

use serde::{Deserialize, Serialize};

/// A row of `frontends` with the places that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbFrontend {
    /// `10.96.0.9:80/TCP`.
    pub address: String,
    pub id: u32,
    pub service: u32,
    /// `namespace/name:port`; empty: not known.
    pub name: String,
    /// `ClusterIP` …
    pub kind: String,
    /// `non-routable`, `local`, `internal-local`, `source-ranges`, `affinity 10800s`, `maglev 3` …
    pub flags: Vec<String>,
    /// Backends for connections from this node, by slot from 1.
    pub internal: Vec<String>,
    /// Backends for connections from outside; absent: the same ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Vec<String>>,
}

/// A row of `service_backends`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbBackend {
    /// `10.8.3.41:8080`.
    pub address: String,
    pub service: u32,
    pub service_name: String,
    /// `namespace/pod`; empty: not known.
    pub name: String,
    /// `internal`, `external`, `terminating`, `local`.
    pub flags: Vec<String>,
}

/// A row of `source_ranges`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbSourceRange {
    pub service: u32,
    pub service_name: String,
    pub range: String,
}

/// A table of `maglev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbMaglev {
    /// Number of the table.
    pub table: u32,
    /// Entries in it.
    pub size: u32,
    /// Services that use it.
    pub services: Vec<String>,
    /// How many of its entries lead to each backend.
    pub shares: Vec<LbShare>,
    /// Backends by entry, as places among `shares`; only where one table is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LbShare {
    pub backend: String,
    pub entries: u32,
}

/// A row of `affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbAffinity {
    /// An address, or `namespace of shop/cli` for a translated socket.
    pub client: String,
    pub client_name: String,
    pub service: u32,
    pub service_name: String,
    pub backend: String,
    /// Seconds since it was used last.
    pub last_used: u64,
}

/// A row of `socket_services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbSocket {
    /// The kernel's number of the socket.
    pub cookie: u64,
    pub protocol: String,
    /// What it talks to in truth.
    pub backend: String,
    /// What the program believes to talk to.
    pub frontend: String,
    pub service: u32,
    pub service_name: String,
}
