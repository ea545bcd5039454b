// SPDX-License-Identifier: Apache-2.0
//! Pods of the cluster.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use weir_abi::Protocol;

use crate::name::InvalidName;
use crate::{Labels, Namespace, NodeName, PodName, Uid};

/// A pod's full name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    pub namespace: Namespace,
    pub name: PodName,
}

impl PodRef {
    /// Proves both names.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            namespace: Namespace::new(namespace)?,
            name: PodName::new(name)?,
        })
    }
}

impl FromStr for PodRef {
    type Err = InvalidName;

    /// `namespace/name`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidName::Empty)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub port: u16,
    pub protocol: Protocol,
    /// A port of the node that leads to this one.
    pub host: Option<HostPort>,
}

/// `hostPort`: a port of the pod's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub port: u16,
    /// `hostIP`; absent: every address of the node, an unspecified one: every one of its family.
    pub address: Option<IpAddr>,
}

/// A pod as the cluster knows it; one that has ended is not a pod any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub reference: PodRef,
    /// The one that its node calls it by; absent: nothing that is announced can be meant for it.
    pub uid: Option<Uid>,
    pub labels: Labels,
    /// Where it runs; absent: not scheduled yet.
    pub node: Option<NodeName>,
    /// The addresses of its status; of a `hostNetwork` pod these are its node's.
    pub addresses: Vec<IpAddr>,
    /// Its status names no address yet: these are what its node says.
    pub announced: bool,
    pub host_network: bool,
    pub container_ports: Vec<ContainerPort>,
    /// Seconds since 1970 of its creation, 0 where unknown: of two pods that claim one address the
    /// older one keeps it.
    pub created: i64,
    /// What made it; absent: it stands for itself.
    pub workload: Option<Box<Workload>>,
}

/// What a pod was made by, as people know it: the Deployment, not the `ReplicaSet` between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub kind: String,
    pub name: String,
}
