// SPDX-License-Identifier: Apache-2.0
//! Threads beside the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use weir_net::Watch;

use super::{LAST_ANSWERS, spawn};
use crate::core::{Input, OnLoaded};
use crate::error::{AgentError, chain};
use crate::policy_log::PolicyLog;
use crate::shared::Shared;
use crate::{collect, ring};

/// Threads beside the loop.
pub(super) struct Helpers {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    collect: Sender<collect::Wake>,
    /// Handed to the threads that start when the maps are there.
    woken: Option<Receiver<collect::Wake>>,
    log: Option<(PolicyLog, Sender<()>)>,
    /// Hangs up when the log is written.
    logged: Receiver<()>,
}

impl Helpers {
    pub(super) fn new(shared: &Arc<Shared>, log: PolicyLog) -> Self {
        let (collect, woken) = channel();
        let (writing, logged) = channel();
        Self {
            shared: Arc::clone(shared),
            stop: Arc::new(AtomicBool::new(false)),
            collect,
            woken: Some(woken),
            log: Some((log, writing)),
            logged,
        }
    }

    /// Reading events and collecting flows start with the maps.
    pub(super) fn on_loaded(&mut self) -> OnLoaded {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        let (collect, woken) = (self.collect.clone(), self.woken.take());
        let log = self.log.take();
        Box::new(move |maps| {
            let (maps_of_collector, shared_of_collector) = (Arc::clone(maps), Arc::clone(&shared));
            let collector = spawn("collect", move || {
                if let Some(woken) = woken {
                    collect::run(&maps_of_collector, &shared_of_collector, &woken);
                }
            });
            let (maps, shared_of_reader) = (Arc::clone(maps), Arc::clone(&shared));
            let reader = spawn("events", move || {
                let shared = shared_of_reader;
                // The other half hangs up when the thread ends.
                let Some((mut log, _writing)) = log else {
                    return;
                };
                let read = ring::run(&maps, &shared, &stop, &collect, &mut log);
                if let Err(error) = read {
                    shared.report("events", false, chain(&error));
                }
                log.end(&shared);
            });
            for error in [collector.err(), reader.err()].into_iter().flatten() {
                shared.report("events", false, chain(&error));
            }
        })
    }

    pub(super) fn watch_network(
        &self,
        watch: Watch,
        inputs: Sender<Input>,
    ) -> Result<(), AgentError> {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        spawn("network", move || {
            if let Err(error) = crate::core::watch(watch, &inputs, &stop) {
                // The tick finds the same, only later.
                shared.report("links", false, chain(&error));
            }
        })
        .map(drop)
    }

    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.collect.send(collect::Wake::Stop);
        // What was gathered is written, unless that takes too long.
        self.shared.events.wake();
        drop(self.log.take());
        let _ = self.logged.recv_timeout(LAST_ANSWERS);
    }
}
