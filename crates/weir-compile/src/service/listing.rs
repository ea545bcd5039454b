// SPDX-License-Identifier: Apache-2.0
//! Frontends as people want to see them: with names, the state of each backend, and the reason
//! where there is none.

use std::ops::Bound;

use ipnet::IpNet;
use weir_abi::service::{BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow, flags};
use weir_abi::{Address, Port, Protocol, ServiceId};
use weir_model::{NodeName, PodRef, Service, ServicePort, World, Zone};

use super::choice::{BackendState, Candidate, candidates};
use super::reason::{NoBackend, Reasons};
use super::settle::Group;
use super::{FrontendOwner, ServiceCompiler, ServiceSettings};
use crate::prefix::prefix_of_key;

/// One frontend.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontendListing {
    pub key: FrontendKey,
    /// The row; its numbers are those of the maps.
    pub row: FrontendRow,
    /// None: a bad number in a row from before a restart.
    pub kind: Option<FrontendKind>,
    /// None: left from before a restart, and no source has told of it so far.
    pub owner: Option<FrontendOwner>,
    /// The service's port: its name (may be empty) and number.
    pub port_name: String,
    pub port: u16,
    /// Number or name of the port in the pods.
    pub target: String,
    /// Who may connect; none: everybody.
    pub source_ranges: Option<Vec<IpNet>>,
    /// Every backend that the service port has, also those that take no connections from here.
    pub backends: Vec<BackendListing>,
    /// Why clients of this node find no backend, where they do not.
    pub internal_reason: Option<NoBackend>,
    /// The same for packets that the network brings. A cluster IP is never for them.
    pub external_reason: Option<NoBackend>,
}

/// One backend of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendListing {
    pub address: Address,
    pub port: Port,
    /// None: left from before a restart.
    pub state: Option<BackendState>,
    /// Takes new connections of clients of this node.
    pub internal: bool,
    /// Takes new connections that the network brings.
    pub external: bool,
    /// Runs on this node.
    pub local: bool,
    pub node: Option<NodeName>,
    pub zone: Option<Zone>,
    pub pod: Option<PodRef>,
}

impl ServiceCompiler {
    /// All frontends, by address, port and protocol. The world must be that of the last update.
    pub fn listing<'a>(&'a self, world: &'a World) -> impl Iterator<Item = FrontendListing> + 'a {
        let reasons = Reasons::new(world);
        let frontends = self.ledger.rows.frontends.iter();
        frontends.map(move |(key, row)| self.frontend(key, row, world, &reasons))
    }

    /// The frontends behind a key, in the same order: a list in pieces, between which others may write.
    pub fn listing_behind<'a>(
        &'a self,
        last: Option<&FrontendKey>,
        world: &'a World,
    ) -> impl Iterator<Item = FrontendListing> + 'a {
        let reasons = Reasons::new(world);
        let first = last.map_or(Bound::Unbounded, |last| Bound::Excluded(*last));
        let frontends = self.ledger.rows.frontends.range((first, Bound::Unbounded));
        frontends.map(move |(key, row)| self.frontend(key, row, world, &reasons))
    }

    /// Number and protocol of a service's port; for a host port of a pod, its place among the container ports.
    pub fn port_of(&self, id: ServiceId) -> Option<(u16, Protocol)> {
        let (_, group) = self.group(id)?;
        Some((group.key.number, group.key.protocol))
    }

    /// The frontends of one owner.
    pub fn listing_of<'a>(
        &'a self,
        owner: &FrontendOwner,
        world: &'a World,
    ) -> impl Iterator<Item = FrontendListing> + 'a {
        let reasons = Reasons::new(world);
        let held = self.owners.get(owner);
        let groups = held.into_iter().flat_map(|held| held.groups.iter());
        groups
            .flat_map(|group| group.frontends.iter())
            .filter_map(move |key| {
                let row = self.ledger.rows.frontends.get(key)?;
                Some(self.frontend(key, row, world, &reasons))
            })
    }

    /// One frontend, if there is one.
    pub fn listing_at(&self, key: &FrontendKey, world: &World) -> Option<FrontendListing> {
        let row = self.ledger.rows.frontends.get(key)?;
        Some(self.frontend(key, row, world, &Reasons::new(world)))
    }

    fn group(&self, id: ServiceId) -> Option<(&FrontendOwner, &Group)> {
        let (owner, held) = self.owners.get_key_value(self.by_id.get(&id)?)?;
        let group = held.groups.iter().find(|group| group.id == id)?;
        Some((owner, group))
    }

    fn frontend(
        &self,
        key: &FrontendKey,
        row: &FrontendRow,
        world: &World,
        reasons: &Reasons<'_>,
    ) -> FrontendListing {
        let mut listing = FrontendListing {
            key: *key,
            row: *row,
            kind: FrontendKind::from_number(row.kind),
            owner: None,
            port_name: String::new(),
            port: key.port.get(),
            target: String::new(),
            source_ranges: self.ranges(row),
            backends: Vec::new(),
            internal_reason: None,
            external_reason: None,
        };
        let group = self.group(row.service);
        listing.owner = group.map(|(owner, _)| owner.clone());
        match (group, &self.settings) {
            (Some((FrontendOwner::Service(name), group)), Some(settings)) => {
                let service = world.service(name);
                let found = service.and_then(|service| {
                    let mut ports = service.ports.iter();
                    let port = ports.find(|port| {
                        (port.port, port.protocol) == (group.key.number, group.key.protocol)
                    });
                    Some((&**service, port?))
                });
                if let Some((service, port)) = found {
                    self.of_port(&mut listing, service, port, group, world, settings, reasons);
                    return listing;
                }
            }
            (Some((FrontendOwner::Pod(name), group)), Some(settings)) => {
                self.of_pod(&mut listing, name, group, settings, world);
                return listing;
            }
            (Some(_), None) | (None, _) => {}
        }
        self.of_rows(&mut listing);
        listing
    }

    fn ranges(&self, row: &FrontendRow) -> Option<Vec<IpNet>> {
        let restricted = row.flags & flags::SOURCE_RANGES != 0;
        let (_, group) = self.group(row.service).filter(|_| restricted)?;
        Some(group.ranges.iter().filter_map(prefix_of_key).collect())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing that a listing shows"
    )]
    fn of_port(
        &self,
        listing: &mut FrontendListing,
        service: &Service,
        port: &ServicePort,
        group: &Group,
        world: &World,
        settings: &ServiceSettings,
        reasons: &Reasons<'_>,
    ) {
        let family = group.key.family;
        let found = candidates(world, service, port, family, settings.here());
        let row = listing.row;
        listing.port_name = port.name.to_string();
        listing.port = port.port;
        listing.target = port.target.to_string();
        let namespace = &service.reference.namespace;
        let show = |one: &Candidate<'_>| BackendListing {
            address: one.address,
            port: one.port,
            state: Some(one.state),
            internal: self.has(&row.internal, one.address, one.port),
            external: self.has(&row.external, one.address, one.port),
            local: one.local,
            node: one.node.cloned(),
            zone: one.zone.cloned(),
            pod: one.pod.map(|name| PodRef {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
        };
        listing.backends = found.iter().map(show).collect();
        let why = |run: &BackendRun, local: u8| {
            let keeps_local = row.flags & local != 0;
            (run.count == 0).then(|| reasons.of(service, port, family, &found, keeps_local))
        };
        listing.internal_reason = why(&row.internal, flags::INTERNAL_LOCAL);
        listing.external_reason = if listing.kind == Some(FrontendKind::ClusterIp) {
            None
        } else {
            why(&row.external, flags::EXTERNAL_LOCAL)
        };
    }

    fn of_pod(
        &self,
        listing: &mut FrontendListing,
        name: &PodRef,
        group: &Group,
        settings: &ServiceSettings,
        world: &World,
    ) {
        let pod = world.pod(name);
        let port = pod.and_then(|pod| pod.container_ports.get(usize::from(group.key.number)));
        if let Some(port) = port {
            listing.port_name = port.name.clone().unwrap_or_default();
            listing.target = port.port.to_string();
        }
        let backends = self.ledger.rows.run(&group.internal).iter();
        let show = |one: &BackendRow| BackendListing {
            address: one.address,
            port: one.port,
            state: Some(BackendState::Active),
            internal: true,
            external: true,
            local: true,
            node: Some(settings.node.clone()),
            zone: settings.zone.clone(),
            pod: Some(name.clone()),
        };
        listing.backends = backends.map(show).collect();
        if listing.backends.is_empty() {
            listing.internal_reason = Some(NoBackend::NoRoom);
            listing.external_reason = Some(NoBackend::NoRoom);
        }
    }

    /// Nobody has told what is behind the row, so only the rows can say.
    fn of_rows(&self, listing: &mut FrontendListing) {
        let row = &listing.row;
        let all = self.ledger.rows.service_backends.of(row.service).iter();
        let show = |one: &super::ServiceBackend| BackendListing {
            address: one.address,
            port: one.port,
            state: None,
            internal: self.has(&row.internal, one.address, one.port),
            external: self.has(&row.external, one.address, one.port),
            local: one.flags & super::ServiceBackend::LOCAL != 0,
            node: None,
            zone: None,
            pod: None,
        };
        listing.backends = all.map(show).collect();
    }

    fn has(&self, run: &BackendRun, address: Address, port: Port) -> bool {
        let rows = self.ledger.rows.run(run);
        rows.binary_search_by_key(&(address, port), |row| (row.address, row.port))
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
