// SPDX-License-Identifier: Apache-2.0
//! The rows of services, as they should be in the kernel or as they were read back.
//!
//! There are a hundred thousand backends, so they are held in the form that takes the least memory
//! and are shared with the operations that write them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::ipcache::{IpcacheRow, flags};
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendRow, ServiceBackendKey, ServiceBackendRow,
    SourceRangeKey,
};
use weir_abi::{Address, BlockGroup, Identity, NodeIndex, Port, ServiceId};

use crate::Operation;

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

    /// Begins a comparison that needs no second copy of the rows.
    pub const fn check(&self) -> Check<'_> {
        Check {
            desired: self,
            same: 0,
            places: 0,
            clean: true,
        }
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

/// The `backends` array. Places that are all zero are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<BackendRow>);

impl Places {
    /// What an empty place holds.
    pub const EMPTY: BackendRow = BackendRow {
        address: Address::UNSPECIFIED,
        service: ServiceId::NONE,
        port: Port::NONE,
        reserved: [0; 2],
    };

    /// The place's row.
    pub fn get(&self, place: u32) -> BackendRow {
        self.0.get(index(place)).copied().unwrap_or(Self::EMPTY)
    }

    /// Writes a place.
    pub fn set(&mut self, place: u32, row: BackendRow) {
        let index = index(place);
        if index >= self.0.len() {
            if row == Self::EMPTY {
                return;
            }
            self.0.resize(index + 1, Self::EMPTY);
        }
        if let Some(old) = self.0.get_mut(index) {
            *old = row;
        }
        // Equal content is equal whatever was there before.
        while self.0.last() == Some(&Self::EMPTY) {
            self.0.pop();
        }
    }

    /// Empties places.
    pub fn clear(&mut self, first: u32, count: u32) {
        for place in (first..first.saturating_add(count)).rev() {
            self.set(place, Self::EMPTY);
        }
    }

    /// The rows of a run, without those behind the last place in use.
    pub fn run(&self, first: u32, count: u32) -> &[BackendRow] {
        let end = index(first.saturating_add(count)).min(self.0.len());
        self.0.get(index(first)..end).unwrap_or_default()
    }

    /// Every place in use.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &BackendRow)> {
        (0..).zip(&self.0).filter(|(_, row)| **row != Self::EMPTY)
    }

    /// One more than the last place in use.
    pub const fn end(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// A backend that a service port has: a row of `service_backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceBackend {
    pub address: Address,
    pub port: Port,
    /// Bits of [`weir_abi::service::backend_flags`].
    pub flags: u8,
}

impl ServiceBackend {
    /// The key of its row.
    pub const fn key(&self, service: ServiceId) -> ServiceBackendKey {
        ServiceBackendKey {
            address: self.address,
            service,
            port: self.port,
            reserved: [0; 2],
        }
    }

    /// The row.
    pub fn row(&self) -> ServiceBackendRow {
        ServiceBackendRow {
            flags: u32::from(self.flags),
        }
    }

    const fn place(&self) -> (Address, Port) {
        (self.address, self.port)
    }
}

/// The `service_backends` map, by service port; each list in the order of addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceBackends(BTreeMap<ServiceId, Arc<[ServiceBackend]>>);

impl ServiceBackends {
    /// The backends of a service port.
    pub fn of(&self, service: ServiceId) -> &[ServiceBackend] {
        self.0.get(&service).map_or(&[], |all| all)
    }

    /// The same, to share.
    pub(super) fn shared(&self, service: ServiceId) -> Option<&Arc<[ServiceBackend]>> {
        self.0.get(&service)
    }

    /// One backend.
    pub fn get(&self, key: &ServiceBackendKey) -> Option<&ServiceBackend> {
        let all = self.of(key.service);
        let found = all.binary_search_by(|one| one.place().cmp(&(key.address, key.port)));
        all.get(found.ok()?)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.0.values().map(|all| all.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every service port with its backends.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Arc<[ServiceBackend]>)> {
        self.0.iter().map(|(service, all)| (*service, all))
    }

    /// Puts a sorted list in the place of another.
    pub(super) fn replace(&mut self, service: ServiceId, all: Arc<[ServiceBackend]>) {
        if all.is_empty() {
            self.0.remove(&service);
        } else {
            self.0.insert(service, all);
        }
    }

    fn upsert(&mut self, service: ServiceId, some: &[ServiceBackend]) {
        let old = self.of(service).iter().filter(|old| {
            let same = |new: &ServiceBackend| new.place() == old.place();
            !some.iter().any(same)
        });
        let mut all: Vec<_> = old.chain(some).copied().collect();
        all.sort_unstable();
        self.replace(service, all.into());
    }

    fn remove(&mut self, service: ServiceId, some: &[ServiceBackend]) {
        let rest = self.of(service).iter().filter(|old| {
            let same = |gone: &ServiceBackend| gone.place() == old.place();
            !some.iter().any(same)
        });
        let rest = rest.copied().collect();
        self.replace(service, rest);
    }
}

/// Out of rows in any order, as a hash map hands them out.
impl FromIterator<(ServiceBackendKey, ServiceBackendRow)> for ServiceBackends {
    fn from_iter<I: IntoIterator<Item = (ServiceBackendKey, ServiceBackendRow)>>(rows: I) -> Self {
        let member = |(key, row): (ServiceBackendKey, ServiceBackendRow)| {
            let backend = ServiceBackend {
                address: key.address,
                port: key.port,
                // Bits that nobody knows are kept as one that no desired row has.
                flags: u8::try_from(row.flags).unwrap_or(u8::MAX),
            };
            (key.service, backend)
        };
        let mut all: Vec<_> = rows.into_iter().map(member).collect();
        all.sort_unstable();
        let groups = all.chunk_by(|one, other| one.0 == other.0);
        let groups = groups.filter_map(|group| {
            let service = group.first()?.0;
            Some((service, group.iter().map(|(_, backend)| *backend).collect()))
        });
        Self(groups.collect())
    }
}

/// Compares rows one by one with the desired ones, in any order, each at most once.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    desired: &'a ServiceRows,
    /// Rows that are as desired, besides places.
    same: usize,
    places: usize,
    clean: bool,
}

impl Check<'_> {
    const fn note(&mut self, same: bool) {
        self.same += 1;
        self.clean &= same;
    }

    /// A row of `frontends`.
    pub fn frontend(&mut self, key: &FrontendKey, row: &FrontendRow) {
        self.note(self.desired.frontends.get(key) == Some(row));
    }

    /// A place of `backends`; empty ones may be left out.
    pub fn backend(&mut self, place: u32, row: &BackendRow) {
        self.places += usize::from(*row != Places::EMPTY);
        self.clean &= self.desired.backends.get(place) == *row;
    }

    /// A row of `service_backends`.
    pub fn service_backend(&mut self, key: &ServiceBackendKey, row: &ServiceBackendRow) {
        let found = self.desired.service_backends.get(key);
        self.note(found.is_some_and(|found| found.row() == *row));
    }

    /// A table of `maglev`; those that are all zero are left out.
    pub fn maglev(&mut self, table: u32, entries: &[u16]) {
        let found = self.desired.maglev.get(&table);
        self.note(found.is_some_and(|found| **found == *entries));
    }

    /// A row of `source_ranges`.
    pub fn source_range(&mut self, key: &SourceRangeKey) {
        self.note(self.desired.source_ranges.contains(key));
    }

    /// A row of `ipcache` that has the flag of services.
    pub fn address(&mut self, address: &Address) {
        self.note(self.desired.addresses.contains(address));
    }

    /// Whether everything that was compared is as desired, and nothing was missing.
    pub fn is_clean(&self) -> bool {
        let desired = self.desired;
        let places = desired.backends.iter().count();
        let others = desired.frontends.len()
            + desired.service_backends.len()
            + desired.maglev.len()
            + desired.source_ranges.len()
            + desired.addresses.len();
        self.clean && self.places == places && self.same == others
    }
}
