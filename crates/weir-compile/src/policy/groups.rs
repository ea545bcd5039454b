// SPDX-License-Identifier: Apache-2.0
//! Numbers for groups of addresses that lie in the same `ipBlock`s.
//!
//! A group is a class of addresses, not a set of blocks: when a block comes that holds all of a
//! group's addresses, the group keeps its number and only its rows change. So a block for the whole
//! world costs a few rows and not one for each address. A number that no address has any more is never
//! given to others.

mod assign;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::BlockGroup;

use super::blocks::{BlockId, Element};
use super::selectors::remove_from;

pub(crate) use assign::Unit;

#[derive(Clone, Debug)]
struct Group {
    elements: Arc<[Element]>,
    /// Prefixes that have the number.
    prefixes: usize,
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    numbers: BTreeMap<Arc<[Element]>, BlockGroup>,
    known: BTreeMap<BlockGroup, Group>,
    containing: BTreeMap<BlockId, BTreeSet<BlockGroup>>,
    /// Since the last [`Self::sweep`]: groups with the blocks that they gained.
    gained: BTreeMap<BlockGroup, BTreeSet<BlockId>>,
    /// Numbers that nothing had before.
    fresh: BTreeSet<BlockGroup>,
    /// Left by the last prefix.
    left: BTreeSet<BlockGroup>,
    last: u32,
}

impl Groups {
    /// Groups whose numbers follow those that were read back.
    pub(crate) fn restore(found: impl Iterator<Item = BlockGroup>) -> Self {
        Self {
            last: found.map(|group| group.0).max().unwrap_or(0),
            ..Self::default()
        }
    }

    /// The number for a prefix in these blocks. A new group takes over the number that the prefix
    /// had before a restart, where nobody else has it.
    pub(crate) fn resolve(&mut self, elements: Vec<Element>, found: BlockGroup) -> BlockGroup {
        if let Some(number) = self.numbers.get(elements.as_slice()) {
            return *number;
        }
        let known = self.known.get(&found);
        let free = found != BlockGroup::NONE && known.is_none();
        if elements.is_empty() && !free {
            // In no block there can be several groups: no row tells them apart.
            let same = known.is_some_and(|group| group.elements.is_empty());
            return if same { found } else { BlockGroup::NONE };
        }
        let number = if free { found } else { self.next() };
        self.define(number, &elements.into());
        number
    }

    fn next(&mut self) -> BlockGroup {
        self.last = self.last.wrapping_add(1);
        self.fresh.insert(BlockGroup(self.last));
        BlockGroup(self.last)
    }

    /// Says what a number means from now on.
    fn define(&mut self, number: BlockGroup, elements: &Arc<[Element]>) {
        let blocks = |elements: &[Element]| -> BTreeSet<BlockId> {
            elements.iter().map(|(block, _)| *block).collect()
        };
        let group = self.known.entry(number).or_insert_with(|| Group {
            elements: Arc::default(),
            prefixes: 0,
        });
        let before = std::mem::replace(&mut group.elements, Arc::clone(elements));
        if !elements.is_empty() {
            self.numbers.insert(Arc::clone(elements), number);
        }
        if before == *elements {
            return;
        }
        let (before_blocks, after) = (blocks(&before), blocks(elements));
        for block in before_blocks.difference(&after) {
            remove_from(&mut self.containing, block, &number);
        }
        for block in &after {
            self.containing.entry(*block).or_default().insert(number);
        }
        // A block can be there as before, with another number behind a name.
        let new = elements.iter().filter(|element| !before.contains(element));
        let gained = self.gained.entry(number).or_default();
        gained.extend(new.map(|(block, _)| *block));
        let lost = before.iter().filter(|element| !elements.contains(element));
        gained.extend(lost.map(|(block, _)| *block));
    }

    /// A prefix has the number now.
    pub(crate) fn enter(&mut self, number: BlockGroup) {
        if let Some(group) = self.known.get_mut(&number) {
            group.prefixes += 1;
        }
    }

    /// A prefix has the number no longer.
    pub(crate) fn leave(&mut self, number: BlockGroup) {
        if let Some(group) = self.known.get_mut(&number) {
            group.prefixes -= 1;
            if group.prefixes == 0 {
                self.left.insert(number);
            }
        }
    }

    /// The blocks of a group that prefixes have.
    pub(crate) fn elements(&self, number: BlockGroup) -> &[Element] {
        let group = self.known.get(&number).filter(|group| group.prefixes > 0);
        group.map_or(&[], |group| &group.elements)
    }

    /// Groups with a block.
    pub(crate) fn containing(&self, block: BlockId) -> impl Iterator<Item = BlockGroup> + '_ {
        self.containing.get(&block).into_iter().flatten().copied()
    }

    /// Blocks that are in a group or out of it since the last [`Self::sweep`], and all blocks of
    /// groups that nothing has any more.
    pub(crate) fn changed(&self) -> Vec<(BlockGroup, BlockId)> {
        let gained = self.gained.iter();
        let gained =
            gained.flat_map(|(number, blocks)| blocks.iter().map(|block| (*number, *block)));
        let gone = self.gone().flat_map(|(number, group)| {
            let blocks = group.elements.iter().map(|(block, _)| *block);
            blocks.map(move |block| (number, block))
        });
        gained.chain(gone).collect()
    }

    fn gone(&self) -> impl Iterator<Item = (BlockGroup, &Group)> {
        let groups = self.left.iter().filter_map(|number| {
            let group = self.known.get(number)?;
            Some((*number, group))
        });
        groups.filter(|(_, group)| group.prefixes == 0)
    }

    /// Forgets the groups that nothing has; tells which numbers are new and which are gone.
    pub(crate) fn sweep(&mut self) -> (BTreeSet<BlockGroup>, BTreeSet<BlockGroup>) {
        let gone: BTreeSet<_> = self.gone().map(|(number, _)| number).collect();
        self.gained.clear();
        self.left.clear();
        for number in &gone {
            if let Some(group) = self.known.remove(number) {
                if self.numbers.get(&group.elements) == Some(number) {
                    self.numbers.remove(&group.elements);
                }
                for (block, _) in group.elements.iter() {
                    remove_from(&mut self.containing, block, number);
                }
            }
        }
        (std::mem::take(&mut self.fresh), gone)
    }
}
