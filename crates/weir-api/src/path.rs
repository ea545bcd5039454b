// SPDX-License-Identifier: Apache-2.0
//! Everything that can be asked, as paths below the socket.

/// Where the agent listens unless told otherwise; the environment variable `WEIR_SOCK` overrides.
pub const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";

/// `GET`: [`crate::status::Status`].
pub const STATUS: &str = "/v1/status";
/// `GET`: `Vec<`[`crate::endpoint::Endpoint`]`>`; `PUT` with [`crate::endpoint::EndpointRequest`]:
/// [`crate::endpoint::EndpointCreated`] (also when it existed: idempotent).
pub const ENDPOINTS: &str = "/v1/endpoints";
/// `DELETE …/{container_id}`: 204, also when there was none.
/// `GET …/{reference}`: one [`crate::endpoint::Endpoint`]; a reference is an id, `ns/pod`,
/// `pod-name:ns:pod`, `ipv4:a`, `ipv6:a` or `container-id:c`.
/// `GET …/{reference}/log`: `Vec<`[`crate::endpoint::LogEntry`]`>`, newest first.
/// `GET …/{reference}/health`: [`crate::endpoint::EndpointHealth`].
/// `POST …/{reference}/regenerate`: [`crate::endpoint::Regenerated`].
pub const ENDPOINT: &str = "/v1/endpoints/{reference}";
/// `GET`: newline-delimited [`crate::event::Event`]s from now on.
pub const EVENTS: &str = "/v1/events";
/// `GET`: newline-delimited [`crate::kernel::Flow`]s, one for each entry of the flow table.
pub const FLOWS: &str = "/v1/kernel/flows";
/// `GET`: `Vec<`[`crate::kernel::IpcacheEntry`]`>`.
pub const IPCACHE: &str = "/v1/kernel/ipcache";
/// `GET`: `Vec<`[`crate::kernel::EndpointEntry`]`>`.
pub const KERNEL_ENDPOINTS: &str = "/v1/kernel/endpoints";
/// `GET`: `Vec<`[`crate::kernel::MetricEntry`]`>`, the programs' counters for each reason.
pub const KERNEL_METRICS: &str = "/v1/kernel/metrics";
/// `GET`: `Vec<`[`crate::kernel::MapState`]`>`.
pub const MAPS: &str = "/v1/kernel/maps";
/// `GET …/{name}`: `Vec<`[`crate::kernel::MapEntry`]`>`, any map decoded to text.
pub const MAP: &str = "/v1/kernel/maps/{name}";
/// `GET`: `Vec<`[`crate::kernel::IdentityEntry`]`>`.
pub const IDENTITIES: &str = "/v1/identities";
/// `GET`: `Vec<`[`crate::kernel::NodeEntry`]`>`.
pub const NODES: &str = "/v1/nodes";
/// `GET`: the effective configuration as a JSON object.
pub const CONFIG: &str = "/v1/config";
/// `GET`: metrics in Prometheus' text form (also on the metrics port).
pub const METRICS: &str = "/metrics";
/// `GET`: 200 or 503, for probes. Objects that are wrong and a source that is away do not count.
pub const HEALTHZ: &str = "/healthz";
