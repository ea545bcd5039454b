// SPDX-License-Identifier: Apache-2.0
//! Maglev's tables: which backend of a run takes a hash (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! A table depends on the run's backends alone, so all nodes choose alike, and a backend that goes
//! takes little more with it than its own share.

use std::sync::Arc;

use weir_abi::service::BackendRow;

/// Entries of a table. They must be prime: every step length then visits every place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableSize(u32);

impl TableSize {
    /// The largest size; larger tables would only cost memory.
    pub const LARGEST: u32 = 131_071;

    /// Proves a size: a prime from 3 to [`Self::LARGEST`].
    pub fn new(size: u32) -> Option<Self> {
        let in_range = (3..=Self::LARGEST).contains(&size);
        let prime = || !(2..=size.isqrt()).any(|n| size.is_multiple_of(n));
        (in_range && prime()).then_some(Self(size))
    }

    /// The number of entries.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether a run of this many backends gets a table: one needs none, and in a table that is
    /// smaller than the run some would never be chosen.
    pub(super) fn suits(self, backends: usize) -> bool {
        let most = super::rows::index(self.0).min(usize::from(u16::MAX));
        (2..=most).contains(&backends)
    }
}

/// What a place holds before it is filled; no index of a run is as high.
const FREE: u16 = u16::MAX;

/// The table of a run, whose order is that of addresses and ports.
pub(super) fn table(backends: &[BackendRow], size: TableSize) -> Arc<[u16]> {
    let walks = backends.iter().map(|one| walk(one, size.0)).collect();
    fill(walks, size.0).into()
}

/// Each backend in turn takes the next entry of its walk that nobody has.
fn fill(mut walks: Vec<Walk>, size: u32) -> Vec<u16> {
    let mut table = vec![FREE; super::rows::index(size)];
    let mut left = if walks.is_empty() { 0 } else { size };
    while left > 0 {
        for (index, walk) in (0..FREE).zip(&mut walks) {
            loop {
                let entry = table.get_mut(super::rows::index(walk.place));
                walk.place += walk.skip;
                if walk.place >= size {
                    walk.place -= size;
                }
                if let Some(entry) = entry
                    && *entry == FREE
                {
                    *entry = index;
                    break;
                }
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table
}

/// The order in which a backend would like to have the entries.
#[derive(Clone, Copy, Debug)]
struct Walk {
    place: u32,
    skip: u32,
}

fn walk(backend: &BackendRow, size: u32) -> Walk {
    let mut bytes = [0; 18];
    let (address, port) = bytes.split_at_mut(16);
    address.copy_from_slice(&backend.address.0);
    port.copy_from_slice(&backend.port.0);
    let below = |seed, limit: u32| {
        let rest = hash(&bytes, seed) % u64::from(limit);
        u32::try_from(rest).unwrap_or_default()
    };
    Walk {
        place: below(0x6f66_6673_6574_0001, size),
        skip: below(0x736b_6970_0000_0002, size - 1) + 1,
    }
}

/// FNV-1a with the finisher of splitmix64: fixed for ever, because nodes must agree on it.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;
    use weir_abi::{Address, Port, ServiceId};

    use super::*;

    fn run(hosts: impl IntoIterator<Item = u16>) -> Vec<BackendRow> {
        let row = |host: u16| BackendRow {
            address: Address::from_v4([10, 1, host.to_be_bytes()[0], host.to_be_bytes()[1]]),
            service: ServiceId(1),
            port: Port::new(8080),
            reserved: [0; 2],
        };
        hosts.into_iter().map(row).collect()
    }

    #[test]
    fn sizes_are_prime() {
        for good in [3, 251, 1021, 16381, 131_071] {
            assert!(TableSize::new(good).is_some(), "{good}");
        }
        for bad in [0, 1, 2, 4, 1023, 16383, 131_101] {
            assert!(TableSize::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_table_is_the_same_for_ever() {
        // Nodes of different versions stand beside each other during an upgrade.
        let table = table(&run(1..4), TableSize::new(13).unwrap());
        assert_eq!(*table, [0, 2, 1, 1, 2, 0, 1, 0, 2, 0, 1, 0, 2]);
    }

    #[test]
    fn the_example_of_the_paper() {
        let walks = [(3, 4), (0, 2), (3, 1)].map(|(place, skip)| Walk { place, skip });
        assert_eq!(fill(walks.into(), 7), [1, 0, 1, 0, 2, 2, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_backend_gets_its_share(hosts in btree_set(any::<u16>(), 2..40)) {
            let size = TableSize::new(4093).unwrap();
            let table = table(&run(hosts.iter().copied()), size);
            let mut shares = vec![0u32; hosts.len()];
            for entry in table.iter() {
                shares[usize::from(*entry)] += 1;
            }
            // They fill the table in turns, so shares differ by one at most.
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{shares:?}");
        }

        #[test]
        fn one_that_goes_disturbs_few_others(hosts in btree_set(any::<u16>(), 3..40)) {
            let size = TableSize::new(4093).unwrap();
            let all: Vec<u16> = hosts.iter().copied().collect();
            let before = table(&run(all.clone()), size);
            let mut moved = 0;
            for gone in &all {
                let rest: Vec<u16> = all.iter().copied().filter(|host| host != gone).collect();
                let after = table(&run(rest.clone()), size);
                moved += before
                    .iter()
                    .zip(after.iter())
                    .map(|(old, new)| (all[usize::from(*old)], rest[usize::from(*new)]))
                    .filter(|(old, new)| old != new && old != gone)
                    .count();
            }
            let share = moved * 100 / (all.len() * before.len());
            prop_assert!(share <= 8, "{share} % of {}", all.len());
        }
    }
}
