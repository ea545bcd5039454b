// SPDX-License-Identifier: Apache-2.0
//! What a batch of changes concerns, so that work grows with the change and not with the world.

use std::collections::BTreeSet;

use crate::{Namespace, NodeName, PodRef, PolicyRef, ServiceRef};

/// Objects that differ from before, by name; also those that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Everything may differ: nothing else has to be looked at.
    pub all: bool,
    /// Services that differ themselves or in their endpoint slices.
    pub services: BTreeSet<ServiceRef>,
    pub policies: BTreeSet<PolicyRef>,
    pub pods: BTreeSet<PodRef>,
    pub namespaces: BTreeSet<Namespace>,
    pub nodes: BTreeSet<NodeName>,
}

impl Touched {
    /// Whatever there is.
    pub fn everything() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Concerns what another batch does, too.
    pub fn merge(&mut self, other: Self) {
        let Self {
            all,
            services,
            policies,
            pods,
            namespaces,
            nodes,
        } = other;
        self.all |= all;
        self.services.extend(services);
        self.policies.extend(policies);
        self.pods.extend(pods);
        self.namespaces.extend(namespaces);
        self.nodes.extend(nodes);
    }

    /// Whether nothing is concerned.
    pub fn is_empty(&self) -> bool {
        let Self {
            all,
            services,
            policies,
            pods,
            namespaces,
            nodes,
        } = self;
        !all && services.is_empty()
            && policies.is_empty()
            && pods.is_empty()
            && namespaces.is_empty()
            && nodes.is_empty()
    }
}
