// SPDX-License-Identifier: Apache-2.0
//! Reads everything back now and then, and puts right what somebody else has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use weir_abi::observation::Hook;
use weir_abi::{IfIndex, Slot};
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

    /// Where programs belong.
    fn places(&self) -> BTreeSet<(Hook, IfIndex)> {
        let mut places = BTreeSet::from([(Hook::FromHost, self.network.host)]);
        for device in &self.network.devices {
            let index = IfIndex(device.index.get());
            places.extend([(Hook::FromNetdev, index), (Hook::ToNetdev, index)]);
        }
        let pods = self.endpoints.values();
        let pods = pods.map(|one| IfIndex(one.record.host_index));
        places.extend(pods.map(|index| (Hook::FromContainer, index)));
        places
    }

    /// A program at every place where one belongs and has not been put yet. To look at a link takes the lock of all
    /// network configuration, which is held for tens of milliseconds where links of pods go away: that is for the
    /// comparison, and nothing that pods elsewhere wait for.
    pub(super) fn attach_new(&mut self) -> Result<(), String> {
        let places = self.places();
        let active = self.kernel.as_ref().is_some_and(|kernel| kernel.active);
        if !active || anything_to_attach(&places, &self.attached) {
            return self.attach_all();
        }
        for endpoint in self.endpoints.values_mut() {
            endpoint.connected = true;
        }
        self.report_attached(places.len());
        Ok(())
    }

    fn report_attached(&self, count: usize) {
        let message = format!("programs attached at {count} places");
        self.shared.report("datapath", true, message);
    }

    /// A program at every place where one belongs, as the kernel says.
    pub(super) fn attach_all(&mut self) -> Result<(), String> {
        let Some(kernel) = self.kernel.as_ref().filter(|kernel| kernel.active) else {
            return Ok(());
        };
        let datapath = &kernel.datapath;
        let links = match datapath.links() {
            Ok(links) => links,
            Err(error) => {
                let message = chain(&error);
                self.shared.report("datapath", false, message.clone());
                return Err(message);
            }
        };
        let wanted = self.places();
        let right: BTreeSet<_> = links
            .iter()
            .filter(|link| link.alive && link.program == datapath.programs.get(link.hook).id())
            .map(|link| (link.hook, link.interface))
            .collect();
        let mut failures: BTreeMap<IfIndex, String> = BTreeMap::new();
        let (there, missing): (Vec<_>, Vec<_>) = wanted
            .iter()
            .copied()
            .partition(|place| right.contains(place));
        self.attached.extend(there);
        for (hook, index) in missing {
            match datapath.attach(hook, index) {
                Ok(_) => {
                    if !self.attached.insert((hook, index)) {
                        let what =
                            format!("program {} at interface {index} was missing", hook.name());
                        self.shared.repaired(&what);
                    }
                }
                Err(error) => {
                    self.attached.remove(&(hook, index));
                    failures.insert(index, chain(&error));
                }
            }
        }
        // Places where programs were attached before: a device that is no underlay any more.
        for link in links
            .iter()
            .filter(|link| !wanted.contains(&(link.hook, link.interface)))
        {
            let removed = if link.alive {
                datapath.detach(link.interface).map(|count| count > 0)
            } else {
                datapath.remove_stale_links().map(|names| !names.is_empty())
            };
            if let Err(error) = removed {
                tracing::warn!(
                    interface = link.interface.0,
                    error = chain(&error),
                    "program not detached"
                );
            }
        }
        self.attached.retain(|place| wanted.contains(place));
        for endpoint in self.endpoints.values_mut() {
            let index = IfIndex(endpoint.record.host_index);
            endpoint.connected = !failures.contains_key(&index);
        }
        match failures.into_iter().next() {
            None => {
                self.report_attached(wanted.len());
                Ok(())
            }
            Some((index, message)) => {
                let message = format!("interface {index}: {message}");
                self.shared.report("datapath", false, message.clone());
                Err(message)
            }
        }
    }
}

/// Whether programs are missing, or are where none belong. Those of pods that go are taken away with them.
fn anything_to_attach(
    places: &BTreeSet<(Hook, IfIndex)>,
    attached: &BTreeSet<(Hook, IfIndex)>,
) -> bool {
    let mut too_many = attached.difference(places);
    !places.is_subset(attached) || too_many.any(|(hook, _)| *hook != Hook::FromContainer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_looked_at_where_places_differ_and_for_no_other_change() {
        let pod = |index| (Hook::FromContainer, IfIndex(index));
        let device = |index| (Hook::ToNetdev, IfIndex(index));
        let attached = BTreeSet::from([device(1), pod(7)]);
        for (places, expected) in [
            (vec![device(1), pod(7)], false),
            (vec![device(1)], false),
            (vec![device(1), pod(7), pod(8)], true),
            (vec![device(1), device(2), pod(7)], true),
            (vec![pod(7)], true),
        ] {
            let places: BTreeSet<_> = places.into_iter().collect();
            assert_eq!(
                anything_to_attach(&places, &attached),
                expected,
                "{places:?}"
            );
        }
    }
}
