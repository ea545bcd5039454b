// SPDX-License-Identifier: Apache-2.0
//! The loop: the only place that changes anything on the node.
//!
//! Inputs come in one after the other (changes of the world, requests, network changes, time); each
//! may make the desired state differ; [`Core::settle`] then compiles, plans and executes once for all
//! of a turn, answers the requests and publishes a snapshot. Nothing here waits for anything but the
//! next input.

mod announce;
mod batch;
mod devices;
mod drift;
mod drivers;
mod inbox;
mod links;
mod network;
mod policy;
mod programs;
mod publish;
mod realize;
mod remarks;
mod remover;
mod requests;
mod routes;
mod services;
mod sockets;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::oneshot;
use weir_abi::observation::Hook;
use weir_abi::{DatapathConfig, IfIndex};
use weir_api::endpoint::{EndpointChecked, EndpointCreated, EndpointRequest, Regenerated};
use weir_api::service::ServicesCompared;
use weir_cluster::{Accepting, Announcement, ApiWriter, Batch, SourceError};
use weir_compile::{Compiled, NodeIndices, Rows};
use weir_datapath::{Datapath, DryRun, Loader};
use weir_model::{IdentityTable, PolicyRef, Touched};
use weir_net::{GracePeriods, Netlink, Route};

use crate::endpoint::Endpoint;
use crate::error::EndpointError;
use crate::ipam::Ipam;
use crate::memory::Spent;
use crate::shared::Shared;
use crate::stale::Sweeper;
use crate::store::Store;
use drift::Part;
use inbox::Inbox;

pub(crate) use devices::Constants;
pub(crate) use network::watch;
pub(crate) use remover::Remover;
pub(crate) use start::{OnLoaded, Parts};

/// How often everything is read back and compared.
const TICK: Duration = Duration::from_secs(5);
/// How long after a failed load the next one is tried.
const LOAD_AGAIN: Duration = Duration::from_mins(1);

/// An endpoint, and whether other nodes can know of it yet.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) created: EndpointCreated,
    /// None where nobody is told, or has been long ago.
    pub(crate) accepting: Option<Accepting>,
}

/// The answer to a request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, EndpointError>>;

/// What can happen to a node.
#[derive(Debug)]
pub(crate) enum Input {
    Source(Result<Batch, SourceError>),
    Create(EndpointRequest, Reply<Connected>),
    Delete(Attachments, Reply<()>),
    Check(EndpointRequest, Reply<EndpointChecked>),
    Regenerate(u16, Reply<Regenerated>),
    CompareServices(Reply<ServicesCompared>),
    /// Interfaces differ; `node`: not only those of pods, but the node's own network; `next_hops`:
    /// flows may go a wrong way now.
    Network {
        node: bool,
        next_hops: bool,
    },
    Stop,
}

/// A container's interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Attachments {
    pub(crate) container: String,
    /// Only the one of that name inside the pod.
    pub(crate) interface: Option<String>,
}

/// A request that came before the source's first look.
enum Waiting {
    Create(EndpointRequest, Reply<Connected>),
    Delete(Attachments, Reply<()>),
}

/// The loaded datapath and what it was told.
struct Kernel {
    datapath: Datapath,
    config: DatapathConfig,
    /// Questions to the same programs.
    dry_run: Arc<DryRun>,
    /// The programs run at the links.
    active: bool,
}

/// The state of a node. One thread owns it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "what has happened so far and what differs; no two of them are states of one thing"
)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    /// None where the source is a folder, to which nothing is written.
    writer: Option<ApiWriter>,
    store: Store,
    grace: GracePeriods,
    constants: Constants,
    netlink: Netlink,
    remover: Remover,
    sweeper: Sweeper,
    loader: Loader,
    kernel: Option<Kernel>,
    /// When a failed load is tried again.
    load_again: Option<Instant>,
    /// Told once, when the datapath is there for the first time.
    on_loaded: Option<OnLoaded>,

    /// What differs since it was compiled last.
    touched: Touched,
    synced: bool,
    revision: u64,
    realized_revision: u64,

    identities: IdentityTable,
    indices: NodeIndices,
    ipam: Ipam,
    next_id: u16,
    endpoints: BTreeMap<u16, Endpoint>,
    network: devices::NodeNetwork,
    /// Destinations of routes that this agent or one before it made.
    owned_routes: BTreeSet<IpNet>,
    /// Routes as this agent made or found them: what differs now was changed by somebody else.
    made_routes: BTreeMap<IpNet, Route>,
    /// Where programs have been attached: one that is missing there was taken away.
    attached: BTreeSet<(Hook, IfIndex)>,
    /// The same for the programs at sockets, which all are at one place.
    sockets_attached: bool,

    services: services::Services,
    policy: policy::Policy,
    /// What was said last about this node's pods.
    announced: Option<Announcement>,
    /// Whether the server has that already.
    accepting: Option<Accepting>,
    /// Policies that events have been made about.
    refused_policies: BTreeSet<(PolicyRef, String)>,
    unenforced_policies: BTreeSet<PolicyRef>,
    compiled: Arc<Compiled>,
    /// What the maps hold, as far as known; read back at every tick.
    realized: Rows,
    /// Something differs from what was realized last.
    dirty: bool,
    /// Pods, nodes, endpoints or the node's own network differ.
    base_dirty: bool,
    /// Counts the comparisons with the kernel.
    rounds: u32,
    spent: Spent,

    waiting: Vec<(Instant, Waiting)>,
    /// Since when, so that it can be told how long it takes.
    created: Vec<(u16, Instant, Reply<Connected>)>,
    /// Rows go first, then the rest.
    removed: Vec<Endpoint>,
    deleted: Vec<Reply<()>>,
}

impl Core {
    /// Runs until told to stop. Links and maps stay in place then.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) {
        let mut next_tick = Instant::now() + TICK;
        let mut inbox = Inbox::new(inputs);
        // Still to be compared in this round.
        let mut parts: &[Part] = &[];
        let mut settling = Duration::ZERO;
        loop {
            let until = if parts.is_empty() {
                next_tick
            } else {
                Instant::now()
            };
            if inbox.wait(until).is_err() {
                return;
            }
            let begun = Instant::now();
            let mut count = 0_u32;
            while let Some(input) = inbox.next() {
                if matches!(input, Input::Stop) {
                    self.settle();
                    return;
                }
                self.handle(input);
                count += 1;
                if begun.elapsed() >= inbox::turn(settling) {
                    break;
                }
            }
            let handled = begun.elapsed();
            self.settle();
            settling = begun.elapsed().saturating_sub(handled);
            if Instant::now() >= next_tick {
                parts = &Part::ALL;
                next_tick = Instant::now() + TICK;
            }
            let looked = parts.split_first();
            if let Some((part, rest)) = looked {
                self.look_at(*part);
                self.settle();
                parts = rest;
                if parts.is_empty() {
                    self.spent.give_back();
                }
            }
            let (part, took) = (looked.map(|(part, _)| part), begun.elapsed());
            tracing::debug!(count, ?handled, ?settling, ?part, ?took, "turn of the loop");
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Source(Ok(batch)) => self.take_batch(batch),
            Input::Source(Err(error)) => {
                let message = crate::error::chain(&error);
                self.shared.report("source", false, message.clone());
                self.shared.ran("source-sync", Err(message));
            }
            Input::Create(request, reply) => {
                if self.synced {
                    self.create(request, reply);
                } else {
                    self.waiting
                        .push((Instant::now(), Waiting::Create(request, reply)));
                }
            }
            Input::Delete(what, reply) => {
                if self.synced {
                    self.delete(&what, reply);
                } else {
                    self.waiting
                        .push((Instant::now(), Waiting::Delete(what, reply)));
                }
            }
            Input::Check(request, reply) => {
                self.settle();
                let _ = reply.send(self.check(request));
            }
            Input::Regenerate(id, reply) => {
                self.settle();
                let _ = reply.send(self.regenerate(id));
            }
            Input::CompareServices(reply) => self.compare_services(reply),
            Input::Network { node, next_hops } => self.network_changed(node, next_hops),
            Input::Stop => {}
        }
    }

    /// Has everything compiled anew.
    fn mark(&mut self) {
        self.dirty = true;
        self.base_dirty = true;
    }
}

/// Time on the kernel's monotonic clock, for address rest times.
fn monotonic() -> Duration {
    weir_datapath::clock::monotonic()
}
