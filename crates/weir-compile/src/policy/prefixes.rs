// SPDX-License-Identifier: Apache-2.0
//! Rows of `ipcache` with the groups of their addresses.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_abi::ipcache::{IpcacheRow, PrefixKey, flags};
use weir_abi::{Address, BlockGroup, Identity, NodeIndex};

use super::blocks::Element;
use super::changes::Work;
use super::groups::Unit;
use super::zones::{FEW, Part};
use super::{PolicyCompiler, PolicyInput};
use crate::prefix::{prefix_key, prefix_of_key};
use crate::service::address_row;

impl PolicyCompiler {
    /// Brings `ipcache` in line with the blocks that rules ask and with the rows without policy.
    pub(super) fn look_at_prefixes(&mut self, input: &PolicyInput<'_>, work: &mut Work) {
        let base = &input.base.rows.ipcache;
        let size = usize::try_from(input.limits.ipcache).unwrap_or(usize::MAX);
        let room = size.saturating_sub(base.len());
        let settled = self.blocks.settle(room, |key| base.contains_key(key));
        if !settled.ranges.is_empty() {
            let (zones, edges) = (&mut self.zones, self.blocks.edges());
            let (added, removed) = (&settled.added, &settled.removed);
            let parts = zones.follow(added, removed, &settled.ranges, edges);
            self.renumber(parts, work);
            work.prefixes
                .extend(added.iter().chain(removed).copied().map(prefix_key));
            work.prefixes
                .insert(prefix_key(ipnet::Ipv4Net::default().into()));
        }
        // What inherits from a range that differs.
        let wide: Vec<_> = work
            .prefixes
            .iter()
            .filter(|key| key.length < 128)
            .collect();
        let differs = |key: &&&PrefixKey| base.get(key) != self.base_row(key);
        let wide: Vec<_> = wide
            .iter()
            .filter(differs)
            .filter_map(|key| prefix_of_key(key))
            .collect();
        if !wide.is_empty() {
            let many = wide.len() > FEW;
            let inside = |edge: &IpNet| many || wide.iter().any(|net| net.contains(edge));
            let edges = self.blocks.edges().all().filter(inside).map(prefix_key);
            work.prefixes.extend(edges);
        }
        for edge in self.blocks.edges().hosts() {
            let key = prefix_key(edge);
            let row = self.rows.ipcache.get(&key);
            let marked = row.is_some_and(|row| row.flags & flags::SERVICE != 0);
            if marked != input.service_addresses.contains(&key.address) {
                work.prefixes.insert(key);
            }
        }
        for key in std::mem::take(&mut work.prefixes) {
            self.look_at_prefix(&key, input, work);
        }
    }

    /// The row without policy as it was at the last update.
    fn base_row(&self, key: &PrefixKey) -> Option<&IpcacheRow> {
        self.base.as_ref()?.rows.ipcache.get(key)
    }

    /// Gives prefixes their groups where membership may differ.
    fn renumber(&mut self, parts: Vec<Part>, work: &mut Work) {
        let mut units: Vec<Unit> = Vec::new();
        // The zone of each unit; the keys where it is not the whole zone.
        let mut places: Vec<(IpNet, Option<Vec<PrefixKey>>)> = Vec::new();
        let mut mixed = BTreeSet::new();
        for part in parts {
            let (zone, keys) = match part {
                Part::Whole(zone, number, prefixes) if !self.blocks.asks_for_ports(&zone) => {
                    match number.filter(|_| prefixes > 0) {
                        Some(old) => {
                            let elements = self.blocks.membership(&zone, None);
                            units.push(Unit {
                                old,
                                elements,
                                prefixes,
                            });
                            places.push((zone, None));
                        }
                        None => self.zones.set_number(&zone, None),
                    }
                    continue;
                }
                Part::Whole(zone, ..) => (zone, self.zones.prefixes(&zone).collect()),
                Part::Some(zone, keys) => (zone, keys),
            };
            if self.blocks.asks_for_ports(&zone) {
                mixed.insert(zone);
            }
            let mut by_kind: BTreeMap<(BlockGroup, Vec<Element>), Vec<PrefixKey>> = BTreeMap::new();
            for key in keys {
                // One that has no row yet gets its group with the row.
                if let Some(row) = self.rows.ipcache.get(&key).copied() {
                    let elements = self.elements(&key, &zone, &row);
                    by_kind.entry((row.blocks, elements)).or_default().push(key);
                }
            }
            for ((old, elements), keys) in by_kind {
                units.push(Unit {
                    old,
                    elements,
                    prefixes: keys.len(),
                });
                places.push((zone, Some(keys)));
            }
        }
        let numbers = self.groups.assign(&units);
        self.agree(&units, &mut places, numbers, &mixed, work);
    }

    /// Writes the numbers down; all prefixes of a zone get the same one, unless pods differ in it.
    fn agree(
        &mut self,
        units: &[Unit],
        places: &mut [(IpNet, Option<Vec<PrefixKey>>)],
        mut numbers: Vec<BlockGroup>,
        mixed: &BTreeSet<IpNet>,
        work: &mut Work,
    ) {
        // Addresses in no block can have a number or none; what is the most stays.
        let mut most: BTreeMap<IpNet, (usize, BlockGroup)> = BTreeMap::new();
        for ((unit, (zone, keys)), number) in units.iter().zip(&*places).zip(&numbers) {
            if mixed.contains(zone) {
                continue;
            }
            let whole = if keys.is_none() {
                usize::MAX
            } else {
                unit.prefixes
            };
            let best = most.entry(*zone).or_insert((0, *number));
            if whole > best.0 {
                *best = (whole, *number);
            }
        }
        let whole = places.iter().filter(|(_, keys)| keys.is_none());
        let looked_at: BTreeSet<IpNet> = whole.map(|(zone, _)| *zone).collect();
        for (zone, (_, number)) in &mut most {
            // A zone that was not looked at keeps the number that it has.
            if !looked_at.contains(zone)
                && let Some(known) = self.zones.number(zone)
            {
                *number = known;
            }
            self.zones.set_number(zone, Some(*number));
        }
        for zone in mixed {
            self.zones.set_mixed(zone);
        }
        for ((unit, (zone, keys)), number) in units.iter().zip(places).zip(&mut numbers) {
            if let Some((_, agreed)) = most.get(zone) {
                *number = *agreed;
            }
            if *number == unit.old {
                continue;
            }
            let keys = keys
                .take()
                .unwrap_or_else(|| self.zones.prefixes(zone).collect());
            for key in keys {
                self.regroup(&key, *number, work);
            }
        }
    }

    fn regroup(&mut self, key: &PrefixKey, number: BlockGroup, work: &mut Work) {
        let Some(row) = self.rows.ipcache.get_mut(key) else {
            return;
        };
        if row.blocks != number {
            self.groups
                .leave(std::mem::replace(&mut row.blocks, number));
            self.groups.enter(number);
            work.changes.ipcache.insert(*key);
            if key.length == 128 {
                work.endpoints.insert(key.address);
            }
        }
    }

    /// The blocks that the addresses of a row in a zone lie in.
    fn elements(&self, key: &PrefixKey, zone: &IpNet, row: &IpcacheRow) -> Vec<Element> {
        let labels = self.selectors.labels(row.identity);
        let ports = labels.filter(|_| key.length == 128).map(|set| &set.ports);
        self.blocks.membership(zone, ports)
    }

    fn look_at_prefix(&mut self, key: &PrefixKey, input: &PolicyInput<'_>, work: &mut Work) {
        let base = &input.base.rows.ipcache;
        let net = prefix_of_key(key);
        let edge = net.filter(|net| self.blocks.edges().contains(net));
        let row = match (base.get(key), edge) {
            (Some(row), _) => Some(*row),
            (None, Some(edge)) => Some(inherited(base, &edge, input.service_addresses)),
            (None, None) => None,
        };
        let before = self.rows.ipcache.get(key).copied();
        let row = row.map(|row| IpcacheRow {
            blocks: net.map_or(BlockGroup::NONE, |net| self.group_of(key, &net, &row)),
            ..row
        });
        match (&row, net) {
            (Some(row), Some(net)) => {
                self.zones.insert(&net, self.blocks.edges());
                self.groups.enter(row.blocks);
            }
            (None, Some(net)) => self.zones.remove(&net, self.blocks.edges()),
            (Some(_) | None, None) => {}
        }
        match row {
            Some(row) => drop(self.rows.ipcache.insert(*key, row)),
            None => drop(self.rows.ipcache.remove(key)),
        }
        if let Some(before) = before {
            self.groups.leave(before.blocks);
        }
        if before != row {
            work.changes.ipcache.insert(*key);
            if key.length == 128 {
                work.endpoints.insert(key.address);
            }
        }
    }

    /// The group of a row that comes or changes.
    fn group_of(&mut self, key: &PrefixKey, net: &IpNet, row: &IpcacheRow) -> BlockGroup {
        let zone = self.blocks.edges().innermost(net);
        if let Some(number) = self.zones.number(&zone) {
            return number;
        }
        let found = self.found.groups.get(key).copied().unwrap_or_default();
        let elements = self.elements(key, &zone, row);
        let number = self.groups.resolve(elements, found);
        if self.blocks.asks_for_ports(&zone) {
            self.zones.set_mixed(&zone);
        } else {
            self.zones.set_number(&zone, Some(number));
        }
        number
    }
}

/// What a prefix without a row of its own is: what the longest one around it says.
fn inherited(
    base: &BTreeMap<PrefixKey, IpcacheRow>,
    edge: &IpNet,
    service_addresses: &BTreeSet<Address>,
) -> IpcacheRow {
    let key = prefix_key(*edge);
    let around = (0..edge.prefix_len()).rev().find_map(|length| {
        let outer = IpNet::new(edge.addr(), length).ok()?;
        base.get(&prefix_key(outer))
    });
    if key.length == 128 && service_addresses.contains(&key.address) {
        return address_row();
    }
    let identity = if edge.addr().is_ipv4() {
        Identity::WORLD_IPV4
    } else {
        Identity::WORLD_IPV6
    };
    around.copied().unwrap_or(IpcacheRow {
        identity,
        blocks: BlockGroup::NONE,
        node: NodeIndex::NONE,
        flags: 0,
    })
}
