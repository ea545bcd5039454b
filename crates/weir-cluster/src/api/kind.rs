// SPDX-License-Identifier: Apache-2.0
//! Which kinds of objects are watched, and what the server calls them.

use std::fmt;

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of objects that the world is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Namespace,
    Pod,
    Service,
    EndpointSlice,
    NetworkPolicy,
    /// Defined by a custom resource, which a cluster may not have.
    NetworkLogging,
    /// Weir's own custom resource, which may not be installed (yet).
    NodePods,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::NetworkLogging,
        Self::NodePods,
    ];

    /// As an object's `kind` says it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::NetworkLogging => "NetworkLogging",
            Self::NodePods => "NodePods",
        }
    }

    const fn group_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Node | Self::Namespace | Self::Pod | Self::Service => ("", "v1"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1"),
            Self::NetworkLogging => ("networking.gke.io", "v1alpha1"),
            Self::NodePods => ("weir.dev", "v1alpha1"),
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Namespace => "namespaces",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::NetworkPolicy => "networkpolicies",
            Self::NetworkLogging => "networkloggings",
            Self::NodePods => "nodepods",
        }
    }

    pub(crate) fn resource(self) -> ApiResource {
        let (group, version) = self.group_and_version();
        let kind = GroupVersionKind::gvk(group, version, self.name());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }

    /// `networking.k8s.io/v1`.
    pub(crate) fn api_version(self) -> String {
        match self.group_and_version() {
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        }
    }

    /// A server that does not know the kind has no objects of it.
    pub(crate) const fn may_be_unknown(self) -> bool {
        matches!(self, Self::NetworkLogging | Self::NodePods)
    }

    /// What the server sends of all objects. A pod that ends is told as deleted then, so those that
    /// jobs left behind are never sent at all.
    pub(crate) const fn fields(self) -> Option<&'static str> {
        match self {
            Self::Pod => Some("status.phase!=Succeeded,status.phase!=Failed"),
            Self::Node
            | Self::Namespace
            | Self::Service
            | Self::EndpointSlice
            | Self::NetworkPolicy
            | Self::NetworkLogging
            | Self::NodePods => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural())
    }
}
