// SPDX-License-Identifier: Apache-2.0
//! The rows of services are compared with the kernel's, now and then and when somebody asks, and put right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use weir_abi::Address;
use weir_api::service::ServicesCompared;
use weir_compile::Operation;
use weir_datapath::{Maps, carry_out};

use crate::core::{Core, Reply};
use crate::error::{EndpointError, chain};

/// Repairs that are told one by one; more of them are told by their number.
const TOLD: usize = 32;

impl Core {
    /// Compares the rows of services with the kernel's; `addresses` are those of the last read-back.
    pub(in crate::core) fn check_services(&mut self, maps: &Maps, addresses: BTreeSet<Address>) {
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
    pub(in crate::core) fn compare_services(&mut self, reply: Reply<ServicesCompared>) {
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
