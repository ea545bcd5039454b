// SPDX-License-Identifier: Apache-2.0
//! What policies allow and deny, written to a file that log shippers read.
//!
//! The reader of the ring decides what is logged (`rules.rs`, pure) and how many lines that makes (`gather.rs`, pure);
//! a thread of its own writes them (`writer.rs`), because a slow disk must not hold up the ring. The object
//! `NetworkLogging` switches it on; until then there is neither thread nor file.

pub(crate) mod counts;
mod entry;
mod file;
mod gather;
mod limits;
mod rules;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use weir_abi::{Address, Identity, PolicyCookie};
use weir_compile::Owner;
use weir_model::{Namespace, NetworkLogging, PolicyRef};
use weir_observe::{Denial, Names, decode};

use self::counts::Counts;
use self::entry::{End, Entry, Policy};
use self::gather::{Dropped, Fate, Gather};
use self::limits::Limits;
use self::rules::Cluster;
use crate::names::SnapshotNames;
use crate::shared::Shared;

pub(crate) use entry::Disposition;
pub(crate) use gather::Dropped as DropCause;

/// The name among the subsystems.
const SUBSYSTEM: &str = "policy-log";

/// The log, as the reader of the ring has it.
#[derive(Debug)]
pub(crate) struct PolicyLog {
    /// Where the file is unless its own configuration says otherwise.
    path: PathBuf,
    logging: NetworkLogging,
    running: Option<Running>,
}

/// What there is while it is switched on.
#[derive(Debug)]
struct Running {
    gather: Gather,
    names_node: bool,
    lines: SyncSender<Box<Entry>>,
    writer: JoinHandle<()>,
}

impl PolicyLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            logging: NetworkLogging::default(),
            running: None,
        }
    }

    /// Whether somebody waits for records.
    pub(crate) const fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// Does what the world asks for at present.
    pub(crate) fn look(&mut self, shared: &Arc<Shared>) {
        let logging = shared.world().logging();
        if logging == self.logging && logging.is_on() == self.is_on() {
            return;
        }
        self.logging = logging;
        let counts = &shared.policy_log;
        counts.enabled.store(logging.is_on(), Ordering::Relaxed);
        if !logging.is_on() {
            self.end(shared);
        } else if !self.is_on() {
            self.start(shared);
        }
    }

    fn start(&mut self, shared: &Arc<Shared>) {
        let limits = Limits::beside(&self.path).unwrap_or_else(|error| {
            tracing::warn!(error, "the policy log goes on with what is built in");
            shared.policy_log.error(counts::CONFIGURATION);
            Limits::default()
        });
        let (lines, received) = sync_channel(limits.log_queue_size);
        let file = file::Rotating::new(
            limits.path(&self.path),
            limits.bytes(),
            limits.log_file_max_backups,
        );
        match writer::spawn(file, received, Arc::clone(shared)) {
            Ok(writer) => {
                self.running = Some(Running {
                    names_node: limits.log_node_name,
                    gather: Gather::new(limits),
                    lines,
                    writer,
                });
            }
            Err(error) => shared.report(SUBSYSTEM, false, error.to_string()),
        }
    }

    /// Takes a record of the ring.
    pub(crate) fn take(&mut self, record: &[u8], names: &SnapshotNames, shared: &Shared) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(record) = decode::record(record) else {
            return;
        };
        let counts = &shared.policy_log;
        for decision in rules::decisions(&record) {
            counts.event(decision.disposition);
            let entry = rules::entry(self.logging, &record, decision, &View { names, shared });
            if let Some(mut entry) = entry {
                if !running.names_node {
                    entry.node_name.clear();
                }
                let fate = running.gather.take(entry, now());
                running.carry_out(fate, counts);
            }
        }
    }

    /// Hands on what was gathered for long enough.
    pub(crate) fn pass_time(&mut self, shared: &Shared) {
        if let Some(running) = &mut self.running {
            for fate in running.gather.due(now()) {
                running.carry_out(fate, &shared.policy_log);
            }
        }
    }

    /// Writes what is left.
    pub(crate) fn end(&mut self, shared: &Shared) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        for fate in running.gather.rest(now()) {
            running.carry_out(fate, &shared.policy_log);
        }
        drop(running.lines);
        let _ = running.writer.join();
        shared.policy_log.ready.store(false, Ordering::Relaxed);
        shared.report(SUBSYSTEM, true, "off");
    }
}

impl Running {
    fn carry_out(&self, fate: Fate, counts: &Counts) {
        match fate {
            Fate::Write(entry) => match self.lines.try_send(entry) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => counts.dropped(Dropped::Queue),
                Err(TrySendError::Disconnected(_)) => counts.error(counts::WRITE),
            },
            Fate::Gathered => {}
            Fate::Dropped(cause) => counts.dropped(cause),
        }
    }
}

/// The clock of the kernel's records.
fn now() -> u64 {
    weir_datapath::clock::nanoseconds()
}

/// The cluster as it is now.
struct View<'a> {
    names: &'a SnapshotNames,
    shared: &'a Shared,
}

impl Cluster for View<'_> {
    fn node(&self) -> &str {
        self.names.node()
    }

    fn time(&self, monotonic_nanoseconds: u64) -> String {
        self.names.time(monotonic_nanoseconds)
    }

    fn end(&self, address: Address) -> End {
        match self.names.owner(address) {
            None => End::Outside { instance: address },
            Some(Owner::Node(node)) => End::Node {
                node_name: node.to_string(),
            },
            Some(Owner::Pod(pod)) => {
                let world = self.shared.world();
                let workload = world.pod(&pod).and_then(|pod| pod.workload.as_deref());
                End::pod(pod.namespace.as_str(), pod.name.as_str()).made_by(workload)
            }
        }
    }

    fn namespace(&self, identity: Identity) -> Option<String> {
        self.names.namespace_of(identity)
    }

    fn allowing(&self, asked: &Denial, cookie: PolicyCookie) -> Vec<Policy> {
        // The rule that the kernel found may be of a policy that is gone by now, or the only one that there was time for.
        let found = self.names.shared_rules(cookie);
        let found = found.iter().flat_map(|rules| rules.iter());
        let all = self.names.allowing(asked);
        let mut policies: Vec<_> = found
            .chain(&all)
            .filter(|rule| !rule.namespace.is_empty())
            .map(|rule| Policy {
                kind: rule.kind.clone(),
                name: rule.name.clone(),
                namespace: rule.namespace.clone(),
            })
            .collect();
        policies.sort_unstable();
        policies.dedup();
        policies
    }

    fn logs_allowed(&self, policy: &Policy) -> bool {
        let Ok(reference) = PolicyRef::new(&policy.namespace, &policy.name) else {
            return false;
        };
        let world = self.shared.world();
        let policy = world.policy(&reference);
        policy.is_some_and(|policy| policy.logs_allowed())
    }

    fn logs_denied(&self, namespace: &str) -> bool {
        let name = Namespace::new(namespace);
        name.is_ok_and(|name| self.shared.world().logs_denied(&name))
    }
}
