// SPDX-License-Identifier: Apache-2.0
//! A record of the policy log, as its readers know it: `gcloud logging read 'jsonPayload.disposition="deny"'`.

use serde::Serialize;
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Protocol};
use weir_model::Workload;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) connection: Connection,
    pub(crate) disposition: Disposition,
    /// Those that allow the connection; of a denial there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) policies: Vec<Policy>,
    pub(crate) src: End,
    pub(crate) dest: End,
    /// Attempts that the record stands for.
    pub(crate) count: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node_name: String,
    /// Of the first attempt.
    pub(crate) timestamp: String,
    /// The same by the kernel's monotonic clock.
    #[serde(skip)]
    pub(crate) seen: u64,
}

/// From where to where, seen from the pod whose policies were asked: after services.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Connection {
    #[serde(serialize_with = "shown")]
    pub(crate) src_ip: Address,
    #[serde(serialize_with = "shown")]
    pub(crate) dest_ip: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dest_port: Option<u16>,
    #[serde(serialize_with = "protocol")]
    pub(crate) protocol: Protocol,
    #[serde(serialize_with = "direction")]
    pub(crate) direction: PolicyDirection,
}

/// What policy decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Disposition {
    Allow,
    Deny,
}

impl Disposition {
    /// As records and metrics say it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A policy by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Policy {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// Who is at one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum End {
    Pod {
        pod_name: String,
        pod_namespace: String,
        namespace: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        workload_kind: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        workload_name: Option<String>,
    },
    Node {
        node_name: String,
    },
    /// Outside of the cluster, or nobody knows.
    Outside {
        #[serde(serialize_with = "shown")]
        instance: Address,
    },
}

impl End {
    /// A pod, which nothing made.
    pub(crate) fn pod(namespace: &str, name: &str) -> Self {
        Self::Pod {
            pod_name: name.to_owned(),
            pod_namespace: namespace.to_owned(),
            namespace: namespace.to_owned(),
            workload_kind: None,
            workload_name: None,
        }
    }

    /// The same, made by something.
    pub(crate) fn made_by(mut self, workload: Option<&Workload>) -> Self {
        if let Self::Pod {
            workload_kind,
            workload_name,
            ..
        } = &mut self
        {
            *workload_kind = workload.map(|workload| workload.kind.clone());
            *workload_name = workload.map(|workload| workload.name.clone());
        }
        self
    }
}

fn shown<S: serde::Serializer>(address: &Address, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(address)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
fn direction<S: serde::Serializer>(direction: &PolicyDirection, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(direction.name())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
fn protocol<S: serde::Serializer>(protocol: &Protocol, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match *protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::ICMP | Protocol::ICMPV6 => "icmp",
        _ => "unknown",
    })
}
