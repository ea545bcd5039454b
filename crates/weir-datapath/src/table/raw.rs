// SPDX-License-Identifier: Apache-2.0
//! A map as bytes, with the sizes checked once so that nothing below needs to trust a caller.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use weir_abi::map::{MapInfo, MapShape};

use crate::shape::Shape;
use crate::sys::map::{self, Write};
use crate::{Error, Result};

/// Rows that one system call reads. 1,024 flows are 168 KiB.
const BATCH: u32 = 1024;
/// Room for the kernel's position in a hash table, where keys are shorter.
const POSITION_MINIMUM: usize = 4;

/// Everything about a map but its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableInfo {
    /// Name, title and shape.
    pub map: MapInfo,
    /// The kernel's number of the map.
    pub id: u32,
    /// Rows (bytes for the ring buffer) that fit.
    pub size: u32,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value, of one CPU where there is one for each.
    pub value_size: usize,
}

/// An open map.
#[derive(Debug)]
pub struct RawTable {
    fd: OwnedFd,
    info: TableInfo,
    /// Bytes of a value as system calls pass it: those of all CPUs in a per-CPU map.
    value_length: usize,
    failed_writes: AtomicU64,
}

impl RawTable {
    pub(crate) fn new(expected: &MapInfo, fd: OwnedFd) -> Result<Self> {
        let seen = map::info(fd.as_fd()).map_err(|source| Error::Row {
            action: "inspect",
            map: expected.name,
            key: "*".to_owned(),
            source,
        })?;
        let kind = Shape::kind_of(expected.shape);
        if seen.kind != kind {
            return Err(Error::Layout {
                map: expected.name,
                found: format!("type {}", seen.kind),
                expected: format!("type {kind}"),
            });
        }
        let (key_size, value_size) = (seen.key_size as usize, seen.value_size as usize);
        let value_length = match expected.shape {
            MapShape::PerCpuArray => value_size.next_multiple_of(8) * possible_cpus()?,
            MapShape::Hash
            | MapShape::LruHash
            | MapShape::LongestPrefix
            | MapShape::Array
            | MapShape::RingBuffer => value_size,
        };
        let info = TableInfo {
            map: *expected,
            id: seen.id,
            size: seen.max_entries,
            key_size,
            value_size,
        };
        Ok(Self {
            fd,
            info,
            value_length,
            failed_writes: AtomicU64::new(0),
        })
    }

    /// Name, type and sizes.
    pub const fn info(&self) -> &TableInfo {
        &self.info
    }

    /// Bytes of a value as [`Self::lookup`] reads it.
    pub(crate) const fn value_length(&self) -> usize {
        self.value_length
    }

    /// Writes and deletions that the kernel refused since the map was opened.
    pub fn failed_writes(&self) -> u64 {
        self.failed_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn expect_sizes(&self, key: usize, value: usize) -> Result<()> {
        let TableInfo {
            map,
            key_size,
            value_size,
            ..
        } = self.info;
        if (key_size, value_size) == (key, value) {
            return Ok(());
        }
        Err(Error::Layout {
            map: map.name,
            found: format!("keys of {key_size} and values of {value_size} bytes"),
            expected: format!("keys of {key} and values of {value} bytes"),
        })
    }

    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<()> {
        self.check(key, value)?;
        // SAFETY: the sizes are the map's own.
        unsafe { map::lookup(self.fd.as_fd(), key, value) }
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8], write: Write) -> io::Result<()> {
        self.check(key, value)?;
        // SAFETY: the sizes are the map's own.
        let result = unsafe { map::update(self.fd.as_fd(), key, value, write) };
        self.noting_failure(result, libc::EEXIST)
    }

    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.check_key(key)?;
        // SAFETY: the size is the map's own.
        let result = unsafe { map::delete(self.fd.as_fd(), key) };
        self.noting_failure(result, libc::ENOENT)
    }

    /// Visits all rows as (key, value).
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.for_each_batch(&mut |keys, values| {
            let keys = keys.chunks_exact(self.info.key_size);
            for (key, value) in keys.zip(values.chunks_exact(self.value_length)) {
                visit(key, value);
            }
        })
    }

    /// All rows as bytes.
    pub fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        self.for_each(&mut |key, value| entries.push((key.to_vec(), value.to_vec())))
            .map_err(|source| self.iteration_failed(source))?;
        Ok(entries)
    }

    /// How many rows there are.
    pub fn count(&self) -> Result<u64> {
        let mut count = 0;
        self.for_each_batch(&mut |keys, _| count += (keys.len() / self.info.key_size) as u64)
            .map_err(|source| self.iteration_failed(source))?;
        Ok(count)
    }

    /// Visits all rows as runs of keys and of their values.
    pub(crate) fn for_each_batch(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        match self.by_batches(visit) {
            Err(error) if is_unsupported(&error) => self.by_keys(visit),
            result => result,
        }
    }

    fn by_batches(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.by_batches_from(None, self.guard(), visit)
    }

    /// Visits rows behind a position until so many have been seen (the last run may go beyond).
    fn by_batches_from(
        &self,
        behind: Option<&[u8]>,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let mut room = BATCH.min(self.info.size.max(1));
        let position_length = self.info.key_size.max(POSITION_MINIMUM);
        let (mut after, mut position) = (vec![0; position_length], vec![0; position_length]);
        if let (Some(to), Some(from)) = (after.get_mut(..behind.map_or(0, <[u8]>::len)), behind) {
            to.copy_from_slice(from);
        }
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut guard = limit;
        let mut started = behind.is_some();
        loop {
            keys.resize(room as usize * self.info.key_size, 0);
            values.resize(room as usize * self.value_length, 0);
            let from = started.then_some(after.as_slice());
            // SAFETY: `keys` and `values` have room for `room` rows, the positions for a key and four bytes.
            let (count, result) = unsafe {
                map::lookup_batch(
                    self.fd.as_fd(),
                    from,
                    &mut position,
                    &mut keys,
                    &mut values,
                    room,
                )
            };
            let ended = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket of the hash table holds more rows than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room = room.saturating_mul(2);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = count.min(room) as usize;
            visit(
                keys.get(..count * self.info.key_size).unwrap_or_default(),
                values.get(..count * self.value_length).unwrap_or_default(),
            );
            guard = guard.saturating_sub(count as u64);
            if ended || guard == 0 {
                return Ok(());
            }
            std::mem::swap(&mut after, &mut position);
            started = true;
        }
    }

    /// Visits some places of an array: the others cost nothing.
    pub(crate) fn for_each_place(
        &self,
        first: u32,
        count: u32,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let behind = first.checked_sub(1).map(u32::to_ne_bytes);
        let behind = behind.as_ref().map(<[u8; 4]>::as_slice);
        self.by_batches_from(behind, u64::from(count), &mut |keys, values| {
            let keys = keys.chunks_exact(self.info.key_size);
            for (key, value) in keys.zip(values.chunks_exact(self.value_length)) {
                visit(key, value);
            }
        })
    }

    /// Writes many rows, given as runs of keys and of values; tells of each one that is refused.
    pub(crate) fn update_many(
        &self,
        keys: &[u8],
        values: &[u8],
        refused: &mut dyn FnMut(usize, io::Error),
    ) {
        let (key_size, value_size) = (self.info.key_size, self.value_length);
        let one = |from: usize, count: usize| {
            let keys = run(keys, key_size, from, count);
            (keys, run(values, value_size, from, count))
        };
        self.many(keys.len() / key_size, refused, |from, count, batch| {
            let (keys, values) = one(from, count as usize);
            if keys.len() / key_size != count as usize
                || values.len() / value_size != count as usize
            {
                return (0, Err(wrong_size()));
            }
            if batch {
                // SAFETY: both runs hold `count` rows of the map's own sizes.
                unsafe { map::update_batch(self.fd.as_fd(), keys, values, count) }
            } else {
                (0, self.update(keys, values, Write::Always))
            }
        });
    }

    /// Removes many rows; one that is gone already is fine.
    pub(crate) fn delete_many(&self, keys: &[u8], refused: &mut dyn FnMut(usize, io::Error)) {
        let key_size = self.info.key_size;
        let mut refused = |place, error: io::Error| {
            if error.raw_os_error() != Some(libc::ENOENT) {
                refused(place, error);
            }
        };
        self.many(keys.len() / key_size, &mut refused, |from, count, batch| {
            let keys = run(keys, key_size, from, count as usize);
            if keys.len() / key_size != count as usize {
                return (0, Err(wrong_size()));
            }
            if batch {
                // SAFETY: the run holds `count` keys of the map's own size.
                unsafe { map::delete_batch(self.fd.as_fd(), keys, count) }
            } else {
                (0, self.delete(keys))
            }
        });
    }

    /// Carries out `total` writes in batches, one after the other where the map knows none. A batch ends at the first
    /// row that is refused; the rest goes on behind it.
    fn many(
        &self,
        total: usize,
        refused: &mut dyn FnMut(usize, io::Error),
        mut write: impl FnMut(usize, u32, bool) -> (u32, io::Result<()>),
    ) {
        let mut batches = true;
        let mut next = 0;
        while next < total {
            let count = if batches {
                u32::try_from(total - next).unwrap_or(BATCH).min(BATCH)
            } else {
                1
            };
            let (written, result) = write(next, count, batches);
            match result {
                Ok(()) => next += count as usize,
                Err(error) if batches && is_unsupported(&error) => batches = false,
                Err(error) => {
                    let written = if batches { written.min(count - 1) } else { 0 };
                    next += written as usize;
                    // One by one, failures are counted where they happen.
                    if batches && error.raw_os_error() != Some(libc::ENOENT) {
                        self.failed_writes.fetch_add(1, Ordering::Relaxed);
                    }
                    refused(next, error);
                    next += 1;
                }
            }
        }
    }

    /// For map types that have no batches.
    fn by_keys(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (mut key, mut next) = (vec![0; self.info.key_size], vec![0; self.info.key_size]);
        let mut value = vec![0; self.value_length];
        let mut started = false;
        for _ in 0..self.guard() {
            let from = started.then_some(key.as_slice());
            // SAFETY: both keys have the map's key size.
            match unsafe { map::next_key(self.fd.as_fd(), from, &mut next) } {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
            // A row that went away in between is no error.
            if self.lookup(&next, &mut value).is_ok() {
                visit(&next, &value);
            }
            std::mem::swap(&mut key, &mut next);
            started = true;
        }
        Ok(())
    }

    /// A walk by keys begins anew when its row is removed under it; this ends a walk that never would.
    fn guard(&self) -> u64 {
        u64::from(self.info.size) * 2 + 1
    }

    /// Copies the rows of another map of the same layout that are not here yet. One by one: the kernel's batches know
    /// no "only if absent" (`generic_map_update_batch`), and a row that the programs wrote here must not be undone.
    pub(crate) fn copy_from(&self, source: &Self) -> io::Result<Copied> {
        let mut copied = Copied::default();
        let mut failed = None;
        source.for_each(&mut |key, value| match self.insert(key, value) {
            Ok(()) => copied.rows += 1,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) if is_full(&error) => copied.left_out += 1,
            Err(error) => failed = Some(error),
        })?;
        failed.map_or(Ok(copied), Err)
    }

    /// Places of an array are always there; those that hold nothing need no copy.
    fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, value)?;
        let write = match self.info.map.shape {
            MapShape::Array if value.iter().all(|byte| *byte == 0) => return Ok(()),
            MapShape::Array => Write::Always,
            MapShape::Hash
            | MapShape::LruHash
            | MapShape::LongestPrefix
            | MapShape::PerCpuArray
            | MapShape::RingBuffer => Write::IfAbsent,
        };
        // SAFETY: the sizes are the map's own.
        unsafe { map::update(self.fd.as_fd(), key, value, write) }
    }

    pub(crate) fn iteration_failed(&self, source: io::Error) -> Error {
        Error::Row {
            action: "read",
            map: self.info.map.name,
            key: "*".to_owned(),
            source,
        }
    }

    fn check_key(&self, key: &[u8]) -> io::Result<()> {
        if key.len() == self.info.key_size {
            Ok(())
        } else {
            Err(wrong_size())
        }
    }

    fn check(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check_key(key)?;
        if value.len() == self.value_length {
            Ok(())
        } else {
            Err(wrong_size())
        }
    }

    fn noting_failure(&self, result: io::Result<()>, harmless: i32) -> io::Result<()> {
        if let Err(error) = &result
            && error.raw_os_error() != Some(harmless)
        {
            self.failed_writes.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl AsFd for RawTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What came over when a map was replaced by one of another size.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copied {
    /// Rows that were copied.
    pub rows: u64,
    /// Rows that found no room in the new map.
    pub left_out: u64,
}

/// The bytes of some rows out of many.
fn run(bytes: &[u8], size: usize, from: usize, count: usize) -> &[u8] {
    bytes
        .get(from * size..(from + count) * size)
        .unwrap_or_default()
}

fn wrong_size() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// `ENOTSUPP` (524) is the kernel's own number, which never should have reached user space but does.
fn is_unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | ENOTSUPP))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM)
    )
}

fn possible_cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(path, source)| Error::file("read", path, source))
}
