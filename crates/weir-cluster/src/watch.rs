// SPDX-License-Identifier: Apache-2.0
//! Looks at a folder whenever it changes.
//!
//! The kernel tells of changes at once; a poll every two seconds is the net below it (a folder on a
//! network file system, an overflown queue). A folder with a revision file is read when that file
//! changes, because it is written last.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::folder::REVISION_FILE;
use crate::{Batch, Folder, SourceError};

/// How often the folder is looked at without being told.
const POLL: Duration = Duration::from_secs(2);
/// Every so many polls files are compared even where the revision is the same.
const FULL_EVERY: u32 = 8;
/// Without a revision file, changes are awaited until the folder has been still for this long.
const SETTLE: Duration = Duration::from_millis(30);

/// What wakes the thread up.
enum Wake {
    Changed { revision: bool },
    Stop,
}

/// A running look-out; it ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    wake: Sender<Wake>,
    thread: Option<thread::JoinHandle<()>>,
    /// Kept for its threads.
    _notify: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Calls `tell` with the first look and every one that found something new, on a thread of its
    /// own. Errors are told once for each time that they change.
    pub fn start(
        path: &Path,
        mut tell: impl FnMut(Result<Batch, SourceError>) + Send + 'static,
    ) -> Result<Self, SourceError> {
        let (wake, woken) = channel();
        // A folder that is not there yet is found by the poll.
        let notify = match notifier(path, wake.clone()) {
            Ok(notify) => Some(notify),
            Err(error) => {
                tracing::warn!(%error, "changes of the folder are only found by looking every two seconds");
                None
            }
        };
        let failed = |source: io::Error| SourceError::Thread {
            path: path.to_owned(),
            source,
        };
        let folder = Folder::new(path);
        let thread = thread::Builder::new()
            .name("source".to_owned())
            .spawn(move || look(folder, &woken, &mut tell))
            .map_err(failed)?;
        Ok(Self {
            wake,
            thread: Some(thread),
            _notify: notify,
        })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn notifier(path: &Path, wake: Sender<Wake>) -> Result<RecommendedWatcher, SourceError> {
    let failed = |source| SourceError::Watch {
        path: path.to_owned(),
        source,
    };
    let mut notify = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let revision = match &event {
            // Reading the folder is itself an event; only writes count.
            Ok(event) if event.kind.is_access() => return,
            Ok(event) => event
                .paths
                .iter()
                .any(|path| path.file_name().is_some_and(|name| name == REVISION_FILE)),
            Err(_) => true,
        };
        let _ = wake.send(Wake::Changed { revision });
    })
    .map_err(failed)?;
    notify
        .watch(path, RecursiveMode::NonRecursive)
        .map_err(failed)?;
    Ok(notify)
}

fn look(
    mut folder: Folder,
    woken: &Receiver<Wake>,
    tell: &mut impl FnMut(Result<Batch, SourceError>),
) {
    let mut last: Option<Batch> = None;
    let mut last_error = String::new();
    let mut since_full = 0;
    loop {
        match folder.read() {
            Ok(batch) => {
                let known = last.as_ref().is_some_and(|last| {
                    batch.changes.is_empty()
                        && (last.revision, &last.problems, &last.skipped)
                            == (batch.revision, &batch.problems, &batch.skipped)
                });
                last_error.clear();
                if !known {
                    last = Some(Batch {
                        changes: Vec::new(),
                        problems: batch.problems.clone(),
                        skipped: batch.skipped.clone(),
                        ..batch
                    });
                    tell(Ok(batch));
                }
            }
            Err(error) => {
                let text = error.to_string();
                if text != last_error {
                    last_error = text;
                    tell(Err(error));
                }
            }
        }
        // Nothing to do until something that counts happens.
        loop {
            match woken.recv_timeout(POLL) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Changed { revision: true }) => break,
                Ok(Wake::Changed { revision: false }) => {
                    if matches!(folder.revision(), Ok(Some(_))) {
                        continue;
                    }
                    if !settle(woken) {
                        return;
                    }
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    since_full = (since_full + 1) % FULL_EVERY;
                    let same = matches!(
                        (folder.revision(), &last),
                        (Ok(Some(now)), Some(last)) if last_error.is_empty() && now == last.revision
                    );
                    if !same || since_full == 0 {
                        break;
                    }
                }
            }
        }
    }
}

/// Waits for the folder to be still, at most half a second; false: stop.
fn settle(woken: &Receiver<Wake>) -> bool {
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        match woken.recv_timeout(SETTLE) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Wake::Changed { .. }) => {}
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_is_told_soon_after_the_revision() {
        let home = tempfile::tempdir().unwrap();
        let (sender, told) = channel();
        let watcher = Watcher::start(home.path(), move |batch| {
            sender.send(batch.unwrap()).unwrap();
        })
        .unwrap();
        let next = || told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next(), Batch::default());
        fs::write(
            home.path().join("a.yaml"),
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
        )
        .unwrap();
        fs::write(home.path().join(".revision"), "3").unwrap();
        fs::rename(home.path().join(".revision"), home.path().join("revision")).unwrap();
        let mut changes = 0;
        loop {
            let batch = next();
            changes += batch.changes.len();
            if batch.revision == 3 {
                break;
            }
        }
        assert_eq!(changes, 1);
        drop(watcher);
        assert!(told.recv().is_err());
    }
}
