// SPDX-License-Identifier: Apache-2.0
//! Where desired rows may differ from what they were, so that nothing else has to be compared; and what an
//! update must look at to find that out.

use std::collections::BTreeSet;

use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::PolicyKey;
use weir_abi::{Address, BlockGroup, Identity, NodeIndex, PolicySet};

use super::sets::CellKey;

/// Numbers by which packets meet policy rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub identities: BTreeSet<Identity>,
    pub groups: BTreeSet<BlockGroup>,
}

/// Keys whose rows may differ, for [`crate::plan_delta`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowChanges {
    pub nodes: BTreeSet<NodeIndex>,
    pub endpoints: BTreeSet<Address>,
    pub ipcache: BTreeSet<PrefixKey>,
    pub masquerade_exempt: BTreeSet<PrefixKey>,
    /// The first key of each peer whose rows may differ.
    pub policy: BTreeSet<PolicyKey>,
    /// Numbers that no row had before: nobody meets what is written about them.
    pub fresh: Numbers,
    /// Numbers that no row will have.
    pub gone: Numbers,
    /// Sets that decide otherwise than before.
    pub sets: BTreeSet<PolicySet>,
}

impl RowChanges {
    /// Whether nothing can differ.
    pub fn is_empty(&self) -> bool {
        let Self {
            nodes,
            endpoints,
            ipcache,
            masquerade_exempt,
            policy,
            fresh: _,
            gone: _,
            sets,
        } = self;
        nodes.is_empty()
            && endpoints.is_empty()
            && ipcache.is_empty()
            && masquerade_exempt.is_empty()
            && policy.is_empty()
            && sets.is_empty()
    }
}

/// What an update has come across so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Cells that say something else.
    pub(super) cells: BTreeSet<(Identity, CellKey)>,
    /// Sets whose endpoints need another row.
    pub(super) sets: BTreeSet<Identity>,
    /// Prefixes to look at again.
    pub(super) prefixes: BTreeSet<PrefixKey>,
    pub(super) endpoints: BTreeSet<Address>,
    pub(super) changes: RowChanges,
}
