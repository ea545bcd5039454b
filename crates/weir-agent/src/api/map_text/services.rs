// SPDX-License-Identifier: Apache-2.0
//! The maps of services as text.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::map::{self, MapInfo};
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendRow, ServiceBackendKey, SourceRangeKey,
};
use weir_abi::{Address, Port};
use weir_api::kernel::MapEntry;
use weir_compile::prefix::display_prefix;
use weir_compile::service::{Places, ServiceRows, address_row};
use weir_datapath::{Maps, Result};

use super::{compared, dynamic};

fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(address.to_ip(), port.get())
}

/// Rows of one of the maps of services; none where it is another map.
pub(super) fn entries(
    info: &MapInfo,
    maps: &Maps,
    desired: &ServiceRows,
) -> Result<Option<Vec<MapEntry>>> {
    let entries = match info.name {
        name if name == map::FRONTENDS.name => {
            let rows = maps.frontends.entries()?;
            compared(rows, &desired.frontends, frontend_key, frontend)
        }
        name if name == map::BACKENDS.name => {
            let rows = (0..).zip(maps.backends.places(0, maps.backends.size())?);
            let rows = rows.filter(|(_, row)| *row != Places::EMPTY);
            let wanted = desired.backends.iter().map(|(place, row)| (place, *row));
            compared(rows.collect(), &wanted.collect(), u32::to_string, backend)
        }
        name if name == map::SERVICE_BACKENDS.name => {
            let rows = maps.service_backends.entries()?;
            let wanted = desired.service_backends.iter().flat_map(|(service, all)| {
                all.iter().map(move |one| (one.key(service), one.row()))
            });
            compared(rows, &wanted.collect(), service_backend_key, |row| {
                format!("flags={:#04x}", row.flags)
            })
        }
        name if name == map::MAGLEV.name => {
            let mut rows = Vec::new();
            for table in desired.maglev.keys() {
                rows.extend(maps.maglev_table(*table)?.map(|entries| (*table, entries)));
            }
            let table = |number: &u32| format!("table {number}");
            compared(rows, &desired.maglev, table, |entries| {
                format!("{} entries", entries.len())
            })
        }
        name if name == map::SOURCE_RANGES.name => {
            let rows = maps.source_ranges.keys()?.into_iter();
            let rows = rows.map(|key| (key, ())).collect();
            let wanted = desired.source_ranges.iter().map(|key| (*key, ()));
            compared(rows, &wanted.collect(), range, |()| String::new())
        }
        name if name == map::AFFINITY.name => {
            let rows = maps.affinity.entries()?.into_iter();
            rows.map(|(key, row)| {
                dynamic(
                    format_args!("service {} client {}", key.service, key.client),
                    format_args!(
                        "backend={} last_used={}",
                        socket(row.backend, row.port),
                        row.last_used
                    ),
                )
            })
            .collect()
        }
        name if name == map::SOCKET_SERVICES.name => {
            let rows = maps.socket_services.entries()?.into_iter();
            rows.map(|(key, row)| {
                let backend = socket(key.backend, key.port);
                dynamic(
                    format_args!("socket {} {backend}/{}", key.cookie, key.protocol),
                    format_args!(
                        "frontend={} service={}",
                        socket(row.frontend, row.port),
                        row.service
                    ),
                )
            })
            .collect()
        }
        _ => return Ok(None),
    };
    Ok(Some(entries))
}

fn frontend_key(key: &FrontendKey) -> String {
    format!("{}/{}", socket(key.address, key.port), key.protocol)
}

fn frontend(row: &FrontendRow) -> String {
    let run = |run: &BackendRun| format!("{}+{} maglev {}", run.first, run.count, run.maglev);
    format!(
        "id={} service={} internal={} external={} affinity={} kind={} flags={:#04x}",
        row.id,
        row.service,
        run(&row.internal),
        run(&row.external),
        row.affinity_timeout,
        row.kind,
        row.flags
    )
}

fn backend(row: &BackendRow) -> String {
    format!("{} service={}", socket(row.address, row.port), row.service)
}

fn service_backend_key(key: &ServiceBackendKey) -> String {
    format!("service {} {}", key.service, socket(key.address, key.port))
}

fn range(key: &SourceRangeKey) -> String {
    let prefix = PrefixKey {
        length: key.length.saturating_sub(u32::BITS),
        address: key.address,
    };
    format!("service {} {}", key.service, display_prefix(&prefix))
}

/// Desired rows of `ipcache` with those that services write.
pub(super) fn with_addresses(
    rows: &BTreeMap<PrefixKey, IpcacheRow>,
    services: &ServiceRows,
) -> BTreeMap<PrefixKey, IpcacheRow> {
    let mut all = rows.clone();
    let row = address_row();
    let addresses = services.addresses.iter();
    all.extend(addresses.map(|address| (PrefixKey::host(*address), row)));
    all
}
