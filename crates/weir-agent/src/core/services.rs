// SPDX-License-Identifier: Apache-2.0
//! Services: from what changed in the world to rows in the kernel, and back to what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use weir_abi::service::FrontendRow;
use weir_abi::{Address, ServiceId, map};
use weir_api::service::ServicesCompared;
use weir_compile::Operation;
use weir_compile::service::{FrontendOwner, ServiceCompiler, ServiceSettings, TableSize, plan};
use weir_datapath::{Maps, Outcome, carry_out};
use weir_model::{Touched, Zone};

use super::{Core, Reply};
use crate::error::{EndpointError, chain};
use crate::health_check::{Asked, HealthChecks};
use crate::stale::{Gone, Work};

/// Repairs that are told one by one; more of them are told by their number.
const TOLD: usize = 32;
/// Updates after which something that found no room waits for the next change.
const ROUNDS: usize = 4;

/// What the loop knows of the rows of services.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// The kernel holds what the compiler desires.
    in_kernel: bool,
    /// Counts the comparisons.
    turn: usize,
    /// Who has service ports without a usable backend, as told in the log.
    without_backend: BTreeMap<FrontendOwner, BTreeSet<ServiceId>>,
    /// They have been looked at once.
    started: bool,
}

impl Core {
    /// Takes over what an agent before this one left in the kernel.
    pub(super) fn restore_services(&mut self, maps: &Maps, addresses: BTreeSet<Address>) {
        match maps.read_back_services(addresses) {
            Ok(rows) => {
                *self.shared.directory.services_mut() = ServiceCompiler::restore(rows);
                self.services.in_kernel = true;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "services are not taken over");
                self.services.in_kernel = false;
            }
        }
    }

    /// Other maps than before: what they hold is not known.
    pub(super) fn forget_services(&mut self) {
        self.services.in_kernel = false;
    }

    fn service_settings(&self, maps: &Maps) -> ServiceSettings {
        let shared = &self.shared;
        let size = |map: &map::MapInfo| {
            let table = maps.by_name(map.name);
            table.map_or(map.default_size, |table| table.info().size)
        };
        let world = shared.world();
        let object = world.node(&shared.node);
        let zone = object.and_then(|node| Zone::new(node.labels.get(Zone::LABEL)?).ok());
        let mut node_addresses: BTreeSet<_> = object
            .iter()
            .flat_map(|node| node.addresses.iter().copied())
            .collect();
        node_addresses.extend(self.network.addresses.iter().map(|(_, ip)| *ip));
        ServiceSettings {
            node: shared.node.clone(),
            zone,
            node_addresses: node_addresses.into_iter().collect(),
            maglev: TableSize::new(shared.config.maglev_size()),
            frontends_size: size(&map::FRONTENDS),
            backends_size: size(&map::BACKENDS),
            service_backends_size: size(&map::SERVICE_BACKENDS),
            source_ranges_size: size(&map::SOURCE_RANGES),
            maglev_size: size(&map::MAGLEV),
            keep_unknown: !self.synced,
        }
    }

    /// Works out what differs because of what was touched; [`Self::write_services`] writes it.
    pub(super) fn update_services(&mut self, touched: &Touched) -> Vec<Operation> {
        let Some(kernel) = &self.kernel else {
            return Vec::new();
        };
        let settings = self.service_settings(&kernel.datapath.maps);
        let shared = &self.shared;
        let world = shared.world();
        let mut services = shared.directory.services_mut();
        services.update(&world, touched, &settings).operations
    }

    /// Writes what differs, and what found no room until then.
    pub(super) fn write_services(&mut self, mut operations: Vec<Operation>) -> Result<(), String> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let maps = Arc::clone(&kernel.datapath.maps);
        let mut written = Ok(());
        for _ in 0..ROUNDS {
            if !self.services.in_kernel {
                operations = self.difference(&maps)?;
            }
            if operations.is_empty() {
                break;
            }
            let outcome = carry_out(&maps, &operations);
            written = self.note_services(&operations, &outcome);
            if written.is_err() || !self.shared.directory.services_mut().executed() {
                break;
            }
            operations = self.update_services(&Touched::default());
        }
        self.answer_health_checks();
        self.report_services(&written);
        written
    }

    /// What takes the kernel from what it holds to what is desired.
    fn difference(&self, maps: &Maps) -> Result<Vec<Operation>, String> {
        let (_, addresses) = maps.read_back_split().map_err(|error| chain(&error))?;
        self.difference_beside(maps, addresses)
    }

    fn difference_beside(
        &self,
        maps: &Maps,
        addresses: BTreeSet<Address>,
    ) -> Result<Vec<Operation>, String> {
        let found = maps.read_back_services(addresses);
        let found = found.map_err(|error| chain(&error))?;
        Ok(plan(&found, self.shared.directory.services().rows()))
    }

    /// What became of operations; tells everybody whom it concerns.
    fn note_services(&mut self, operations: &[Operation], outcome: &Outcome) -> Result<(), String> {
        self.services.in_kernel = outcome.is_complete();
        self.look_for_backends(operations);
        self.sweep_after(operations);
        let frontends = operations.iter().filter(|operation| {
            matches!(
                operation,
                Operation::UpsertFrontend(..) | Operation::DeleteFrontend(_)
            )
        });
        let frontends = frontends.count();
        let message = format!("{} changes, {frontends} of frontends", operations.len());
        tracing::debug!("services: {message}");
        self.shared.events.agent("services-updated", &message);
        match outcome.failures.first() {
            None => {
                self.shared.ran("service-sync", Ok(message));
                Ok(())
            }
            Some(first) => {
                let message = format!(
                    "{} of {} changes of services refused, the first: {}: {}",
                    outcome.failures.len(),
                    operations.len(),
                    first.operation,
                    chain(&first.error)
                );
                self.shared.ran("service-sync", Err(message.clone()));
                Err(message)
            }
        }
    }

    /// Nobody shall stick to a backend that is gone.
    fn sweep_after(&self, operations: &[Operation]) {
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
    fn answer_health_checks(&self) {
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

    fn report_services(&self, written: &Result<(), String>) {
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
    fn look_for_backends(&mut self, operations: &[Operation]) {
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

    /// Compares the rows of services with the kernel's; `addresses` are those of the last read-back.
    pub(super) fn check_services(&mut self, maps: &Maps, addresses: BTreeSet<Address>) {
        self.services.turn += 1;
        let known = self.services.in_kernel;
        let same = if known {
            let directory = &self.shared.directory;
            let services = directory.services();
            maps.services_are(services.rows(), &addresses, self.services.turn)
        } else {
            Ok(false)
        };
        let repaired = match same {
            Ok(true) => Ok(Vec::new()),
            Ok(false) => self.repair_services(maps, addresses).map(|(told, _)| told),
            Err(error) => Err(chain(&error)),
        };
        match repaired {
            Ok(told) => {
                if known {
                    self.shared.all_repaired(&told);
                }
                let count = self.shared.directory.services().rows().len();
                let message = format!("{count} rows compared");
                self.shared.ran("service-check", Ok(message));
            }
            Err(message) => {
                self.shared.ran("service-check", Err(message.clone()));
                self.shared.report("services", false, message);
            }
        }
    }

    /// Writes what differs; answers what it was, and what was refused.
    fn repair_services(
        &mut self,
        maps: &Maps,
        addresses: BTreeSet<Address>,
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let operations = self.difference_beside(maps, addresses)?;
        let outcome = carry_out(maps, &operations);
        let written = self.note_services(&operations, &outcome);
        if written.is_ok() {
            // Nothing was taken away that the compiler could give to somebody else.
            self.dirty |= self.shared.directory.services_mut().executed();
        }
        self.report_services(&written);
        let refused: Vec<_> = outcome
            .failures
            .iter()
            .map(|failure| format!("{}: {}", failure.operation, chain(&failure.error)))
            .collect();
        let changes = operations
            .iter()
            .filter(|operation| !matches!(operation, Operation::Bump(_)));
        let mut told: Vec<_> = changes.map(ToString::to_string).collect();
        if told.len() > TOLD {
            let more = told.len() - TOLD;
            told.truncate(TOLD);
            told.push(format!("{more} more rows of services"));
        }
        Ok((told, refused))
    }

    /// The same for a person who asks.
    pub(super) fn compare_services(&mut self, reply: Reply<ServicesCompared>) {
        let since = Instant::now();
        self.settle();
        let Some(kernel) = &self.kernel else {
            let _ = reply.send(Err(EndpointError::NoDatapath(
                "see `weir status`".to_owned(),
            )));
            return;
        };
        let maps = Arc::clone(&kernel.datapath.maps);
        let repaired = maps
            .read_back_split()
            .map_err(|error| chain(&error))
            .and_then(|(_, addresses)| self.repair_services(&maps, addresses));
        let (repaired, failed) = match repaired {
            Ok(found) => found,
            Err(message) => (Vec::new(), vec![message]),
        };
        self.shared.all_repaired(&repaired);
        let services = self.shared.directory.services();
        let rows = services.rows();
        let owners: BTreeSet<_> = rows
            .frontends
            .values()
            .filter_map(|row| services.owner_of(row.service))
            .collect();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let _ = reply.send(Ok(ServicesCompared {
            services: number(owners.len()),
            frontends: number(rows.frontends.len()),
            backends: number(rows.service_backends.len()),
            rows: number(rows.len()),
            repaired,
            failed,
            took_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
    }
}
