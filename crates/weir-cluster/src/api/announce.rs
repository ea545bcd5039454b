// SPDX-License-Identifier: Apache-2.0
//! The object that an agent writes: which addresses its node has given to pods.
//!
//! Whoever has something to announce puts it down and goes on, with a ticket by which somebody else can wait until the
//! server has it. The newest version is written at once; what comes while a write is on its way makes up the next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use weir_model::{NodePods, Uid};

use super::kind::Kind;
use super::raw::Raw;
use super::{Announcing, reason_of};
use crate::convert::Entry;

/// Writes begin at most this often: a node that starts a hundred pods in a moment must not make a hundred
/// events for every other node.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// When a write that failed is tried again: at once, as a connection that the server has closed is no reason to wait, then
/// less and less often.
const AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));
/// The same for a server that does not know the kind.
const UNKNOWN: Duration = Duration::from_mins(1);
/// A server that takes nothing for this long is waited for by nobody, until it takes something.
const AWAY: Duration = Duration::from_secs(1);
/// A server may be away for this long before anybody is bothered with it.
const PATIENCE: Duration = Duration::from_secs(3);
/// A connection that is idle for a minute and a half is closed. The first packet of a pod must not wait for a
/// new one, so it is kept in use.
const IDLE: Duration = Duration::from_mins(1);
/// Whose fields they are.
const MANAGER: &str = "weir-agent";

/// What a node has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub pods: NodePods,
    /// The node object: with it, the announcement goes.
    pub node_uid: Option<Uid>,
}

/// What is to be written, with its number.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    number: u64,
    announcement: Option<Arc<Announcement>>,
}

impl Wanted {
    /// Takes the place of what was wanted before; its number.
    pub(super) fn replace(&mut self, announcement: Announcement) -> u64 {
        self.number += 1;
        self.announcement = Some(Arc::new(announcement));
        self.number
    }
}

/// How far writing has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The number of what the server took last.
    accepted: u64,
    /// The server has taken nothing for a while, or does not know the kind.
    away: bool,
}

/// Something announced that the server may or may not have yet.
#[derive(Clone, Debug)]
pub struct Accepting {
    pub(super) number: u64,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Accepting {
    /// Waits until the server has it or something newer, at most for a while, and not at all where the server is away.
    /// Tells whether the server has it.
    pub async fn wait(mut self, at_most: Duration) -> bool {
        let number = self.number;
        let settled = self
            .progress
            .wait_for(|progress| progress.away || progress.accepted >= number);
        match tokio::time::timeout(at_most, settled).await {
            Ok(Ok(progress)) => progress.accepted >= number,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Writes whatever is wanted; ends when nobody can want anything any more.
pub(super) async fn announce(
    client: Client,
    mut wanted: watch::Receiver<Wanted>,
    progress: watch::Sender<Progress>,
    tell: watch::Sender<Option<Announcing>>,
) {
    let api: Api<Raw> = Api::all_with(client, &Kind::NodePods.resource());
    tokio::spawn(keep_open(api.clone()));
    loop {
        match tokio::time::timeout(IDLE, wanted.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tokio::spawn(keep_open(api.clone()));
                continue;
            }
        }
        let mut pause = AGAIN.0;
        let begun = Instant::now();
        loop {
            let Wanted {
                number,
                announcement: Some(newest),
            } = wanted.borrow_and_update().clone()
            else {
                break;
            };
            let since = Instant::now();
            let written = write(&api, &newest).await;
            let count = newest.pods.pods.len();
            tracing::debug!(
                count,
                took = ?since.elapsed(),
                accepted = written.is_ok(),
                "addresses of new pods written"
            );
            let told = match written {
                Ok(()) => {
                    pause = PAUSE.saturating_sub(since.elapsed());
                    progress.send_replace(Progress {
                        accepted: number,
                        away: false,
                    });
                    Some(Announcing::done(count))
                }
                Err(Failure::Unknown) => {
                    pause = UNKNOWN;
                    progress.send_modify(|progress| progress.away = true);
                    Some(Announcing::unknown())
                }
                Err(Failure::Other(reason)) => {
                    tracing::debug!(reason, "addresses of new pods are not announced yet");
                    let takes = begun.elapsed();
                    if takes >= AWAY {
                        progress.send_modify(|progress| progress.away = true);
                    }
                    let late = takes >= PATIENCE;
                    let told = late.then(|| Announcing::failed(count, &reason));
                    share(&tell, told);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN.1);
                    continue;
                }
            };
            share(&tell, told);
            tokio::time::sleep(pause).await;
            break;
        }
    }
}

/// Asks for next to nothing, out of the server's memory.
async fn keep_open(api: Api<Raw>) {
    let least = ListParams::default().match_any().limit(1);
    let _ = tokio::time::timeout(ANSWER, api.list_metadata(&least)).await;
}

fn share(tell: &watch::Sender<Option<Announcing>>, told: Option<Announcing>) {
    tell.send_if_modified(|before| {
        let differs = told.is_some() && *before != told;
        if differs {
            *before = told;
        }
        differs
    });
}

/// Why a write failed.
enum Failure {
    /// The server does not know the kind.
    Unknown,
    Other(String),
}

async fn write(api: &Api<Raw>, announcement: &Announcement) -> Result<(), Failure> {
    let Announcement { pods, node_uid } = announcement;
    let node = pods.node.as_str();
    let owners = node_uid
        .iter()
        .map(|uid| json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid.as_str()}));
    let object = json!({
        "apiVersion": Kind::NodePods.api_version(),
        "kind": Kind::NodePods.name(),
        "metadata": {"name": node, "ownerReferences": owners.collect::<Vec<_>>()},
        "pods": Entry::of(pods),
    });
    let settings = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&object);
    let answered = tokio::time::timeout(ANSWER, api.patch(node, &settings, &patch)).await;
    match answered {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failure::Unknown),
        Ok(Err(error)) => Err(Failure::Other(reason_of(&error))),
        Err(_) => Err(Failure::Other(format!("no answer for {ANSWER:?}"))),
    }
}
