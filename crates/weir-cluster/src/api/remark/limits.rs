// SPDX-License-Identifier: Apache-2.0
//! How much is said: the same once in a time, and not much at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Remark;

/// Kubernetes keeps events for about as long.
const MEMORY: Duration = Duration::from_hours(1);
/// Remarks that are remembered.
const REMEMBERED: usize = 1024;
/// So many may come at once,
const BURST: u32 = 20;
/// and one more after each such time.
const REFILL: Duration = Duration::from_secs(5);

/// What was said not long ago.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<Remark, Instant>);

impl Memory {
    pub(super) fn holds(&self, remark: &Remark, now: Instant) -> bool {
        let said = self.0.get(remark);
        said.is_some_and(|said| now.saturating_duration_since(*said) < MEMORY)
    }

    pub(super) fn keep(&mut self, remark: Remark, now: Instant) {
        if self.0.len() >= REMEMBERED {
            let fresh = |said: &Instant| now.saturating_duration_since(*said) < MEMORY;
            self.0.retain(|_, said| fresh(said));
        }
        // An event that is there already is refused by its name, so forgetting costs a request.
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(remark, now);
    }
}

/// How many may be made now.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// One; or how long to wait for it.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < BURST && now.saturating_duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(REFILL.saturating_sub(now.saturating_duration_since(self.since))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::remark::tests::remark;

    #[test]
    fn the_same_is_said_once_in_an_hour() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        assert!(!memory.holds(&remark("a"), now));
        memory.keep(remark("a"), now);
        assert!(memory.holds(&remark("a"), now + MEMORY / 2));
        assert!(!memory.holds(&remark("a"), now + MEMORY));
        assert!(!memory.holds(&remark("b"), now));
        for number in 0..3 * REMEMBERED {
            memory.keep(remark(&number.to_string()), now);
        }
        assert!(memory.0.len() <= REMEMBERED);
    }

    #[test]
    fn many_at_once_are_spread() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..BURST {
            assert_eq!(budget.take(now), Ok(()));
        }
        assert_eq!(budget.take(now), Err(REFILL));
        let later = now + REFILL / 2;
        assert_eq!(budget.take(later), Err(REFILL / 2));
        assert_eq!(budget.take(now + REFILL), Ok(()));
        assert!(budget.take(now + REFILL).is_err());
        // Rest makes up for everything, and for no more.
        let rested = now + REFILL * (BURST + 50);
        for _ in 0..BURST {
            assert_eq!(budget.take(rested), Ok(()));
        }
        assert!(budget.take(rested).is_err());
    }
}
