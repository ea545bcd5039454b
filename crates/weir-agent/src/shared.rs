// SPDX-License-Identifier: Apache-2.0
//! What threads share: the loop publishes, everybody else reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;
use weir_api::status::{Controller, Subsystem};
use weir_datapath::collect::Collected;
use weir_model::{NodeName, World};

use crate::config::Config;
use crate::directory::Directory;
use crate::events::EventHub;
use crate::health_check::HealthChecks;
use crate::names::SnapshotNames;
use crate::policy_log::counts::Counts as PolicyLogCounts;
use crate::snapshot::Snapshot;
use crate::usage::Usage;

/// What the collection of flows did so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collections {
    pub(crate) runs: u64,
    pub(crate) failed: u64,
    pub(crate) deleted: u64,
    pub(crate) seconds: f64,
    pub(crate) last: Option<Collected>,
}

/// Counts for metrics.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) repairs: AtomicU64,
    pub(crate) regenerations: AtomicU64,
    pub(crate) source_batches: AtomicU64,
    pub(crate) bootstrap_milliseconds: AtomicU64,
    pub(crate) signals: AtomicU64,
    /// From the request for an endpoint to its rows in the kernel.
    pub(crate) creation_seconds: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            repairs: AtomicU64::default(),
            regenerations: AtomicU64::default(),
            source_batches: AtomicU64::default(),
            bootstrap_milliseconds: AtomicU64::default(),
            signals: AtomicU64::default(),
            creation_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 12)),
        }
    }
}

/// What is not fine before it has been looked at for the first time.
const FIRST_ROUND: [&str; 11] = [
    "source",
    "devices",
    "datapath",
    "maps",
    "links",
    "routes",
    "services",
    "policy",
    "sockets",
    "endpoints",
    "ipam",
];
const STARTING: &str = "starting";

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: NodeName,
    pub(crate) config: Config,
    pub(crate) started: Instant,
    pub(crate) events: EventHub,
    pub(crate) counts: Counts,
    pub(crate) usage: Usage,
    pub(crate) policy_log: PolicyLogCounts,
    pub(crate) directory: Arc<Directory>,
    pub(crate) health_checks: watch::Sender<HealthChecks>,
    snapshot: RwLock<Arc<Snapshot>>,
    health: Mutex<BTreeMap<&'static str, (bool, String)>>,
    controllers: Mutex<BTreeMap<&'static str, Controller>>,
    collections: Mutex<Collections>,
}

impl Shared {
    pub(crate) fn new(node: NodeName, config: Config) -> nix::Result<Self> {
        Ok(Self {
            events: EventHub::new(node.to_string())?,
            node,
            config,
            started: Instant::now(),
            counts: Counts::default(),
            usage: Usage::default(),
            policy_log: PolicyLogCounts::default(),
            directory: Arc::default(),
            health_checks: watch::Sender::new(HealthChecks::default()),
            snapshot: RwLock::default(),
            health: Mutex::new(
                FIRST_ROUND
                    .iter()
                    .map(|name| (*name, (false, STARTING.to_owned())))
                    .collect(),
            ),
            controllers: Mutex::default(),
            collections: Mutex::default(),
        })
    }

    /// The desired world. Hold it no longer than a look takes: changes wait for it.
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.directory.world()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names for the numbers of this moment.
    pub(crate) fn names(&self) -> SnapshotNames {
        let directory = Arc::clone(&self.directory);
        SnapshotNames::of(self.node.to_string(), self.snapshot(), directory)
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// Says how a subsystem is; a change for the worse is logged.
    pub(crate) fn report(&self, name: &'static str, healthy: bool, message: impl Into<String>) {
        let message = message.into();
        let mut all = lock(&self.health);
        let before = all.insert(name, (healthy, message.clone()));
        let new = before.as_ref() != Some(&(healthy, message.clone()));
        if new && !healthy {
            tracing::warn!(subsystem = name, "{message}");
        } else if before.is_some_and(|(was, message)| !was && message != STARTING) && healthy {
            tracing::info!(subsystem = name, "healthy again: {message}");
        }
    }

    pub(crate) fn subsystems(&self) -> Vec<Subsystem> {
        lock(&self.health)
            .iter()
            .map(|(name, (healthy, message))| Subsystem {
                name: (*name).to_owned(),
                healthy: *healthy,
                message: message.clone(),
            })
            .collect()
    }

    /// Notes a run of a recurring job.
    pub(crate) fn ran(&self, name: &'static str, result: Result<String, String>) {
        let mut all = lock(&self.controllers);
        let controller = all.entry(name).or_insert_with(|| Controller {
            name: name.to_owned(),
            last_success: None,
            last_error: None,
            consecutive_errors: 0,
            message: String::new(),
        });
        match result {
            Ok(message) => {
                controller.last_success = Some(crate::time::now());
                controller.consecutive_errors = 0;
                controller.message = message;
            }
            Err(message) => {
                controller.last_error = Some(crate::time::now());
                controller.consecutive_errors += 1;
                controller.message = message;
            }
        }
    }

    pub(crate) fn controllers(&self) -> Vec<Controller> {
        lock(&self.controllers).values().cloned().collect()
    }

    /// Something in the kernel was not as it should be and was put right.
    pub(crate) fn repaired(&self, what: &str) {
        self.counts.repairs.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            repair = what,
            "found something that was changed or removed: repaired"
        );
        self.events.agent("row-repaired", what);
    }

    /// The same for each of several things.
    pub(crate) fn all_repaired(&self, found: &[String]) {
        for what in found {
            self.repaired(what);
        }
    }

    pub(crate) fn collected(&self, result: Option<Collected>, seconds: f64) {
        let mut all = lock(&self.collections);
        all.runs += 1;
        all.seconds += seconds;
        match result {
            Some(collected) => {
                all.deleted += collected.deleted;
                all.last = Some(collected);
            }
            None => all.failed += 1,
        }
    }

    pub(crate) fn collections(&self) -> Collections {
        *lock(&self.collections)
    }
}

/// A panic of another thread while it held the lock does not make the value wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
