// SPDX-License-Identifier: Apache-2.0
//! Runs of places: who may write where.

use std::collections::BTreeMap;

/// Free runs of an array. What is taken is contiguous and comes from the first run that has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    /// Nothing is taken beyond; places there may still be in use from before.
    size: u32,
    /// Length by first place, over all numbers; never two that touch.
    free: BTreeMap<u32, u32>,
}

impl Default for Runs {
    /// An array without places.
    fn default() -> Self {
        Self {
            size: 0,
            free: BTreeMap::from([(0, u32::MAX)]),
        }
    }
}

/// The length of a list as places are counted.
pub(super) fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

impl Runs {
    /// Number of places, free or not.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// Takes a run; `None` where no free one is as long.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return None;
        }
        let (first, length) = self
            .free
            .iter()
            .map(|(first, length)| (*first, *length))
            .take_while(|(first, _)| *first < self.size)
            .find(|(first, length)| *length >= count && self.size - first >= count)?;
        self.free.remove(&first);
        if length > count {
            self.free.insert(first + count, length - count);
        }
        Some(first)
    }

    /// Takes the places of a run that are free, for somebody who has them already.
    pub(super) fn reserve(&mut self, first: u32, count: u32) {
        let end = first.saturating_add(count);
        let touching: Vec<(u32, u32)> = self
            .free
            .range(..end)
            .rev()
            .map(|(first, length)| (*first, *length))
            .take_while(|(start, length)| start + length > first)
            .collect();
        for (start, length) in touching {
            self.free.remove(&start);
            if start < first {
                self.free.insert(start, first - start);
            }
            if start + length > end {
                self.free.insert(end, start + length - end);
            }
        }
    }

    /// Gives a run back.
    pub(super) fn give_back(&mut self, mut first: u32, mut count: u32) {
        if count == 0 {
            return;
        }
        if let Some(next) = self.free.remove(&(first + count)) {
            count += next;
        }
        let before = self.free.range(..first).next_back();
        if let Some((start, before)) = before.map(|(start, length)| (*start, *length))
            && start + before == first
        {
            first = start;
            count += before;
        }
        self.free.insert(first, count);
    }

    /// The array has another size now.
    pub(super) const fn resize(&mut self, size: u32) {
        self.size = size;
    }

    #[cfg(test)]
    fn free_places(&self) -> impl Iterator<Item = u32> {
        self.free
            .iter()
            .flat_map(|(first, length)| *first..(first + length).min(self.size))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(u32),
        GiveBack(prop::sample::Index),
        Resize(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..9).prop_map(Step::Take),
            3 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            1 => (20u32..60).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_room_is_found_where_there_is_some(steps in vec(step(), 0..80)) {
            let mut size = 40;
            let mut runs = Runs::default();
            runs.resize(size);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(count) => {
                        let free: BTreeSet<u32> = runs.free_places().collect();
                        let fits = |first: &u32| {
                            (*first..first + count).all(|place| free.contains(&place))
                        };
                        let expected = (0..size).find(fits).filter(|_| count > 0);
                        let found = runs.take(count);
                        prop_assert_eq!(found, expected);
                        taken.extend(found.map(|first| (first, count)));
                    }
                    Step::GiveBack(which) if !taken.is_empty() => {
                        let (first, count) = taken.swap_remove(which.index(taken.len()));
                        runs.give_back(first, count);
                    }
                    Step::GiveBack(_) => {}
                    Step::Resize(new) => {
                        runs.resize(new);
                        size = new;
                    }
                }
                let used: Vec<u32> = taken.iter().flat_map(|(first, count)| *first..first + count).collect();
                let distinct: BTreeSet<u32> = used.iter().copied().collect();
                prop_assert_eq!(used.len(), distinct.len());
                let free: BTreeSet<u32> = runs.free_places().collect();
                let expected: BTreeSet<u32> = (0..size).filter(|place| !distinct.contains(place)).collect();
                prop_assert_eq!(free, expected);
                // Merged: no two free runs touch.
                let ends: Vec<u32> = runs.free.iter().map(|(first, length)| first + length).collect();
                prop_assert!(ends.iter().all(|end| !runs.free.contains_key(end)));
            }
        }

        #[test]
        fn reserved_places_are_not_handed_out(reserved in vec((0u32..40, 0u32..9), 0..8)) {
            let mut runs = Runs::default();
            runs.resize(40);
            let mut used = BTreeSet::new();
            for (first, count) in reserved {
                runs.reserve(first, count);
                used.extend(first..first + count);
            }
            let free: BTreeSet<u32> = runs.free_places().collect();
            prop_assert_eq!(free, (0..40).filter(|place| !used.contains(place)).collect());
        }
    }
}
