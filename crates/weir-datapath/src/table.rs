// SPDX-License-Identifier: Apache-2.0
//! Typed views of maps: rows in, rows out, no byte in between that is not a type of `weir-abi`.

mod keys;
mod per_cpu;
mod raw;

pub use keys::KeySet;
pub use per_cpu::{PerCpu, Sum};
pub use raw::{Copied, RawTable, TableInfo};

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use weir_abi::map::MapInfo;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::map::Write;
use crate::{Error, Result};

/// What can be a key or a value: no padding, no invalid bit pattern.
pub trait Row: FromBytes + IntoBytes + Immutable + Copy + Debug + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Copy + Debug + 'static> Row for T {}

/// A map with one value for each key.
#[derive(Debug)]
pub struct Table<K, V> {
    raw: RawTable,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<K: Row, V: Row> Table<K, V> {
    /// Takes an open map whose rows must be `K` and `V`.
    pub(crate) fn new(map: &MapInfo, fd: OwnedFd) -> Result<Self> {
        let raw = RawTable::new(map, fd)?;
        raw.expect_sizes(size_of::<K>(), size_of::<V>())?;
        Ok(Self {
            raw,
            rows: PhantomData,
        })
    }

    /// The map as bytes.
    pub const fn raw(&self) -> &RawTable {
        &self.raw
    }

    /// Its name, type and sizes.
    pub const fn info(&self) -> &TableInfo {
        self.raw.info()
    }

    /// How many rows it can hold.
    pub const fn size(&self) -> u32 {
        self.raw.info().size
    }

    /// The row of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::new_zeroed();
        match self.raw.lookup(key.as_bytes(), value.as_mut_bytes()) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.refused("read", key, error)),
        }
    }

    /// Writes a row, whether it is there already or not.
    pub fn upsert(&self, key: &K, value: &V) -> Result<()> {
        self.raw
            .update(key.as_bytes(), value.as_bytes(), Write::Always)
            .map_err(|error| self.refused("write", key, error))
    }

    /// Writes a row that is not there yet; answers whether it was written.
    pub fn insert_new(&self, key: &K, value: &V) -> Result<bool> {
        match self
            .raw
            .update(key.as_bytes(), value.as_bytes(), Write::IfAbsent)
        {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(self.refused("write", key, error)),
        }
    }

    /// Removes a row; answers whether it was there.
    pub fn delete(&self, key: &K) -> Result<bool> {
        match self.raw.delete(key.as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.refused("delete", key, error)),
        }
    }

    /// Writes many rows, in order; answers which were refused, by their place in `rows`, and why.
    pub fn upsert_all(&self, rows: &[(K, V)]) -> Vec<(usize, Error)> {
        let keys = bytes_of(rows, |(key, _)| key);
        let values = bytes_of(rows, |(_, value)| value);
        let mut failed = Vec::new();
        self.raw.update_many(&keys, &values, &mut |place, error| {
            failed.extend(
                rows.get(place)
                    .map(|(key, _)| (place, self.refused("write", key, error))),
            );
        });
        failed
    }

    /// Removes many rows, as [`Self::upsert_all`]. A row that is gone already is no failure.
    pub fn delete_all(&self, keys: &[K]) -> Vec<(usize, Error)> {
        let bytes = bytes_of(keys, |key| key);
        let mut failed = Vec::new();
        self.raw.delete_many(&bytes, &mut |place, error| {
            failed.extend(
                keys.get(place)
                    .map(|key| (place, self.refused("delete", key, error))),
            );
        });
        failed
    }

    /// Visits every row that is there for the whole time of the visit; others may be met or not.
    pub fn for_each(&self, mut visit: impl FnMut(K, V)) -> Result<()> {
        self.raw
            .for_each(&mut |key, value| {
                if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                    visit(key, value);
                }
            })
            .map_err(|source| self.raw.iteration_failed(source))
    }

    /// All rows, in no order.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.push((key, value)))?;
        Ok(entries)
    }

    /// How many rows there are.
    pub fn count(&self) -> Result<u64> {
        self.raw.count()
    }

    fn refused(&self, action: &'static str, key: &K, source: io::Error) -> Error {
        Error::Row {
            action,
            map: self.raw.info().map.name,
            key: format!("{key:?}"),
            source,
        }
    }
}

impl<V: Row> Table<u32, V> {
    /// Some places of an array, which need not be read whole; those behind its end are left out.
    pub fn places(&self, first: u32, count: u32) -> Result<Vec<V>> {
        let count = count.min(self.size().saturating_sub(first));
        let mut values = Vec::with_capacity(count as usize);
        self.raw
            .for_each_place(first, count, &mut |_, value| {
                values.extend(V::read_from_bytes(value).ok());
            })
            .map_err(|source| self.raw.iteration_failed(source))?;
        values.truncate(count as usize);
        Ok(values)
    }
}

/// Rows behind each other, as batches want them.
fn bytes_of<T, R: Row>(rows: &[T], row: impl Fn(&T) -> &R) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * size_of::<R>());
    for one in rows {
        bytes.extend_from_slice(row(one).as_bytes());
    }
    bytes
}
