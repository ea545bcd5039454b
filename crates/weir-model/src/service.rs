// SPDX-License-Identifier: Apache-2.0
//! Services: a name with ports, addresses and rules about who answers there.
//!
//! A cluster has thousands of them, so lists are boxed slices and names are shared.

mod selector;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use weir_abi::Protocol;

use crate::name::InvalidName;
use crate::{Namespace, ServiceName};

pub use selector::ServiceSelector;

/// A service's full name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    pub namespace: Namespace,
    pub name: ServiceName,
}

impl ServiceRef {
    /// Proves both names.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            namespace: Namespace::new(namespace)?,
            name: ServiceName::new(name)?,
        })
    }
}

impl FromStr for ServiceRef {
    type Err = InvalidName;

    /// `namespace/name`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidName::Empty)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `spec.type`: which addresses a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// An address inside the cluster.
    #[default]
    ClusterIp,
    /// The same, and a port of every node.
    NodePort,
    /// The same, and addresses of a load balancer.
    LoadBalancer,
    /// Another name for something else: only a matter of DNS.
    ExternalName,
}

impl ServiceType {
    /// As objects write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

/// Which endpoints may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Those of the whole cluster.
    #[default]
    Cluster,
    /// Those of the node that the traffic came to.
    Local,
}

impl TrafficPolicy {
    /// As objects write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// How traffic to an address of a load balancer arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IngressMode {
    /// With that address as its destination: the node answers for it.
    #[default]
    Vip,
    /// With the node's or pod's own address; clients inside the cluster go to the load balancer.
    Proxy,
}

/// An address of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    pub address: IpAddr,
    pub mode: IngressMode,
}

/// What a service port leads to in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// A container port by its name, which pods may give different numbers.
    Name(Box<str>),
}

impl fmt::Display for TargetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What the ports of endpoint slices are matched by; empty where the service has a single one.
    pub name: Box<str>,
    pub port: u16,
    pub protocol: Protocol,
    pub target: TargetPort,
    pub node_port: Option<u16>,
}

/// `spec.trafficDistribution`: a wish that the control plane turns into hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distribution {
    PreferClose,
    PreferSameZone,
    PreferSameNode,
    /// One that came later than this program.
    Other(Box<str>),
}

impl Distribution {
    /// Reads the field.
    pub fn parse(text: &str) -> Self {
        match text {
            "PreferClose" => Self::PreferClose,
            "PreferSameZone" => Self::PreferSameZone,
            "PreferSameNode" => Self::PreferSameNode,
            other => Self::Other(other.into()),
        }
    }

    /// As objects write it.
    pub fn name(&self) -> &str {
        match self {
            Self::PreferClose => "PreferClose",
            Self::PreferSameZone => "PreferSameZone",
            Self::PreferSameNode => "PreferSameNode",
            Self::Other(other) => other,
        }
    }
}

/// Why a service is none of our business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// `service.kubernetes.io/service-proxy-name`: somebody else serves it.
    OtherProxy(Box<str>),
    /// `service.kubernetes.io/headless`: nobody does, although it has an address.
    HeadlessLabel,
}

/// A service as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub reference: ServiceRef,
    /// Seconds since 1970 of its creation, 0 where unknown: of two services that claim one address
    /// and port the older one keeps it.
    pub created: i64,
    pub kind: ServiceType,
    /// `clusterIP: None`: clients ask DNS for the endpoints.
    pub headless: bool,
    pub exclusion: Option<Exclusion>,
    pub ports: Box<[ServicePort]>,
    pub selector: ServiceSelector,
    /// At most one of each family; none where it has not got one yet.
    pub cluster_ips: Box<[IpAddr]>,
    pub external_ips: Box<[IpAddr]>,
    pub ingress: Box<[Ingress]>,
    /// Who may use the addresses of the load balancer; empty: everybody.
    pub source_ranges: Box<[IpNet]>,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    /// How long a client keeps its endpoint after its last connection; none: not at all.
    pub affinity_seconds: Option<u32>,
    /// Endpoints count whether they are ready or not.
    pub publish_not_ready: bool,
    /// Where load balancers ask whether this node has an endpoint.
    pub health_check_port: Option<u16>,
    pub allocate_node_ports: bool,
    pub distribution: Option<Distribution>,
    /// `service.kubernetes.io/topology-mode`, as it is written.
    pub topology_mode: Option<Box<str>>,
}

impl Service {
    /// Whether the node answers at the service's addresses.
    pub fn is_served(&self) -> bool {
        !self.headless && self.exclusion.is_none() && self.kind != ServiceType::ExternalName
    }

    /// The node port of a port, where the type has one.
    pub fn node_port(&self, port: &ServicePort) -> Option<u16> {
        match self.kind {
            ServiceType::NodePort | ServiceType::LoadBalancer => port.node_port,
            ServiceType::ClusterIp | ServiceType::ExternalName => None,
        }
    }

    /// The addresses of the load balancer that nodes answer for.
    pub fn load_balancer_ips(&self) -> impl Iterator<Item = IpAddr> {
        let there = self.kind == ServiceType::LoadBalancer;
        self.ingress
            .iter()
            .filter(move |ingress| there && ingress.mode == IngressMode::Vip)
            .map(|ingress| ingress.address)
    }

    /// The port of the health check, where the service has one: it is only about nodes that keep to
    /// their own endpoints.
    pub fn health_check(&self) -> Option<u16> {
        let local = self.external_policy == TrafficPolicy::Local;
        self.health_check_port
            .filter(|_| local && self.kind == ServiceType::LoadBalancer && self.is_served())
    }
}
