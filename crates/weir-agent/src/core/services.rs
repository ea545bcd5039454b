// SPDX-License-Identifier: Apache-2.0
//! Services: from what changed in the world to rows in the kernel, and back to what is right.

mod compare;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::{Address, ServiceId, map};
use weir_compile::Operation;
use weir_compile::service::{FrontendOwner, ServiceCompiler, ServiceSettings, TableSize, plan};
use weir_datapath::{Maps, Outcome, carry_out};
use weir_model::{Touched, Zone};

use super::Core;
use crate::error::chain;

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
}
