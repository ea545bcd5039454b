// SPDX-License-Identifier: Apache-2.0
//! Which blocks get their edges, as long as there is room for new prefixes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_abi::ipcache::PrefixKey;
use weir_model::IpBlock;

use super::edges::{every_v4, holds_v4};
use super::{Block, BlockId, BlockKey, Blocks};
use crate::prefix::prefix_key;

/// What [`Blocks::settle`] changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    /// Ranges in which membership may differ.
    pub(crate) ranges: Vec<IpNet>,
    /// Edges that were not there before, and those that are there no longer.
    pub(crate) added: BTreeSet<IpNet>,
    pub(crate) removed: BTreeSet<IpNet>,
}

impl Blocks {
    /// Puts in the edges of blocks that are asked now and takes away those of the others, as long as
    /// there is room for new prefixes. `is_known` tells prefixes that have a row anyway.
    pub(crate) fn settle(&mut self, room: usize, is_known: impl Fn(&PrefixKey) -> bool) -> Settled {
        let mut wanted: BTreeSet<BlockId> = BTreeSet::new();
        let asked = |block: &Block| !block.users.is_empty();
        let tight = self.edges.len() + self.unsettled_edges() + 1 > room;
        if tight || !self.refused.is_empty() {
            // Every block is weighed again, oldest first.
            let mut prefixes = BTreeSet::new();
            let mut refused = BTreeSet::new();
            for (id, block) in self.known.iter().filter(|(_, block)| asked(block)) {
                let mut more: BTreeSet<IpNet> = edges_of(&block.key.block).collect();
                if more.iter().any(holds_v4) {
                    more.insert(every_v4());
                }
                more.retain(|net| !is_known(&prefix_key(*net)) && !prefixes.contains(net));
                if prefixes.len() + more.len() <= room {
                    prefixes.extend(more);
                    wanted.insert(*id);
                } else {
                    refused.insert(*id);
                }
            }
            self.refused = refused;
            self.unsettled = self.known.keys().copied().collect();
        } else {
            let asked = |id: &&BlockId| self.known.get(id).is_some_and(asked);
            wanted = self.unsettled.iter().filter(asked).copied().collect();
        }
        let mut settled = Settled::default();
        for id in std::mem::take(&mut self.unsettled) {
            let Some(block) = self.known.get_mut(&id) else {
                continue;
            };
            let active = wanted.contains(&id);
            if block.active != active {
                block.active = active;
                let BlockKey { block, named } = block.key.clone();
                if named.is_some() {
                    self.named = if active {
                        self.named + 1
                    } else {
                        self.named - 1
                    };
                }
                self.draw(id, &block, active, &mut settled);
                settled.ranges.push(block.cidr());
            }
            if let Some(block) = self.known.get(&id)
                && block.holders == 0
                && !block.active
            {
                self.numbers.remove(&block.key);
                self.known.remove(&id);
            }
        }
        settled
    }

    fn unsettled_edges(&self) -> usize {
        let blocks = self.unsettled.iter().filter_map(|id| self.known.get(id));
        blocks
            .map(|block| 1 + block.key.block.except().count())
            .sum()
    }

    /// Adds or removes the edges of a block.
    fn draw(&mut self, id: BlockId, block: &IpBlock, add: bool, settled: &mut Settled) {
        let nets = std::iter::once((block.cidr(), true));
        for (net, begins) in nets.chain(block.except().map(|net| (net, false))) {
            if add {
                if self.edges.put(net, id, begins) && !settled.removed.remove(&net) {
                    settled.added.insert(net);
                }
            } else if self.edges.take(net, id, begins) && !settled.added.remove(&net) {
                settled.removed.insert(net);
            }
        }
    }
}

fn edges_of(block: &IpBlock) -> impl Iterator<Item = IpNet> + '_ {
    std::iter::once(block.cidr()).chain(block.except())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{USER, key, net};
    use super::*;

    #[test]
    fn what_finds_no_room_is_refused_and_comes_back() {
        let mut blocks = Blocks::default();
        let first = blocks.hold(key("10.0.0.0/8", &[]));
        let second = blocks.hold(key("11.0.0.0/8", &["11.1.0.0/16"]));
        for id in [first, second] {
            blocks.set_user(id, USER, true);
        }
        assert_eq!(blocks.settle(2, |_| false).ranges, [net("10.0.0.0/8")]);
        assert_eq!(blocks.refused(), &BTreeSet::from([second]));
        // A prefix that has a row anyway takes no room.
        let known = prefix_key(net("11.0.0.0/8"));
        let settled = blocks.settle(2, |key| *key == known);
        assert_eq!(settled.ranges, [net("11.0.0.0/8")]);
        assert_eq!(settled.added.len(), 2);
        assert!(blocks.refused().is_empty());
    }
}
