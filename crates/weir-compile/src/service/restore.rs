// SPDX-License-Identifier: Apache-2.0
//! Taking over what an agent before this one left in the kernel.
//!
//! Rows say which number and which places a frontend has, so the first update finds them again by
//! the frontend's address and port. What nobody claims goes with the first update that may remove.

use std::collections::BTreeSet;

use weir_abi::service::FrontendKey;
use weir_abi::{FrontendId, ServiceId};

use super::ServiceCompiler;
use super::ledger::Ledger;

impl ServiceCompiler {
    /// From rows that were read back.
    pub fn restore(mut rows: super::ServiceRows) -> Self {
        let mut compiler = Self::default();
        for row in rows.frontends.values_mut() {
            // Of two rows with one number the second gets a new one.
            if !compiler.frontend_ids.reserve(row.id.0) {
                row.id = FrontendId::default();
            }
        }
        let ids = &mut compiler.restored_ids;
        for (key, row) in &rows.frontends {
            ids.entry(row.service).or_insert_with(Vec::new).push(*key);
        }
        let places = rows.backends.iter().map(|(_, row)| row.service);
        let members = rows.service_backends.iter().map(|(service, _)| service);
        for id in places.chain(members) {
            ids.entry(id).or_default();
        }
        ids.remove(&ServiceId::NONE);
        for id in ids.keys() {
            compiler.service_ids.reserve(id.0);
        }
        compiler.restored = !rows.is_empty();
        compiler.addresses.clone_from(&rows.addresses);
        compiler.ledger = Ledger::restore(rows);
        compiler
    }

    /// Removes frontends that a service port had and does not ask for any more, now that it is known.
    pub(super) fn forget_obsolete(&mut self) {
        for (id, keys) in std::mem::take(&mut self.adopted) {
            for key in keys {
                let row = self.ledger.rows.frontends.get(&key);
                if row.is_some_and(|row| row.service == id) && !self.is_held(&key, id) {
                    self.remove_frontend(&key);
                }
            }
        }
    }

    /// Removes what no service has claimed.
    pub(super) fn forget_unknown(&mut self) {
        let groups = || self.owners.values().flat_map(|held| held.groups.iter());
        let known: BTreeSet<FrontendKey> = groups()
            .flat_map(|group| group.frontends.iter().copied())
            .collect();
        let ranges: BTreeSet<_> = groups()
            .flat_map(|group| group.ranges.iter().map(|range| (group.id, *range)))
            .collect();
        let runs: Vec<_> = groups()
            .flat_map(|group| [group.internal, group.external])
            .collect();

        let rows = &self.ledger.rows;
        let stale: Vec<FrontendKey> = rows
            .frontends
            .keys()
            .filter(|key| !known.contains(key))
            .copied()
            .collect();
        let unknown: Vec<ServiceId> = rows
            .service_backends
            .iter()
            .map(|(service, _)| service)
            .filter(|service| !self.by_id.contains_key(service))
            .collect();
        let stale_ranges: Vec<_> = rows
            .source_ranges
            .iter()
            .filter(|key| {
                let range = weir_abi::ipcache::PrefixKey {
                    length: key.length.saturating_sub(32),
                    address: key.address,
                };
                !ranges.contains(&(key.service, range))
            })
            .copied()
            .collect();
        for key in &stale {
            self.remove_frontend(key);
        }
        for service in unknown {
            self.ledger.set_members(service, Vec::new());
        }
        for key in stale_ranges {
            self.ledger.set_range(key, false);
        }
        self.ledger.forget_all_but(runs.into_iter());
        for id in std::mem::take(&mut self.restored_ids).into_keys() {
            self.service_ids.give_back(id.0);
        }
    }
}
