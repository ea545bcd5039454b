// SPDX-License-Identifier: Apache-2.0
//! Answers that are streams of lines: events as they happen, the flow table as it is.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc};
use weir_abi::flow::{Action, FlowEntry, FlowKey, Kind, state};
use weir_abi::ipcache::PrefixKey;
use weir_abi::{Address, Identity};
use weir_api::kernel::{Flow, Translated};
use weir_datapath::clock;

use super::{Api, Refusal, not_loaded};
use crate::events::Line;
use crate::names::SnapshotNames;
use crate::snapshot::Snapshot;

const LINES: &str = "application/x-ndjson";
/// Bytes of lines that are handed over at once.
const CHUNK: usize = 32 * 1024;

/// Some lines of a stream.
type Piece = Result<Bytes, Infallible>;

fn lines(body: Body) -> Response {
    ([(CONTENT_TYPE, LINES)], body).into_response()
}

/// Lines of events from now on; those of records up to `after` are known already.
fn live(
    api: Api,
    receiver: broadcast::Receiver<Arc<Line>>,
    after: u64,
) -> impl Stream<Item = Piece> {
    stream::unfold((receiver, api), move |(mut receiver, api)| async move {
        let lost = |count| api.shared.events.lost_line(count);
        let new = |line: &Line| line.sequence == 0 || line.sequence > after;
        let mut chunk = String::new();
        while chunk.is_empty() {
            match receiver.recv().await {
                Ok(line) if new(&line) => chunk.push_str(&line.text),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => chunk.push_str(&lost(count)),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
        // What is there already goes along.
        while chunk.len() < CHUNK {
            match receiver.try_recv() {
                Ok(line) if new(&line) => chunk.push_str(&line.text),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(count)) => {
                    chunk.push_str(&lost(count));
                }
                Err(_) => break,
            }
        }
        Some((Ok(Bytes::from(chunk)), (receiver, api)))
    })
}

pub(super) async fn events(State(api): State<Api>) -> Response {
    let receiver = api.shared.events.listen();
    // An empty line first: the listener knows that it listens, and sees no item.
    let hello = stream::once(async { Piece::Ok(Bytes::from_static(b"\n")) });
    lines(Body::from_stream(hello.chain(live(api, receiver, 0))))
}

/// What a caller wants of the remembered events.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    follow: bool,
}

/// Events that are remembered, then (where asked for) those from now on.
pub(super) async fn observed(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Response {
    // Listened to first, so that nothing falls between what was and what comes.
    let receiver = wanted.follow.then(|| api.shared.events.listen());
    api.shared.events.catch_up().await;
    let seen = api.shared.events.observed.all();
    let last = seen.last().map_or(0, |seen| seen.sequence);
    let names = api.shared.names();
    let remembered = walk(move |sink| {
        for seen in seen {
            for event in seen.events(&names) {
                sink.line(&event);
            }
        }
        Ok(())
    });
    match receiver {
        Some(receiver) => {
            let line = api.shared.events.live_line();
            let between = stream::once(async { Piece::Ok(Bytes::from(line)) });
            let now = live(api, receiver, last);
            lines(Body::from_stream(remembered.chain(between).chain(now)))
        }
        None => lines(Body::from_stream(remembered)),
    }
}

/// Where lines go, some at a time.
pub(super) struct Sink {
    sender: mpsc::Sender<Piece>,
    chunk: String,
}

impl Sink {
    /// One item.
    pub(super) fn line(&mut self, item: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(item) {
            self.chunk.push_str(&line);
            self.chunk.push('\n');
        }
        if self.chunk.len() >= CHUNK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // A caller that went away needs no more lines; the walk ends by itself.
        let _ = self
            .sender
            .blocking_send(Ok(Bytes::from(std::mem::take(&mut self.chunk))));
    }
}

/// The lines that a walk over something large makes, on a thread that may wait.
fn walk(
    body: impl FnOnce(&mut Sink) -> weir_datapath::Result<()> + Send + 'static,
) -> impl Stream<Item = Piece> {
    let (sender, receiver) = mpsc::channel::<Piece>(4);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink {
            sender,
            chunk: String::new(),
        };
        if let Err(error) = body(&mut sink) {
            tracing::warn!(error = crate::error::chain(&error), "not read to its end");
        }
        sink.flush();
    });
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    })
}

/// The answer that [`walk`] makes.
pub(super) fn walked(
    body: impl FnOnce(&mut Sink) -> weir_datapath::Result<()> + Send + 'static,
) -> Response {
    lines(Body::from_stream(walk(body)))
}

pub(super) async fn flows(State(api): State<Api>) -> Result<Response, Refusal> {
    let snapshot = api.snapshot();
    let maps = snapshot.maps.clone().ok_or_else(not_loaded)?;
    let names = api.shared.names();
    Ok(walked(move |sink| {
        let generations: Vec<_> = match maps.generations.entries() {
            Ok(entries) => entries
                .into_iter()
                .map(|(_, generation)| generation)
                .collect(),
            Err(_) => Vec::new(),
        };
        let now = clock::now();
        maps.flows.for_each(|key, entry| {
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
            sink.line(&shown(&key, &entry, now.0, current, &snapshot, &names));
        })
    }))
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
        service: service_of(key, entry, names).unwrap_or_default(),
        allowed_by: Vec::new(),
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

/// The service that the flow was opened to: where it goes before translation, or where its answers come from after it.
fn service_of(key: &FlowKey, entry: &FlowEntry, names: &SnapshotNames) -> Option<String> {
    if entry.kind.contains(Kind::REPLY) {
        let after = entry.translated(key);
        names.frontend(after.source, after.source_port, key.protocol)
    } else {
        names.frontend(key.destination, key.destination_port, key.protocol)
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
