// SPDX-License-Identifier: Apache-2.0
//! Everything that can be asked, as paths below the socket.

/// Where the agent listens unless told otherwise; the environment variable `WEIR_SOCK` overrides.
pub const DEFAULT_SOCKET: &str = "/run/weir/weir.sock";

/// `GET`: [`crate::status::Status`].
pub const STATUS: &str = "/v1/status";
/// `GET`: `Vec<`[`crate::endpoint::Endpoint`]`>`; `PUT` with [`crate::endpoint::EndpointRequest`]:
/// [`crate::endpoint::EndpointCreated`] (also when it existed: idempotent).
pub const ENDPOINTS: &str = "/v1/endpoints";
/// `POST` with the [`crate::endpoint::EndpointRequest`] of an endpoint that should be there, the
/// addresses that it got among it: [`crate::endpoint::EndpointChecked`]. Nothing is repaired.
pub const ENDPOINTS_CHECK: &str = "/v1/endpoints/check";
/// `DELETE …/{container_id}`: 204, also when there was none; with `?interface=eth0` only that one
/// of a container's interfaces.
/// `GET …/{reference}`: one [`crate::endpoint::Endpoint`]; a reference is an id, `ns/pod`,
/// `pod-name:ns:pod`, `ipv4:a`, `ipv6:a` or `container-id:c`.
/// `GET …/{reference}/log`: `Vec<`[`crate::endpoint::LogEntry`]`>`, newest first.
/// `GET …/{reference}/health`: [`crate::endpoint::EndpointHealth`].
/// `POST …/{reference}/regenerate`: [`crate::endpoint::Regenerated`].
pub const ENDPOINT: &str = "/v1/endpoints/{reference}";
/// `GET`: newline-delimited [`crate::event::Event`]s from now on.
pub const EVENTS: &str = "/v1/events";
/// `GET`: newline-delimited [`crate::event::Event`]s that are remembered, oldest first; with
/// `?follow=true` it goes on with those from now on, an agent event `flows-live` between them.
pub const OBSERVED: &str = "/v1/flows";
/// `GET`: newline-delimited [`crate::service::Service`]s, one for each frontend, by number.
pub const SERVICES: &str = "/v1/services";
/// `POST`: compares all rows with the kernel: [`crate::service::ServicesCompared`].
pub const SERVICES_COMPARE: &str = "/v1/services/compare";
/// `GET`: [`crate::policy::Policies`].
pub const POLICIES: &str = "/v1/policies";
/// `GET`: `Vec<`[`crate::policy::Selector`]`>`.
pub const POLICY_SELECTORS: &str = "/v1/policies/selectors";
/// `POST` with [`crate::trace::TraceRequest`]: `Vec<`[`crate::trace::Trace`]`>`, one for each port.
pub const TRACE: &str = "/v1/trace";
/// `GET`: `Vec<`[`crate::policy::EndpointPolicy`]`>` of all endpoints; `…/{reference}`: of one.
pub const KERNEL_POLICY: &str = "/v1/kernel/policy";
/// `GET`: newline-delimited [`crate::lb::LbFrontend`]s.
pub const LB_FRONTENDS: &str = "/v1/kernel/lb/frontends";
/// `GET`: newline-delimited [`crate::lb::LbBackend`]s.
pub const LB_BACKENDS: &str = "/v1/kernel/lb/backends";
/// `GET`: newline-delimited [`crate::lb::LbSourceRange`]s.
pub const LB_SOURCE_RANGES: &str = "/v1/kernel/lb/source-ranges";
/// `GET`: newline-delimited [`crate::lb::LbMaglev`]s; with `?entries=true` also every entry.
pub const LB_MAGLEV: &str = "/v1/kernel/lb/maglev";
/// `GET`: newline-delimited [`crate::lb::LbAffinity`]s.
pub const LB_AFFINITY: &str = "/v1/kernel/lb/affinity";
/// `GET`: newline-delimited [`crate::lb::LbSocket`]s.
pub const LB_SOCKETS: &str = "/v1/kernel/lb/sockets";
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
