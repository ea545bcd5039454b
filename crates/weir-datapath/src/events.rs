// SPDX-License-Identifier: Apache-2.0
//! The ring that the programs write events into.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::EbpfError;
use aya::maps::{Map, MapData, RingBuf};

use crate::{Error, Maps, Result};

/// The reading end of the `events` ring. One process may read at a time: the position is shared by all.
///
/// The descriptor becomes readable when a record arrives; then call [`Self::drain`] until it answers less than it
/// was allowed to, as edge-triggered waiting needs it.
pub struct EventSource {
    ring: RingBuf<MapData>,
}

impl EventSource {
    /// Maps the ring of open maps.
    pub fn open(maps: &Maps) -> Result<Self> {
        let fd = maps
            .events
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| maps.events.iteration_failed(source))?;
        let ring = MapData::from_fd(fd)
            .and_then(Map::from_map_data)
            .and_then(RingBuf::try_from)
            .map_err(|error| Error::Object(Box::new(EbpfError::MapError(error))))?;
        Ok(Self { ring })
    }

    /// Hands out up to `limit` waiting records as bytes; answers how many there were. Never waits.
    pub fn drain(&mut self, limit: usize, mut visit: impl FnMut(&[u8])) -> usize {
        for taken in 0..limit {
            match self.ring.next() {
                Some(record) => visit(&record),
                None => return taken,
            }
        }
        limit
    }
}

impl AsFd for EventSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for EventSource {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl std::fmt::Debug for EventSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventSource")
            .field("fd", &self.as_raw_fd())
            .finish()
    }
}
