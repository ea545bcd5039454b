// SPDX-License-Identifier: Apache-2.0
//! From the ring buffer to what is remembered, to listeners and to the log.
//!
//! The ring is always emptied, so that a listener who comes later sees what happens then and not what
//! happened long ago; the last records are remembered. They are decoded only while somebody listens.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_abi::counter::Counter;
use weir_abi::event::kind;
use weir_datapath::{EventSource, Maps};
use weir_observe::{Decoded, Decoder, Signal, verdicts};

use crate::collect::Wake;
use crate::names::SnapshotNames;
use crate::observed::Seen;
use crate::policy_log::PolicyLog;
use crate::shared::Shared;

/// Records that are taken from the ring before anything else is looked at.
const BURST: usize = 1024;

/// Reads until told to stop. `collect` is woken when the programs ask for it; `log` is told of decisions.
pub(crate) fn run(
    maps: &Maps,
    shared: &Arc<Shared>,
    stop: &AtomicBool,
    collect: &Sender<Wake>,
    log: &mut PolicyLog,
) -> weir_datapath::Result<()> {
    let mut source = EventSource::open(maps)?;
    let mut decoder = Decoder::new();
    shared.events.begin_at(maps.counter(Counter::EventsLost)?);
    let mut looked = Instant::now();
    let mut sequence = 0;
    shared.report("events", true, "reading the ring buffer");
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [
            PollFd::new(source.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.events.waking(), PollFlags::POLLIN),
        ];
        // The programs wake nobody until the ring fills up: waking costs them more than the record.
        // While nobody listens there is no hurry.
        let wait: u16 = if shared.events.has_listeners() || log.is_on() {
            100
        } else {
            1000
        };
        let _ = poll(&mut fds, PollTimeout::from(wait));
        shared.events.woken();
        log.look(shared);
        let names = shared.names();
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
            shared.events.took(taken);
            if taken < BURST {
                break;
            }
        }
        shared.events.has_caught_up();
        log.pass_time(shared);
        if looked.elapsed() >= Duration::from_secs(1) {
            looked = Instant::now();
            shared
                .events
                .kernel_lost(maps.counter(Counter::EventsLost)?);
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
    collect: &Sender<Wake>,
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
            let _ = collect.send(Wake::Asked);
        }
        None => {}
    }
}
