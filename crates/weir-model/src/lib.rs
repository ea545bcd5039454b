// SPDX-License-Identifier: Apache-2.0
//! What is the desired world, in types that cannot be wrong?
//!
//! Nodes, namespaces, pods, services and policies as proven values: whatever is in a [`World`] has
//! legal names, legal labels and legal ranges. Sources hand in [`Change`]s; identities number the
//! label sets.
//!
//! The crate must not know Kubernetes' own types (`weir-cluster`), map rows (`weir-compile`) or
//! anything that does I/O. Start reading at [`world`].

pub mod cidr;
pub mod endpoint_slice;
pub mod identity;
pub mod labels;
pub mod logging;
pub mod name;
pub mod node;
pub mod node_pods;
pub mod pod;
pub mod policy;
pub mod selector;
pub mod service;
pub mod touched;
pub mod world;

pub use cidr::{InvalidPodCidr, PodCidr};
pub use endpoint_slice::{Endpoint, EndpointSlice, Family, Hints, SlicePort, SliceRef};
pub use identity::{IdentityTable, LabelSet, NamedPort, NamedPorts};
pub use labels::{InvalidLabel, Labels};
pub use logging::{LogScope, NetworkLogging};
pub use name::{
    InvalidName, Namespace, NodeName, PodName, PolicyName, ServiceName, SliceName, Zone,
};
pub use node::Node;
pub use node_pods::{Given, InvalidUid, NodePods, Uid};
pub use pod::{ContainerPort, HostPort, Pod, PodRef, Workload};
pub use policy::{
    IpBlock, NetworkPolicy, PeerNamespaces, PolicyPeer, PolicyPort, PolicyRef, PolicyRule,
    PortMatch, Refusal,
};
pub use selector::{LabelSelector, Requirement};
pub use service::{
    Distribution, Exclusion, Ingress, IngressMode, Service, ServicePort, ServiceRef,
    ServiceSelector, ServiceType, TargetPort, TrafficPolicy,
};
pub use touched::Touched;
pub use world::{Change, World};
