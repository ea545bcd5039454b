// SPDX-License-Identifier: Apache-2.0
//! The rows of services, as they should be in the kernel or as they were read back.
//!
//! There are a hundred thousand backends, so they are held in the form that takes the least memory
//! and are shared with the operations that write them.

mod check;
mod places;
mod service_backends;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::ipcache::{IpcacheRow, flags};
use weir_abi::service::{BackendRow, BackendRun, FrontendKey, FrontendRow, SourceRangeKey};
use weir_abi::{Address, BlockGroup, Identity, NodeIndex};

use crate::Operation;

pub use check::Check;
pub use places::Places;
pub use service_backends::{ServiceBackend, ServiceBackends};

/// The content of every map of services that the agent writes and the programs only read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRows {
    pub frontends: BTreeMap<FrontendKey, FrontendRow>,
    pub backends: Places,
    pub service_backends: ServiceBackends,
    /// Tables by number; one that is all zero is none.
    pub maglev: BTreeMap<u32, Arc<[u16]>>,
    pub source_ranges: BTreeSet<SourceRangeKey>,
    /// Addresses that are a service's alone: what no frontend answers there is refused. These are
    /// rows of the `ipcache` map, told from others by their flag.
    pub addresses: BTreeSet<Address>,
}

impl ServiceRows {
    /// Number of rows in all maps; a Maglev table counts as one.
    pub fn len(&self) -> usize {
        let Self {
            frontends,
            backends,
            service_backends,
            maglev,
            source_ranges,
            addresses,
        } = self;
        frontends.len()
            + backends.iter().count()
            + service_backends.len()
            + maglev.len()
            + source_ranges.len()
            + addresses.len()
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does to these rows what an operation does to the kernel's. One of other maps does nothing.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::UpsertBackends(first, rows) => {
                for (place, row) in (*first..).zip(rows.iter()) {
                    self.backends.set(place, *row);
                }
            }
            Operation::DeleteBackends(first, count) => self.backends.clear(*first, *count),
            Operation::UpsertServiceBackends(service, some) => {
                self.service_backends.upsert(*service, some);
            }
            Operation::DeleteServiceBackends(service, some) => {
                self.service_backends.remove(*service, some);
            }
            Operation::UpsertMaglev(table, entries) => {
                self.maglev.insert(*table, Arc::clone(entries));
            }
            Operation::DeleteMaglev(table) => drop(self.maglev.remove(table)),
            Operation::UpsertSourceRange(key) => drop(self.source_ranges.insert(*key)),
            Operation::DeleteSourceRange(key) => drop(self.source_ranges.remove(key)),
            Operation::UpsertServiceAddress(address) => drop(self.addresses.insert(*address)),
            Operation::DeleteServiceAddress(address) => drop(self.addresses.remove(address)),
            Operation::UpsertFrontend(key, row) => drop(self.frontends.insert(*key, *row)),
            Operation::DeleteFrontend(key) => drop(self.frontends.remove(key)),
            Operation::UpsertNode(..)
            | Operation::UpsertEndpoint(..)
            | Operation::UpsertIpcache(..)
            | Operation::UpsertMasqueradeExempt(_)
            | Operation::DeleteIpcache(_)
            | Operation::DeleteEndpoint(_)
            | Operation::DeleteMasqueradeExempt(_)
            | Operation::DeleteNode(_)
            | Operation::UpsertPolicy(..)
            | Operation::DeletePolicy(_)
            | Operation::ResetHits(_)
            | Operation::Bump(_) => {}
        }
    }

    /// The backends of a run.
    pub fn run(&self, run: &BackendRun) -> &[BackendRow] {
        self.backends.run(run.first, run.count)
    }
}

/// What stands in the `ipcache` map at an address of a service.
pub const fn address_row() -> IpcacheRow {
    IpcacheRow {
        identity: Identity::WORLD,
        blocks: BlockGroup::NONE,
        node: NodeIndex::NONE,
        flags: flags::SERVICE,
    }
}

pub(super) fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}
