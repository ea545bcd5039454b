// SPDX-License-Identifier: Apache-2.0
//! The desired rows, the places that are free, and what has changed since changes were last handed
//! out.
//!
//! A run that a frontend's row may still name in the kernel keeps its places until the caller says
//! that everything handed out is there ([`Ledger::executed`]). `places` finds those of a run, `hand_out`
//! compares with what was handed out before.

mod hand_out;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::service::{BackendRun, FrontendKey, FrontendRow, SourceRangeKey};
use weir_abi::{Address, ServiceId, Slot};

use super::ServiceSettings;
use super::maglev::TableSize;
use super::rows::{ServiceBackend, ServiceRows, index};
use super::runs::Runs;

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
}
