// SPDX-License-Identifier: Apache-2.0
//! Answers that are streams of lines: events as they happen, the flow table as it is.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use std::convert::Infallible;
use tokio::sync::{broadcast, mpsc};
use weir_abi::flow::{Action, FlowEntry, FlowKey, Kind, state};
use weir_abi::ipcache::PrefixKey;
use weir_abi::{Address, Identity};
use weir_api::kernel::{Flow, Translated};
use weir_datapath::clock;

use super::{Api, Refusal, not_loaded};
use crate::names::SnapshotNames;
use crate::shared::Snapshot;

const LINES: &str = "application/x-ndjson";
/// Bytes of lines that are handed over at once.
const CHUNK: usize = 32 * 1024;

fn lines(body: Body) -> Response {
    ([(CONTENT_TYPE, LINES)], body).into_response()
}

pub(super) async fn events(State(api): State<Api>) -> Response {
    let receiver = api.shared.events.listen();
    // An empty line first: the listener knows that it listens, and sees no item.
    let hello = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"\n")) });
    let rest = stream::unfold((receiver, api), |(mut receiver, api)| async move {
        let mut chunk = match receiver.recv().await {
            Ok(line) => line.to_string(),
            Err(broadcast::error::RecvError::Lagged(count)) => api.shared.events.lost_line(count),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        // What is there already goes along.
        while chunk.len() < CHUNK {
            match receiver.try_recv() {
                Ok(line) => chunk.push_str(&line),
                Err(broadcast::error::TryRecvError::Lagged(count)) => {
                    chunk.push_str(&api.shared.events.lost_line(count));
                }
                Err(_) => break,
            }
        }
        Some((Ok(Bytes::from(chunk)), (receiver, api)))
    });
    lines(Body::from_stream(futures::StreamExt::chain(hello, rest)))
}

pub(super) async fn flows(State(api): State<Api>) -> Result<Response, Refusal> {
    let snapshot = api.snapshot();
    let maps = snapshot.maps.clone().ok_or_else(not_loaded)?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(4);
    let node = api.shared.node.to_string();
    tokio::task::spawn_blocking(move || {
        let generations: Vec<_> = match maps.generations.entries() {
            Ok(entries) => entries
                .into_iter()
                .map(|(_, generation)| generation)
                .collect(),
            Err(_) => Vec::new(),
        };
        let names = SnapshotNames::of(node, std::sync::Arc::clone(&snapshot));
        let now = clock::now();
        let mut chunk = String::new();
        let walked = maps.flows.for_each(|key, entry| {
            let dependencies = entry.dependencies;
            let current =
                dependencies
                    .slots
                    .iter()
                    .zip(dependencies.generations)
                    .all(|(slot, seen)| {
                        generations
                            .get(usize::from(slot.0))
                            .is_none_or(|generation| *generation == seen)
                    });
            let flow = shown(&key, &entry, now.0, current, &snapshot, &names);
            if let Ok(line) = serde_json::to_string(&flow) {
                chunk.push_str(&line);
                chunk.push('\n');
            }
            if chunk.len() >= CHUNK {
                // A caller that went away needs no more lines; the walk ends by itself.
                let _ = sender.blocking_send(Ok(Bytes::from(std::mem::take(&mut chunk))));
            }
        });
        if let Err(error) = walked {
            tracing::warn!(
                error = crate::error::chain(&error),
                "flow table not read to its end"
            );
        }
        let _ = sender.blocking_send(Ok(Bytes::from(chunk)));
    });
    let stream = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Ok(lines(Body::from_stream(stream)))
}

fn shown(
    key: &FlowKey,
    entry: &FlowEntry,
    now: u32,
    current: bool,
    snapshot: &Snapshot,
    names: &SnapshotNames,
) -> Flow {
    let translated = entry.kind.translates().then(|| {
        let after = entry.translated(key);
        Translated {
            source: after.source.to_string(),
            source_port: after.source_port.get(),
            destination: after.destination.to_string(),
            destination_port: after.destination_port.get(),
        }
    });
    let flags = [
        (state::CLOSING, "Closing"),
        (state::PEER_CLOSING, "PeerClosing"),
        (state::SEEN_NON_SYN, "SeenNonSyn"),
        (state::ANSWERED, "Answered"),
    ];
    Flow {
        protocol: key.protocol.to_string(),
        direction: if entry.kind.contains(Kind::OUT) {
            "OUT"
        } else {
            "IN"
        }
        .to_owned(),
        reply: entry.kind.contains(Kind::REPLY),
        source: key.source.to_string(),
        source_port: key.source_port.get(),
        destination: key.destination.to_string(),
        destination_port: key.destination_port.get(),
        source_name: names.address(key.source),
        destination_name: names.address(key.destination),
        source_identity: identity_of(snapshot, key.source).0,
        translated,
        masquerade: entry.kind.contains(Kind::MASQUERADE),
        expires_in: i64::from(entry.expires.0) - i64::from(now),
        created_ago: u64::from(now.saturating_sub(entry.created.0)),
        packets: entry.packets,
        bytes: entry.bytes,
        tcp_flags_seen: entry.tcp_flags_seen(),
        flags: flags
            .into_iter()
            .filter(|(bit, _)| entry.state & bit != 0)
            .map(|(_, name)| name.to_owned())
            .collect(),
        action: match Action::from_number(entry.action) {
            Some(Action::ToEndpoint) => "to-endpoint".to_owned(),
            Some(Action::ToDevice) => "to-device".to_owned(),
            Some(Action::ToTunnel) => "to-tunnel".to_owned(),
            Some(Action::ToHost) => "to-host".to_owned(),
            Some(Action::Pass) => "pass".to_owned(),
            None => "undecided".to_owned(),
        },
        current,
    }
}

fn identity_of(snapshot: &Snapshot, address: Address) -> Identity {
    let row = snapshot
        .compiled
        .rows
        .ipcache
        .get(&PrefixKey::host(address));
    row.map_or(Identity::WORLD, |row| row.identity)
}
