// SPDX-License-Identifier: Apache-2.0
//! Takes links away beside the loop: the kernel waits for several RCU grace periods before it lets go
//! of a device, and nobody should have to wait with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use weir_net::{IfIndex, Netlink};

use crate::error::chain;

/// The links that are on their way out, with the inode of the network namespace at their far end.
type Leaving = BTreeMap<IfIndex, u64>;
type Pending = Arc<Mutex<Leaving>>;

/// A thread that deletes links. What it has not done when the agent ends, the next agent finds as
/// links of no endpoint.
#[derive(Debug)]
pub(crate) struct Remover {
    work: Sender<IfIndex>,
    pending: Pending,
}

impl Remover {
    /// Starts the thread.
    pub(crate) fn start(netlink: Netlink) -> io::Result<Self> {
        let (work, queue) = channel();
        let pending = Pending::default();
        let done = Arc::clone(&pending);
        thread::Builder::new()
            .name("remover".to_owned())
            .spawn(move || run(netlink, &queue, &done))?;
        Ok(Self { work, pending })
    }

    /// Has a link removed. By number: its name may belong to another link soon.
    pub(super) fn remove(&self, link: IfIndex, namespace: u64) {
        lock(&self.pending).insert(link, namespace);
        // Without the thread the link stays until it is found as nobody's.
        if self.work.send(link).is_err() {
            lock(&self.pending).remove(&link);
        }
    }

    /// Whether somebody is at it.
    pub(super) fn is_at(&self, link: IfIndex) -> bool {
        lock(&self.pending).contains_key(&link)
    }

    /// Links that are still in the way in a pod's namespace.
    pub(super) fn leaving(&self, namespace: u64) -> Vec<IfIndex> {
        let pending = lock(&self.pending);
        let there = pending.iter().filter(|(_, far_end)| **far_end == namespace);
        there.map(|(link, _)| *link).collect()
    }
}

fn run(mut netlink: Netlink, queue: &Receiver<IfIndex>, pending: &Pending) {
    while let Ok(link) = queue.recv() {
        if let Err(error) = netlink.delete_link(link) {
            tracing::warn!(
                interface = link.get(),
                error = chain(&error),
                "link not removed"
            );
        }
        lock(pending).remove(&link);
    }
}

fn lock(pending: &Mutex<Leaving>) -> MutexGuard<'_, Leaving> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
