// SPDX-License-Identifier: Apache-2.0
//! A map as bytes, with the sizes checked once so that nothing below needs to trust a caller.

mod copy;
mod many;
mod walk;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use weir_abi::map::{MapInfo, MapShape};

use crate::shape::Shape;
use crate::sys::map::{self, Write};
use crate::{Error, Result};

pub use copy::Copied;

/// Rows that one system call reads. 1,024 flows are 168 KiB.
const BATCH: u32 = 1024;

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

fn wrong_size() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// `ENOTSUPP` (524) is the kernel's own number, which never should have reached user space but does.
fn is_unsupported(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | ENOTSUPP))
}

fn possible_cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(path, source)| Error::file("read", path, source))
}
