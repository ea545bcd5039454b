// SPDX-License-Identifier: Apache-2.0
//! How the watches are, in one line for people.
//!
//! A watch that is quiet and one that is broken look alike from its events. So every answer of the
//! server counts as contact, also the one with which a broken watch is taken up again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::kind::Kind;

/// How long a watch may be broken before it is called so. A server or a load balancer ends connections
/// for its own reasons, and the first attempt to go on comes after a second.
const PATIENCE: Duration = Duration::from_secs(3);

/// How the source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiHealth {
    /// Every kind has been listed and is being watched.
    pub healthy: bool,
    /// Every kind has been listed at least once.
    pub synced: bool,
    /// A watch cannot be taken up, or a list not be had.
    pub broken: bool,
    /// One line. It stays the same for as long as nothing happens.
    pub message: String,
}

/// What is known of each watch; shared by those who watch.
#[derive(Debug, Default)]
pub(super) struct Notes {
    watches: Mutex<Watches>,
}

/// The state of all watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    server: String,
    version: Option<String>,
    of_kind: BTreeMap<Kind, Watch>,
}

#[derive(Clone, Debug, Default)]
struct Watch {
    listed: bool,
    /// The server does not know the kind.
    unknown: bool,
    /// The last answer or event.
    contact: Option<SystemTime>,
    broken: Option<Broken>,
}

#[derive(Clone, Debug)]
struct Broken {
    since: SystemTime,
    reason: String,
}

impl Notes {
    pub(super) fn new(server: String) -> Self {
        let watches = Watches {
            server,
            ..Watches::default()
        };
        Self {
            watches: Mutex::new(watches),
        }
    }

    /// The server answered, or sent an event.
    pub(super) fn answered(&self, kind: Kind, now: SystemTime) {
        let mut all = self.lock();
        let watch = all.of_kind.entry(kind).or_default();
        watch.contact = Some(now);
        watch.broken = None;
    }

    pub(super) fn listed(&self, kind: Kind) {
        let mut all = self.lock();
        let watch = all.of_kind.entry(kind).or_default();
        watch.listed = true;
        watch.unknown = false;
    }

    /// The server answered that it does not know the kind: there are no such objects.
    pub(super) fn unknown(&self, kind: Kind, now: SystemTime) {
        self.answered(kind, now);
        let mut all = self.lock();
        let watch = all.of_kind.entry(kind).or_default();
        watch.listed = true;
        watch.unknown = true;
    }

    pub(super) fn failed(&self, kind: Kind, reason: String, now: SystemTime) {
        let mut all = self.lock();
        let watch = all.of_kind.entry(kind).or_default();
        let since = watch.broken.as_ref().map_or(now, |broken| broken.since);
        watch.broken = Some(Broken { since, reason });
    }

    pub(super) fn set_version(&self, version: String) {
        self.lock().version = Some(version);
    }

    pub(super) fn health(&self, now: SystemTime) -> ApiHealth {
        self.lock().health(now)
    }

    /// A panic of another thread while it held the lock does not make the notes wrong.
    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn health(&self, now: SystemTime) -> ApiHealth {
        let listed = |kind: &Kind| self.of_kind.get(kind).is_some_and(|watch| watch.listed);
        let synced = Kind::ALL.iter().all(listed);
        let late = |broken: &Broken| {
            now.duration_since(broken.since)
                .is_ok_and(|age| age >= PATIENCE)
        };
        // What is broken, by the reason: most often there is one for all.
        let mut reasons: BTreeMap<&str, Vec<Kind>> = BTreeMap::new();
        let mut since: Option<SystemTime> = None;
        for (kind, watch) in &self.of_kind {
            if let Some(broken) = watch.broken.as_ref().filter(|broken| late(broken)) {
                reasons.entry(&broken.reason).or_default().push(*kind);
                let last = watch.contact.unwrap_or(broken.since);
                since = Some(since.map_or(last, |since| since.min(last)));
            }
        }
        let server = &self.server;
        let message = match since {
            Some(since) => {
                let reasons: Vec<String> = reasons
                    .iter()
                    .map(|(reason, kinds)| format!("{}: {reason}", list(kinds)))
                    .collect();
                let reasons = reasons.join("; ");
                let since = time(since);
                if synced {
                    format!(
                        "no contact with {server} since {since} ({reasons}); forwarding goes on with \
                         what was known then, changes wait"
                    )
                } else {
                    format!(
                        "{server} has not told its objects yet ({reasons}); forwarding goes on as it \
                         was, new pods wait"
                    )
                }
            }
            None if !synced => format!("listing the objects of {server}"),
            None => self.fine(),
        };
        ApiHealth {
            healthy: synced && since.is_none(),
            synced,
            broken: since.is_some(),
            message,
        }
    }

    fn fine(&self) -> String {
        let (unknown, watched): (BTreeSet<Kind>, BTreeSet<Kind>) =
            Kind::ALL.into_iter().partition(|kind| {
                let watch = self.of_kind.get(kind);
                watch.is_some_and(|watch| watch.unknown)
            });
        let version = self.version.iter().map(|version| format!("{version} "));
        let version: String = version.collect();
        let mut text = format!(
            "{version}at {}, {} kinds watched",
            self.server,
            watched.len()
        );
        for kind in unknown {
            text.push_str(", no ");
            text.push_str(kind.name());
            text.push_str(" there");
        }
        text
    }
}

fn list(kinds: &[Kind]) -> String {
    if kinds.len() == Kind::ALL.len() {
        return "everything".to_owned();
    }
    let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// To the second: what is shown must not differ by when somebody looks.
fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "long ago".to_owned(), |time| format!("{time:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second)
    }

    fn synced() -> Notes {
        let notes = Notes::new("https://10.0.0.1:6443".to_owned());
        for kind in Kind::ALL {
            notes.answered(kind, at(0));
            notes.listed(kind);
        }
        notes
    }

    #[test]
    fn nothing_is_fine_before_everything_is_listed() {
        let notes = Notes::new("https://a".to_owned());
        for kind in Kind::ALL {
            let health = notes.health(at(0));
            assert!(!health.synced && !health.healthy, "{health:?}");
            assert_eq!(health.message, "listing the objects of https://a");
            notes.answered(kind, at(0));
            notes.listed(kind);
        }
        assert!(notes.health(at(0)).healthy);
        assert_eq!(notes.health(at(0)).message, "at https://a, 8 kinds watched");
    }

    #[test]
    fn a_watch_that_breaks_for_a_moment_is_no_news() {
        let notes = synced();
        notes.set_version("v1.36.0".to_owned());
        notes.failed(Kind::Pod, "connection reset".to_owned(), at(60));
        let fine = notes.health(at(61));
        assert!(fine.healthy, "{fine:?}");
        notes.failed(Kind::Pod, "connection refused".to_owned(), at(62));
        notes.failed(Kind::Service, "connection refused".to_owned(), at(63));
        let broken = notes.health(at(70));
        assert_eq!(
            broken.message,
            "no contact with https://10.0.0.1:6443 since 2023-11-14T22:13:20Z (pods, services: \
             connection refused); forwarding goes on with what was known then, changes wait"
        );
        assert!(broken.synced && !broken.healthy);
        assert_eq!(notes.health(at(7000)), broken, "the line stays the same");
        notes.answered(Kind::Pod, at(80));
        assert!(!notes.health(at(80)).healthy);
        notes.answered(Kind::Service, at(81));
        assert_eq!(notes.health(at(82)), fine);
    }

    #[test]
    fn a_kind_that_the_server_does_not_know_is_no_error() {
        let notes = synced();
        notes.unknown(Kind::NetworkLogging, at(1));
        let health = notes.health(at(90));
        assert!(health.healthy);
        assert!(
            health
                .message
                .ends_with("7 kinds watched, no NetworkLogging there"),
            "{}",
            health.message
        );
        notes.listed(Kind::NetworkLogging);
        assert!(notes.health(at(90)).message.ends_with("8 kinds watched"));
    }

    #[test]
    fn what_was_never_listed_says_why() {
        let notes = Notes::new("https://a".to_owned());
        for kind in Kind::ALL {
            notes.failed(kind, "forbidden".to_owned(), at(0));
        }
        assert!(
            notes
                .health(at(1))
                .message
                .starts_with("listing the objects")
        );
        let health = notes.health(at(9));
        assert!(!health.synced && !health.healthy);
        assert!(
            health.message.contains("(everything: forbidden)"),
            "{}",
            health.message
        );
    }
}
