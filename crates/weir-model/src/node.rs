// SPDX-License-Identifier: Apache-2.0
//! Nodes of the cluster.

use std::net::IpAddr;

use crate::{Labels, NodeName, PodCidr, Uid};

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    pub uid: Option<Uid>,
    pub labels: Labels,
    /// Its addresses inside the cluster, the primary one of each family first.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods.
    pub pod_cidrs: Vec<PodCidr>,
}

impl Node {
    /// The primary address of the family that an example belongs to.
    pub fn address_like(&self, example: IpAddr) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| address.is_ipv4() == example.is_ipv4())
    }

    /// The primary IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The primary IPv6 address.
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }
}
