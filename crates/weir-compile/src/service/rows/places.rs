// SPDX-License-Identifier: Apache-2.0
//! The array of backends, without what is empty behind the last one.

use weir_abi::service::BackendRow;
use weir_abi::{Address, Port, ServiceId};

use super::index;

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
