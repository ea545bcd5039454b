// SPDX-License-Identifier: Apache-2.0
//! From cells to rows: prefixes with their groups, chains of port rules, endpoints with their sets.

mod problems;

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PolicyRow};
use weir_abi::{BlockGroup, Identity, PolicyCookie};

use super::cell::{Cell, PortSpec, RULES_MAX, Ruling, TooMany, rulings};
use super::changes::Work;
use super::sets::{CellPeer, Chain, Set};
use super::{PolicyCompiler, PolicyInput};
use problems::Problems;

impl PolicyCompiler {
    /// Brings the rows in line with the cells; what could not be had.
    pub(super) fn realize(&mut self, input: &PolicyInput<'_>, work: &mut Work) -> Problems {
        // A block that nobody asks any more is in no group afterwards, one that is new in none before.
        let mut chains = self.chains_of_cells(work);
        self.look_at_prefixes(input, work);
        chains.append(&mut self.chains_of_cells(work));
        for (group, block) in self.groups.changed() {
            let users = self.blocks.users(block);
            chains.extend(users.map(|(set, way)| (set, Chain::group(way, group))));
        }
        let wanted = self.weigh(&chains);
        self.admit(input, work);
        for ((identity, chain), rulings) in wanted {
            if self.sets.get(&identity).is_some_and(|set| set.admitted) {
                self.write(identity, chain, rulings, work);
            }
        }
        let (fresh, gone) = self.groups.sweep();
        work.changes.gone.groups = gone;
        work.changes.fresh.groups = fresh;
        self.look_at_endpoints(input, work);
        self.find_problems(input)
    }

    fn chains_of_cells(&self, work: &Work) -> BTreeSet<(Identity, Chain)> {
        let mut chains = BTreeSet::new();
        for (set, (direction, peer)) in &work.cells {
            match peer {
                CellPeer::Any => drop(chains.insert((*set, Chain::any(*direction)))),
                CellPeer::Identity(identity) => {
                    chains.insert((*set, Chain::identity(*direction, *identity)));
                }
                CellPeer::Block(block) => {
                    let groups = self.groups.containing(*block);
                    chains.extend(groups.map(|group| (*set, Chain::group(*direction, group))));
                }
            }
        }
        chains
    }

    /// Works out the rules of chains and notes how many rows they take.
    fn weigh(
        &mut self,
        chains: &BTreeSet<(Identity, Chain)>,
    ) -> BTreeMap<(Identity, Chain), Vec<Ruling>> {
        let mut wanted = BTreeMap::new();
        for (identity, chain) in chains {
            let Some(set) = self.sets.get(identity) else {
                continue;
            };
            let content = self.content(set, *chain);
            let Some(set) = self.sets.get_mut(identity) else {
                continue;
            };
            let rulings = match content {
                Ok(rulings) => {
                    set.oversized.remove(chain);
                    rulings
                }
                Err(TooMany(count)) => {
                    set.oversized.insert(*chain, count);
                    Vec::new()
                }
            };
            let rows = rulings.len().div_ceil(weir_abi::policy::RULES_PER_ROW);
            set.set_length(*chain, u16::try_from(rows).unwrap_or(u16::MAX));
            wanted.insert((*identity, *chain), rulings);
        }
        wanted
    }

    fn content(&self, set: &Set, chain: Chain) -> Result<Vec<Ruling>, TooMany> {
        let cell = |peer| set.cells.get(&(chain.direction, peer));
        match chain.kind {
            PeerKind::Any => rulings(cell(CellPeer::Any).into_iter().flat_map(Cell::shares)),
            PeerKind::Identity => {
                let peer = CellPeer::Identity(Identity(chain.peer));
                rulings(cell(peer).into_iter().flat_map(Cell::shares))
            }
            PeerKind::Blocks => {
                let elements = self.groups.elements(BlockGroup(chain.peer)).iter();
                rulings(elements.flat_map(|(block, number)| {
                    let shares = cell(CellPeer::Block(*block)).into_iter();
                    let at = move |spec: PortSpec| match number {
                        0 => spec,
                        number => spec.at(*number),
                    };
                    let shares = shares.flat_map(Cell::shares);
                    shares.map(move |(spec, rule)| (at(spec), rule))
                }))
            }
        }
    }

    /// Decides which sets find room, oldest first, and writes or erases those of which that changed.
    fn admit(&mut self, input: &PolicyInput<'_>, work: &mut Work) {
        let room = usize::try_from(input.limits.policy).unwrap_or(usize::MAX);
        let refused = self.blocks.refused().iter();
        let blind: BTreeSet<Identity> = refused
            .flat_map(|block| self.blocks.users(*block).map(|(set, _)| set))
            .collect();
        let mut by_age: Vec<_> = self.sets.iter_mut().collect();
        by_age.sort_by_key(|(_, set)| set.number);
        let mut used = 0;
        let mut changed = Vec::new();
        for (identity, set) in by_age {
            let whole = set.oversized.is_empty() && !blind.contains(identity);
            let fits = whole && used + set.needed <= room;
            used += if fits { set.needed } else { 0 };
            if set.admitted != fits {
                set.admitted = fits;
                changed.push(*identity);
            }
        }
        for identity in changed {
            work.sets.insert(identity);
            let Some(set) = self.sets.get(&identity) else {
                continue;
            };
            work.changes.sets.insert(set.number);
            let (number, admitted) = (set.number, set.admitted);
            for chain in set.lengths.keys().copied().collect::<Vec<_>>() {
                if !admitted {
                    self.erase(chain.key(number), work);
                } else if let Some(set) = self.sets.get(&identity)
                    && let Ok(rulings) = self.content(set, chain)
                {
                    self.write(identity, chain, rulings, work);
                }
            }
        }
    }

    /// Writes the rows of a chain. A rule that was there keeps its cookie, and with it its counter.
    fn write(&mut self, identity: Identity, chain: Chain, rulings: Vec<Ruling>, work: &mut Work) {
        let Some(set) = self.sets.get(&identity) else {
            return;
        };
        let first = chain.key(set.number);
        let mut known = cookies_of(&self.rows.policy, first);
        for (spec, cookie) in cookies_of(&self.found.policy, first) {
            if cookie != PolicyCookie::NONE && self.cookies.get(cookie).is_none() {
                known.entry(spec).or_insert(cookie);
            }
        }
        let mut rules = Vec::with_capacity(rulings.len());
        for Ruling { spec, rules: by } in rulings {
            let cookie = known.remove(&spec).unwrap_or_else(|| self.cookies.make());
            self.cookies
                .set(cookie, chain.direction, by, &self.policies);
            rules.push(spec.rule(cookie));
        }
        for cookie in known.into_values() {
            self.cookies.retire(cookie);
        }
        debug_assert!(rules.len() <= RULES_MAX, "weighed before");
        let rows = PolicyRow::parts(first, &rules).into_iter().flatten();
        let mut differs = false;
        let mut next = first;
        for (key, row) in rows {
            differs |= self.rows.policy.insert(key, row) != Some(row);
            next.part = key.part + 1;
        }
        while self.rows.policy.remove(&next).is_some() {
            differs = true;
            next.part += 1;
        }
        if differs {
            work.changes.policy.insert(first);
        }
    }

    /// Removes the rows of a chain.
    pub(super) fn erase(&mut self, first: PolicyKey, work: &mut Work) {
        for cookie in cookies_of(&self.rows.policy, first).into_values() {
            self.cookies.retire(cookie);
        }
        let mut next = first;
        while self.rows.policy.remove(&next).is_some() {
            work.changes.policy.insert(first);
            next.part += 1;
        }
    }

    fn look_at_endpoints(&mut self, input: &PolicyInput<'_>, work: &mut Work) {
        for identity in &work.sets {
            if let Some(set) = self.sets.get(identity) {
                work.endpoints.extend(&set.addresses);
            }
        }
        for address in &work.endpoints {
            let row = input.base.rows.endpoints.get(address).map(|row| {
                let mut row = *row;
                let behind = self.rows.ipcache.get(&PrefixKey::host(*address));
                row.blocks = behind.map_or(BlockGroup::NONE, |behind| behind.blocks);
                if let Some(set) = self.sets.get(&row.identity) {
                    let bits = [
                        (PolicyDirection::Ingress, ENFORCE_INGRESS),
                        (PolicyDirection::Egress, ENFORCE_EGRESS),
                    ];
                    for (direction, bit) in bits {
                        if set.enforces(direction) {
                            row.flags |= bit;
                            row.policy_set = set.number;
                        }
                    }
                    if !set.admitted {
                        row.flags &= !READY;
                    }
                }
                row
            });
            let before = match row {
                Some(row) => self.rows.endpoints.insert(*address, row),
                None => self.rows.endpoints.remove(address),
            };
            if before != row {
                work.changes.endpoints.insert(*address);
            }
        }
    }
}

/// The cookies of a chain's rules.
fn cookies_of(
    rows: &BTreeMap<PolicyKey, PolicyRow>,
    first: PolicyKey,
) -> BTreeMap<PortSpec, PolicyCookie> {
    let mut cookies = BTreeMap::new();
    let mut key = first;
    while let Some(row) = rows.get(&key) {
        let used = row.rules.iter().take(usize::from(row.count));
        cookies.extend(used.map(|rule| (PortSpec::of(rule), rule.cookie)));
        key.part += 1;
    }
    cookies
}
