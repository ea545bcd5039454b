// SPDX-License-Identifier: Apache-2.0
//! What differs between two states of the rows of services, and the order in which it is written.
//!
//! What a frontend's row names is written before the row, and removed after the last row that named
//! it: at every moment each frontend has a whole set of backends, the old one or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::service::{BackendRow, FrontendKey, FrontendRow, SourceRangeKey};
use weir_abi::{Address, ServiceId, Slot};

use super::rows::{Places, ServiceBackend, ServiceRows};
use crate::Operation;

/// Net differences, each object at most once.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) backends: Vec<(u32, Arc<[BackendRow]>)>,
    pub(super) backends_gone: Vec<(u32, u32)>,
    pub(super) members: Vec<(ServiceId, Arc<[ServiceBackend]>)>,
    pub(super) members_gone: Vec<(ServiceId, Arc<[ServiceBackend]>)>,
    pub(super) tables: Vec<(u32, Arc<[u16]>)>,
    pub(super) tables_gone: Vec<u32>,
    pub(super) ranges: Vec<SourceRangeKey>,
    pub(super) ranges_gone: Vec<SourceRangeKey>,
    pub(super) addresses: Vec<Address>,
    pub(super) addresses_gone: Vec<Address>,
    pub(super) frontends: Vec<(FrontendKey, FrontendRow)>,
    pub(super) frontends_gone: Vec<FrontendKey>,
    /// Whose flows are decided again.
    pub(super) bumps: BTreeSet<Slot>,
}

impl Changes {
    /// The operations, in the order in which they have to happen.
    pub(super) fn in_order(self) -> Vec<Operation> {
        let mut operations = Vec::with_capacity(self.count());
        let Self {
            backends,
            backends_gone,
            members,
            members_gone,
            tables,
            tables_gone,
            ranges,
            ranges_gone,
            addresses,
            addresses_gone,
            frontends,
            frontends_gone,
            bumps,
        } = self;
        let mut add = |operation| operations.push(operation);
        for (first, rows) in backends {
            add(Operation::UpsertBackends(first, rows));
        }
        for (service, some) in members {
            add(Operation::UpsertServiceBackends(service, some));
        }
        for (table, entries) in tables {
            add(Operation::UpsertMaglev(table, entries));
        }
        for key in ranges {
            add(Operation::UpsertSourceRange(key));
        }
        for address in addresses {
            add(Operation::UpsertServiceAddress(address));
        }
        for (key, row) in frontends {
            add(Operation::UpsertFrontend(key, row));
        }
        for key in frontends_gone {
            add(Operation::DeleteFrontend(key));
        }
        for address in addresses_gone {
            add(Operation::DeleteServiceAddress(address));
        }
        for key in ranges_gone {
            add(Operation::DeleteSourceRange(key));
        }
        for table in tables_gone {
            add(Operation::DeleteMaglev(table));
        }
        for (service, some) in members_gone {
            add(Operation::DeleteServiceBackends(service, some));
        }
        for (first, count) in backends_gone {
            add(Operation::DeleteBackends(first, count));
        }
        for slot in bumps {
            add(Operation::Bump(slot));
        }
        operations
    }

    fn count(&self) -> usize {
        let Self {
            backends,
            backends_gone,
            members,
            members_gone,
            tables,
            tables_gone,
            ranges,
            ranges_gone,
            addresses,
            addresses_gone,
            frontends,
            frontends_gone,
            bumps,
        } = self;
        backends.len()
            + backends_gone.len()
            + members.len()
            + members_gone.len()
            + tables.len()
            + tables_gone.len()
            + ranges.len()
            + ranges_gone.len()
            + addresses.len()
            + addresses_gone.len()
            + frontends.len()
            + frontends_gone.len()
            + bumps.len()
    }

    /// The backends of a service port were these and are those now. A flow to one that is gone is
    /// decided again.
    pub(super) fn compare_members(
        &mut self,
        service: ServiceId,
        old: &[ServiceBackend],
        new: &Arc<[ServiceBackend]>,
    ) {
        if old == &**new {
            return;
        }
        let key = |one: &ServiceBackend| (one.address, one.port);
        let find = |all: &[ServiceBackend], one: &ServiceBackend| {
            let found = all.binary_search_by_key(&key(one), key).ok()?;
            all.get(found).copied()
        };
        if old.is_empty() {
            self.members.push((service, Arc::clone(new)));
        } else {
            let differs = |one: &&ServiceBackend| find(old, one) != Some(**one);
            let some: Arc<[_]> = new.iter().filter(differs).copied().collect();
            if !some.is_empty() {
                self.members.push((service, some));
            }
        }
        let gone = old.iter().filter(|one| find(new, one).is_none());
        let gone: Arc<[_]> = gone.copied().collect();
        if !gone.is_empty() {
            self.bumps
                .extend(gone.iter().map(|one| Slot::of_address(&one.address)));
            self.members_gone.push((service, gone));
        }
    }

    pub(super) fn compare_frontend(
        &mut self,
        key: FrontendKey,
        old: Option<&FrontendRow>,
        new: Option<&FrontendRow>,
    ) {
        if old == new {
            return;
        }
        match new {
            Some(row) => self.frontends.push((key, *row)),
            None => self.frontends_gone.push(key),
        }
        self.bumps.insert(Slot::of_address(&key.address));
    }
}

/// What takes the kernel from the rows that were found to the desired ones, in order. An update
/// hands out the same for what it touched; this is for a start and for repairs.
pub fn plan(found: &ServiceRows, desired: &ServiceRows) -> Vec<Operation> {
    let mut changes = Changes::default();
    for (key, row) in &desired.frontends {
        changes.compare_frontend(*key, found.frontends.get(key), Some(row));
    }
    for (key, row) in &found.frontends {
        if !desired.frontends.contains_key(key) {
            changes.compare_frontend(*key, Some(row), None);
        }
    }
    compare_places(&mut changes, &found.backends, &desired.backends);
    for (service, new) in desired.service_backends.iter() {
        changes.compare_members(service, found.service_backends.of(service), new);
    }
    let none: Arc<[ServiceBackend]> = Arc::default();
    for (service, old) in found.service_backends.iter() {
        if desired.service_backends.of(service).is_empty() {
            changes.compare_members(service, old, &none);
        }
    }
    for (table, entries) in &desired.maglev {
        if found.maglev.get(table) != Some(entries) {
            changes.tables.push((*table, Arc::clone(entries)));
        }
    }
    let tables_gone = found.maglev.keys();
    changes
        .tables_gone
        .extend(tables_gone.filter(|table| !desired.maglev.contains_key(table)));

    let (old, new) = (&found.source_ranges, &desired.source_ranges);
    changes.ranges.extend(new.difference(old));
    changes.ranges_gone.extend(old.difference(new));
    let restricted: BTreeSet<ServiceId> = old
        .symmetric_difference(new)
        .map(|key| key.service)
        .collect();
    if !restricted.is_empty() {
        let concerned = desired
            .frontends
            .iter()
            .filter(|(_, row)| restricted.contains(&row.service));
        changes
            .bumps
            .extend(concerned.map(|(key, _)| Slot::of_address(&key.address)));
    }

    let (old, new) = (&found.addresses, &desired.addresses);
    changes.addresses.extend(new.difference(old));
    changes.addresses_gone.extend(old.difference(new));
    let addresses = old.symmetric_difference(new);
    changes.bumps.extend(addresses.map(Slot::of_address));
    changes.in_order()
}

/// Neighbouring places become one operation.
fn compare_places(changes: &mut Changes, found: &Places, desired: &Places) {
    let end = u32::try_from(found.end().max(desired.end())).unwrap_or(u32::MAX);
    let differing = (0..end).filter(|place| found.get(*place) != desired.get(*place));
    let mut upserts: BTreeMap<u32, Vec<BackendRow>> = BTreeMap::new();
    for place in differing {
        let row = desired.get(place);
        if row == Places::EMPTY {
            match changes.backends_gone.last_mut() {
                Some((first, count)) if *first + *count == place => *count += 1,
                _ => changes.backends_gone.push((place, 1)),
            }
        } else {
            match upserts.last_entry() {
                Some(mut last) if last.key() + super::runs::count(last.get()) == place => {
                    last.get_mut().push(row);
                }
                _ => drop(upserts.insert(place, vec![row])),
            }
        }
    }
    let upserts = upserts
        .into_iter()
        .map(|(first, rows)| (first, rows.into()));
    changes.backends.extend(upserts);
}
