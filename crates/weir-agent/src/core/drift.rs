// SPDX-License-Identifier: Apache-2.0
//! Reads everything back now and then, and puts right what somebody else has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use weir_abi::Slot;
use weir_compile::{Operation, plan};

use super::devices::is_pod_link;
use super::{Core, links};
use crate::error::chain;

/// Rows of services, at most, that are compared in every round: reading back ten times as many at that pace cost
/// an agent at rest 1.5 % of a processor.
const FEW: usize = 10_000;
/// Rounds from one comparison to the next where there are more.
const MANY_EVERY: u32 = 6;

/// A part of everything that is read back and compared. Each of them takes locks of the kernel that others hold for
/// long, so the loop looks at one in a turn, and takes in what has come meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Network,
    Links,
    Rows,
    Routes,
    Programs,
    Endpoints,
}

impl Part {
    /// In this order: nothing is judged by what has not been repaired.
    pub(super) const ALL: [Self; 6] = [
        Self::Network,
        Self::Links,
        Self::Rows,
        Self::Routes,
        Self::Programs,
        Self::Endpoints,
    ];
}

impl Core {
    /// Compares a part of everything. What differs is repaired before the next part is looked at.
    pub(super) fn look_at(&mut self, part: Part) {
        let loaded = self.synced && self.kernel.is_some();
        match part {
            Part::Network => {
                self.refuse_waiting();
                self.ensure_network();
            }
            Part::Links => self.check_links(),
            Part::Rows => self.check_rows(),
            Part::Routes if loaded => self.check_routes(),
            Part::Programs if loaded => {
                if let Err(message) = self.attach_all() {
                    tracing::debug!(message);
                }
                self.attach_sockets();
                self.accelerate();
            }
            Part::Endpoints if loaded => {
                self.judge_endpoints();
                self.check_announced();
                self.publish();
            }
            Part::Routes | Part::Programs | Part::Endpoints => {}
        }
    }

    /// The kernel's network differs: find out how before the next tick does.
    pub(super) fn network_changed(&mut self, node: bool, next_hops: bool) {
        if node {
            self.ensure_network();
        }
        self.check_links();
        // What follows from the change itself is no damage.
        self.settle();
        if node && self.synced && self.kernel.is_some() {
            self.check_routes();
        }
        if next_hops
            && let Some(kernel) = &self.kernel
            && let Err(error) = kernel.datapath.maps.bump(Slot::ROUTES)
        {
            self.shared.report("maps", false, chain(&error));
        }
    }

    /// Rows that were deleted, changed or added by somebody else.
    fn check_rows(&mut self) {
        let Some(kernel) = &self.kernel else { return };
        let maps = Arc::clone(&kernel.datapath.maps);
        match maps.read_back_in_turn(&self.realized, self.rounds) {
            Ok((found, addresses)) => {
                self.rounds = self.rounds.wrapping_add(1);
                let few = self.shared.directory.services().rows().len() <= FEW;
                if self.synced && (few || self.rounds.is_multiple_of(MANY_EVERY)) {
                    self.check_services(&maps, addresses);
                }
                if found != self.realized {
                    let repair = plan(&found, &self.realized);
                    let changes: Vec<Operation> = repair.changes().cloned().collect();
                    for operation in &changes {
                        self.shared.repaired(&operation.to_string());
                    }
                    self.realized = found;
                    self.forget_policy();
                    self.mark();
                }
                self.shared.ran(
                    "map-check",
                    Ok(format!("{} rows read back", self.realized.len())),
                );
            }
            Err(error) => {
                let message = chain(&error);
                self.shared.ran("map-check", Err(message.clone()));
                self.shared.report("maps", false, message);
            }
        }
    }

    /// Links of endpoints: gone with their pod, or changed.
    pub(super) fn check_links(&mut self) {
        let found = match self.netlink.links() {
            Ok(found) => found,
            Err(error) => {
                self.shared.report("links", false, chain(&error));
                return;
            }
        };
        let by_index: BTreeMap<_, _> = found.iter().map(|link| (link.index.get(), link)).collect();
        let mut gone = Vec::new();
        let mut problem = None;
        for endpoint in self.endpoints.values_mut() {
            let record = &endpoint.record;
            let link = by_index.get(&record.host_index);
            let Some(link) = link.filter(|link| link.name == record.host_interface) else {
                gone.push(record.id);
                continue;
            };
            match links::ensure_host_side(&mut self.netlink, link, record.mtu) {
                Ok(repaired) => self.shared.all_repaired(&repaired),
                Err(error) => problem = Some(chain(&error)),
            }
        }
        for id in gone {
            if self.is_gone(id) {
                self.remove(id, "its network namespace is gone");
            }
        }
        self.remove_orphans(&found);
        match problem {
            None => {
                self.shared
                    .ran("link-sync", Ok(format!("{} links", self.endpoints.len())));
                self.shared
                    .report("links", true, format!("{} pod links", self.endpoints.len()));
            }
            Some(message) => {
                self.shared.ran("link-sync", Err(message.clone()));
                self.shared.report("links", false, message);
            }
        }
    }

    /// Asks for the one link: a list that changed while it was read is no ground to cut a pod off.
    fn is_gone(&mut self, id: u16) -> bool {
        let Some(endpoint) = self.endpoints.get(&id) else {
            return false;
        };
        let index = weir_net::IfIndex::new(endpoint.record.host_index);
        match self.netlink.link_by_index(index) {
            Ok(Some(link)) => link.name != endpoint.record.host_interface,
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Links of Weir that no endpoint has: an agent was killed while it made them.
    fn remove_orphans(&mut self, found: &[weir_net::Link]) {
        let known: BTreeSet<&str> = self
            .endpoints
            .values()
            .chain(&self.removed)
            .map(|endpoint| endpoint.record.host_interface.as_str())
            .collect();
        let is_orphan = |name: &str| is_pod_link(name) && !known.contains(name);
        let orphans = found.iter().filter(|link| is_orphan(&link.name));
        for link in orphans.filter(|link| !self.remover.is_at(link.index)) {
            match self.netlink.delete_link(link.index) {
                Ok(_) => tracing::info!(link = link.name, "link of no endpoint removed"),
                Err(error) => tracing::warn!(
                    link = link.name,
                    error = chain(&error),
                    "link of no endpoint stays"
                ),
            }
        }
    }

    pub(super) fn check_routes(&mut self) {
        let before = self.owned_routes.clone();
        match self.sync_routes() {
            Ok(repaired) => {
                self.shared.all_repaired(&repaired);
                let count = self.compiled.routes.len();
                self.shared.ran("route-sync", Ok(format!("{count} routes")));
                self.shared
                    .report("routes", true, format!("{count} routes"));
            }
            Err(error) => {
                let message = chain(&error);
                self.shared.ran("route-sync", Err(message.clone()));
                self.shared.report("routes", false, message);
            }
        }
        if self.owned_routes != before {
            let routes: Vec<IpNet> = self.owned_routes.iter().copied().collect();
            if let Err(error) = self.store.save_routes(&routes) {
                tracing::warn!(error = chain(&error), "routes are not saved");
            }
        }
    }
}
