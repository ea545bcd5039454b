// SPDX-License-Identifier: Apache-2.0
//! Numbers for groups of addresses that lie in the same `ipBlock`s.
//!
//! A group is a class of addresses, not a set of blocks: when a block comes that holds all of a
//! group's addresses, the group keeps its number and only its rows change. So a block for the whole
//! world costs a few rows and not one for each address. A number that no address has any more is never
//! given to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::BlockGroup;

use super::blocks::{BlockId, Element};
use super::selectors::remove_from;

#[derive(Clone, Debug)]
struct Group {
    elements: Arc<[Element]>,
    /// Prefixes that have the number.
    prefixes: usize,
}

/// Prefixes with one number that lie in the same blocks from now on.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) old: BlockGroup,
    pub(crate) elements: Vec<Element>,
    pub(crate) prefixes: usize,
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

    /// Gives units their numbers, so that as few prefixes as possible need another one.
    pub(crate) fn assign(&mut self, units: &[Unit]) -> Vec<BlockGroup> {
        let mut concerned: BTreeMap<BlockGroup, usize> = BTreeMap::new();
        let mut wanted: BTreeMap<&[Element], BTreeMap<BlockGroup, usize>> = BTreeMap::new();
        for unit in units {
            *concerned.entry(unit.old).or_default() += unit.prefixes;
            let from = wanted.entry(&unit.elements).or_default();
            *from.entry(unit.old).or_default() += unit.prefixes;
        }
        // A group that has other prefixes too cannot become another one.
        let held = |number: &BlockGroup| {
            let group = self.known.get(number);
            let here = concerned.get(number).copied().unwrap_or(0);
            *number == BlockGroup::NONE || group.is_none_or(|group| group.prefixes > here)
        };
        let movable: BTreeSet<BlockGroup> = concerned
            .keys()
            .filter(|number| !held(number))
            .copied()
            .collect();
        let mut chosen: BTreeMap<&[Element], BlockGroup> = BTreeMap::new();
        let mut offers: Vec<(usize, BlockGroup, &[Element])> = Vec::new();
        for (elements, from) in wanted.iter().filter(|(elements, _)| !elements.is_empty()) {
            match self.numbers.get(*elements) {
                Some(number) if !movable.contains(number) => {
                    chosen.insert(elements, *number);
                }
                Some(_) | None => {
                    let from = from.iter().filter(|(number, _)| movable.contains(number));
                    offers.extend(from.map(|(number, prefixes)| (*prefixes, *number, *elements)));
                }
            }
        }
        // The largest parts keep their numbers.
        offers.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(b.2)));
        let mut taken = BTreeSet::new();
        for (_, number, elements) in offers {
            if !chosen.contains_key(elements) && taken.insert(number) {
                chosen.insert(elements, number);
            }
        }
        for number in &movable {
            if let Some(group) = self.known.get(number)
                && self.numbers.get(&group.elements) == Some(number)
            {
                let elements = Arc::clone(&group.elements);
                self.numbers.remove(&elements);
            }
        }
        for (elements, number) in &chosen {
            if taken.contains(number) {
                self.define(*number, &Arc::from(*elements));
            }
        }
        let number = |unit: &Unit| {
            if unit.elements.is_empty() {
                // In no block any more: the number stays if nobody else has it.
                if taken.contains(&unit.old) {
                    return BlockGroup::NONE;
                }
                if movable.contains(&unit.old) {
                    self.define(unit.old, &Arc::default());
                }
                let group = self.known.get(&unit.old);
                return match group.filter(|group| group.elements.is_empty()) {
                    Some(_) => unit.old,
                    None => BlockGroup::NONE,
                };
            }
            match chosen.get(unit.elements.as_slice()) {
                Some(number) => *number,
                None => self.resolve(unit.elements.clone(), BlockGroup::NONE),
            }
        };
        units.iter().map(number).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::blocks::BlockId;

    fn unit(old: u32, blocks: &[u32], prefixes: usize) -> Unit {
        Unit {
            old: BlockGroup(old),
            elements: blocks.iter().map(|block| (BlockId(*block), 0)).collect(),
            prefixes,
        }
    }

    fn with(groups: &mut Groups, number: BlockGroup, prefixes: usize) {
        for _ in 0..prefixes {
            groups.enter(number);
        }
    }

    #[test]
    fn a_block_for_all_of_a_group_leaves_its_number() {
        let mut groups = Groups::default();
        let first = groups.resolve(vec![(BlockId(1), 0)], BlockGroup::NONE);
        with(&mut groups, first, 10);
        assert_eq!(groups.assign(&[unit(1, &[1, 2], 10)]), [first]);
        assert_eq!(groups.elements(first).len(), 2);
        assert_eq!(groups.containing(BlockId(2)).collect::<Vec<_>>(), [first]);
        // A part gets another number, the smaller one.
        let parts = [unit(1, &[1, 2], 4), unit(1, &[1, 2, 3], 6)];
        let found = groups.assign(&parts);
        assert_eq!((found[1], found[0] == first), (first, false));
    }

    #[test]
    fn a_group_with_other_prefixes_stays_what_it_is() {
        let mut groups = Groups::default();
        let first = groups.resolve(vec![(BlockId(1), 0)], BlockGroup::NONE);
        with(&mut groups, first, 10);
        let found = groups.assign(&[unit(1, &[1, 2], 9)]);
        assert_ne!(found[0], first);
        assert_eq!(groups.elements(first).len(), 1);
    }

    #[test]
    fn groups_that_become_equal_become_one() {
        let mut groups = Groups::default();
        let one = groups.resolve(vec![(BlockId(1), 0)], BlockGroup::NONE);
        let two = groups.resolve(vec![(BlockId(1), 0), (BlockId(2), 0)], BlockGroup::NONE);
        with(&mut groups, one, 3);
        with(&mut groups, two, 5);
        // The first one is not concerned and stays.
        assert_eq!(groups.assign(&[unit(two.0, &[1], 5)]), [one]);
        let mut groups = Groups::default();
        let none = groups.assign(&[unit(0, &[], 5)]);
        assert_eq!(none, [BlockGroup::NONE]);
        let found = groups.assign(&[unit(0, &[1], 5)]);
        with(&mut groups, found[0], 5);
        // Back in no block, the number stays for the next one.
        assert_eq!(groups.assign(&[unit(found[0].0, &[], 5)]), found);
        assert_eq!(
            groups.resolve(Vec::new(), BlockGroup::NONE),
            BlockGroup::NONE
        );
        assert_eq!(groups.resolve(Vec::new(), found[0]), found[0]);
        assert_eq!(groups.assign(&[unit(found[0].0, &[7], 5)]), found);
    }
}
