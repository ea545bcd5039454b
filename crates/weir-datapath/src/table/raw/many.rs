// SPDX-License-Identifier: Apache-2.0
//! Writing and removing many rows with each system call, and telling of each that is refused.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use super::{BATCH, RawTable, is_unsupported, wrong_size};
use crate::sys::map::{self, Write};

impl RawTable {
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
}

/// The bytes of some rows out of many.
fn run(bytes: &[u8], size: usize, from: usize, count: usize) -> &[u8] {
    bytes
        .get(from * size..(from + count) * size)
        .unwrap_or_default()
}
