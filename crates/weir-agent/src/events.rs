// SPDX-License-Identifier: Apache-2.0
//! Events on their way to everybody who listens.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{broadcast, watch};
use weir_api::event::{AgentEvent, Event, LostEvent};
use weir_api::status::EventStatus;

use crate::observed::Observed;

/// Lines that wait for a slow listener; what is older is lost to it, and counted.
const BACKLOG: usize = 4096;
/// How long somebody waits for the ring to be emptied.
const PATIENCE: Duration = Duration::from_millis(500);

/// One event, written once for everybody who listens.
#[derive(Debug)]
pub(crate) struct Line {
    /// Number of the record behind it; 0: there is none.
    pub(crate) sequence: u64,
    pub(crate) text: String,
}

/// Hands lines to listeners.
#[derive(Debug)]
pub(crate) struct EventHub {
    node: String,
    lines: broadcast::Sender<Arc<Line>>,
    /// What happened lately.
    pub(crate) observed: Observed,
    /// Has the ring emptied at once.
    wake: EventFd,
    /// Counts how often it was emptied.
    emptied: watch::Sender<u64>,
    received: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

impl EventHub {
    pub(crate) fn new(node: String) -> nix::Result<Self> {
        let (lines, _) = broadcast::channel(BACKLOG);
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self {
            node,
            lines,
            observed: Observed::default(),
            wake: EventFd::from_value_and_flags(0, flags)?,
            emptied: watch::Sender::new(0),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Has the ring emptied, and its reader look whether it is to stop.
    pub(crate) fn wake(&self) {
        let _ = self.wake.write(1);
    }

    /// Is readable when somebody is in a hurry.
    pub(crate) fn waking(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Nobody has to be told twice.
    pub(crate) fn woken(&self) {
        let _ = self.wake.read();
    }

    /// What has happened until now is remembered.
    pub(crate) fn has_caught_up(&self) {
        self.emptied.send_modify(|count| *count += 1);
    }

    /// So many records were taken from the ring.
    pub(crate) fn took(&self, count: usize) {
        self.received.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// What was lost before this agent began is nobody's news.
    pub(crate) fn begin_at(&self, lost: u64) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Records that the programs could not write, since the datapath was made; new ones are told.
    pub(crate) fn kernel_lost(&self, total: u64) {
        let before = self.lost.swap(total, Ordering::Relaxed);
        if before < total {
            self.send(&self.lost_event("kernel", total - before));
        }
    }

    /// Returns when everything that has happened until now is remembered; without a reader, soon.
    pub(crate) async fn catch_up(&self) {
        let mut emptied = self.emptied.subscribe();
        emptied.borrow_and_update();
        // Whether it is woken already does not matter.
        let _ = self.wake.write(1);
        let _ = tokio::time::timeout(PATIENCE, emptied.changed()).await;
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Line>> {
        self.lines.subscribe()
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// Tells everybody; nobody may be there.
    pub(crate) fn send(&self, event: &Event) {
        self.send_as(0, event);
    }

    pub(crate) fn send_as(&self, sequence: u64, event: &Event) {
        if self.has_listeners()
            && let Ok(text) = serde_json::to_string(event)
        {
            let text = text + "\n";
            let _ = self.lines.send(Arc::new(Line { sequence, text }));
        }
    }

    /// Tells what the agent did.
    pub(crate) fn agent(&self, subtype: &str, message: &str) {
        self.send(&Event::Agent(AgentEvent {
            time: crate::time::now(),
            node: self.node.clone(),
            subtype: subtype.to_owned(),
            message: message.to_owned(),
        }));
    }

    /// What stands between remembered events and those from now on.
    pub(crate) fn live_line(&self) -> String {
        let event = Event::Agent(AgentEvent {
            time: crate::time::now(),
            node: self.node.clone(),
            subtype: "flows-live".to_owned(),
            message: "from now on".to_owned(),
        });
        serde_json::to_string(&event)
            .map(|line| line + "\n")
            .unwrap_or_default()
    }

    /// What a listener that was too slow is told instead.
    pub(crate) fn lost_line(&self, count: u64) -> String {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        let event = self.lost_event("listener", count);
        serde_json::to_string(&event)
            .map(|line| line + "\n")
            .unwrap_or_default()
    }

    fn lost_event(&self, place: &str, count: u64) -> Event {
        let time = crate::time::now();
        Event::Lost(LostEvent {
            time,
            node: self.node.clone(),
            place: place.to_owned(),
            count,
        })
    }

    pub(crate) fn status(&self) -> EventStatus {
        EventStatus {
            received: self.received.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            listeners: self.lines.receiver_count() as u64,
        }
    }
}
