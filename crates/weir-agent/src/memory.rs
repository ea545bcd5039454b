// SPDX-License-Identifier: Apache-2.0
//! Memory that nobody needs any more, given back to the node.
//!
//! Loading the programs, and reading a whole cluster, takes a multiple of what stays of it. The C library keeps what was
//! freed in between for later, and an agent that has nothing of that size before it would hold it for good. The code that
//! did it stays mapped as well, and is more than half of the code that ran at all.

use std::ops::Range;
use std::{env, fs, ptr};

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

    /// Gives back what is not needed if enough was done for it.
    pub(crate) fn give_back(&mut self) {
        if self.is_enough() {
            trim();
            let_go_of_code();
        }
    }

    /// Whether it is worth it; from then on it counts anew.
    const fn is_enough(&mut self) -> bool {
        let enough = self.changes >= MANY;
        if enough {
            self.changes = 0;
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

/// Takes the pages of the program's own code out of this process; the next call into one maps it again, from the page cache.
/// What goes on running comes back that way within a turn of the loop, at the price of some hundred minor faults.
fn let_go_of_code() {
    let program = env::current_exe();
    let (Ok(program), Ok(maps)) = (program, fs::read_to_string("/proc/self/maps")) else {
        return;
    };
    for range in code(&maps, &program.to_string_lossy()) {
        // SAFETY: the mapping is of a file and was never written to, code being read-only and position-independent, so that
        // every page of it reads the same when it is mapped again (madvise(2), MADV_DONTNEED). A failure changes nothing.
        unsafe {
            let start = ptr::with_exposed_provenance_mut(range.start);
            nix::libc::madvise(start, range.len(), nix::libc::MADV_DONTNEED);
        }
    }
}

/// Where a file is mapped as code (`proc_pid_maps(5)`).
fn code(maps: &str, file: &str) -> Vec<Range<usize>> {
    let of_line = |line: &str| {
        let (place, rest) = line.split_once(" r-xp ")?;
        let (start, end) = place.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        rest.ends_with(&format!(" {file}"))
            .then_some(number(start)?..number(end)?)
    };
    maps.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_much_work_only() {
        let mut spent = Spent::default();
        assert!(!spent.is_enough());
        spent.loaded();
        assert!(spent.is_enough() && !spent.is_enough());
        for _ in 1..MANY {
            spent.read(1);
            assert!(!spent.is_enough());
        }
        spent.read(1);
        assert!(spent.is_enough() && !spent.is_enough());
        spent.read(usize::MAX);
        spent.read(1);
        assert!(spent.is_enough());
    }

    /// That the allocator does what is asked of it.
    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_in_between_does_not_stay() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"));
            let number = line.unwrap().trim().trim_end_matches(" kB");
            number.parse::<usize>().unwrap()
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

    #[test]
    fn code_is_what_is_executable_of_the_file() {
        let maps = "\
5555-5560 r--p 00000000 fe:01 12 /bin/weir
5560-7000 r-xp 0000b000 fe:01 12 /bin/weir
7000-7100 rw-p 00020000 fe:01 12 /bin/weir
8000-9000 r-xp 00000000 fe:01 13 /lib/x86_64-linux-gnu/libc.so.6
9000-9001 r-xp 00000000 00:00 0 [vdso]
";
        let found = |file| {
            let all = code(maps, file).into_iter();
            all.map(|range| (range.start, range.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(found("/bin/weir"), [(0x5560, 0x7000)]);
        assert_eq!(found("/bin/other"), []);
    }

    #[test]
    fn code_that_ran_is_let_go_and_runs_again() {
        let program = env::current_exe().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let all = code(&maps, &program.to_string_lossy());
        assert_eq!(all.len(), 1, "{maps}");
        // Exact, unlike the sums in the status of a process.
        let resident = || {
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let header = maps.find(&format!("{:x}-", all[0].start)).unwrap();
            let line = maps[header..]
                .lines()
                .find_map(|line| line.strip_prefix("Rss:"));
            let number = line.unwrap().trim().trim_end_matches(" kB");
            number.parse::<usize>().unwrap()
        };
        // As if all of it had run.
        for place in all[0].clone().step_by(4096) {
            // SAFETY: the page is mapped, readable, and code that nobody writes to.
            unsafe { ptr::with_exposed_provenance::<u8>(place).read_volatile() };
        }
        let before = resident();
        let_go_of_code();
        let after = resident();
        // The kernel maps some around what runs, here and in other tests.
        assert!(after < before / 4 * 3, "{before} kB, then {after} kB");
    }
}
