// SPDX-License-Identifier: Apache-2.0
//! Who is told when services change: sockets that stick to what is gone, load balancers that ask for the
//! node's health, the log and the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_abi::ServiceId;
use weir_abi::service::FrontendRow;
use weir_compile::Operation;

use crate::core::Core;
use crate::health_check::{Asked, HealthChecks};
use crate::stale::{Gone, Work};

impl Core {
    /// Nobody shall stick to a backend that is gone.
    pub(super) fn sweep_after(&self, operations: &[Operation]) {
        let mut gone: Vec<Gone> = Vec::new();
        for operation in operations {
            if let Operation::DeleteServiceBackends(service, backends) = operation {
                gone.extend(
                    backends
                        .iter()
                        .map(|backend| (*service, backend.address, backend.port)),
                );
            }
        }
        let Some(kernel) = self.kernel.as_ref().filter(|_| !gone.is_empty()) else {
            return;
        };
        let pods = self.endpoints.values();
        self.sweeper.sweep(Work {
            maps: Arc::clone(&kernel.datapath.maps),
            gone,
            namespaces: pods
                .map(|one| (one.record.netns.clone(), one.record.netns_inode))
                .collect(),
        });
    }

    /// What load balancers are told from now on.
    pub(super) fn answer_health_checks(&self) {
        let services = self.shared.directory.services();
        let asked: BTreeMap<_, _> = services
            .health_checks()
            .map(|(name, check)| {
                let asked = Asked {
                    namespace: name.namespace.to_string(),
                    name: name.name.to_string(),
                    local_endpoints: check.local_endpoints,
                };
                (check.port, asked)
            })
            .collect();
        let new = |known: &mut HealthChecks| {
            let differs = **known != asked;
            if differs {
                *known = Arc::new(asked);
            }
            differs
        };
        self.shared.health_checks.send_if_modified(new);
    }

    pub(super) fn report_services(&self, written: &Result<(), String>) {
        let directory = &self.shared.directory;
        let empty = self.services.without_backend.len() as u64;
        directory.without_backend.store(empty, Ordering::Relaxed);
        let in_kernel = self.services.in_kernel;
        directory
            .services_in_kernel
            .store(in_kernel, Ordering::Relaxed);
        let services = self.shared.directory.services();
        let problems: Vec<_> = services.problems().map(ToString::to_string).collect();
        let message = match written {
            Err(message) => message.clone(),
            Ok(()) if problems.is_empty() => {
                let rows = services.rows();
                let empty = self.services.without_backend.len();
                let (frontends, backends) = (rows.frontends.len(), rows.service_backends.len());
                format!("{frontends} frontends, {backends} backends, {empty} without any")
            }
            Ok(()) => problems.join("; "),
        };
        let healthy = written.is_ok() && problems.is_empty();
        self.shared.report("services", healthy, message);
    }

    /// Tells the log which services have lost their last backend, or have one again.
    pub(super) fn look_for_backends(&mut self, operations: &[Operation]) {
        let directory = Arc::clone(&self.shared.directory);
        let world = directory.world();
        let services = directory.services();
        let has_none = |row: &FrontendRow| row.internal.count == 0 && row.external.count == 0;
        let mut changed: Vec<(ServiceId, bool)> = Vec::new();
        if self.services.started {
            for operation in operations {
                if let Operation::UpsertFrontend(_, row) = operation {
                    changed.push((row.service, has_none(row)));
                }
            }
        } else {
            self.services.started = true;
            let all = services.rows().frontends.values();
            changed.extend(all.map(|row| (row.service, has_none(row))));
        }
        let empty = &mut self.services.without_backend;
        for (service, has_none) in changed {
            let Some(owner) = services.owner_of(service) else {
                continue;
            };
            // A service has several numbers: one for each of its ports and families.
            let numbers = empty.entry(owner.clone()).or_default();
            let before = numbers.is_empty();
            if has_none {
                numbers.insert(service);
            } else {
                numbers.remove(&service);
            }
            match (before, numbers.is_empty()) {
                (true, false) => {
                    let mut listing = services.listing_of(owner, &world);
                    let why = listing.find_map(|one| one.internal_reason);
                    let why = why.map_or_else(String::new, |why| format!(": {why}"));
                    tracing::warn!(
                        "Unable to find a healthy backend for {}{why}",
                        owner.describe()
                    );
                }
                (false, true) => {
                    tracing::info!("{} has a healthy backend again", owner.describe());
                }
                (true, true) | (false, false) => {}
            }
        }
        empty.retain(|_, numbers| {
            numbers.retain(|service| services.owner_of(*service).is_some());
            !numbers.is_empty()
        });
    }
}
