// SPDX-License-Identifier: Apache-2.0
//! This node's rows as its kernel has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_abi::{Address, DatapathConfig, IfIndex};
use weir_compile::service::ServiceRows;
use weir_datapath::Maps;

use super::tables::tables;
use super::{Meanings, SOME_DEVICE, View};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

impl View {
    /// This node's, as the kernel has it now.
    pub(in crate::trace) fn live(
        shared: &Shared,
        snapshot: &Snapshot,
        maps: &Maps,
        config: &DatapathConfig,
    ) -> weir_datapath::Result<Self> {
        let (rows, addresses) = maps.read_back_split()?;
        let services = read_services(maps, addresses, config)?;
        let device = snapshot.devices.first();
        let device = device.map_or(SOME_DEVICE, |device| IfIndex(device.ifindex));
        Ok(Self {
            node: shared.node.clone(),
            tables: tables(&rows, &services, *config, device),
            identities: Arc::clone(&snapshot.identities),
            device,
            host: config.host,
            meanings: Meanings::Live(Arc::clone(&shared.directory)),
        })
    }
}

/// The rows of services that packets can meet. Places behind the last run are not read: there are
/// many of them.
fn read_services(
    maps: &Maps,
    addresses: BTreeSet<Address>,
    config: &DatapathConfig,
) -> weir_datapath::Result<ServiceRows> {
    if config.maglev_size != 0 {
        return maps.read_back_services(addresses);
    }
    let mut rows = ServiceRows {
        frontends: maps.frontends.entries()?.into_iter().collect(),
        service_backends: maps.service_backends.entries()?.into_iter().collect(),
        source_ranges: maps.source_ranges.keys()?,
        addresses,
        ..ServiceRows::default()
    };
    let runs = rows
        .frontends
        .values()
        .flat_map(|row| [row.internal, row.external]);
    let ends = runs.map(|run| run.first.saturating_add(run.count));
    let end = ends.max().unwrap_or_default().min(maps.backends.size());
    for (place, row) in (0..).zip(maps.backends.places(0, end)?) {
        rows.backends.set(place, row);
    }
    Ok(rows)
}
