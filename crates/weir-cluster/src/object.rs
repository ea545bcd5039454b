// SPDX-License-Identifier: Apache-2.0
//! Accepted objects, by what makes each of them one and the same.

use std::sync::Arc;

use weir_model::{
    Change, EndpointSlice, Labels, Namespace, NetworkLogging, NetworkPolicy, Node, NodeName,
    NodePods, Pod, PodRef, PolicyRef, Service, ServiceRef, SliceRef,
};

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Node(NodeName),
    Namespace(Namespace),
    Pod(PodRef),
    NetworkPolicy(PolicyRef),
    Service(ServiceRef),
    EndpointSlice(SliceRef),
    NetworkLogging,
    NodePods(NodeName),
}

impl Key {
    /// What is told when the object is gone.
    pub(crate) fn gone(&self) -> Change {
        match self {
            Self::Node(name) => Change::NodeGone(name.clone()),
            Self::Namespace(name) => Change::NamespaceGone(name.clone()),
            Self::Pod(reference) => Change::PodGone(reference.clone()),
            Self::Service(reference) => Change::ServiceGone(reference.clone()),
            Self::EndpointSlice(reference) => Change::EndpointSliceGone(reference.clone()),
            Self::NetworkPolicy(reference) => Change::NetworkPolicyGone(reference.clone()),
            Self::NetworkLogging => Change::NetworkLoggingGone,
            Self::NodePods(node) => Change::NodePodsGone(node.clone()),
        }
    }

    /// `Pod shop/web`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Node(name) => format!("Node {name}"),
            Self::Namespace(name) => format!("Namespace {name}"),
            Self::Pod(reference) => format!("Pod {reference}"),
            Self::Service(reference) => format!("Service {reference}"),
            Self::EndpointSlice(reference) => format!("EndpointSlice {reference}"),
            Self::NetworkPolicy(reference) => format!("NetworkPolicy {reference}"),
            Self::NetworkLogging => "NetworkLogging default".to_owned(),
            Self::NodePods(node) => format!("NodePods {node}"),
        }
    }
}

/// An object that the world takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Node(Arc<Node>),
    /// With whether it has its denials logged.
    Namespace(Namespace, Labels, bool),
    Pod(Arc<Pod>),
    NetworkPolicy(Arc<NetworkPolicy>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    NetworkLogging(NetworkLogging),
    NodePods(Arc<NodePods>),
}

impl Object {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Namespace(name, ..) => Key::Namespace(name.clone()),
            Self::Pod(pod) => Key::Pod(pod.reference.clone()),
            Self::Service(service) => Key::Service(service.reference.clone()),
            Self::EndpointSlice(slice) => Key::EndpointSlice(slice.reference.clone()),
            Self::NetworkPolicy(policy) => Key::NetworkPolicy(policy.reference.clone()),
            Self::NetworkLogging(_) => Key::NetworkLogging,
            Self::NodePods(pods) => Key::NodePods(pods.node.clone()),
        }
    }

    /// Whether it is the object itself, not what was put in its place.
    pub(crate) fn is_accepted(&self) -> bool {
        !matches!(self, Self::NetworkPolicy(policy) if policy.refused.is_some())
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        let logging = match self {
            Self::Namespace(name, _, true) => Some(Change::NamespaceLogging(name.clone())),
            Self::Namespace(..)
            | Self::Node(_)
            | Self::Pod(_)
            | Self::NetworkPolicy(_)
            | Self::Service(_)
            | Self::EndpointSlice(_)
            | Self::NetworkLogging(_)
            | Self::NodePods(_) => None,
        };
        std::iter::once(self.change()).chain(logging)
    }

    fn change(&self) -> Change {
        match self {
            Self::Node(node) => Change::Node(Arc::clone(node)),
            Self::Namespace(name, labels, _) => Change::Namespace(name.clone(), labels.clone()),
            Self::Pod(pod) => Change::Pod(Arc::clone(pod)),
            Self::Service(service) => Change::Service(Arc::clone(service)),
            Self::EndpointSlice(slice) => Change::EndpointSlice(Arc::clone(slice)),
            Self::NetworkPolicy(policy) => Change::NetworkPolicy(Arc::clone(policy)),
            Self::NetworkLogging(logging) => Change::NetworkLogging(*logging),
            Self::NodePods(pods) => Change::NodePods(Arc::clone(pods)),
        }
    }
}
