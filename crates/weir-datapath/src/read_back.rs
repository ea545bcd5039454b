// SPDX-License-Identifier: Apache-2.0
//! The agent's rows, as they are in the kernel now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::ipcache::flags;
use weir_abi::node::NodeRow;
use weir_abi::service::{FrontendKey, FrontendRow};
use weir_abi::{Address, NodeIndex, map};
use weir_compile::Rows;
use weir_compile::service::{Places, ServiceRows};

use crate::{Maps, Result};

/// Maglev tables that a check of everything reads; the others have their turn at another one. A table is hundreds of
/// thousands of bytes, and nobody but the agent writes it.
const TABLES_AT_ONCE: usize = 8;

/// Places of the map of nodes that a check of everything reads besides those in use.
const NODES_AT_ONCE: u32 = 1024;

impl Maps {
    /// The rows of nodes, pods and policy.
    pub fn read_back(&self) -> Result<Rows> {
        self.read_back_split().map(|(rows, _)| rows)
    }

    /// The same, and the addresses that belong to services: both are rows of the `ipcache` map.
    pub fn read_back_split(&self) -> Result<(Rows, BTreeSet<Address>)> {
        self.read_back_with(self.read_back_nodes()?)
    }

    /// The same for a check that comes again and again: of the places of nodes it reads those in
    /// use and a few others, which the count of calls, `turn`, chooses. The map is an array of a
    /// megabyte, nearly all of it empty.
    pub fn read_back_in_turn(&self, known: &Rows, turn: u32) -> Result<(Rows, BTreeSet<Address>)> {
        let end = known.nodes.keys().next_back();
        let used = end.map_or(0, |index| u32::from(index.0) + 1);
        let size = self.nodes.size();
        let turns = size.div_ceil(NODES_AT_ONCE).max(1);
        let first = turn % turns * NODES_AT_ONCE;
        let mut nodes = self.nodes_at(0, used.min(size))?;
        nodes.extend(self.nodes_at(first, NODES_AT_ONCE.min(size - first))?);
        self.read_back_with(nodes)
    }

    fn read_back_with(
        &self,
        nodes: BTreeMap<NodeIndex, NodeRow>,
    ) -> Result<(Rows, BTreeSet<Address>)> {
        let mut rows = Rows {
            masquerade_exempt: self.masquerade_exempt.keys()?,
            nodes,
            policy: self.policy.entries()?.into_iter().collect(),
            ..Rows::default()
        };
        let mut services = BTreeSet::new();
        self.endpoints.for_each(|address, row| {
            rows.endpoints.insert(address, row);
        })?;
        self.ipcache.for_each(|key, row| {
            if key.length == 128 && row.flags & flags::SERVICE != 0 {
                services.insert(key.address);
            } else {
                rows.ipcache.insert(key, row);
            }
        })?;
        Ok((rows, services))
    }

    pub(crate) fn read_back_nodes(&self) -> Result<BTreeMap<NodeIndex, NodeRow>> {
        self.nodes_at(0, self.nodes.size())
    }

    /// The rows of so many places from the first on.
    fn nodes_at(&self, first: u32, count: u32) -> Result<BTreeMap<NodeIndex, NodeRow>> {
        let mut nodes = BTreeMap::new();
        for (place, row) in (first..).zip(self.nodes.places(first, count)?) {
            if let Ok(index) = u16::try_from(place)
                && row != NodeRow::default()
            {
                nodes.insert(NodeIndex(index), row);
            }
        }
        Ok(nodes)
    }

    /// The rows of services. `addresses`: those that [`Self::read_back_split`] found.
    pub fn read_back_services(&self, addresses: BTreeSet<Address>) -> Result<ServiceRows> {
        let mut rows = ServiceRows {
            frontends: self.frontends.entries()?.into_iter().collect(),
            service_backends: self.service_backends.entries()?.into_iter().collect(),
            source_ranges: self.source_ranges.keys()?,
            addresses,
            ..ServiceRows::default()
        };
        // Also places that no frontend names: an agent may have been killed between two writes.
        for (place, row) in (0..).zip(self.backends.places(0, self.backends.size())?) {
            if row != Places::EMPTY {
                rows.backends.set(place, row);
            }
        }
        for table in self.tables(&rows.frontends) {
            rows.maglev
                .extend(self.maglev_table(table)?.map(|entries| (table, entries)));
        }
        Ok(rows)
    }

    /// Whether the rows of services are as desired; reads no more than it has to and keeps nothing. `turn` counts the
    /// calls: it says which Maglev tables are read.
    pub fn services_are(
        &self,
        desired: &ServiceRows,
        addresses: &BTreeSet<Address>,
        turn: usize,
    ) -> Result<bool> {
        let mut check = desired.check();
        self.frontends
            .for_each(|key, row| check.frontend(&key, &row))?;
        self.service_backends
            .for_each(|key, row| check.service_backend(&key, &row))?;
        for key in self.source_ranges.keys()? {
            check.source_range(&key);
        }
        for address in addresses {
            check.address(address);
        }
        let places = u32::try_from(desired.backends.end()).unwrap_or(u32::MAX);
        for (place, row) in (0..).zip(self.backends.places(0, places)?) {
            check.backend(place, &row);
        }
        let count = desired.maglev.len();
        let first = (turn * TABLES_AT_ONCE)
            .checked_rem(count)
            .unwrap_or_default();
        for (number, (&table, entries)) in desired.maglev.iter().enumerate() {
            let its_turn = (number + count - first) % count < TABLES_AT_ONCE;
            match its_turn
                .then(|| self.maglev_table(table))
                .transpose()?
                .flatten()
            {
                Some(found) => check.maglev(table, &found),
                // One that is gone is not told of, which is what the check takes for missing.
                None if its_turn => {}
                None => check.maglev(table, entries),
            }
        }
        Ok(check.is_clean())
    }

    /// Numbers of the tables that frontends name.
    fn tables(&self, frontends: &BTreeMap<FrontendKey, FrontendRow>) -> BTreeSet<u32> {
        let runs = frontends
            .values()
            .flat_map(|row| [row.internal, row.external]);
        let most = self
            .maglev
            .size()
            .checked_div(self.maglev_size)
            .unwrap_or_default();
        runs.filter_map(|run| run.maglev.checked_sub(1))
            .filter(|table| *table < most)
            .collect()
    }

    /// One table; none where it is all zero.
    pub fn maglev_table(&self, table: u32) -> Result<Option<Arc<[u16]>>> {
        let first = table.saturating_mul(self.maglev_size);
        let entries = self.maglev.places(first, self.maglev_size)?;
        let empty = entries.iter().all(|entry| *entry == 0);
        Ok((!empty).then(|| entries.into()))
    }
}

/// A key as people read it.
pub(crate) fn key_text(name: &str, key: &[u8]) -> String {
    fn text<K: zerocopy::FromBytes + std::fmt::Debug>(key: &[u8]) -> String {
        K::read_from_bytes(key).map_or_else(|_| "?".to_owned(), |key| format!("{key:?}"))
    }
    match name {
        name if name == map::ENDPOINTS.name => text::<Address>(key),
        name if name == map::IPCACHE.name || name == map::MASQUERADE_EXEMPT.name => {
            text::<weir_abi::ipcache::PrefixKey>(key)
        }
        name if name == map::FRONTENDS.name => text::<FrontendKey>(key),
        name if name == map::SERVICE_BACKENDS.name => {
            text::<weir_abi::service::ServiceBackendKey>(key)
        }
        name if name == map::SOURCE_RANGES.name => text::<weir_abi::service::SourceRangeKey>(key),
        name if name == map::POLICY.name => text::<weir_abi::policy::PolicyKey>(key),
        _ => text::<u32>(key),
    }
}
