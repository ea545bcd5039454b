// SPDX-License-Identifier: Apache-2.0
//! Whether rows that are read are the desired ones, without a second copy of them.

use weir_abi::Address;
use weir_abi::service::{
    BackendRow, FrontendKey, FrontendRow, ServiceBackendKey, ServiceBackendRow, SourceRangeKey,
};

use super::{Places, ServiceRows};

impl ServiceRows {
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
