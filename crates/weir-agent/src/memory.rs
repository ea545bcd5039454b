// SPDX-License-Identifier: Apache-2.0
//! Memory that nobody needs any more, given back to the node.
//!
//! Loading the programs, and reading a whole cluster, takes a multiple of what stays of it. The C library keeps what was
//! freed in between for later, and an agent that has nothing of that size before it would hold it for good.

/// Changes of the world after which it is worth to look for free pages, which takes milliseconds.
const MANY: usize = 1000;

/// What has been done since memory was last given back.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    changes: usize,
}

impl Spent {
    /// So many objects were read.
    pub(crate) const fn read(&mut self, changes: usize) {
        self.changes = self.changes.saturating_add(changes);
    }

    /// The programs were loaded.
    pub(crate) const fn loaded(&mut self) {
        self.read(MANY);
    }

    /// Gives back what is free if enough was done for it; tells whether it did.
    pub(crate) fn give_back(&mut self) -> bool {
        let enough = self.changes >= MANY;
        if enough {
            self.changes = 0;
            trim();
        }
        enough
    }
}

/// Whole free pages of all arenas (`malloc_trim(3)`, glibc 2.8). Other C libraries do so by themselves.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it concerns free memory alone, takes the locks of the allocator, and may be called by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_much_work_only() {
        let mut spent = Spent::default();
        assert!(!spent.give_back());
        spent.loaded();
        assert!(spent.give_back() && !spent.give_back());
        for _ in 1..MANY {
            spent.read(1);
            assert!(!spent.give_back());
        }
        spent.read(1);
        assert!(spent.give_back() && !spent.give_back());
        spent.read(usize::MAX);
        spent.read(1);
        assert!(spent.give_back());
    }

    /// That the allocator does what is asked of it.
    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_in_between_does_not_stay() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))
                .unwrap();
            line.trim()
                .trim_end_matches(" kB")
                .parse::<usize>()
                .unwrap()
        };
        let mut pieces: Vec<Vec<u8>> = (0..400_000).map(|_| vec![7; 100]).collect();
        // One in a thousand stays, and keeps the heap from shrinking at its end.
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 1000 == 0
        });
        let before = resident();
        trim();
        let after = resident();
        assert!(after + 10_000 < before, "{before} kB, then {after} kB");
        drop(pieces);
    }
}
