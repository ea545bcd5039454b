// SPDX-License-Identifier: Apache-2.0
//! A map whose values say nothing.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use weir_abi::map::MapInfo;

use super::{RawTable, Row};
use crate::sys::map::Write;
use crate::{Error, Result};

/// A set of keys; values are zero bytes, as many as the map has.
#[derive(Debug)]
pub struct KeySet<K> {
    raw: RawTable,
    zeros: Vec<u8>,
    keys: PhantomData<fn() -> K>,
}

impl<K: Row + Ord> KeySet<K> {
    pub(crate) fn new(map: &MapInfo, fd: OwnedFd) -> Result<Self> {
        let raw = RawTable::new(map, fd)?;
        raw.expect_sizes(size_of::<K>(), raw.info().value_size)?;
        let zeros = vec![0; raw.value_length()];
        Ok(Self {
            raw,
            zeros,
            keys: PhantomData,
        })
    }

    /// The map as bytes.
    pub const fn raw(&self) -> &RawTable {
        &self.raw
    }

    /// Adds a key.
    pub fn insert(&self, key: &K) -> Result<()> {
        self.raw
            .update(key.as_bytes(), &self.zeros, Write::Always)
            .map_err(|source| Error::Row {
                action: "write",
                map: self.raw.info().map.name,
                key: format!("{key:?}"),
                source,
            })
    }

    /// Removes a key; answers whether it was there.
    pub fn remove(&self, key: &K) -> Result<bool> {
        match self.raw.delete(key.as_bytes()) {
            Ok(()) => Ok(true),
            Err(source) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(Error::Row {
                action: "delete",
                map: self.raw.info().map.name,
                key: format!("{key:?}"),
                source,
            }),
        }
    }

    /// All keys.
    pub fn keys(&self) -> Result<BTreeSet<K>> {
        let mut keys = BTreeSet::new();
        self.raw
            .for_each(&mut |key, _| keys.extend(K::read_from_bytes(key).ok()))
            .map_err(|source| self.raw.iteration_failed(source))?;
        Ok(keys)
    }
}
