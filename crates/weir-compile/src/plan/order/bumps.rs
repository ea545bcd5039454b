// SPDX-License-Identifier: Apache-2.0
//! Which flows are decided again: the slots of all that is decided otherwise.

use std::collections::BTreeSet;

use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::{BlockGroup, EndpointRow, Slot};

use super::Order;
use crate::plan::difference::around;

impl Order<'_> {
    /// The slots of everything that is decided otherwise.
    pub(super) fn bumps(&self) -> BTreeSet<Slot> {
        let mut bumps = BTreeSet::new();
        // A node that was known under the index before: flows may hold the index.
        if self.nodes.replaced || !self.nodes.deletes.is_empty() {
            bumps.insert(Slot::ALL);
        }
        // A group that got another number is the same group to every set; those that are not so have
        // changed themselves.
        let same = |row: &EndpointRow| EndpointRow {
            blocks: BlockGroup::NONE,
            ..*row
        };
        for (address, row) in &self.endpoints.upserts {
            if self.realized.endpoints.get(address).map(same) != Some(same(row)) {
                bumps.insert(Slot::of_address(address));
            }
        }
        bumps.extend(self.endpoints.deletes.iter().map(Slot::of_address));
        for (key, row) in &self.ipcache.upserts {
            let old = self.realized.ipcache.get(key).copied();
            if !same_peer(&old.unwrap_or_else(|| around(self.realized, key)), row) {
                bumps.insert(slot_of_prefix(key));
            }
        }
        for key in &self.ipcache.deletes {
            let old = self.realized.ipcache.get(key).copied();
            if old.is_some_and(|old| !same_peer(&old, &around(self.desired, key))) {
                bumps.insert(slot_of_prefix(key));
            }
        }
        bumps.extend(
            self.exempt
                .iter()
                .chain(&self.not_exempt)
                .map(slot_of_prefix),
        );
        for rows in [self.realized, self.desired] {
            let endpoints = rows.endpoints.iter();
            let concerned = endpoints.filter(|(_, row)| self.sets.contains(&row.policy_set));
            bumps.extend(concerned.map(|(address, _)| Slot::of_address(address)));
        }
        bumps
    }
}

/// A single address has its own slot; a range concerns flows that cannot be named.
fn slot_of_prefix(key: &PrefixKey) -> Slot {
    if key.length == 128 {
        Slot::of_address(&key.address)
    } else {
        Slot::ALL
    }
}

/// Whether two rows say the same about whom they are about.
fn same_peer(one: &IpcacheRow, other: &IpcacheRow) -> bool {
    (one.identity, one.node, one.flags) == (other.identity, other.node, other.flags)
}
