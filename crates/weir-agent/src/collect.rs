// SPDX-License-Identifier: Apache-2.0
//! The flow table's garbage collection on its own cadence.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use weir_datapath::collect::Collector;
use weir_datapath::{Maps, clock};

use crate::shared::Shared;

/// What wakes the collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The programs run out of ports or entries.
    Asked,
    Stop,
}

/// Collects until told to stop.
pub(crate) fn run(maps: &Arc<Maps>, shared: &Shared, wake: &Receiver<Wake>) {
    let mut collector = Collector::new();
    let mut last = Instant::now();
    loop {
        let due = collector.interval().saturating_sub(last.elapsed());
        match wake.recv_timeout(due) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Wake::Asked) if !collector.may_run_early(last.elapsed()) => continue,
            Ok(Wake::Asked) => {
                tracing::info!("the programs ask for a collection of the flow table");
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let (started, elapsed) = (Instant::now(), last.elapsed());
        last = started;
        let result = collector.run(maps, clock::now(), elapsed);
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(collected) => {
                let next = collector.interval().as_secs();
                shared.collected(Some(collected), seconds);
                let message = format!(
                    "{} of {} deleted, next in {next} s",
                    collected.deleted, collected.seen
                );
                tracing::debug!("flows: {message}");
                shared.ran("ct-gc", Ok(message));
            }
            Err(error) => {
                shared.collected(None, seconds);
                shared.ran("ct-gc", Err(crate::error::chain(&error)));
            }
        }
    }
}
