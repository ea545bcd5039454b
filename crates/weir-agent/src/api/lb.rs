// SPDX-License-Identifier: Apache-2.0
//! Services as they are in the kernel, named.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow, backend_flags, flags,
};
use weir_abi::{Address, Port, ServiceId};
use weir_api::lb::{LbAffinity, LbBackend, LbFrontend, LbMaglev, LbShare, LbSocket, LbSourceRange};
use weir_compile::prefix::display_prefix;
use weir_datapath::{Maps, Result, clock};
use weir_observe::Names as _;

use super::stream::{Sink, walked};
use super::{Api, Refusal, not_loaded};
use crate::names::SnapshotNames;

/// `10.8.3.41:8080`
fn socket(address: Address, port: Port) -> String {
    SocketAddr::new(address.to_ip(), port.get()).to_string()
}

fn service(names: &SnapshotNames, service: ServiceId) -> String {
    names.service(service).unwrap_or_default()
}

/// Lines of a table, made on a thread that may wait.
fn table(
    api: &Api,
    body: impl FnOnce(&Maps, &SnapshotNames, &mut Sink) -> Result<()> + Send + 'static,
) -> std::result::Result<Response, Refusal> {
    let maps = api.snapshot().maps.clone().ok_or_else(not_loaded)?;
    let names = api.shared.names();
    Ok(walked(move |sink| body(&maps, &names, sink)))
}

/// All rows, sorted by key, so that two lists can be compared.
fn frontend_rows(maps: &Maps) -> Result<BTreeMap<FrontendKey, FrontendRow>> {
    Ok(maps.frontends.entries()?.into_iter().collect())
}

pub(super) async fn frontends(State(api): State<Api>) -> std::result::Result<Response, Refusal> {
    table(&api, |maps, names, sink| {
        for (key, row) in frontend_rows(maps)? {
            let internal = run(maps, &row.internal)?;
            // Nobody reaches a cluster IP from outside.
            let inside = row.kind == FrontendKind::ClusterIp as u8;
            let external = if inside || row.internal == row.external {
                None
            } else {
                Some(run(maps, &row.external)?)
            };
            sink.line(&LbFrontend {
                address: format!("{}/{}", socket(key.address, key.port), key.protocol),
                id: row.id.0,
                service: row.service.0,
                name: service(names, row.service),
                kind: FrontendKind::from_number(row.kind).map_or_else(
                    || format!("kind-{}", row.kind),
                    |kind| kind.name().to_owned(),
                ),
                flags: flag_names(&row),
                internal,
                external,
            });
        }
        Ok(())
    })
}

fn run(maps: &Maps, run: &BackendRun) -> Result<Vec<String>> {
    let places = maps.backends.places(run.first, run.count)?;
    Ok(places
        .iter()
        .map(|row| socket(row.address, row.port))
        .collect())
}

fn flag_names(row: &FrontendRow) -> Vec<String> {
    let mut names = Vec::new();
    if row.kind == FrontendKind::ClusterIp as u8 {
        names.push("non-routable".to_owned());
    }
    let bits = [
        (flags::EXTERNAL_LOCAL, "local"),
        (flags::INTERNAL_LOCAL, "internal-local"),
        (flags::SOURCE_RANGES, "source-ranges"),
    ];
    let set = bits.into_iter().filter(|(bit, _)| row.flags & bit != 0);
    names.extend(set.map(|(_, name)| name.to_owned()));
    if row.affinity_timeout > 0 {
        names.push(format!("affinity {}s", row.affinity_timeout));
    }
    if let Some(table) = row.internal.maglev.checked_sub(1) {
        names.push(format!("maglev {table}"));
    }
    names
}

pub(super) async fn backends(State(api): State<Api>) -> std::result::Result<Response, Refusal> {
    table(&api, |maps, names, sink| {
        let rows: BTreeMap<_, _> = maps.service_backends.entries()?.into_iter().collect();
        for (key, row) in rows {
            let bits = [
                (backend_flags::INTERNAL, "internal"),
                (backend_flags::EXTERNAL, "external"),
                (backend_flags::TERMINATING, "terminating"),
                (backend_flags::LOCAL, "local"),
            ];
            let set = bits.into_iter().filter(|(bit, _)| row.flags & bit != 0);
            sink.line(&LbBackend {
                address: socket(key.address, key.port),
                service: key.service.0,
                service_name: service(names, key.service),
                name: names.peer(key.address).unwrap_or_default(),
                flags: set.map(|(_, name)| name.to_owned()).collect(),
            });
        }
        Ok(())
    })
}

pub(super) async fn source_ranges(
    State(api): State<Api>,
) -> std::result::Result<Response, Refusal> {
    table(&api, |maps, names, sink| {
        for key in maps.source_ranges.keys()? {
            let prefix = weir_abi::ipcache::PrefixKey {
                // The service's number comes first.
                length: key.length.saturating_sub(u32::BITS),
                address: key.address,
            };
            sink.line(&LbSourceRange {
                service: key.service.0,
                service_name: service(names, key.service),
                range: display_prefix(&prefix).to_string(),
            });
        }
        Ok(())
    })
}

/// What a caller wants of Maglev tables.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    entries: bool,
}

pub(super) async fn maglev(
    State(api): State<Api>,
    Query(wanted): Query<Wanted>,
) -> std::result::Result<Response, Refusal> {
    table(&api, move |maps, names, sink| {
        // Each run has one table, which the frontends of the run share.
        let mut tables: BTreeMap<u32, (BackendRun, Vec<String>)> = BTreeMap::new();
        for row in frontend_rows(maps)?.values() {
            for run in [row.internal, row.external] {
                if let Some(table) = run.maglev.checked_sub(1) {
                    let (_, users) = tables.entry(table).or_insert((run, Vec::new()));
                    let name = service(names, row.service);
                    if !users.contains(&name) {
                        users.push(name);
                    }
                }
            }
        }
        for (table, (run, services)) in tables {
            let entries = maps.maglev_table(table)?.unwrap_or_default();
            let backends = maps.backends.places(run.first, run.count)?;
            sink.line(&LbMaglev {
                table,
                size: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                services,
                shares: shares(&backends, &entries),
                entries: if wanted.entries {
                    entries.to_vec()
                } else {
                    Vec::new()
                },
            });
        }
        Ok(())
    })
}

fn shares(backends: &[BackendRow], entries: &Arc<[u16]>) -> Vec<LbShare> {
    let mut counts = vec![0; backends.len()];
    for entry in entries.iter() {
        if let Some(count) = counts.get_mut(usize::from(*entry)) {
            *count += 1;
        }
    }
    let shares = backends.iter().zip(counts);
    shares
        .map(|(row, entries)| LbShare {
            backend: socket(row.address, row.port),
            entries,
        })
        .collect()
}

pub(super) async fn affinity(State(api): State<Api>) -> std::result::Result<Response, Refusal> {
    table(&api, |maps, names, sink| {
        let now = clock::now();
        maps.affinity.for_each(|key, row| {
            let (client, client_name) = client(key.client, names);
            sink.line(&LbAffinity {
                client,
                client_name,
                service: key.service.0,
                service_name: service(names, key.service),
                backend: socket(row.backend, row.port),
                last_used: u64::from(now.0.saturating_sub(row.last_used.0)),
            });
        })
    })
}

/// An address; for translated sockets the number of a network namespace stands in its place.
fn client(client: Address, names: &SnapshotNames) -> (String, String) {
    let [zeros @ .., a, b, c, d, e, f, g, h] = client.0;
    if zeros.iter().any(|byte| *byte != 0) {
        return (client.to_string(), names.peer(client).unwrap_or_default());
    }
    let cookie = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let name = names.namespace(cookie).unwrap_or_default();
    (format!("namespace {cookie}"), name)
}

pub(super) async fn sockets(State(api): State<Api>) -> std::result::Result<Response, Refusal> {
    table(&api, |maps, names, sink| {
        maps.socket_services.for_each(|key, row| {
            sink.line(&LbSocket {
                cookie: key.cookie,
                protocol: key.protocol.to_string(),
                backend: socket(key.backend, key.port),
                frontend: socket(row.frontend, row.port),
                service: row.service.0,
                service_name: service(names, row.service),
            });
        })
    })
}
