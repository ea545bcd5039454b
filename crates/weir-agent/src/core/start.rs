// SPDX-License-Identifier: Apache-2.0
//! From what an agent before this one left to a loop that can run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use weir_api::endpoint::EndpointState;
use weir_cluster::ApiWriter;
use weir_compile::{Compiled, NodeIndices, Rows};
use weir_datapath::{DryRun, Loader, Maps};
use weir_model::Touched;
use weir_net::{GracePeriods, Netlink};

use super::devices::{self, NodeNetwork};
use super::{Constants, Core, Input, Kernel, LOAD_AGAIN, Remover, links, monotonic};
use crate::endpoint::Endpoint;
use crate::error::chain;
use crate::ipam::Ipam;
use crate::memory::Spent;
use crate::shared::Shared;
use crate::stale::Sweeper;
use crate::store::Store;

/// Called once with the maps: starts whoever else works on them.
pub(crate) type OnLoaded = Box<dyn FnOnce(&Arc<Maps>) + Send>;

/// How long the first look at the source may take before the network is set up without it.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// What a core is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Option<ApiWriter>,
    pub(crate) store: Store,
    pub(crate) constants: Constants,
    pub(crate) netlink: Netlink,
    pub(crate) remover: Remover,
    pub(crate) sweeper: Sweeper,
    pub(crate) loader: Loader,
    pub(crate) on_loaded: OnLoaded,
}

impl Core {
    /// Takes over what is on disk; touches nothing yet.
    pub(crate) fn restore(parts: Parts) -> Self {
        let Parts {
            shared,
            writer,
            store,
            constants,
            netlink,
            remover,
            sweeper,
            loader,
            on_loaded,
        } = parts;
        let identities = store.load_identities().unwrap_or_else(|error| {
            // Numbers are local and can be given anew; flows are decided again then.
            tracing::warn!(error = chain(&error), "identities are numbered anew");
            weir_model::IdentityTable::default()
        });
        let owned_routes = store
            .load_routes()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut core = Self {
            shared,
            writer,
            grace: GracePeriods::new(store.short_grace_periods()),
            store,
            constants,
            netlink,
            remover,
            sweeper,
            loader,
            kernel: None,
            load_again: None,
            on_loaded: Some(on_loaded),
            touched: Touched::everything(),
            synced: false,
            revision: 0,
            realized_revision: 0,
            identities,
            indices: NodeIndices::default(),
            ipam: Ipam::default(),
            next_id: 0,
            endpoints: BTreeMap::new(),
            network: NodeNetwork::default(),
            owned_routes,
            made_routes: BTreeMap::new(),
            attached: BTreeSet::new(),
            sockets_attached: false,
            services: super::services::Services::default(),
            policy: super::policy::Policy::default(),
            announced: None,
            accepting: None,
            refused_policies: BTreeSet::new(),
            unenforced_policies: BTreeSet::new(),
            compiled: Arc::new(Compiled::default()),
            realized: Rows::default(),
            dirty: true,
            base_dirty: true,
            rounds: 0,
            spent: Spent::default(),
            waiting: Vec::new(),
            created: Vec::new(),
            removed: Vec::new(),
            deleted: Vec::new(),
        };
        core.restore_endpoints();
        core.publish();
        core
    }

    fn restore_endpoints(&mut self) {
        match self.store.load_addresses() {
            Ok(before) => self.ipam.remember(before, monotonic()),
            Err(error) => {
                tracing::warn!(error = chain(&error), "addresses that rest are not known");
            }
        }
        let (records, problems) = self.store.load_endpoints();
        for problem in problems {
            tracing::error!(error = chain(&problem), "an endpoint cannot be restored");
        }
        for record in records {
            match record.reference() {
                Ok(pod) => {
                    for address in &record.addresses {
                        self.ipam.restore(*address, pod.clone());
                    }
                    self.next_id = self.next_id.max(record.id);
                    let id = record.id;
                    let namespace = record.namespace();
                    let cookie = namespace.and_then(|found| found.cookie().ok());
                    let state = EndpointState::Restoring;
                    let endpoint = Endpoint::new(record, pod, cookie, state, "restored from disk");
                    self.endpoints.insert(id, endpoint);
                }
                Err(error) => {
                    tracing::error!(endpoint = record.id, %error, "an endpoint cannot be restored");
                }
            }
        }
        if !self.endpoints.is_empty() {
            tracing::info!(count = self.endpoints.len(), "endpoints restored");
        }
    }

    /// Sets the node up. The first look at the source is awaited for a moment: it says which address
    /// of the node is the primary one.
    pub(crate) fn start(&mut self, inputs: &Receiver<Input>) {
        let deadline = Instant::now() + FIRST_LOOK;
        let mut early = Vec::new();
        while !self.synced {
            match inputs.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Input::Source(look)) => {
                    let failed = look.is_err();
                    self.handle(Input::Source(look));
                    if failed {
                        break;
                    }
                }
                Ok(Input::Stop) => return,
                Ok(other) => early.push(other),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.ensure_network();
        self.check_links();
        for input in early {
            self.handle(input);
        }
        self.settle();
        if self.synced && self.kernel.is_some() {
            self.check_routes();
        }
        let took = self.shared.started.elapsed();
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let counter = &self.shared.counts.bootstrap_milliseconds;
        counter.store(milliseconds, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(milliseconds, "agent started");
        self.shared.events.agent(
            "agent-started",
            &format!("version {}", env!("CARGO_PKG_VERSION")),
        );
    }

    /// Devices, `weir_host`, forwarding, and a datapath that knows them.
    pub(super) fn ensure_network(&mut self) {
        match self.find_network() {
            Ok(network) => {
                if network != self.network {
                    self.mark();
                    self.network = network;
                }
                let names: Vec<_> = self
                    .network
                    .devices
                    .iter()
                    .map(|device| device.name.as_str())
                    .collect();
                self.shared.report("devices", true, names.join(", "));
                self.shared.ran("device-sync", Ok(names.join(", ")));
                self.ensure_loaded();
                self.follow_mtu();
            }
            Err(message) => {
                self.shared.report("devices", false, message.clone());
                self.shared.ran("device-sync", Err(message));
            }
        }
    }

    fn find_network(&mut self) -> Result<NodeNetwork, String> {
        let text = |error: &dyn std::error::Error| chain(error);
        let shared = Arc::clone(&self.shared);
        let mut network = devices::discover(
            &mut self.netlink,
            &shared.config,
            &shared.world(),
            &shared.node,
        )
        .map_err(|error| text(&error))?;
        let mtu = u32::from(network.underlay_mtu);
        let (host, repaired) =
            links::ensure_host_pair(&mut self.netlink, mtu).map_err(|error| text(&error))?;
        let host_index = weir_abi::IfIndex(host.index.get());
        // Another MTU of the underlay is no damage.
        if self.kernel.is_some() && self.network.underlay_mtu == network.underlay_mtu {
            self.shared.all_repaired(&repaired);
        }
        network.host = host_index;
        network.names.insert(host_index, host.name);
        links::enable_forwarding(&network.devices).map_err(|error| text(&error))?;
        Ok(network)
    }

    /// Loads the programs unless the right ones are loaded. A failure is tried again later: the
    /// programs of an agent before this one go on meanwhile.
    fn ensure_loaded(&mut self) {
        let wanted = self
            .network
            .datapath_config(&self.shared.config, self.constants);
        if self
            .kernel
            .as_ref()
            .is_some_and(|kernel| kernel.config == wanted)
            || self.load_again.is_some_and(|again| Instant::now() < again)
        {
            return;
        }
        let first = self.kernel.is_none();
        let loaded = self.loader.load(&wanted).and_then(|datapath| {
            let (rows, addresses) = datapath.maps.read_back_split()?;
            Ok((datapath, rows, addresses))
        });
        match loaded {
            Ok((datapath, rows, addresses)) => {
                tracing::info!(report = %datapath.report, rows = rows.len(), "datapath loaded");
                if first {
                    self.indices = NodeIndices::restore(&rows.nodes);
                    self.restore_services(&datapath.maps, addresses);
                    self.restore_policy(&rows);
                } else {
                    self.forget_services();
                    self.shared.events.agent(
                        "config-changed",
                        "programs loaded again: the node's devices, addresses or MTU changed",
                    );
                }
                self.realized = rows;
                self.forget_policy();
                self.mark();
                self.load_again = None;
                self.spent.loaded();
                if let Some(tell) = self.on_loaded.take() {
                    tell(&datapath.maps);
                }
                self.kernel = Some(Kernel {
                    datapath,
                    config: wanted,
                    dry_run: Arc::new(DryRun::new(self.loader.clone(), wanted)),
                    active: false,
                });
                self.shared.report("datapath", true, "programs loaded");
            }
            Err(error) => {
                let message = chain(&error);
                // Verification errors begin with the words that people grep for. The verifier's own
                // lines are for the log alone.
                tracing::error!("{message}");
                let first = message
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches(':');
                self.shared.report("datapath", false, first);
                self.load_again = Some(Instant::now() + LOAD_AGAIN);
            }
        }
    }
}
