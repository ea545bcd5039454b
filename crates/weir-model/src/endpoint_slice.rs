// SPDX-License-Identifier: Apache-2.0
//! Endpoint slices: who answers for a service, in pieces.
//!
//! A cluster has a hundred thousand endpoints, so an [`Endpoint`] is small and what many of them say
//! alike (nodes, zones, hints) is shared by the slice that holds them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::Protocol;

use crate::name::InvalidName;
use crate::{Namespace, NodeName, PodName, ServiceName, ServiceRef, SliceName, Zone};

/// A slice's full name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceRef {
    pub namespace: Namespace,
    pub name: SliceName,
}

impl SliceRef {
    /// Proves both names.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            namespace: Namespace::new(namespace)?,
            name: SliceName::new(name)?,
        })
    }
}

impl fmt::Display for SliceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for SliceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As objects write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A port that every endpoint of a slice has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service port that it belongs to.
    pub name: Box<str>,
    pub protocol: Protocol,
    /// None: not a port of a service.
    pub port: Option<u16>,
}

/// Whom an endpoint is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    pub zones: Box<[Zone]>,
    pub nodes: Box<[NodeName]>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first of its addresses: the others mean nothing (API reference, `Endpoint.addresses`).
    pub address: IpAddr,
    pub ready: bool,
    /// Able to answer, even while it is about to end.
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<NodeName>,
    pub zone: Option<Zone>,
    pub hints: Option<Arc<Hints>>,
    /// The pod behind it, in the slice's namespace.
    pub pod: Option<PodName>,
}

/// Some of a service's endpoints, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub reference: SliceRef,
    /// The service, in the slice's namespace.
    pub service: ServiceName,
    pub family: Family,
    pub ports: Box<[SlicePort]>,
    pub endpoints: Box<[Endpoint]>,
}

impl EndpointSlice {
    /// The full name of the service.
    pub fn service_ref(&self) -> ServiceRef {
        ServiceRef {
            namespace: self.reference.namespace.clone(),
            name: self.service.clone(),
        }
    }
}
