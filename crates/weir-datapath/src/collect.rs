// SPDX-License-Identifier: Apache-2.0
//! Collects what has expired: flow entries, and path MTUs that were learned long ago.
//!
//! The programs never delete a flow, they only stop using it. An entry goes when both directions have expired, so
//! that a connection is never left with half of its translation; an entry whose other half is gone goes by its own
//! time-out.

mod interval;

pub use interval::{FIRST, MAXIMUM, MINIMUM, next_interval};

use std::time::Duration;

use weir_abi::flow::FlowEntry;
use weir_abi::{FlowKey, Seconds};

use crate::{Maps, Result};

/// What one run found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Collected {
    /// Entries in the table before the run.
    pub seen: u64,
    /// Entries that had expired, whether or not they could go.
    pub expired: u64,
    /// Entries that were deleted.
    pub deleted: u64,
    /// Learned path MTUs that were forgotten.
    pub forgotten_mtus: u64,
    /// Entries that fit the table.
    pub size: u32,
}

impl Collected {
    /// Entries in the table after the run.
    pub const fn used(&self) -> u64 {
        self.seen.saturating_sub(self.deleted)
    }

    /// How full the table is after the run, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "map sizes are far below 2^52")]
    pub fn pressure(&self) -> f64 {
        self.used() as f64 / f64::from(self.size.max(1))
    }

    /// The share of entries that were deleted, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "map sizes are far below 2^52")]
    pub fn deleted_share(&self) -> f64 {
        self.deleted as f64 / self.seen.max(1) as f64
    }
}

/// Runs the collection and knows when the next one is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collector {
    interval: Duration,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// The first run is due after [`FIRST`].
    pub const fn new() -> Self {
        Self { interval: FIRST }
    }

    /// Time from one run to the next.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether a run that the programs asked for may start now, `elapsed` after the last one.
    pub fn may_run_early(&self, elapsed: Duration) -> bool {
        elapsed >= MINIMUM
    }

    /// Collects, `elapsed` after the last run.
    pub fn run(&mut self, maps: &Maps, now: Seconds, elapsed: Duration) -> Result<Collected> {
        let collected = collect(maps, now)?;
        self.interval = next_interval(self.interval, elapsed, collected.deleted_share());
        Ok(collected)
    }
}

/// Collects once.
pub fn collect(maps: &Maps, now: Seconds) -> Result<Collected> {
    let mut collected = Collected {
        size: maps.flows.size(),
        ..Collected::default()
    };
    let mut first_error = None;
    maps.flows.for_each(|key, entry| {
        collected.seen += 1;
        if is_expired(&entry, now) {
            collected.expired += 1;
            match remove_pair(maps, &key, now) {
                Ok(deleted) => collected.deleted += deleted,
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
    })?;
    collected.forgotten_mtus = forget_mtus(maps, now)?;
    first_error.map_or(Ok(collected), Err)
}

fn is_expired(entry: &FlowEntry, now: Seconds) -> bool {
    entry.expires <= now
}

/// Deletes an entry and its other half, if neither is in use; answers how many went. Both are read anew: a packet may
/// have revived them since the batch was read. One that comes between this and the deletion starts the flow again.
fn remove_pair(maps: &Maps, key: &FlowKey, now: Seconds) -> Result<u64> {
    let Some(entry) = maps.flows.get(key)?.filter(|entry| is_expired(entry, now)) else {
        return Ok(0);
    };
    let pair_key = entry.pair_key(key);
    // An entry that answers another connection is not the other half of this one.
    let pair = maps
        .flows
        .get(&pair_key)?
        .filter(|pair| pair.pair_key(&pair_key) == *key);
    if pair.is_some_and(|pair| !is_expired(&pair, now)) {
        return Ok(0);
    }
    let mut deleted = u64::from(maps.flows.delete(key)?);
    if pair.is_some() && pair_key != *key {
        deleted += u64::from(maps.flows.delete(&pair_key)?);
    }
    Ok(deleted)
}

fn forget_mtus(maps: &Maps, now: Seconds) -> Result<u64> {
    let mut forgotten = 0;
    for (node, learned) in maps.tunnel_mtu.entries()? {
        if learned.expires <= now {
            forgotten += u64::from(maps.tunnel_mtu.delete(&node)?);
        }
    }
    Ok(forgotten)
}
