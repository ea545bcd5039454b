// SPDX-License-Identifier: Apache-2.0
//! Places of the other nodes in the `nodes` map.
//!
//! A flow entry holds the place, so it must not move while the node is there, not even over a
//! restart: places are taken over from the map itself.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::node::NodeRow;
use weir_abi::{Address, NodeIndex};

/// Which tunnel end has which place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIndices {
    by_remote: BTreeMap<Address, NodeIndex>,
}

impl NodeIndices {
    /// Takes over the places of a map that was read back; of two places with one address the lower
    /// one stays.
    pub fn restore(rows: &BTreeMap<NodeIndex, NodeRow>) -> Self {
        let mut by_remote = BTreeMap::new();
        for (index, row) in rows {
            if *index != NodeIndex::NONE && row.remote != Address::UNSPECIFIED {
                by_remote.entry(row.remote).or_insert(*index);
            }
        }
        Self { by_remote }
    }

    /// The place of a tunnel end.
    pub fn get(&self, remote: Address) -> Option<NodeIndex> {
        self.by_remote.get(&remote).copied()
    }

    /// Gives exactly these tunnel ends a place; those for which there is none come back.
    pub fn update(&mut self, remotes: &BTreeSet<Address>, places: u32) -> Vec<Address> {
        self.by_remote
            .retain(|remote, index| remotes.contains(remote) && u32::from(index.0) < places);
        let used: BTreeSet<u16> = self.by_remote.values().map(|index| index.0).collect();
        let last = u16::try_from(places.saturating_sub(1)).unwrap_or(u16::MAX);
        let mut free = (1..=last).filter(|index| !used.contains(index));
        let mut refused = Vec::new();
        for remote in remotes {
            if !self.by_remote.contains_key(remote) {
                match free.next() {
                    Some(index) => drop(self.by_remote.insert(*remote, NodeIndex(index))),
                    None => refused.push(*remote),
                }
            }
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    fn remote(n: u8) -> Address {
        Address::from_v4([172, 18, 0, n])
    }

    proptest! {
        #[test]
        fn places_are_unique_and_stay(rounds in vec(btree_set(1u8..30, 0..12), 1..12)) {
            let mut indices = NodeIndices::default();
            for round in rounds {
                let remotes: BTreeSet<_> = round.into_iter().map(remote).collect();
                let before = indices.clone();
                let refused = indices.update(&remotes, 10);
                prop_assert_eq!(refused.len(), remotes.len().saturating_sub(9));
                let mut seen = BTreeSet::new();
                for one in remotes.iter().filter(|one| !refused.contains(one)) {
                    let index = indices.get(*one).unwrap();
                    prop_assert!(index != NodeIndex::NONE && index.0 < 10 && seen.insert(index));
                    if let Some(old) = before.get(*one) {
                        prop_assert_eq!(old, index);
                    }
                }
                let rows = remotes
                    .iter()
                    .filter_map(|r| Some((indices.get(*r)?, NodeRow { local: remote(99), remote: *r })))
                    .collect();
                prop_assert_eq!(NodeIndices::restore(&rows), indices.clone());
            }
        }
    }
}
