// SPDX-License-Identifier: Apache-2.0
//! A node's rows in memory: read back from this kernel, or compiled as any node should have them.

mod compiled;
mod live;
mod tables;

use std::sync::Arc;

use weir_abi::service::FrontendKey;
use weir_abi::{Identity, IfIndex, PolicyCookie, ServiceId};
use weir_api::policy::PolicyRule;
use weir_compile::policy::PolicyCompiler;
use weir_compile::service::ServiceCompiler;
use weir_model::{IdentityTable, NodeName, World};
use weir_verdict::memory::MemoryTables;

use crate::directory::{Directory, policy_rule};

/// Stands for an underlay device of which nothing is known.
const SOME_DEVICE: IfIndex = IfIndex(2);

/// What one node decides by, and what its numbers mean.
pub(super) struct View {
    pub(super) node: NodeName,
    pub(super) tables: MemoryTables,
    pub(super) identities: Arc<IdentityTable>,
    /// An underlay device.
    pub(super) device: IfIndex,
    /// `weir_host`
    pub(super) host: IfIndex,
    meanings: Meanings,
}

/// What numbers of rules and services mean.
enum Meanings {
    Live(Arc<Directory>),
    Compiled(Box<PolicyCompiler>, Box<ServiceCompiler>),
}

impl View {
    /// The rows are those of this node's kernel, and so are the numbers.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.meanings, Meanings::Live(_))
    }

    /// The rules behind a cookie.
    pub(super) fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
        match &self.meanings {
            Meanings::Live(directory) => directory
                .rules(cookie)
                .map_or_else(Vec::new, |rules| rules.to_vec()),
            Meanings::Compiled(policy, _) => {
                policy.origins(cookie).map_or_else(Vec::new, |origins| {
                    origins.iter().map(policy_rule).collect()
                })
            }
        }
    }

    /// `shop/web`
    pub(super) fn service(&self, id: ServiceId) -> Option<String> {
        match &self.meanings {
            Meanings::Live(directory) => directory.service_name(id).map(|name| name.to_string()),
            Meanings::Compiled(_, services) => services.owner_of(id).map(ToString::to_string),
        }
    }

    /// Why a frontend has no backend for clients of this node, or of others.
    pub(super) fn no_backend(
        &self,
        key: &FrontendKey,
        internal: bool,
        world: &World,
    ) -> Option<String> {
        let find = |services: &ServiceCompiler| {
            let listing = services.listing_at(key, world)?;
            let reason = if internal {
                listing.internal_reason
            } else {
                listing.external_reason
            };
            reason.map(|reason| reason.to_string())
        };
        match &self.meanings {
            Meanings::Live(directory) => find(&directory.services()),
            Meanings::Compiled(_, services) => find(services),
        }
    }

    /// The labels behind an identity, in one text.
    pub(super) fn labels(&self, identity: Identity) -> String {
        let labels = self.identities.display_labels(identity);
        if labels.is_empty() {
            "unknown".to_owned()
        } else {
            labels.join(",")
        }
    }
}
