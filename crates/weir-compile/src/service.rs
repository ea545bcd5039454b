// SPDX-License-Identifier: Apache-2.0
//! The rows of services, kept between changes.
//!
//! [`ServiceCompiler::update`] looks at the services that a batch of changes concerns and hands out
//! what is to be written, in order; the rest of ten thousand services costs nothing. Numbers and
//! places stay with their service, over a restart too: they are taken over from the rows themselves.
//!
//! Start reading at `choice` (which endpoints answer), then `wanted` (what a service asks for), then
//! `settle` (how it gets its rows).

mod addresses;
mod changes;
mod choice;
mod health;
mod ledger;
mod listing;
mod maglev;
mod numbers;
mod owner;
mod reason;
mod restore;
mod rows;
mod runs;
mod settle;
mod unserved;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_abi::service::FrontendKey;
use weir_abi::{Address, Port, Protocol, ServiceId};
use weir_model::{NodeName, ServiceRef, Touched, World, Zone};

use self::ledger::Ledger;
use self::numbers::Numbers;
use self::owner::{Age, Queue, age_of};
use self::settle::Held;
pub(crate) use self::settle::socket;
use crate::{Operation, Problem};

pub use self::changes::plan;
pub use self::choice::BackendState;
pub use self::health::HealthCheck;
pub use self::listing::{BackendListing, FrontendListing};
pub use self::maglev::TableSize;
pub use self::owner::FrontendOwner;
pub use self::reason::NoBackend;
pub use self::rows::{Check, Places, ServiceBackend, ServiceBackends, ServiceRows, address_row};
pub use self::unserved::Unserved;

/// What is configured for this node, and the limits of its maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    pub node: NodeName,
    /// Where this node is, by its label.
    pub zone: Option<Zone>,
    /// This node's own addresses: where node ports and host ports are reached.
    pub node_addresses: Vec<IpAddr>,
    /// Entries of a Maglev table; none: backends are chosen by hash.
    pub maglev: Option<TableSize>,
    pub frontends_size: u32,
    pub backends_size: u32,
    pub service_backends_size: u32,
    pub source_ranges_size: u32,
    /// Entries of all Maglev tables together.
    pub maglev_size: u32,
    /// Rows from before a restart that belong to no known service stay: not every source has told
    /// everything yet. A service without endpoint slices is not taken for known either.
    pub keep_unknown: bool,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceDelta {
    /// What is to be written, in this order.
    pub operations: Vec<Operation>,
    /// [`ServiceCompiler::problems`] differ from before.
    pub problems_changed: bool,
}

/// The desired rows of all services, and whose they are.
#[derive(Debug, Default)]
pub struct ServiceCompiler {
    ledger: Ledger,
    frontend_ids: Numbers,
    service_ids: Numbers,
    owners: BTreeMap<FrontendOwner, Held>,
    by_id: BTreeMap<ServiceId, FrontendOwner>,
    /// Frontends that more than one owner asks for.
    contested: BTreeMap<FrontendKey, BTreeSet<FrontendOwner>>,
    /// Owners for whose rows there was no room.
    starved: BTreeSet<FrontendOwner>,
    /// Room was made since.
    room: bool,
    problems: BTreeMap<FrontendOwner, Vec<Problem>>,
    problems_changed: bool,
    health: BTreeMap<ServiceRef, HealthCheck>,
    /// As they were at the last update.
    settings: Option<ServiceSettings>,
    /// The addresses of all nodes, this one's too.
    nodes: BTreeSet<Address>,
    /// Addresses whose frontends changed in this update.
    addresses: BTreeSet<Address>,
    /// Numbers in rows from before a restart that nobody has taken over, with their frontends.
    restored_ids: BTreeMap<ServiceId, Vec<FrontendKey>>,
    /// Those that somebody took over in this update.
    adopted: Vec<(ServiceId, Vec<FrontendKey>)>,
    /// There are such rows.
    restored: bool,
}

impl ServiceCompiler {
    /// For an empty kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// The desired rows.
    pub const fn rows(&self) -> &ServiceRows {
        &self.ledger.rows
    }

    /// What could not be had, by owner.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Whose frontend this is, for names in events.
    pub fn frontend_at(
        &self,
        address: Address,
        port: Port,
        protocol: Protocol,
    ) -> Option<&FrontendOwner> {
        let key = FrontendKey::new(address, port, protocol);
        self.owner_of(self.ledger.rows.frontends.get(&key)?.service)
    }

    /// Whose service port this is.
    pub fn owner_of(&self, service: ServiceId) -> Option<&FrontendOwner> {
        self.by_id.get(&service)
    }

    /// Services that load balancers ask about.
    pub fn health_checks(&self) -> impl Iterator<Item = (&ServiceRef, &HealthCheck)> {
        self.health.iter()
    }

    /// Everything that was handed out is in the kernel: places that it does not name any more may
    /// be used again. Tells whether an update will find room for something that had none.
    pub fn executed(&mut self) -> bool {
        self.room |= self.ledger.executed();
        self.room && !self.starved.is_empty()
    }

    /// Brings the rows up to the world, as far as it is concerned.
    pub fn update(
        &mut self,
        world: &World,
        touched: &Touched,
        settings: &ServiceSettings,
    ) -> ServiceDelta {
        let all = touched.all || self.settings.as_ref() != Some(settings);
        self.ledger.resize(settings);
        if all || !touched.nodes.is_empty() {
            self.look_at_nodes(world, settings);
        }
        let mut queue: Queue = if all {
            self.everybody(world)
        } else {
            let services = touched.services.iter().cloned();
            let pods = touched.pods.iter().cloned().map(FrontendOwner::Pod);
            let owners = services.map(FrontendOwner::Service).chain(pods);
            owners.map(|owner| (age_of(&owner, world), owner)).collect()
        };
        if std::mem::take(&mut self.room) {
            let starved = self.starved.iter().cloned();
            queue.extend(starved.map(|owner| (age_of(&owner, world), owner)));
        }
        while let Some((_, owner)) = queue.pop_first() {
            // Whoever put it there may have known an older age.
            let age = age_of(&owner, world);
            self.look_at(&owner, age, world, settings, &mut queue);
        }
        self.forget_obsolete();
        if !settings.keep_unknown && std::mem::take(&mut self.restored) {
            self.forget_unknown();
        }
        for address in std::mem::take(&mut self.addresses) {
            self.claim_address(address);
        }
        if all {
            self.settings = Some(settings.clone());
        }
        ServiceDelta {
            operations: self.ledger.changes().in_order(),
            problems_changed: std::mem::take(&mut self.problems_changed),
        }
    }

    /// Whether nothing is held any more, neither places nor numbers.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.ledger.is_idle()
            && self.owners.is_empty()
            && self.by_id.is_empty()
            && self.contested.is_empty()
            && self.frontend_ids.is_idle()
            && self.service_ids.is_idle()
    }

    fn everybody(&self, world: &World) -> Queue {
        let services = world.services().map(|service| service.reference.clone());
        let pods = world
            .pods()
            .filter(|pod| pod.container_ports.iter().any(|port| port.host.is_some()))
            .map(|pod| FrontendOwner::Pod(pod.reference.clone()));
        services
            .map(FrontendOwner::Service)
            .chain(pods)
            .chain(self.owners.keys().cloned())
            .map(|owner| (age_of(&owner, world), owner))
            .collect()
    }

    fn look_at(
        &mut self,
        owner: &FrontendOwner,
        age: Age,
        world: &World,
        settings: &ServiceSettings,
        queue: &mut Queue,
    ) {
        let wanted = match owner {
            FrontendOwner::Service(name) => {
                let service = world.service(name);
                self.check_health(name, service.map(AsRef::as_ref), world, settings);
                let unknown = settings.keep_unknown && world.slices_of(name).is_empty();
                if unknown && self.restored && !self.owners.contains_key(owner) {
                    return;
                }
                service.map(|service| wanted::of_service(world, service, settings))
            }
            FrontendOwner::Pod(name) => world.pod(name).map(|pod| wanted::of_pod(pod, settings)),
        };
        let wanted = wanted.unwrap_or_default();
        // Most pods have no host port, and never had one.
        if !wanted.is_empty() || self.owners.contains_key(owner) {
            self.settle(owner, age, wanted, settings, queue);
        }
    }

    fn set_problems(&mut self, owner: &FrontendOwner, problems: Vec<Problem>) {
        let old = self.problems.get(owner).map_or(&[][..], Vec::as_slice);
        if old == problems {
            return;
        }
        self.problems_changed = true;
        if problems.is_empty() {
            self.problems.remove(owner);
        } else {
            self.problems.insert(owner.clone(), problems);
        }
    }
}

#[cfg(test)]
mod tests;
