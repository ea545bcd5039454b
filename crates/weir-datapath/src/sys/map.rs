// SPDX-License-Identifier: Apache-2.0
//! Rows of maps, one at a time and in batches.
//!
//! The functions here trust their callers with sizes: the kernel reads and writes as many bytes as the map was made
//! with. [`crate::table::RawTable`] is the only caller and checks them.

use std::io;
use std::os::fd::BorrowedFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Command, address, address_mut, call, number};

/// The beginning of the kernel's `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel knows about a map.
pub(crate) fn info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    super::info(map)
}

/// When a row may be written (`BPF_ANY`, `BPF_NOEXIST`).
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Write {
    Always = 0,
    IfAbsent = 1,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RowAttribute {
    map: u32,
    padding: u32,
    key: u64,
    /// Of the value, or of the next key.
    value: u64,
    flags: u64,
}

impl RowAttribute {
    fn new(map: BorrowedFd<'_>, key: &[u8]) -> Self {
        Self {
            map: number(map),
            padding: 0,
            key: address(key),
            value: 0,
            flags: 0,
        }
    }
}

/// Reads one row.
///
/// # Safety
///
/// `key` has the map's key size, `value` its value size (for per-CPU maps: of all possible CPUs).
pub(crate) unsafe fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attribute = RowAttribute {
        value: address_mut(value),
        ..RowAttribute::new(map, key)
    };
    // SAFETY: both slices outlive the call; the caller vouches for their sizes.
    unsafe { call(Command::MapLookup, &mut attribute) }.map(drop)
}

/// Writes one row.
///
/// # Safety
///
/// As for [`lookup`].
pub(crate) unsafe fn update(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &[u8],
    write: Write,
) -> io::Result<()> {
    let mut attribute = RowAttribute {
        value: address(value),
        flags: write as u64,
        ..RowAttribute::new(map, key)
    };
    // SAFETY: both slices outlive the call; the caller vouches for their sizes.
    unsafe { call(Command::MapUpdate, &mut attribute) }.map(drop)
}

/// Removes one row.
///
/// # Safety
///
/// `key` has the map's key size.
pub(crate) unsafe fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attribute = RowAttribute::new(map, key);
    // SAFETY: the key outlives the call; the caller vouches for its size.
    unsafe { call(Command::MapDelete, &mut attribute) }.map(drop)
}

/// The key after `key`, or the first one; `ENOENT` after the last.
///
/// # Safety
///
/// `key` and `next` have the map's key size.
pub(crate) unsafe fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<()> {
    let mut attribute = RowAttribute {
        key: key.map_or(0, address),
        value: address_mut(next),
        ..RowAttribute::new(map, &[])
    };
    // SAFETY: both slices outlive the call; the caller vouches for their sizes.
    unsafe { call(Command::MapNextKey, &mut attribute) }.map(drop)
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct BatchAttribute {
    after: u64,
    position: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    row_flags: u64,
    flags: u64,
}

impl BatchAttribute {
    fn of(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> Self {
        Self {
            after: 0,
            position: 0,
            keys: address(keys),
            values: address(values),
            count,
            map: number(map),
            row_flags: 0,
            flags: 0,
        }
    }
}

/// Reads up to `count` rows behind position `after` (none: from the beginning); answers how many were read and how
/// the call ended: `ENOENT` is "these were the last".
///
/// # Safety
///
/// `keys` and `values` have room for `count` rows, `after` and `position` for a key and at least four bytes.
pub(crate) unsafe fn lookup_batch(
    map: BorrowedFd<'_>,
    after: Option<&[u8]>,
    position: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> (u32, io::Result<()>) {
    let mut attribute = BatchAttribute {
        after: after.map_or(0, address),
        position: address_mut(position),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map: number(map),
        row_flags: 0,
        flags: 0,
    };
    // SAFETY: all slices outlive the call; the caller vouches for their sizes.
    let result = unsafe { call(Command::MapLookupBatch, &mut attribute) }.map(drop);
    (attribute.count, result)
}

/// Writes `count` rows in order until one is refused; answers how many were written and how the call ended.
///
/// # Safety
///
/// `keys` and `values` hold `count` rows of the map.
pub(crate) unsafe fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> (u32, io::Result<()>) {
    let mut attribute = BatchAttribute::of(map, keys, values, count);
    // SAFETY: both slices outlive the call; the caller vouches for their sizes.
    let result = unsafe { call(Command::MapUpdateBatch, &mut attribute) }.map(drop);
    (attribute.count, result)
}

/// Removes `count` rows in order until one is refused; answers as [`update_batch`].
///
/// # Safety
///
/// `keys` holds `count` keys of the map.
pub(crate) unsafe fn delete_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    count: u32,
) -> (u32, io::Result<()>) {
    let mut attribute = BatchAttribute::of(map, keys, &[], count);
    // SAFETY: the keys outlive the call; the caller vouches for their sizes.
    let result = unsafe { call(Command::MapDeleteBatch, &mut attribute) }.map(drop);
    (attribute.count, result)
}
