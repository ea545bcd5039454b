// SPDX-License-Identifier: Apache-2.0
//! The rows that the agent owns, as they should be in the kernel or as they were read back.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::node::NodeRow;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::{Address, EndpointRow, NodeIndex};

use crate::Operation;

/// The content of every map that the agent writes and the programs only read.
///
/// Desired and realized rows have the same type, so that they can always be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Pods of this node by each of their addresses.
    pub endpoints: BTreeMap<Address, EndpointRow>,
    /// Who is behind an address, by longest prefix.
    pub ipcache: BTreeMap<PrefixKey, IpcacheRow>,
    /// Destinations that pods reach with their own address.
    pub masquerade_exempt: BTreeSet<PrefixKey>,
    /// Tunnel ends; an absent place is all zero in the kernel.
    pub nodes: BTreeMap<NodeIndex, NodeRow>,
    /// What policy sets allow.
    pub policy: BTreeMap<PolicyKey, PolicyRow>,
}

impl Rows {
    /// Number of rows in all maps.
    pub fn len(&self) -> usize {
        let Self {
            endpoints,
            ipcache,
            masquerade_exempt,
            nodes,
            policy,
        } = self;
        endpoints.len() + ipcache.len() + masquerade_exempt.len() + nodes.len() + policy.len()
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does to these rows what an operation does to the kernel's.
    pub fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::UpsertNode(key, row) => drop(self.nodes.insert(key, row)),
            Operation::UpsertEndpoint(key, row) => drop(self.endpoints.insert(key, row)),
            Operation::UpsertIpcache(key, row) => drop(self.ipcache.insert(key, row)),
            Operation::UpsertMasqueradeExempt(key) => drop(self.masquerade_exempt.insert(key)),
            Operation::DeleteIpcache(key) => drop(self.ipcache.remove(&key)),
            Operation::DeleteEndpoint(key) => drop(self.endpoints.remove(&key)),
            Operation::DeleteMasqueradeExempt(key) => drop(self.masquerade_exempt.remove(&key)),
            Operation::DeleteNode(key) => drop(self.nodes.remove(&key)),
            Operation::UpsertPolicy(key, row) => drop(self.policy.insert(key, row)),
            Operation::DeletePolicy(key) => drop(self.policy.remove(&key)),
            // Those of services have their own rows.
            Operation::UpsertBackends(..)
            | Operation::UpsertServiceBackends(..)
            | Operation::UpsertMaglev(..)
            | Operation::UpsertSourceRange(_)
            | Operation::UpsertServiceAddress(_)
            | Operation::UpsertFrontend(..)
            | Operation::DeleteFrontend(_)
            | Operation::DeleteServiceAddress(_)
            | Operation::DeleteSourceRange(_)
            | Operation::DeleteMaglev(_)
            | Operation::DeleteServiceBackends(..)
            | Operation::DeleteBackends(..)
            | Operation::ResetHits(_)
            | Operation::Bump(_) => {}
        }
    }
}
