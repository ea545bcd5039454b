// SPDX-License-Identifier: Apache-2.0
//! What there is, all of a kind and by name.

use std::sync::Arc;

use super::World;
use crate::{
    Labels, Namespace, NetworkLogging, NetworkPolicy, Node, NodeName, Pod, PodRef, PolicyRef,
    Service, ServiceRef,
};

impl World {
    /// All nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All namespaces with their labels.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Namespace, &Labels)> {
        self.namespaces.iter()
    }

    /// The labels of one namespace; none where there is no object of it.
    pub fn namespace(&self, name: &Namespace) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Which decisions of policies are logged.
    pub const fn logging(&self) -> NetworkLogging {
        self.logging
    }

    /// Whether what a namespace's pods are denied is logged where that is left to namespaces.
    pub fn logs_denied(&self, name: &Namespace) -> bool {
        self.logged_namespaces.contains(name)
    }

    /// All pods by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// One pod.
    pub fn pod(&self, reference: &PodRef) -> Option<&Arc<Pod>> {
        self.pods.get(reference)
    }

    /// All services by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// One service.
    pub fn service(&self, reference: &ServiceRef) -> Option<&Arc<Service>> {
        self.services.get(reference)
    }

    /// All network policies by namespace and name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.policies.values()
    }

    /// One network policy.
    pub fn policy(&self, reference: &PolicyRef) -> Option<&Arc<NetworkPolicy>> {
        self.policies.get(reference)
    }
}
