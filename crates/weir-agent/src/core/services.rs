// SPDX-License-Identifier: Apache-2.0
//! Services: from what changed in the world to rows in the kernel, and back to what is right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use weir_abi::service::FrontendRow;
use weir_abi::{Address, ServiceId, map};
use weir_api::service::ServicesCompared;
use weir_compile::Operation;
use weir_compile::service::{ServiceCompiler, ServiceSettings, TableSize, plan};
use weir_datapath::{Maps, Outcome, carry_out};
use weir_model::{Touched, Zone};

use super::{Core, Reply};
use crate::error::{EndpointError, chain};

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
    /// Service ports that have no usable backend, as told in the log.
    without_backend: BTreeSet<ServiceId>,
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

    /// Writes what differs because of what was touched.
    pub(super) fn realize_services(&mut self, touched: &Touched) -> Result<(), String> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let maps = Arc::clone(&kernel.datapath.maps);
        let settings = self.service_settings(&maps);
        let mut touched = touched.clone();
        let mut written = Ok(());
        for _ in 0..ROUNDS {
            let shared = Arc::clone(&self.shared);
            let delta = {
                let world = shared.world();
                let mut services = shared.directory.services_mut();
                services.update(&world, &touched, &settings)
            };
            let operations = if self.services.in_kernel {
                delta.operations
            } else {
                self.difference(&maps)?
            };
            if operations.is_empty() {
                break;
            }
            let outcome = carry_out(&maps, &operations);
            written = self.note_services(&operations, &outcome);
            if written.is_err() || !shared.directory.services_mut().executed() {
                break;
            }
            touched = Touched::default();
        }
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

    fn report_services(&self, written: &Result<(), String>) {
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
        let services = directory.services();
        let rows = services.rows();
        let has_none = |row: &FrontendRow| row.internal.count == 0 && row.external.count == 0;
        let mut changed: Vec<(ServiceId, bool)> = Vec::new();
        if self.services.started {
            for operation in operations {
                match operation {
                    Operation::UpsertFrontend(_, row) => changed.push((row.service, has_none(row))),
                    Operation::DeleteFrontend(_) => {}
                    _ => {}
                }
            }
        } else {
            self.services.started = true;
            let all = rows.frontends.values();
            changed.extend(all.map(|row| (row.service, has_none(row))));
        }
        for (service, empty) in changed {
            let known = &mut self.services.without_backend;
            let owner = || {
                let owner = services.owner_of(service);
                owner.map_or_else(|| format!("service {service}"), |owner| owner.describe())
            };
            if empty && known.insert(service) {
                tracing::warn!("Unable to find a healthy backend for {}", owner());
            } else if !empty && known.remove(&service) {
                tracing::info!("{} has a healthy backend again", owner());
            }
        }
        self.services
            .without_backend
            .retain(|service| services.owner_of(*service).is_some());
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
