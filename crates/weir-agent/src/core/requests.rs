// SPDX-License-Identifier: Apache-2.0
//! What the CNI plugin, the lab and people ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use weir_abi::ipcache::PrefixKey;
use weir_abi::observation::Hook;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::{Address, IfIndex, MacAddress, PolicySet};
use weir_api::endpoint::{EndpointCreated, EndpointRequest, EndpointState, Regenerated};
use weir_compile::{Operation, Owner, Plan, Rows, plan};
use weir_datapath::execute;
use weir_model::PodRef;
use weir_net::NetNamespace;

use super::links::{self, PodLink};
use super::{Attachments, Connected, Core, Reply, monotonic};
use crate::endpoint::{Endpoint, Record};
use crate::error::{EndpointError, chain};

/// Numbers 0 and 1 are taken (none, and the node itself).
const FIRST_ID: u16 = 2;

/// What the kernel says of a descriptor that is no network namespace.
const INVALID: i32 = nix::libc::EINVAL;

/// A request that has been proven.
pub(super) struct Proven {
    pub(super) request: EndpointRequest,
    pub(super) pod: PodRef,
}

pub(super) fn prove(request: EndpointRequest) -> Result<Proven, EndpointError> {
    let invalid = |field, message: String| EndpointError::Invalid { field, message };
    let container = &request.container_id;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if container.is_empty() || container.len() > 128 || !container.chars().all(legal) {
        let message = "1 to 128 letters, digits, `-`, `_` and `.` are needed".to_owned();
        return Err(invalid("containerId", message));
    }
    let name = &request.interface;
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if name.is_empty()
        || name.len() > 15
        || !name.chars().all(legal)
        || matches!(name.as_str(), "." | ".." | "lo")
    {
        return Err(invalid(
            "interface",
            format!("`{name}` cannot be the name of an interface"),
        ));
    }
    if !request.netns.starts_with('/') || request.netns.len() > 4096 || request.netns.contains('\0')
    {
        return Err(invalid("netns", "an absolute path is needed".to_owned()));
    }
    let pod = PodRef::new(&request.namespace, &request.pod)
        .map_err(|error| invalid("pod", error.to_string()))?;
    if request.requested_addresses.len() > 8 {
        return Err(invalid(
            "requestedAddresses",
            "at most 8 are possible".to_owned(),
        ));
    }
    for (index, address) in request.requested_addresses.iter().enumerate() {
        if request
            .requested_addresses
            .iter()
            .take(index)
            .any(|other| other == address)
        {
            return Err(invalid(
                "requestedAddresses",
                format!("{address} stands there twice"),
            ));
        }
    }
    Ok(Proven { request, pod })
}

fn link_error(proven: &Proven, source: weir_net::Error) -> EndpointError {
    let Proven { request, pod } = proven;
    let pod = pod.to_string();
    if source.is_exists() {
        let interface = request.interface.clone();
        return EndpointError::InterfaceTaken { pod, interface };
    }
    // Any file can be opened; names and sizes are proven, so it is the namespace that is none.
    if source.errno() == Some(INVALID) {
        let netns = request.netns.clone();
        return EndpointError::Namespace { pod, netns, source };
    }
    EndpointError::Link { pod, source }
}

/// What people read who ask why their pod does not start.
fn refusal(error: &EndpointError) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", chain(error)),
        None => chain(error),
    }
}

/// The answer to a creation.
pub(super) fn created(endpoint: &Endpoint) -> EndpointCreated {
    let record = &endpoint.record;
    let mut gateways: Vec<_> = record
        .addresses
        .iter()
        .map(|ip| links::gateway_of(*ip))
        .collect();
    gateways.dedup();
    EndpointCreated {
        id: record.id,
        interface: record.host_interface.clone(),
        mac: endpoint.mac().to_string(),
        host_mac: Some(MacAddress::GATEWAY.to_string()),
        addresses: record.addresses.clone(),
        gateways,
        mtu: record.mtu,
    }
}

impl Core {
    pub(super) fn create(&mut self, request: EndpointRequest, reply: Reply<Connected>) {
        // Whoever asked has gone away while the request waited; nobody would take the endpoint away.
        if reply.is_closed() {
            return;
        }
        let since = Instant::now();
        let connected = prove(request).and_then(|proven| {
            let connected = self.connect(&proven);
            if let Err(error) = &connected {
                self.remark_on_pod(&proven.pod, refusal(error));
            }
            connected
        });
        match connected {
            Ok(id) => {
                self.mark();
                self.created.push((id, since, reply));
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "endpoint refused");
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Makes the link; the rows follow. Asking twice is fine.
    fn connect(&mut self, proven: &Proven) -> Result<u16, EndpointError> {
        let Proven { request, pod } = proven;
        if self.kernel.is_none() {
            let subsystems = self.shared.subsystems();
            let cause = subsystems.into_iter().find(|one| {
                !one.healthy
                    && !["announcements", "kubernetes", "source"].contains(&one.name.as_str())
            });
            let cause = cause.map_or_else(|| "it is being loaded".to_owned(), |one| one.message);
            return Err(EndpointError::NoDatapath(cause));
        }
        let namespace_error = |source| EndpointError::Namespace {
            pod: pod.to_string(),
            netns: request.netns.clone(),
            source,
        };
        let namespace = NetNamespace::open(&request.netns).map_err(namespace_error)?;
        let inode = namespace.inode().map_err(namespace_error)?;
        if let Some(known) = self.known(request) {
            let same = known.record.netns_inode == inode && known.pod == *pod;
            let id = known.record.id;
            let index = weir_net::IfIndex::new(known.record.host_index);
            if same
                && self
                    .netlink
                    .link_by_index(index)
                    .is_ok_and(|link| link.is_some())
            {
                return Ok(id);
            }
            // The runtime has made the sandbox anew under the same name.
            self.remove(id, "the container has another network namespace");
            self.settle();
        }
        // A container that takes over the namespace of one before it.
        for link in self.remover.leaving(inode) {
            let source = self.netlink.delete_link(link);
            source.map_err(|source| EndpointError::Link {
                pod: pod.to_string(),
                source,
            })?;
        }
        let addresses = self.allocate(request, pod)?;
        let connected = self.connect_with(proven, &namespace, inode, &addresses);
        if connected.is_err() {
            for address in addresses {
                self.ipam.release(address, monotonic());
            }
        }
        connected
    }

    pub(super) fn known(&self, request: &EndpointRequest) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| {
            endpoint.record.container_id == request.container_id
                && endpoint.record.interface == request.interface
        })
    }

    fn allocate(
        &mut self,
        request: &EndpointRequest,
        pod: &PodRef,
    ) -> Result<Vec<IpAddr>, EndpointError> {
        let owners = &self.compiled.owners;
        let claimed = |address: IpAddr| match owners.get(&Address::from(address)) {
            Some(Owner::Pod(owner)) => owner != pod,
            Some(Owner::Node(_)) => true,
            None => false,
        };
        let given = self
            .ipam
            .allocate(&request.requested_addresses, pod, claimed, monotonic());
        let addresses = given.map_err(|source| EndpointError::Address {
            pod: pod.to_string(),
            source,
        })?;
        // Before they are used: an agent that is killed now must not give them to another pod at once.
        match self.store.save_addresses(&self.ipam.remembered()) {
            Ok(()) => Ok(addresses),
            Err(error) => {
                for address in addresses {
                    self.ipam.release(address, monotonic());
                }
                Err(error.into())
            }
        }
    }

    fn connect_with(
        &mut self,
        proven: &Proven,
        namespace: &NetNamespace,
        netns_inode: u64,
        addresses: &[IpAddr],
    ) -> Result<u16, EndpointError> {
        let Proven { request, pod } = proven;
        let id = self.free_id().ok_or(EndpointError::NoNumber)?;
        let host_interface = links::host_name(&request.container_id, &request.interface);
        if let Some(other) = self
            .endpoints
            .values()
            .find(|one| one.record.host_interface == host_interface)
        {
            // Two containers whose names meet in 32 bits.
            let taken = EndpointError::InterfaceTaken {
                pod: other.pod.to_string(),
                interface: host_interface,
            };
            return Err(taken);
        }
        let mac = links::pod_mac(&request.container_id, &request.interface);
        let mtu = u32::from(self.network.pod_mtu);
        let wanted = PodLink {
            host_name: &host_interface,
            interface: &request.interface,
            mac,
            addresses,
            mtu,
        };
        let grace = self.grace.clone();
        let _short = grace.expedite();
        let link = links::connect(&mut self.netlink, namespace, &wanted)
            .map_err(|source| link_error(proven, source))?;
        if let Err(error) = self.finish_link(proven, namespace, &wanted, link.index) {
            let _ = self.netlink.delete_link(link.index);
            return Err(error);
        }
        let record = Record {
            id,
            container_id: request.container_id.clone(),
            netns: request.netns.clone(),
            netns_inode,
            interface: request.interface.clone(),
            host_interface,
            host_index: link.index.get(),
            mac: mac.0,
            addresses: addresses.to_vec(),
            mtu,
            namespace: request.namespace.clone(),
            pod: request.pod.clone(),
            uid: request.uid.clone(),
            labels: None,
            named_ports: Vec::new(),
        };
        if let Err(error) = self.store.save_endpoint(&record) {
            let _ = self.netlink.delete_link(link.index);
            return Err(error.into());
        }
        self.next_id = id;
        let state = EndpointState::WaitingForIdentity;
        let endpoint = Endpoint::new(record, pod.clone(), state, "created");
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let message = format!("endpoint {id} {pod} {}", shown.join(" "));
        tracing::info!(endpoint = id, %pod, addresses = shown.join(" "), "endpoint created");
        self.shared.events.agent("endpoint-created", &message);
        if self.shared.world().pod(pod).is_none() {
            tracing::info!(endpoint = id, %pod, "endpoint not ready: its pod object has not been seen yet");
        }
        self.endpoints.insert(id, endpoint);
        Ok(id)
    }

    /// The pod's side and the program: the kernel makes each of them wait for about as long, so they
    /// are done side by side.
    fn finish_link(
        &mut self,
        proven: &Proven,
        namespace: &NetNamespace,
        wanted: &PodLink<'_>,
        link: weir_net::IfIndex,
    ) -> Result<(), EndpointError> {
        let place = (Hook::FromContainer, IfIndex(link.get()));
        // Programs that have not taken over yet are attached when they do.
        let kernel = self.kernel.as_ref().filter(|kernel| kernel.active);
        let (configured, attached) = thread::scope(|scope| {
            let attaching = kernel.map(|kernel| {
                scope.spawn(move || kernel.datapath.attach(place.0, place.1).is_ok())
            });
            let configured = links::configure_pod(namespace, wanted);
            (
                configured,
                attaching.is_some_and(|thread| thread.join().unwrap_or_default()),
            )
        });
        // An attachment that failed is tried again, and reported, with all the others.
        if attached {
            self.attached.insert(place);
        }
        configured
            .map(drop)
            .map_err(|source| link_error(proven, source))
    }

    /// Numbers go round, so that one is not given to another pod at once.
    fn free_id(&self) -> Option<u16> {
        let after = self.next_id.saturating_add(1).max(FIRST_ID);
        (after..=u16::MAX)
            .chain(FIRST_ID..after)
            .find(|id| !self.endpoints.contains_key(id))
    }

    pub(super) fn delete(&mut self, what: &Attachments, reply: Reply<()>) {
        let meant = |endpoint: &&Endpoint| {
            let record = &endpoint.record;
            let interface = what.interface.as_ref();
            record.container_id == what.container
                && interface.is_none_or(|interface| *interface == record.interface)
        };
        let ids: Vec<_> = self
            .endpoints
            .values()
            .filter(meant)
            .map(|endpoint| endpoint.record.id)
            .collect();
        for id in ids {
            self.remove(id, "deleted");
        }
        if self.dirty {
            self.deleted.push(reply);
        } else {
            let _ = reply.send(Ok(()));
        }
    }

    /// Takes an endpoint out; rows go with the next plan, then the link.
    pub(super) fn remove(&mut self, id: u16, reason: &str) {
        if let Some(mut endpoint) = self.endpoints.remove(&id) {
            endpoint.enter(EndpointState::Disconnecting, reason);
            tracing::info!(endpoint = id, pod = %endpoint.pod, reason, "endpoint removed");
            let message = format!("endpoint {id} {}: {reason}", endpoint.pod);
            self.shared.events.agent("endpoint-deleted", &message);
            self.removed.push(endpoint);
            self.mark();
        }
    }

    /// The links of endpoints whose rows are gone.
    pub(super) fn finish_removed(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if removed.is_empty() {
            return;
        }
        for address in removed.iter().flat_map(|one| &one.record.addresses) {
            self.ipam.release(*address, monotonic());
        }
        // Before the endpoints' own files, so that at every moment one of the two speaks of them.
        if let Err(error) = self.store.save_addresses(&self.ipam.remembered()) {
            tracing::warn!(error = chain(&error), "addresses that rest are not saved");
        }
        for endpoint in removed {
            let record = &endpoint.record;
            let index = IfIndex(record.host_index);
            if let Some(kernel) = &self.kernel
                && let Err(error) = kernel.datapath.detach(index)
            {
                tracing::warn!(
                    endpoint = record.id,
                    error = chain(&error),
                    "program not detached"
                );
            }
            self.attached.remove(&(Hook::FromContainer, index));
            // Before the link: a link without state is removed by the next agent, but state with a
            // link would be an endpoint again.
            if let Err(error) = self.store.remove_endpoint(record.id) {
                tracing::warn!(
                    endpoint = record.id,
                    error = chain(&error),
                    "state not removed"
                );
            }
            let link = weir_net::IfIndex::new(record.host_index);
            self.remover.remove(link, record.netns_inode);
        }
    }

    /// Rebuilds everything of one endpoint; tells what differed.
    pub(super) fn regenerate(&mut self, id: u16) -> Result<Regenerated, EndpointError> {
        let endpoint = self
            .endpoints
            .get_mut(&id)
            .ok_or_else(|| EndpointError::Unknown(id.to_string()))?;
        endpoint.enter(EndpointState::Regenerating, "asked for");
        let record = endpoint.record.clone();
        let pod = endpoint.pod.clone();
        let mut repaired = self.repair_rows(&record, &pod)?;
        repaired.extend(self.repair_link(&record, &pod)?);
        for what in &repaired {
            self.shared.repaired(what);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            let message = format!("regenerated: {} repaired", repaired.len());
            endpoint.note("OK", &message);
        }
        self.mark();
        self.settle();
        Ok(Regenerated { id, repaired })
    }

    /// Gives every pod the MTU that the underlay allows now. Which overhead tunnels have depends on
    /// the other nodes, so their objects must be known.
    pub(super) fn follow_mtu(&mut self) {
        let mtu = u32::from(self.network.pod_mtu);
        if !self.synced || mtu == 0 {
            return;
        }
        let other = |endpoint: &&Endpoint| endpoint.record.mtu != mtu;
        let ids: Vec<_> = self
            .endpoints
            .values()
            .filter(other)
            .map(|one| one.record.id)
            .collect();
        for id in ids {
            let Some(endpoint) = self.endpoints.get_mut(&id) else {
                continue;
            };
            endpoint.note("OK", &format!("MTU {} becomes {mtu}", endpoint.record.mtu));
            endpoint.record.mtu = mtu;
            let (record, pod) = (endpoint.record.clone(), endpoint.pod.clone());
            if let Err(error) = self.store.save_endpoint(&record) {
                tracing::warn!(endpoint = id, error = chain(&error), "state not saved");
            }
            if let Err(error) = self.repair_link(&record, &pod) {
                tracing::warn!(endpoint = id, error = chain(&error), "MTU not changed");
            }
        }
    }

    /// Compares the endpoint's own rows, and those of its policy set, with the kernel, whatever was remembered.
    fn repair_rows(&mut self, record: &Record, pod: &PodRef) -> Result<Vec<String>, EndpointError> {
        let Some(kernel) = &self.kernel else {
            return Err(EndpointError::NoDatapath("see `weir status`".to_owned()));
        };
        let maps = &kernel.datapath.maps;
        let rows = |message: String| EndpointError::Rows {
            pod: pod.to_string(),
            message,
        };
        let read = |error: weir_datapath::Error| rows(chain(&error));
        let directory = Arc::clone(&self.shared.directory);
        let policy = directory.policy();
        let desired = policy.rows();
        let (mut found, mut wanted) = (Rows::default(), Rows::default());
        let mut sets = BTreeSet::new();
        for address in record.addresses.iter().map(|ip| Address::from(*ip)) {
            let key = PrefixKey::host(address);
            let there = maps.endpoints.get(&address).map_err(read)?;
            sets.extend(there.map(|row| row.policy_set));
            found.endpoints.extend(there.map(|row| (address, row)));
            // A longest-prefix look-up may find the range instead.
            let behind = self.realized.ipcache.get(&key).copied();
            let exact = maps.ipcache.get(&key).map_err(read)?;
            found.ipcache.extend(
                exact
                    .filter(|row| behind == Some(*row))
                    .map(|row| (key, row)),
            );
            let row = desired.endpoints.get(&address);
            sets.extend(row.map(|row| row.policy_set));
            wanted.endpoints.extend(row.map(|row| (address, *row)));
            wanted
                .ipcache
                .extend(desired.ipcache.get(&key).map(|row| (key, *row)));
        }
        sets.remove(&PolicySet::NONE);
        let of_sets = |rows: &BTreeMap<PolicyKey, PolicyRow>| -> BTreeMap<PolicyKey, PolicyRow> {
            let rows = rows.iter().filter(|(key, _)| sets.contains(&key.set));
            rows.map(|(key, row)| (*key, *row)).collect()
        };
        if !sets.is_empty() {
            let all = maps.policy.entries().map_err(read)?;
            found.policy = of_sets(&all.into_iter().collect());
            wanted.policy = of_sets(&desired.policy);
        }
        let plan: Plan = plan(&found, &wanted);
        let outcome = execute(maps, &plan);
        if let Some(failure) = outcome.failures.first() {
            return Err(rows(format!(
                "{}: {}",
                failure.operation,
                chain(&failure.error)
            )));
        }
        for operation in plan.changes() {
            self.realized.apply(operation);
        }
        Ok(plan.changes().map(Operation::to_string).collect())
    }

    fn repair_link(&mut self, record: &Record, pod: &PodRef) -> Result<Vec<String>, EndpointError> {
        let failed = |source| EndpointError::Link {
            pod: pod.to_string(),
            source,
        };
        let index = weir_net::IfIndex::new(record.host_index);
        let link = self.netlink.link_by_index(index).map_err(failed)?;
        let Some(link) = link.filter(|link| link.name == record.host_interface) else {
            return Ok(vec![format!("interface {} is gone", record.host_interface)]);
        };
        let mut repaired =
            links::ensure_host_side(&mut self.netlink, &link, record.mtu).map_err(failed)?;
        // The path may name another namespace by now, or none.
        if let Ok(namespace) = NetNamespace::open(&record.netns)
            && namespace
                .inode()
                .is_ok_and(|inode| inode == record.netns_inode)
        {
            let wanted = PodLink {
                host_name: &record.host_interface,
                interface: &record.interface,
                mac: MacAddress(record.mac),
                addresses: &record.addresses,
                mtu: record.mtu,
            };
            repaired.extend(links::configure_pod(&namespace, &wanted).map_err(failed)?);
        }
        Ok(repaired)
    }
}
