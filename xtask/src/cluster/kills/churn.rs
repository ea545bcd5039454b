// SPDX-License-Identifier: Apache-2.0
//! Pods that come and go on every node, whatever happens to whom they need for that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use super::NAMESPACE;
use crate::cluster::control_plane::kubectl;
use crate::cluster::place::{Node, Place};
use crate::cluster::pods;
use crate::cluster::processes::{succeeds, wait_for};

/// How many live on each node at a time, when all goes well.
const ALIVE: u32 = 3;
/// Pods of so many kinds, so that identities come and go as well.
const KINDS: u32 = 5;

/// The work of a thread.
#[derive(Debug)]
pub(super) struct Churn {
    ends: Arc<AtomicBool>,
    worker: JoinHandle<Done>,
}

/// What was done, and what the API server could not be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    created: u32,
    deleted: u32,
    refused: u32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            created,
            deleted,
            refused,
        } = self;
        write!(
            f,
            "{created} pods created and {deleted} deleted meanwhile, {refused} requests failed"
        )
    }
}

impl Churn {
    pub(super) fn start(place: &Place, nodes: &[Node]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (place, nodes, told) = (place.clone(), nodes.to_vec(), Arc::clone(&ends));
        let worker = thread::spawn(move || work(&place, &nodes, &told));
        Self { ends, worker }
    }

    pub(super) fn stop(self) -> Done {
        self.ends.store(true, Ordering::Relaxed);
        // A worker that has panicked has said so.
        self.worker.join().unwrap_or_default()
    }
}

fn work(place: &Place, nodes: &[Node], ends: &AtomicBool) -> Done {
    let mut done = Done::default();
    let mut round = 0;
    while !ends.load(Ordering::Relaxed) {
        let new: Vec<Value> = nodes.iter().map(|node| pod(round, *node)).collect();
        let per_node = u32::try_from(nodes.len()).unwrap_or_default();
        match pods::create(place, &new) {
            Ok(()) => done.created += per_node,
            Err(_) => done.refused += 1,
        }
        if let Some(old) = round.checked_sub(ALIVE) {
            let mut delete = kubectl(place);
            delete
                .args(["delete", "pods", "--namespace", NAMESPACE])
                .args(["--wait=false", "--ignore-not-found"])
                .arg("--request-timeout=5s")
                .args(nodes.iter().map(|node| name(old, *node)));
            if succeeds(&mut delete) {
                done.deleted += per_node;
            } else {
                done.refused += 1;
            }
        }
        round += 1;
        // A cluster that does not answer is asked again, but not all the time.
        let mut turns = 0;
        let _ = wait_for("the next pods", 5, || {
            turns += 1;
            turns > 4 || ends.load(Ordering::Relaxed)
        });
    }
    done
}

fn name(round: u32, node: Node) -> String {
    format!("churn-{node}-{round}")
}

fn pod(round: u32, node: Node) -> Value {
    let command = json!(["sleep", "infinity"]);
    let mut pod = pods::pod(
        NAMESPACE,
        &name(round, node),
        "churn",
        &node.to_string(),
        &command,
    );
    pod["metadata"]["labels"]["kind"] = json!((round % KINDS).to_string());
    pod
}
