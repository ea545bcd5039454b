// SPDX-License-Identifier: Apache-2.0
//! From the ring buffer to everybody who listens.
//!
//! The ring is always emptied, so that a listener who comes later sees what happens then and not what
//! happened long ago. Records are decoded only while somebody listens.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::broadcast;
use weir_abi::counter::Counter;
use weir_abi::event::kind;
use weir_api::event::{AgentEvent, Event, LostEvent};
use weir_api::status::EventStatus;
use weir_datapath::{EventSource, Maps};
use weir_observe::{Decoded, Decoder, Signal};

use crate::names::SnapshotNames;
use crate::shared::Shared;

/// Lines that wait for a slow listener; what is older is lost to it, and counted.
const BACKLOG: usize = 4096;
/// Records that are taken from the ring before anything else is looked at.
const BURST: usize = 1024;

/// Hands lines to listeners.
#[derive(Debug)]
pub(crate) struct EventHub {
    node: String,
    lines: broadcast::Sender<Arc<str>>,
    received: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

impl EventHub {
    pub(crate) fn new(node: String) -> Self {
        let (lines, _) = broadcast::channel(BACKLOG);
        Self {
            node,
            lines,
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<str>> {
        self.lines.subscribe()
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// Tells everybody; nobody may be there.
    pub(crate) fn send(&self, event: &Event) {
        if self.has_listeners()
            && let Ok(line) = serde_json::to_string(event)
        {
            let _ = self.lines.send((line + "\n").into());
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

/// Empties the ring until told to stop. `collect` is woken when the programs ask for it.
pub(crate) fn read_ring(
    maps: &Maps,
    shared: &Shared,
    stop: &AtomicBool,
    collect: &Sender<crate::collect::Wake>,
) -> weir_datapath::Result<()> {
    let mut source = EventSource::open(maps)?;
    let mut decoder = Decoder::new();
    let mut lost_before = maps.counter(Counter::EventsLost)?;
    shared.events.lost.store(lost_before, Ordering::Relaxed);
    let mut looked = Instant::now();
    shared.report("events", true, "reading the ring buffer");
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        // The programs wake nobody until the ring fills up: waking costs them more than the record.
        // While nobody listens there is no hurry.
        let wait: u16 = if shared.events.has_listeners() {
            100
        } else {
            1000
        };
        let _ = poll(&mut fds, PollTimeout::from(wait));
        let names = shared
            .events
            .has_listeners()
            .then(|| SnapshotNames::new(shared));
        loop {
            let taken = source.drain(BURST, |record| {
                take(record, names.as_ref(), &mut decoder, shared, collect);
            });
            shared
                .events
                .received
                .fetch_add(taken as u64, Ordering::Relaxed);
            if taken < BURST {
                break;
            }
        }
        if looked.elapsed() >= Duration::from_secs(1) {
            looked = Instant::now();
            let lost = maps.counter(Counter::EventsLost)?;
            if lost > lost_before {
                shared
                    .events
                    .send(&shared.events.lost_event("kernel", lost - lost_before));
            }
            lost_before = lost;
            shared.events.lost.store(lost, Ordering::Relaxed);
            let problems = decoder.problems().total();
            if problems > 0 {
                shared.report(
                    "events",
                    false,
                    format!("{problems} records could not be decoded"),
                );
            }
        }
    }
    Ok(())
}

fn take(
    record: &[u8],
    names: Option<&SnapshotNames>,
    decoder: &mut Decoder,
    shared: &Shared,
    collect: &Sender<crate::collect::Wake>,
) {
    let is_signal = record.first() == Some(&kind::SIGNAL);
    if names.is_none() && !is_signal {
        return;
    }
    let fallback;
    let names = if let Some(names) = names {
        names
    } else {
        fallback = SnapshotNames::new(shared);
        &fallback
    };
    match decoder.decode(record, names) {
        Some(Decoded::Event(event)) => shared.events.send(&event),
        Some(Decoded::Signal(Signal::CollectGarbage)) => {
            shared.counts.signals.fetch_add(1, Ordering::Relaxed);
            let _ = collect.send(crate::collect::Wake::Asked);
        }
        None => {}
    }
}
