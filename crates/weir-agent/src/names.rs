// SPDX-License-Identifier: Apache-2.0
//! Names for numbers, out of a snapshot.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, EndpointId, Identity, IfIndex, PolicyCookie, Port, Protocol, ServiceId};
use weir_api::endpoint::Endpoint;
use weir_api::policy::PolicyRule;
use weir_compile::Owner;
use weir_observe::{BootClock, Denial, Names};

use crate::directory::{Directory, whole_policy};
use crate::snapshot::Snapshot;

/// A snapshot with what is needed to name things.
pub(crate) struct SnapshotNames {
    node: String,
    snapshot: Arc<Snapshot>,
    directory: Arc<Directory>,
    clock: BootClock,
    /// What takes a look at more than one object, remembered: a flood of drops asks the same again and again.
    reasons: RefCell<HashMap<ServiceId, Option<String>>>,
    isolating: RefCell<HashMap<(EndpointId, PolicyDirection), Vec<PolicyRule>>>,
    misses: RefCell<HashMap<Denial, Option<String>>>,
    allowing: RefCell<HashMap<Denial, Vec<PolicyRule>>>,
}

/// Denials that are explained, at most: every policy of the cluster is looked at for each, and a scanner makes
/// thousands of different ones.
const EXPLAINED: usize = 256;

impl SnapshotNames {
    pub(crate) fn of(node: String, snapshot: Arc<Snapshot>, directory: Arc<Directory>) -> Self {
        let realtime = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let realtime = i128::try_from(realtime).unwrap_or(i128::MAX);
        let clock = BootClock::new(realtime, weir_datapath::clock::nanoseconds());
        Self {
            node,
            snapshot,
            directory,
            clock,
            reasons: RefCell::default(),
            isolating: RefCell::default(),
            misses: RefCell::default(),
            allowing: RefCell::default(),
        }
    }

    /// Who has an address.
    pub(crate) fn owner(&self, address: Address) -> Option<Owner> {
        self.snapshot.compiled.owners.get(&address).cloned()
    }

    fn endpoint_shown(&self, id: EndpointId) -> Option<&Endpoint> {
        let endpoints = &self.snapshot.endpoints;
        let found = endpoints.binary_search_by_key(&id.0, |endpoint| endpoint.id);
        endpoints.get(found.ok()?)
    }

    /// Whose network namespace a number stands for.
    pub(crate) fn namespace(&self, cookie: u64) -> Option<String> {
        self.snapshot.namespaces.get(&cookie).cloned()
    }

    /// A service's name, not copied.
    pub(crate) fn shared_service(&self, service: ServiceId) -> Option<Arc<str>> {
        self.directory.service_name(service)
    }

    /// The service that answers at an address and port.
    pub(crate) fn frontend(
        &self,
        address: Address,
        port: Port,
        protocol: Protocol,
    ) -> Option<String> {
        self.directory.frontend_name(address, port, protocol)
    }

    /// The rules behind a cookie, not copied.
    pub(crate) fn shared_rules(&self, cookie: PolicyCookie) -> Option<Arc<[PolicyRule]>> {
        self.directory.rules(cookie)
    }

    /// The namespace of the pods behind an identity.
    pub(crate) fn namespace_of(&self, identity: Identity) -> Option<String> {
        let set = self.snapshot.identities.set(identity)?;
        Some(set.namespace.to_string())
    }

    /// The policies that allow a connection, each as a whole. There are none where too many different ones are asked
    /// for.
    pub(crate) fn allowing(&self, asked: &Denial) -> Vec<PolicyRule> {
        let mut known = self.allowing.borrow_mut();
        if known.len() >= EXPLAINED && !known.contains_key(asked) {
            return Vec::new();
        }
        let policies = known.entry(*asked).or_insert_with(|| {
            let identities = &self.snapshot.identities;
            let found = self.directory.allowing(asked, identities);
            found.iter().map(whole_policy).collect()
        });
        policies.clone()
    }

    /// Whoever has an address, `world` where nobody of the cluster has it.
    pub(crate) fn address(&self, address: Address) -> String {
        if let Some(name) = self.peer(address) {
            return name;
        }
        let ranges = self.snapshot.nodes.iter();
        let in_cluster = ranges
            .flat_map(|node| node.pod_cidrs.iter())
            .any(|cidr| cidr.contains(address.to_ip()));
        if in_cluster {
            String::new()
        } else {
            "world".to_owned()
        }
    }
}

/// `shop/web`, `node/n1`.
pub(crate) fn owner_name(owner: &Owner) -> String {
    match owner {
        Owner::Node(name) => format!("node/{name}"),
        Owner::Pod(pod) => pod.to_string(),
    }
}

impl Names for SnapshotNames {
    fn node(&self) -> &str {
        &self.node
    }

    fn time(&self, monotonic_nanoseconds: u64) -> String {
        self.clock.rfc3339(monotonic_nanoseconds)
    }

    fn peer(&self, address: Address) -> Option<String> {
        let owner = self.snapshot.compiled.owners.get(&address);
        owner
            .map(owner_name)
            .or_else(|| self.directory.address_name(address))
    }

    fn service(&self, service: ServiceId) -> Option<String> {
        self.shared_service(service).map(|name| name.to_string())
    }

    fn endpoint(&self, id: EndpointId) -> Option<String> {
        if id == EndpointId::HOST {
            return Some(format!("node/{}", self.node));
        }
        let endpoint = self.endpoint_shown(id)?;
        Some(endpoint.status.external_identifiers.pod_name.clone())
    }

    fn no_backend(&self, service: ServiceId) -> Option<String> {
        let mut known = self.reasons.borrow_mut();
        let reason = known
            .entry(service)
            .or_insert_with(|| self.directory.no_backend(service));
        reason.clone()
    }

    fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
        self.shared_rules(cookie)
            .map_or_else(Vec::new, |rules| rules.to_vec())
    }

    fn isolating(&self, endpoint: EndpointId, direction: PolicyDirection) -> Vec<PolicyRule> {
        let mut known = self.isolating.borrow_mut();
        let policies = known.entry((endpoint, direction)).or_insert_with(|| {
            let found = self.endpoint_shown(endpoint);
            let identity = found.map(|found| Identity(found.status.identity.id));
            let set = identity.and_then(|identity| self.snapshot.identities.set(identity));
            set.map_or_else(Vec::new, |set| self.directory.isolating(set, direction))
        });
        policies.clone()
    }

    fn nearest_miss(&self, denial: &Denial) -> Option<String> {
        let mut known = self.misses.borrow_mut();
        if known.len() >= EXPLAINED && !known.contains_key(denial) {
            return None;
        }
        let miss = known.entry(*denial).or_insert_with(|| {
            let identities = &self.snapshot.identities;
            self.directory.nearest_miss(denial, identities)
        });
        miss.clone()
    }

    fn labels(&self, identity: Identity) -> Vec<String> {
        self.snapshot.identities.display_labels(identity)
    }

    fn link(&self, index: IfIndex) -> Option<EndpointId> {
        let mut endpoints = self.snapshot.endpoints.iter();
        let found = endpoints.find(|one| one.status.networking.interface_index == index.0)?;
        Some(EndpointId(found.id))
    }

    fn interface(&self, index: IfIndex) -> Option<String> {
        self.snapshot.interfaces.get(&index).cloned()
    }
}
