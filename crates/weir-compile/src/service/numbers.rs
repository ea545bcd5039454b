// SPDX-License-Identifier: Apache-2.0
//! Numbers for frontends and service ports.

use std::collections::BTreeSet;

/// Numbers from 1 on. They are handed out in a circle, so that one is not soon something else: rows
/// that the programs write (flows, affinity) may hold it for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    last: u32,
    used: BTreeSet<u32>,
}

impl Numbers {
    /// A number that nobody has.
    pub(super) fn take(&mut self) -> u32 {
        // There are more numbers than any map has rows, so one is free.
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    /// Takes a number that somebody has already; false: it is nobody's (0) or somebody else's.
    pub(super) fn reserve(&mut self, number: u32) -> bool {
        let new = number != 0 && self.used.insert(number);
        if new {
            self.last = self.last.max(number);
        }
        new
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.used.is_empty()
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.used.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_used_again_soon() {
        let mut numbers = Numbers::default();
        assert!(numbers.reserve(7) && !numbers.reserve(7) && !numbers.reserve(0));
        let first = numbers.take();
        numbers.give_back(first);
        assert_eq!((first, numbers.take()), (8, 9));
        assert!(numbers.reserve(u32::MAX));
        assert_eq!(numbers.take(), 1);
    }
}
