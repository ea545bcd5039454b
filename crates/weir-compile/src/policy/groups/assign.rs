// SPDX-License-Identifier: Apache-2.0
//! Which groups keep their numbers when blocks come, go or change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::BlockGroup;

use super::Groups;
use crate::policy::blocks::Element;

/// Prefixes with one number that lie in the same blocks from now on.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) old: BlockGroup,
    pub(crate) elements: Vec<Element>,
    pub(crate) prefixes: usize,
}

impl Groups {
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
