// SPDX-License-Identifier: Apache-2.0
//! What the policy log says about itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};

use super::entry::Disposition;
use super::gather::Dropped;

/// Errors by what failed.
pub(crate) const ERRORS: [&str; 2] = ["write", "configuration"];
/// Places in [`ERRORS`].
pub(super) const WRITE: usize = 0;
pub(super) const CONFIGURATION: usize = 1;

/// Numbers for metrics.
#[derive(Debug)]
pub(crate) struct Counts {
    /// `NetworkLogging` asks for something.
    pub(crate) enabled: AtomicBool,
    /// The file can be written.
    pub(crate) ready: AtomicBool,
    events: [AtomicU64; 2],
    logged: [AtomicU64; 2],
    dropped: [AtomicU64; Dropped::ALL.len()],
    errors: [AtomicU64; ERRORS.len()],
    /// From the packet to the file. Denials are gathered before.
    pub(crate) allow_microseconds: Histogram,
    pub(crate) deny_seconds: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            enabled: AtomicBool::default(),
            ready: AtomicBool::default(),
            events: Default::default(),
            logged: Default::default(),
            dropped: Default::default(),
            errors: Default::default(),
            allow_microseconds: Histogram::new(exponential_buckets(100.0, 2.0, 14)),
            deny_seconds: Histogram::new(linear_buckets(5.1, 0.1, 13)),
        }
    }
}

impl Counts {
    /// A decision was seen.
    pub(super) fn event(&self, disposition: Disposition) {
        add(&self.events, disposition as usize);
    }

    /// A line was written, so long after the packet.
    pub(super) fn logged(&self, disposition: Disposition, nanoseconds: u64) {
        add(&self.logged, disposition as usize);
        let microseconds = u32::try_from(nanoseconds / 1000).unwrap_or(u32::MAX);
        let microseconds = f64::from(microseconds);
        match disposition {
            Disposition::Allow => self.allow_microseconds.observe(microseconds),
            Disposition::Deny => self.deny_seconds.observe(microseconds / 1e6),
        }
    }

    /// A line was not written.
    pub(super) fn dropped(&self, cause: Dropped) {
        add(&self.dropped, cause as usize);
    }

    /// Something failed; the place is one of [`ERRORS`].
    pub(super) fn error(&self, place: usize) {
        add(&self.errors, place);
    }

    /// Decisions that were seen.
    pub(crate) fn events(&self) -> [u64; 2] {
        self.events.each_ref().map(value)
    }

    /// Lines that were written.
    pub(crate) fn lines(&self) -> [u64; 2] {
        self.logged.each_ref().map(value)
    }

    /// Lines that were not, in the order of [`Dropped::ALL`].
    pub(crate) fn drops(&self) -> [u64; Dropped::ALL.len()] {
        self.dropped.each_ref().map(value)
    }

    /// What failed, in the order of [`ERRORS`].
    pub(crate) fn errors(&self) -> [u64; ERRORS.len()] {
        self.errors.each_ref().map(value)
    }
}

fn add(counts: &[AtomicU64], place: usize) {
    if let Some(count) = counts.get(place) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn value(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
