// SPDX-License-Identifier: Apache-2.0
//! Prefixes by the innermost edge of a block around them: all of a zone lie in the same blocks.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_abi::ipcache::PrefixKey;
use weir_abi::{Address, BlockGroup};

use super::blocks::{Edges, root};
use crate::prefix::prefix_key;

/// So many ranges are looked for among others; more of them are taken for everything.
pub(super) const FEW: usize = 8;

/// Everything inside an edge that is in no narrower one.
#[derive(Clone, Debug, Default)]
struct Zone {
    prefixes: BTreeSet<(Address, u32)>,
    /// The number that all of them have; none: it has not been asked for yet.
    number: Option<BlockGroup>,
    /// Blocks of named ports make numbers differ from pod to pod.
    mixed: bool,
}

/// Prefixes of one zone, to be looked at together.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// As many prefixes, all with one number; none: there are no prefixes.
    Whole(IpNet, Option<BlockGroup>, usize),
    /// These, whose numbers are where the rows are.
    Some(IpNet, Vec<PrefixKey>),
}

/// All zones; the two that hold everything are always there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones {
    zones: BTreeMap<IpNet, Zone>,
}

/// The last address of a prefix.
fn last_of(key: &PrefixKey) -> Address {
    let first = u128::from_be_bytes(key.address.0);
    let inside = u128::MAX.checked_shr(key.length).unwrap_or(0);
    Address((first | inside).to_be_bytes())
}

impl Zones {
    /// Puts a prefix in.
    pub(crate) fn insert(&mut self, net: &IpNet, edges: &Edges) {
        let key = prefix_key(*net);
        let zone = self.zones.entry(edges.innermost(net)).or_default();
        zone.prefixes.insert((key.address, key.length));
    }

    /// Takes a prefix out.
    pub(crate) fn remove(&mut self, net: &IpNet, edges: &Edges) {
        let key = prefix_key(*net);
        if let Some(zone) = self.zones.get_mut(&edges.innermost(net)) {
            zone.prefixes.remove(&(key.address, key.length));
            if zone.prefixes.is_empty() {
                zone.number = None;
            }
        }
    }

    /// Follows the edges: what lies inside new ones moves into their zones, and out of those that are
    /// gone. Gives back what has moved out, and the zones in ranges in which membership may differ.
    pub(crate) fn follow(
        &mut self,
        added: &BTreeSet<IpNet>,
        removed: &BTreeSet<IpNet>,
        ranges: &[IpNet],
        edges: &Edges,
    ) -> Vec<Part> {
        // The wider one first: the narrower one takes from it.
        let mut by_width: Vec<&IpNet> = added.iter().collect();
        by_width.sort_by_key(|net| net.prefix_len());
        for net in by_width {
            self.split(net);
        }
        let mut homeless = Vec::new();
        for net in removed.iter().filter(|net| **net != root(net)) {
            if let Some(zone) = self.zones.remove(net) {
                homeless.push((edges.innermost(net), zone.prefixes));
            }
        }
        let concerned =
            |net: &&IpNet| ranges.len() > FEW || ranges.iter().any(|range| range.contains(*net));
        let nets: Vec<IpNet> = self.zones.keys().filter(concerned).copied().collect();
        let mut parts: Vec<Part> = nets.iter().filter_map(|net| self.part(net)).collect();
        for (net, prefixes) in homeless {
            if !prefixes.is_empty() {
                let key = |&(address, length)| PrefixKey { length, address };
                parts.push(Part::Some(net, prefixes.iter().map(key).collect()));
                self.zones.entry(net).or_default().prefixes.extend(prefixes);
            }
        }
        parts
    }

    fn part(&self, net: &IpNet) -> Option<Part> {
        let zone = self.zones.get(net)?;
        Some(if zone.mixed {
            Part::Some(*net, self.prefixes(net).collect())
        } else {
            Part::Whole(*net, zone.number, zone.prefixes.len())
        })
    }

    /// Makes the zone of a new edge out of what is inside it.
    fn split(&mut self, net: &IpNet) {
        if *net == root(net) || self.zones.contains_key(net) {
            return;
        }
        let around = (0..net.prefix_len()).rev().find_map(|length| {
            let outer = IpNet::new(net.addr(), length).ok()?.trunc();
            self.zones.contains_key(&outer).then_some(outer)
        });
        let mut zone = Zone::default();
        if let Some(outer) = around.and_then(|outer| self.zones.get_mut(&outer)) {
            let edge = prefix_key(*net);
            let range = (edge.address, 0)..=(last_of(&edge), u32::MAX);
            let inside = outer.prefixes.range(range);
            let inside: Vec<_> = inside
                .filter(|(_, length)| *length >= edge.length)
                .copied()
                .collect();
            for one in &inside {
                outer.prefixes.remove(one);
            }
            zone.number = outer.number.filter(|_| !inside.is_empty());
            zone.mixed = outer.mixed;
            zone.prefixes = inside.into_iter().collect();
            if outer.prefixes.is_empty() {
                outer.number = None;
            }
        }
        self.zones.insert(*net, zone);
    }

    /// The prefixes of a zone.
    pub(crate) fn prefixes(&self, zone: &IpNet) -> impl Iterator<Item = PrefixKey> + '_ {
        let prefixes = self.zones.get(zone).map(|zone| &zone.prefixes);
        let prefixes = prefixes.into_iter().flatten();
        prefixes.map(|&(address, length)| PrefixKey { length, address })
    }

    /// The number of all of a zone's prefixes; none: it differs, or is not known yet.
    pub(crate) fn number(&self, zone: &IpNet) -> Option<BlockGroup> {
        self.zones.get(zone)?.number
    }

    /// Notes the number of all of a zone's prefixes, or that it is not known yet.
    pub(crate) fn set_number(&mut self, zone: &IpNet, number: Option<BlockGroup>) {
        let zone = self.zones.entry(*zone).or_default();
        (zone.mixed, zone.number) = (false, number);
    }

    /// Notes that numbers differ inside a zone.
    pub(crate) fn set_mixed(&mut self, zone: &IpNet) {
        let zone = self.zones.entry(*zone).or_default();
        (zone.mixed, zone.number) = (true, None);
    }
}
