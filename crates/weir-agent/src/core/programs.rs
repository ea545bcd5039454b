// SPDX-License-Identifier: Apache-2.0
//! Where programs belong, and that they are there and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::IfIndex;
use weir_abi::observation::Hook;

use super::Core;
use crate::error::chain;

impl Core {
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
