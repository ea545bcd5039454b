// SPDX-License-Identifier: Apache-2.0
//! The rows of one map into another one of the same layout, when its size changes.

use std::io;
use std::os::fd::AsFd as _;

use weir_abi::map::MapShape;

use super::RawTable;
use crate::sys::map::{self, Write};

/// What came over when a map was replaced by one of another size.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copied {
    /// Rows that were copied.
    pub rows: u64,
    /// Rows that found no room in the new map.
    pub left_out: u64,
}

impl RawTable {
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
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM)
    )
}
