// SPDX-License-Identifier: Apache-2.0
//! Numbers for sets of `ipBlock`s that addresses lie in.
//!
//! A number means the same set of blocks as long as the process lives and is never given to another
//! one. Numbers that were read back are taken over where they fit; where they do not, the plan makes
//! good for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::BlockGroup;
use weir_abi::ipcache::PrefixKey;

use super::blocks::{BlockId, Element};
use super::selectors::remove_from;

#[derive(Clone, Debug)]
struct Group {
    elements: Arc<[Element]>,
    /// Prefixes that have the number.
    prefixes: u32,
}

/// A group with the blocks that it stands for.
pub(crate) type GroupBlocks = (BlockGroup, Arc<[Element]>);

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    numbers: BTreeMap<Arc<[Element]>, BlockGroup>,
    known: BTreeMap<BlockGroup, Group>,
    containing: BTreeMap<BlockId, BTreeSet<BlockGroup>>,
    /// What prefixes had before a restart.
    found: BTreeMap<PrefixKey, BlockGroup>,
    /// Made since the last [`Self::sweep`].
    born: BTreeSet<BlockGroup>,
    /// Those among them that no prefix had before.
    fresh: BTreeSet<BlockGroup>,
    /// Left by the last prefix since then.
    left: BTreeSet<BlockGroup>,
    last: u32,
}

impl Groups {
    /// Takes over what was read back.
    pub(crate) fn restore(found: BTreeMap<PrefixKey, BlockGroup>) -> Self {
        Self {
            last: found.values().map(|group| group.0).max().unwrap_or(0),
            found,
            ..Self::default()
        }
    }

    /// The number of a set of blocks for a prefix, which counts as one that has it.
    pub(crate) fn take(&mut self, prefix: &PrefixKey, elements: Vec<Element>) -> BlockGroup {
        if elements.is_empty() {
            return BlockGroup::NONE;
        }
        let number = match self.numbers.get(elements.as_slice()) {
            Some(number) => *number,
            None => self.make(prefix, elements.into()),
        };
        if let Some(group) = self.known.get_mut(&number) {
            group.prefixes += 1;
        }
        number
    }

    fn make(&mut self, prefix: &PrefixKey, elements: Arc<[Element]>) -> BlockGroup {
        let found = self.found.remove(prefix);
        let free =
            |number: &BlockGroup| *number != BlockGroup::NONE && !self.known.contains_key(number);
        let number = found.filter(free).unwrap_or_else(|| {
            self.last = self.last.wrapping_add(1);
            self.fresh.insert(BlockGroup(self.last));
            BlockGroup(self.last)
        });
        for (block, _) in elements.iter() {
            self.containing.entry(*block).or_default().insert(number);
        }
        self.numbers.insert(Arc::clone(&elements), number);
        let group = Group {
            elements,
            prefixes: 0,
        };
        self.known.insert(number, group);
        self.born.insert(number);
        number
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

    /// Groups that are new, and groups that nothing has any more, each with its blocks. The latter
    /// are still listed by [`Self::containing`] until [`Self::sweep`].
    pub(crate) fn changed(&self) -> (Vec<BlockGroup>, Vec<GroupBlocks>) {
        let has_prefixes = |number: &&BlockGroup| !self.elements(**number).is_empty();
        let born = self.born.iter().filter(has_prefixes).copied().collect();
        let gone = self.left.iter().filter(|number| !has_prefixes(number));
        let gone = gone.filter_map(|number| {
            let group = self.known.get(number)?;
            Some((*number, Arc::clone(&group.elements)))
        });
        (born, gone.collect())
    }

    /// Forgets the groups that nothing has; tells which numbers are new.
    pub(crate) fn sweep(&mut self) -> BTreeSet<BlockGroup> {
        self.found.clear();
        self.born.clear();
        for number in std::mem::take(&mut self.left) {
            let known = self.known.get(&number);
            if known.is_none_or(|group| group.prefixes != 0) {
                continue;
            }
            if let Some(group) = self.known.remove(&number) {
                self.numbers.remove(&group.elements);
                for (block, _) in group.elements.iter() {
                    remove_from(&mut self.containing, block, &number);
                }
            }
        }
        std::mem::take(&mut self.fresh)
    }
}
