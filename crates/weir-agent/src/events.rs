// SPDX-License-Identifier: Apache-2.0
//! From the ring buffer to everybody who listens.
//!
//! The ring is always emptied, so that a listener who comes later sees what happens then and not what
//! happened long ago; the last records are remembered. They are decoded only while somebody listens.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{broadcast, watch};
use weir_abi::counter::Counter;
use weir_abi::event::kind;
use weir_api::event::{AgentEvent, Event, LostEvent};
use weir_api::status::EventStatus;
use weir_datapath::{EventSource, Maps};
use weir_observe::{Decoded, Decoder, Signal, verdicts};

use crate::names::SnapshotNames;
use crate::observed::{Observed, Seen};
use crate::policy_log::PolicyLog;
use crate::shared::Shared;

/// Lines that wait for a slow listener; what is older is lost to it, and counted.
const BACKLOG: usize = 4096;
/// How long somebody waits for the ring to be emptied.
const PATIENCE: Duration = Duration::from_millis(500);
/// Records that are taken from the ring before anything else is looked at.
const BURST: usize = 1024;

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

    fn send_as(&self, sequence: u64, event: &Event) {
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

/// Empties the ring until told to stop. `collect` is woken when the programs ask for it; `log` is told of decisions.
pub(crate) fn read_ring(
    maps: &Maps,
    shared: &Arc<Shared>,
    stop: &AtomicBool,
    collect: &Sender<crate::collect::Wake>,
    log: &mut PolicyLog,
) -> weir_datapath::Result<()> {
    let mut source = EventSource::open(maps)?;
    let mut decoder = Decoder::new();
    let mut lost_before = maps.counter(Counter::EventsLost)?;
    shared.events.lost.store(lost_before, Ordering::Relaxed);
    let mut looked = Instant::now();
    let mut sequence = 0;
    shared.report("events", true, "reading the ring buffer");
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [
            PollFd::new(source.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.events.wake.as_fd(), PollFlags::POLLIN),
        ];
        // The programs wake nobody until the ring fills up: waking costs them more than the record.
        // While nobody listens there is no hurry.
        let wait: u16 = if shared.events.has_listeners() || log.is_on() {
            100
        } else {
            1000
        };
        let _ = poll(&mut fds, PollTimeout::from(wait));
        // Nobody has to be told twice.
        let _ = shared.events.wake.read();
        log.look(shared);
        let names = SnapshotNames::new(shared);
        loop {
            let listened = shared.events.has_listeners();
            let mut seen = Vec::new();
            let taken = source.drain(BURST, |record| {
                sequence += 1;
                seen.extend(Seen::new(sequence, record, &names));
                log.take(record, &names, shared);
                if listened || record.first() == Some(&kind::SIGNAL) {
                    take(sequence, record, &names, &mut decoder, shared, collect);
                }
            });
            shared.events.observed.remember(seen);
            shared
                .events
                .received
                .fetch_add(taken as u64, Ordering::Relaxed);
            if taken < BURST {
                break;
            }
        }
        shared.events.emptied.send_modify(|count| *count += 1);
        log.pass_time(shared);
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
    sequence: u64,
    record: &[u8],
    names: &SnapshotNames,
    decoder: &mut Decoder,
    shared: &Shared,
    collect: &Sender<crate::collect::Wake>,
) {
    match decoder.decode(record, names) {
        Some(Decoded::Event(event)) => {
            for verdict in verdicts(record, &event) {
                shared.events.send_as(sequence, &verdict);
            }
            shared.events.send_as(sequence, &event);
        }
        Some(Decoded::Signal(Signal::CollectGarbage)) => {
            shared.counts.signals.fetch_add(1, Ordering::Relaxed);
            let _ = collect.send(crate::collect::Wake::Asked);
        }
        None => {}
    }
}
