// SPDX-License-Identifier: Apache-2.0
//! How full the maps are, counted no more often than it is worth.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_datapath::{MapUsage, Maps};

/// A count is good for this many times the time that it took.
const WORTH: u32 = 20;

/// The last count.
#[derive(Debug, Default)]
pub(crate) struct Usage(Mutex<Option<Counted>>);

#[derive(Clone, Debug)]
struct Counted {
    at: Instant,
    took: Duration,
    usage: Vec<MapUsage>,
}

impl Usage {
    /// The last count, while it is good.
    pub(crate) fn get(&self) -> Option<Vec<MapUsage>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = last
            .as_ref()
            .filter(|last| last.at.elapsed() < last.took * WORTH)?;
        Some(counted.usage.clone())
    }

    /// Counts anew.
    pub(crate) fn count(&self, maps: &Maps) -> weir_datapath::Result<Vec<MapUsage>> {
        let started = Instant::now();
        let usage = maps.usage()?;
        let counted = Counted {
            at: Instant::now(),
            took: started.elapsed(),
            usage: usage.clone(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
        Ok(usage)
    }
}
