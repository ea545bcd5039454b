// SPDX-License-Identifier: Apache-2.0
//! The desired rows, the places that are free, and what has changed since changes were last handed
//! out.
//!
//! A run that a frontend's row may still name in the kernel keeps its places until the caller says
//! that everything handed out is there ([`Ledger::executed`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::service::{BackendRow, BackendRun, FrontendKey, FrontendRow, SourceRangeKey};
use weir_abi::{Address, ServiceId, Slot};

use super::ServiceSettings;
use super::changes::Changes;
use super::maglev::{TableSize, table};
use super::rows::{ServiceBackend, ServiceRows, index};
use super::runs::{Runs, count};

/// What a map has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) map: &'static str,
    pub(super) size: u32,
}

/// A run that a group has had.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldRun {
    pub(super) run: BackendRun,
    /// It was read back and is nobody's so far.
    pub(super) restored: bool,
    pub(super) kept: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) rows: ServiceRows,
    /// Number of rows in `service_backends`.
    members: usize,
    places: Runs,
    tables: Runs,
    table_size: Option<TableSize>,
    /// Places and tables that rows from before a restart name and nobody has taken over.
    reserved_places: BTreeSet<u32>,
    reserved_tables: BTreeSet<u32>,
    /// Free as soon as the kernel has what was handed out.
    retired_places: Vec<(u32, u32)>,
    retired_tables: Vec<u32>,
    record: Record,
}

/// How rows were when they were first touched.
#[derive(Debug, Default)]
struct Record {
    frontends: BTreeMap<FrontendKey, Option<FrontendRow>>,
    members: BTreeMap<ServiceId, Arc<[ServiceBackend]>>,
    written: BTreeMap<u32, u32>,
    emptied: Vec<(u32, u32)>,
    tables_written: BTreeSet<u32>,
    tables_gone: Vec<u32>,
    ranges: BTreeMap<SourceRangeKey, bool>,
    addresses: BTreeMap<Address, bool>,
    bumps: BTreeSet<Slot>,
}

impl Ledger {
    /// Rows that were read back.
    pub(super) fn restore(rows: ServiceRows) -> Self {
        let runs = rows
            .frontends
            .values()
            .flat_map(|row| [row.internal, row.external]);
        let end = u32::try_from(rows.backends.end()).unwrap_or(u32::MAX);
        // A run that a row names may be anything: only places that hold something can be written
        // over to somebody's harm.
        let named = runs.clone().flat_map(|run| {
            let last = run.first.saturating_add(run.count);
            run.first..last.min(end)
        });
        let reserved_places = named.collect();
        let reserved_tables = runs.filter_map(|run| run.maglev.checked_sub(1)).collect();
        Self {
            members: rows.service_backends.len(),
            rows,
            reserved_places,
            reserved_tables,
            ..Self::default()
        }
    }

    /// Takes the sizes of the maps in.
    pub(super) fn resize(&mut self, settings: &ServiceSettings) {
        self.table_size = settings.maglev;
        let tables = match settings.maglev {
            Some(size) => settings.maglev_size / size.get(),
            None => 0,
        };
        if self.places.size() != settings.backends_size {
            self.places.resize(settings.backends_size);
            for place in &self.reserved_places {
                self.places.reserve(*place, 1);
            }
        }
        if self.tables.size() != tables {
            self.tables.resize(tables);
            for table in &self.reserved_tables {
                self.tables.reserve(*table, 1);
            }
        }
    }

    /// The caller has written everything that was handed out. Tells whether that made room.
    pub(super) fn executed(&mut self) -> bool {
        let room = !self.retired_places.is_empty() || !self.retired_tables.is_empty();
        for (first, count) in self.retired_places.drain(..) {
            self.places.give_back(first, count);
        }
        for table in self.retired_tables.drain(..) {
            self.tables.give_back(table, 1);
        }
        room
    }

    pub(super) fn bump(&mut self, address: Address) {
        self.record.bumps.insert(Slot::of_address(&address));
    }

    pub(super) fn set_frontend(&mut self, key: FrontendKey, row: FrontendRow) {
        let old = self.rows.frontends.insert(key, row);
        self.record.frontends.entry(key).or_insert(old);
    }

    pub(super) fn remove_frontend(&mut self, key: &FrontendKey) -> Option<FrontendRow> {
        let old = self.rows.frontends.remove(key);
        self.record.frontends.entry(*key).or_insert(old);
        old
    }

    /// Whether the backends of a service port can be these.
    pub(super) fn has_room_for(&self, service: ServiceId, members: usize, size: u32) -> bool {
        let others = self.members - self.rows.service_backends.of(service).len();
        others + members <= index(size)
    }

    pub(super) fn set_members(&mut self, service: ServiceId, members: Vec<ServiceBackend>) {
        let old = self.rows.service_backends.shared(service);
        if old.map_or(&[][..], |old| old) == members {
            return;
        }
        let old = old.map(Arc::clone).unwrap_or_default();
        self.members = self.members - old.len() + members.len();
        self.record.members.entry(service).or_insert(old);
        self.rows.service_backends.replace(service, members.into());
    }

    /// Tells whether that differs from before.
    pub(super) fn set_range(&mut self, key: SourceRangeKey, there: bool) -> bool {
        let ranges = &mut self.rows.source_ranges;
        let was = if there {
            !ranges.insert(key)
        } else {
            ranges.remove(&key)
        };
        self.record.ranges.entry(key).or_insert(was);
        was != there
    }

    pub(super) fn set_address(&mut self, address: Address, there: bool) {
        let addresses = &mut self.rows.addresses;
        let was = if there {
            !addresses.insert(address)
        } else {
            addresses.remove(&address)
        };
        self.record.addresses.entry(address).or_insert(was);
    }

    /// A run with this content: one that the group has had, or a new one. Without room, an old one
    /// stays as long as nothing in it is wrong.
    pub(super) fn realize(
        &mut self,
        wanted: &[BackendRow],
        olds: &mut [OldRun],
    ) -> (BackendRun, Option<Full>) {
        if wanted.is_empty() {
            return (BackendRun::default(), None);
        }
        let same = olds.iter().position(|old| {
            let content = self.rows.run(&old.run);
            content == wanted && (!old.restored || old.kept || self.is_reserved(&old.run))
        });
        if let Some(old) = same.and_then(|place| olds.get_mut(place)) {
            if old.restored && !old.kept {
                for place in old.run.first..old.run.first + old.run.count {
                    self.reserved_places.remove(&place);
                }
            }
            let (table, full) = self.table_of(wanted, old);
            old.kept = true;
            old.run.maglev = table;
            return (old.run, full);
        }
        let Some(first) = self.places.take(count(wanted)) else {
            return self.without_room(wanted, olds);
        };
        for (place, row) in (first..).zip(wanted) {
            self.rows.backends.set(place, *row);
        }
        self.record.written.insert(first, count(wanted));
        let (maglev, full) = match self.new_table(wanted) {
            Ok(maglev) => (maglev, None),
            Err(full) => (0, Some(full)),
        };
        let run = BackendRun {
            first,
            count: count(wanted),
            maglev,
        };
        (run, full)
    }

    fn without_room(
        &self,
        wanted: &[BackendRow],
        olds: &mut [OldRun],
    ) -> (BackendRun, Option<Full>) {
        let full = Full {
            map: weir_abi::map::BACKENDS.name,
            size: self.places.size(),
        };
        let still_right = |old: &&mut OldRun| {
            let content = self.rows.run(&old.run);
            !old.restored && content.iter().all(|row| wanted.contains(row))
        };
        let stays = olds.iter_mut().find(still_right).map(|old| {
            old.kept = true;
            old.run
        });
        (stays.unwrap_or_default(), Some(full))
    }

    fn is_reserved(&self, run: &BackendRun) -> bool {
        let end = run.first.saturating_add(run.count);
        end <= self.places.size()
            && (run.first..end).all(|place| self.reserved_places.contains(&place))
    }

    /// The table of a run that stays: the one that it has, if it is right.
    fn table_of(&mut self, wanted: &[BackendRow], old: &OldRun) -> (u32, Option<Full>) {
        let number = old.run.maglev.checked_sub(1);
        let suits = self.table_size.filter(|size| size.suits(wanted.len()));
        let found = number.and_then(|number| self.rows.maglev.get(&number));
        let mine = !old.restored || old.kept;
        let right = match (suits, found) {
            (None, None) => number.is_none(),
            (None, Some(_)) | (Some(_), None) => false,
            (Some(size), Some(found)) if mine => found.len() == index(size.get()),
            (Some(size), Some(found)) => *found == table(wanted, size),
        };
        if right && (mine || number.is_none_or(|number| self.reserved_tables.remove(&number))) {
            return (old.run.maglev, None);
        }
        if mine && let Some(number) = number {
            self.retire_table(number);
        }
        match self.new_table(wanted) {
            Ok(maglev) => (maglev, None),
            Err(full) => (0, Some(full)),
        }
    }

    /// Writes a run's table; gives what belongs into [`BackendRun::maglev`].
    fn new_table(&mut self, wanted: &[BackendRow]) -> Result<u32, Full> {
        let Some(size) = self.table_size.filter(|size| size.suits(wanted.len())) else {
            return Ok(0);
        };
        let Some(number) = self.tables.take(1) else {
            let map = weir_abi::map::MAGLEV.name;
            let size = self.tables.size() * size.get();
            return Err(Full { map, size });
        };
        self.rows.maglev.insert(number, table(wanted, size));
        self.record.tables_written.insert(number);
        Ok(number + 1)
    }

    /// A run that no row names any more once the changes are written.
    pub(super) fn retire(&mut self, run: &BackendRun) {
        if run.count > 0 {
            self.rows.backends.clear(run.first, run.count);
            if self.record.written.remove(&run.first).is_some() {
                // Never handed out.
                self.places.give_back(run.first, run.count);
            } else {
                self.record.emptied.push((run.first, run.count));
                self.retired_places.push((run.first, run.count));
            }
        }
        if let Some(number) = run.maglev.checked_sub(1) {
            self.retire_table(number);
        }
    }

    fn retire_table(&mut self, number: u32) {
        self.rows.maglev.remove(&number);
        if self.record.tables_written.remove(&number) {
            self.tables.give_back(number, 1);
        } else {
            self.record.tables_gone.push(number);
            self.retired_tables.push(number);
        }
    }

    /// Removes everything in the rows that nobody has taken over: `runs` are somebody's.
    pub(super) fn forget_all_but(&mut self, runs: impl Iterator<Item = BackendRun>) {
        let (mut owned, mut tables) = (BTreeSet::new(), BTreeSet::new());
        for run in runs {
            owned.extend(run.first..run.first + run.count);
            tables.extend(run.maglev.checked_sub(1));
        }
        let used = self.rows.backends.iter().map(|(place, _)| place);
        let stale: Vec<u32> = used.filter(|place| !owned.contains(place)).collect();
        for place in stale {
            self.rows.backends.clear(place, 1);
            match self.record.emptied.last_mut() {
                Some((first, count)) if *first + *count == place => *count += 1,
                _ => self.record.emptied.push((place, 1)),
            }
        }
        let reserved = std::mem::take(&mut self.reserved_places);
        self.retired_places
            .extend(reserved.into_iter().map(|place| (place, 1)));

        let stale = self.rows.maglev.keys().copied();
        let stale: Vec<u32> = stale.filter(|number| !tables.contains(number)).collect();
        for number in stale {
            self.rows.maglev.remove(&number);
            self.record.tables_gone.push(number);
        }
        let reserved = std::mem::take(&mut self.reserved_tables);
        self.retired_tables.extend(reserved);
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let free = |runs: &Runs| {
            let mut other = runs.clone();
            other.reserve(0, u32::MAX);
            other.give_back(0, u32::MAX);
            *runs == other
        };
        self.rows.is_empty() && self.members == 0 && free(&self.places) && free(&self.tables)
    }

    /// Hands out what has changed.
    pub(super) fn changes(&mut self) -> Changes {
        let record = std::mem::take(&mut self.record);
        let rows = &self.rows;
        let mut changes = Changes {
            bumps: record.bumps,
            backends_gone: record.emptied,
            tables_gone: record.tables_gone,
            ..Changes::default()
        };
        for (key, old) in &record.frontends {
            changes.compare_frontend(*key, old.as_ref(), rows.frontends.get(key));
        }
        for (first, count) in record.written {
            let content = rows.backends.run(first, count).into();
            changes.backends.push((first, content));
        }
        for (service, old) in record.members {
            let new = rows.service_backends.shared(service);
            let new = new.map(Arc::clone).unwrap_or_default();
            changes.compare_members(service, &old, &new);
        }
        for number in record.tables_written {
            let entries = rows.maglev.get(&number);
            changes
                .tables
                .extend(entries.map(|entries| (number, Arc::clone(entries))));
        }
        for (key, was) in record.ranges {
            match (was, rows.source_ranges.contains(&key)) {
                (false, true) => changes.ranges.push(key),
                (true, false) => changes.ranges_gone.push(key),
                (false, false) | (true, true) => {}
            }
        }
        for (address, was) in record.addresses {
            let is = rows.addresses.contains(&address);
            if was != is {
                changes.bumps.insert(Slot::of_address(&address));
                let list = if is {
                    &mut changes.addresses
                } else {
                    &mut changes.addresses_gone
                };
                list.push(address);
            }
        }
        changes
    }
}
