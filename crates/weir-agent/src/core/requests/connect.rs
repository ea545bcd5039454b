// SPDX-License-Identifier: Apache-2.0
//! A pod's network is asked for: its addresses, its link, the endpoint that stands for it.

use std::net::IpAddr;
use std::time::Instant;

use weir_abi::observation::Hook;
use weir_abi::{Address, IfIndex, MacAddress};
use weir_api::endpoint::{EndpointCreated, EndpointRequest, EndpointState};
use weir_compile::Owner;
use weir_model::PodRef;
use weir_net::{NetNamespace, netns};

use super::{Proven, prove};
use crate::core::links::{self, PodLink};
use crate::core::{Connected, Core, Reply, monotonic};
use crate::endpoint::{Endpoint, Record};
use crate::error::{EndpointError, chain};

/// Numbers 0 and 1 are taken (none, and the node itself).
const FIRST_ID: u16 = 2;
/// What the kernel says of a descriptor that is no network namespace.
const INVALID: i32 = nix::libc::EINVAL;

/// The answer to a creation.
pub(in crate::core) fn created(endpoint: &Endpoint) -> EndpointCreated {
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
    pub(in crate::core) fn create(&mut self, request: EndpointRequest, reply: Reply<Connected>) {
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
        let finished = self.finish_link(proven, namespace, &wanted, link.index);
        let cookie = match finished {
            Ok(cookie) => cookie,
            Err(error) => {
                let _ = self.netlink.delete_link(link.index);
                return Err(error);
            }
        };
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
        let endpoint = Endpoint::new(record, pod.clone(), cookie, state, "created");
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

    /// The pod's side and the program: the kernel makes each of them wait for about as long, so they are done side by
    /// side. A busy node lets every new thread wait, so there is one. Answers the number of the pod's namespace.
    fn finish_link(
        &mut self,
        proven: &Proven,
        namespace: &NetNamespace,
        wanted: &PodLink<'_>,
        link: weir_net::IfIndex,
    ) -> Result<Option<u64>, EndpointError> {
        let place = (Hook::FromContainer, IfIndex(link.get()));
        // Programs that have not taken over yet are attached when they do.
        let kernel = self.kernel.as_ref().filter(|kernel| kernel.active);
        let (configured, attached) = namespace.run_beside(
            || {
                links::configure_inside(wanted)?;
                Ok(netns::current_cookie().ok())
            },
            || kernel.is_some_and(|kernel| kernel.datapath.attach(place.0, place.1).is_ok()),
        );
        // An attachment that failed is tried again, and reported, with all the others.
        if attached {
            self.attached.insert(place);
        }
        configured
            .flatten()
            .map_err(|source| link_error(proven, source))
    }

    /// Numbers go round, so that one is not given to another pod at once.
    fn free_id(&self) -> Option<u16> {
        let after = self.next_id.saturating_add(1).max(FIRST_ID);
        (after..=u16::MAX)
            .chain(FIRST_ID..after)
            .find(|id| !self.endpoints.contains_key(id))
    }
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
