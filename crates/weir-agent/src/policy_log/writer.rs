// SPDX-License-Identifier: Apache-2.0
//! The thread that writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use super::entry::Entry;
use super::file::Rotating;
use super::{SUBSYSTEM, counts};
use crate::shared::Shared;

/// Starts it. It ends when nobody sends any more and all is written.
pub(super) fn spawn(
    mut file: Rotating,
    lines: Receiver<Box<Entry>>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let work = move || {
        // The file is there before the first line, so that shippers find it.
        let opened = file.ensure();
        told(&shared, &file, opened);
        for entry in lines {
            let Ok(mut line) = serde_json::to_vec(&entry) else {
                continue;
            };
            line.push(b'\n');
            let written = file.write(&line);
            if written.is_ok() {
                let took = super::now().saturating_sub(entry.seen);
                shared.policy_log.logged(entry.disposition, took);
            } else {
                shared.policy_log.error(counts::WRITE);
            }
            told(&shared, &file, written);
        }
    };
    thread::Builder::new()
        .name(SUBSYSTEM.to_owned())
        .spawn(work)
}

fn told(shared: &Shared, file: &Rotating, outcome: io::Result<()>) {
    let ready = outcome.is_ok();
    let before = shared.policy_log.ready.swap(ready, Ordering::Relaxed);
    let path = file.path().display();
    match outcome {
        Ok(()) if before => {}
        Ok(()) => shared.report(SUBSYSTEM, true, path.to_string()),
        Err(error) => shared.report(SUBSYSTEM, false, format!("{path}: {error}")),
    }
}
