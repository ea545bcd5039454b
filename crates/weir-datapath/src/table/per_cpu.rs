// SPDX-License-Identifier: Apache-2.0
//! Arrays with a value for each CPU, read as sums.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use weir_abi::counter::Metric;
use weir_abi::map::MapInfo;
use zerocopy::IntoBytes as _;

use super::{RawTable, Row};
use crate::{Error, Result};

/// Values that can be added up over CPUs.
pub trait Sum: Row + Default + PartialEq {
    /// Both together; counters wrap around as the kernel's do.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

impl Sum for u64 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Sum for Metric {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

/// A per-CPU array.
#[derive(Debug)]
pub struct PerCpu<V> {
    raw: RawTable,
    values: PhantomData<fn() -> V>,
}

impl<V: Sum> PerCpu<V> {
    pub(crate) fn new(map: &MapInfo, fd: OwnedFd) -> Result<Self> {
        let raw = RawTable::new(map, fd)?;
        raw.expect_sizes(size_of::<u32>(), size_of::<V>())?;
        Ok(Self {
            raw,
            values: PhantomData,
        })
    }

    /// The map as bytes.
    pub const fn raw(&self) -> &RawTable {
        &self.raw
    }

    /// One place, over all CPUs.
    pub fn sum(&self, index: u32) -> Result<V> {
        let mut values = vec![0; self.raw.value_length()];
        self.raw
            .lookup(index.as_bytes(), &mut values)
            .map_err(|source| Error::Row {
                action: "read",
                map: self.raw.info().map.name,
                key: index.to_string(),
                source,
            })?;
        Ok(total(&values))
    }

    /// Every place that is not zero, over all CPUs.
    pub fn sums(&self) -> Result<Vec<(u32, V)>> {
        let mut sums = Vec::new();
        self.raw
            .for_each(&mut |key, values| {
                let sum = total(values);
                if let Ok(index) = key.try_into().map(u32::from_ne_bytes)
                    && sum != V::default()
                {
                    sums.push((index, sum));
                }
            })
            .map_err(|source| self.raw.iteration_failed(source))?;
        Ok(sums)
    }
}

/// The kernel keeps the value of each CPU at a multiple of eight bytes.
fn total<V: Sum>(values: &[u8]) -> V {
    values
        .chunks_exact(size_of::<V>().next_multiple_of(8))
        .filter_map(|chunk| V::read_from_prefix(chunk).ok())
        .fold(V::default(), |sum, (value, _)| sum.plus(value))
}
