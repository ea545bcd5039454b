// SPDX-License-Identifier: Apache-2.0
//! Reading the rows of a map, many with each system call.

use std::io;
use std::os::fd::AsFd as _;

use super::{BATCH, RawTable, is_unsupported};
use crate::sys::map;
use crate::{Error, Result};

/// Room for the kernel's position in a hash table, where keys are shorter.
const POSITION_MINIMUM: usize = 4;

impl RawTable {
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

    /// Visits all rows as (key, value).
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.for_each_batch(&mut |keys, values| {
            let keys = keys.chunks_exact(self.info.key_size);
            for (key, value) in keys.zip(values.chunks_exact(self.value_length)) {
                visit(key, value);
            }
        })
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

    pub(crate) fn iteration_failed(&self, source: io::Error) -> Error {
        Error::Row {
            action: "read",
            map: self.info.map.name,
            key: "*".to_owned(),
            source,
        }
    }
}
