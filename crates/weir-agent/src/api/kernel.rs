// SPDX-License-Identifier: Apache-2.0
//! What is in the kernel right now, named.

use axum::extract::{Path, State};
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::map::MapShape;
use weir_abi::{EndpointId, Identity, MacAddress, NodeIndex};
use weir_api::kernel::{EndpointEntry, IpcacheEntry, MapEntry, MapState, MetricEntry};
use weir_compile::prefix::{display_prefix, prefix_of_key};
use weir_datapath::MapUsage;
use weir_observe::Names as _;

use super::map_text::{direction_name, reason_name};
use super::{Answer, Api, Refusal, map_text, ok};
use crate::names::SnapshotNames;
use crate::snapshot::Snapshot;

pub(super) async fn ipcache(State(api): State<Api>) -> Answer<Vec<IpcacheEntry>> {
    let names = api.shared.names();
    let entries = api.with_maps(move |maps, snapshot| {
        let nodes = &snapshot.compiled.rows.nodes;
        let mut found: Vec<_> = maps.ipcache.entries()?;
        found.sort_by_key(|(key, _)| *key);
        let entries = found.into_iter().map(|(key, row)| IpcacheEntry {
            prefix: display_prefix(&key).to_string(),
            identity: row.identity.0,
            labels: snapshot.identities.display_labels(row.identity),
            name: name_of(snapshot, &names, &key, row),
            tunnel_endpoint: (row.node != NodeIndex::NONE)
                .then(|| nodes.get(&row.node).map(|node| node.remote.to_string()))
                .flatten(),
            flags: [
                (flags::POD_RANGE, "pod-range"),
                (flags::LOCAL_RANGE, "local-range"),
                (flags::SERVICE, "service"),
            ]
            .into_iter()
            .filter(|(bit, _)| row.flags & bit != 0)
            .map(|(_, name)| name.to_owned())
            .collect(),
            source: match row.identity {
                Identity::HOST => "agent-local",
                Identity::REMOTE_NODE => "k8s",
                other if other.reserved_name().is_some() => "reserved",
                _ => "k8s",
            }
            .to_owned(),
        });
        Ok(entries.collect())
    });
    ok(entries.await?)
}

/// Who is behind a prefix.
fn name_of(snapshot: &Snapshot, names: &SnapshotNames, key: &PrefixKey, row: IpcacheRow) -> String {
    if key.length == 128
        && let Some(name) = names.peer(key.address)
    {
        return name;
    }
    let prefix = prefix_of_key(key);
    let node = snapshot
        .nodes
        .iter()
        .find(|node| node.pod_cidrs.iter().any(|cidr| Some(cidr.net()) == prefix));
    match node {
        Some(node) if row.flags & flags::POD_RANGE != 0 => format!("pods of node/{}", node.name),
        Some(_) | None => String::new(),
    }
}

pub(super) async fn endpoints(State(api): State<Api>) -> Answer<Vec<EndpointEntry>> {
    let names = api.shared.names();
    let entries = api.with_maps(move |maps, snapshot| {
        let mut found = maps.endpoints.entries()?;
        found.sort_by_key(|(address, _)| *address);
        let pods = found.into_iter().map(|(address, row)| EndpointEntry {
            address: address.to_string(),
            id: row.id.0,
            identity: row.identity.0,
            ifindex: row.ifindex.0,
            mac: row.mac.to_string(),
            flags: row.flags,
            name: names
                .peer(address)
                .or_else(|| names.endpoint(row.id))
                .unwrap_or_default(),
            localhost: false,
        });
        let mut entries: Vec<_> = pods.collect();
        let own = snapshot.compiled.rows.ipcache.iter();
        entries.extend(
            own.filter(|(_, row)| row.identity == Identity::HOST)
                .map(|(key, row)| EndpointEntry {
                    address: key.address.to_string(),
                    id: EndpointId::HOST.0,
                    identity: row.identity.0,
                    ifindex: 0,
                    mac: MacAddress::HOST.to_string(),
                    flags: 0,
                    name: names.peer(key.address).unwrap_or_default(),
                    localhost: true,
                }),
        );
        Ok(entries)
    });
    ok(entries.await?)
}

pub(super) async fn metrics(State(api): State<Api>) -> Answer<Vec<MetricEntry>> {
    let sums = api.with_maps(|maps, _| maps.metrics.sums()).await?;
    ok(sums
        .into_iter()
        .filter_map(|(index, metric)| {
            let code = u8::try_from(index >> 2).ok()?;
            Some(MetricEntry {
                code,
                reason: reason_name(code),
                direction: direction_name(index & 3).to_owned(),
                packets: metric.packets,
                bytes: metric.bytes,
            })
        })
        .collect())
}

pub(super) async fn maps(State(api): State<Api>) -> Answer<Vec<MapState>> {
    let usage = api.usage().await?;
    ok(usage.iter().map(map_state).collect())
}

pub(super) fn map_state(usage: &MapUsage) -> MapState {
    MapState {
        name: usage.map.name.to_owned(),
        title: usage.map.title.to_owned(),
        kind: match usage.map.shape {
            MapShape::Hash => "hash",
            MapShape::LruHash => "lru-hash",
            MapShape::LongestPrefix => "lpm-trie",
            MapShape::Array => "array",
            MapShape::PerCpuArray => "percpu-array",
            MapShape::RingBuffer => "ringbuf",
        }
        .to_owned(),
        used: usage.used,
        size: u64::from(usage.size),
        errors: usage.failed_writes,
    }
}

pub(super) async fn map(State(api): State<Api>, Path(name): Path<String>) -> Answer<Vec<MapEntry>> {
    let Some(info) = weir_abi::map::ALL
        .iter()
        .find(|map| map.name == name && map.pinned)
    else {
        let names: Vec<_> = weir_abi::map::ALL
            .iter()
            .filter(|map| map.pinned)
            .map(|map| map.name)
            .collect();
        let name: String = name.chars().take(64).collect();
        let error = format!("no map `{name}`, only {}", names.join(", "));
        return Err(Refusal::not_found(error));
    };
    let directory = std::sync::Arc::clone(&api.shared.directory);
    let entries = api.with_maps(move |maps, _| map_text::entries(info, maps, &directory));
    ok(entries.await?)
}
