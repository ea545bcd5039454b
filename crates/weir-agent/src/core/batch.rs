// SPDX-License-Identifier: Apache-2.0
//! What the source says: changed objects, the ranges of this node, and the answer to requests that
//! waited for its first look.

use std::time::{Duration, Instant};

use weir_cluster::Batch;
use weir_model::Touched;

use super::{Core, Waiting};
use crate::error::EndpointError;

/// How long requests wait for the first look at the source.
const SYNC_PATIENCE: Duration = Duration::from_secs(20);

impl Core {
    pub(super) fn take_batch(&mut self, batch: Batch) {
        let Batch {
            changes,
            revision,
            problems,
            skipped,
        } = batch;
        let count = changes.len();
        self.spent.read(count);
        let mut touched = Touched::default();
        {
            let mut world = self.shared.directory.world_mut();
            for change in changes {
                world.apply_noting(change, &mut touched);
            }
        }
        let nodes_differ = !touched.nodes.is_empty();
        if nodes_differ || !touched.pods.is_empty() || !self.synced {
            self.mark();
        }
        self.dirty |= !touched.is_empty() || self.revision != revision;
        self.touched.merge(touched);
        self.revision = revision;
        let first = !std::mem::replace(&mut self.synced, true);
        self.shared
            .counts
            .source_batches
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::debug!(revision, changes = count, "objects read");
        let healthy = problems.is_empty();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let unused = skipped
            .iter()
            .map(|(kind, count)| format!("{count} {kind} not used"));
        let fine = std::iter::once(format!("revision {revision}")).chain(unused);
        let message = if healthy {
            fine.collect::<Vec<_>>().join(", ")
        } else {
            shown.join("; ")
        };
        self.shared.ran(
            "source-sync",
            if healthy {
                Ok(message.clone())
            } else {
                Err(message.clone())
            },
        );
        self.shared.report("source", healthy, message);
        self.remark_on_refused(&problems);
        self.update_ranges();
        // Which of the node's addresses is the primary one, and what tunnels cost.
        if nodes_differ && self.kernel.is_some() {
            self.ensure_network();
        }
        if first {
            for (_, waiting) in std::mem::take(&mut self.waiting) {
                match waiting {
                    Waiting::Create(request, reply) => self.create(request, reply),
                    Waiting::Delete(what, reply) => self.delete(&what, reply),
                }
            }
        }
    }

    /// The configured ranges, or those of this node's object.
    fn update_ranges(&mut self) {
        let mut ranges = self.shared.config.pod_ranges();
        if ranges.is_empty() {
            let world = self.shared.world();
            let node = world.node(&self.shared.node);
            ranges = node.map(|node| node.pod_cidrs.clone()).unwrap_or_default();
        }
        let healthy = !ranges.is_empty();
        let shown: Vec<_> = ranges.iter().map(ToString::to_string).collect();
        if self.ipam.set_ranges(ranges) {
            self.mark();
        }
        let message = if healthy {
            shown.join(", ")
        } else {
            "this node has no pod ranges".to_owned()
        };
        self.shared.report("ipam", healthy, message);
    }

    /// Answers those who have waited for the source for too long.
    pub(super) fn refuse_waiting(&mut self) {
        let now = Instant::now();
        let late = |since: &Instant| now.saturating_duration_since(*since) >= SYNC_PATIENCE;
        for (_, waiting) in self.waiting.extract_if(.., |(since, _)| late(since)) {
            match waiting {
                Waiting::Create(_, reply) => drop(reply.send(Err(EndpointError::NotSynced))),
                Waiting::Delete(_, reply) => drop(reply.send(Err(EndpointError::NotSynced))),
            }
        }
    }
}
