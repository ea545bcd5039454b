// SPDX-License-Identifier: Apache-2.0
//! The order of a plan, in which no step allows what neither the state before nor the one after does.
//!
//! A packet meets a policy row if the endpoint's set is enforced and the peer's address has the
//! identity or group that the row is about. So:
//!
//! 1. rows that nothing can meet yet are written as they will be;
//! 2. rows that packets meet now are cut down to what both states allow;
//! 3. addresses pass to their new identities, groups and sets, each in one step: of prefixes the
//!    longest first, so that nobody falls to a shorter one that is not meant for him;
//! 4. endpoints that are freed, and what the new state allows beyond the old one;
//! 5. rows that nothing can meet any more are removed.
//!
//! What both states allow is allowed in between too, unless rules and addresses change places in one
//! plan; then it may be refused for a moment.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PolicyRow, PortRule};
use weir_abi::{
    Address, BlockGroup, EndpointRow, Identity, NodeIndex, PolicyCookie, PolicySet, Slot,
};

use super::widths::{common, is_within};
use super::{Operation, Plan};
use crate::Rows;
use crate::policy::{Numbers, RowChanges};

/// Compares what is realized with what is desired.
pub fn plan(realized: &Rows, desired: &Rows) -> Plan {
    let chains = |rows: &Rows| {
        let firsts = rows.policy.keys().map(|key| PolicyKey { part: 0, ..*key });
        firsts.collect::<BTreeSet<_>>()
    };
    let differs = |first: &PolicyKey| parts(realized, first).ne(parts(desired, first));
    let mut chains: BTreeSet<_> = chains(realized).union(&chains(desired)).copied().collect();
    chains.retain(differs);
    let exempt = |one: &Rows, other: &Rows| {
        let only = one.masquerade_exempt.difference(&other.masquerade_exempt);
        only.copied().collect()
    };
    Order {
        realized,
        desired,
        nodes: Difference::of(&realized.nodes, &desired.nodes),
        endpoints: Difference::of(&realized.endpoints, &desired.endpoints),
        ipcache: Difference::of(&realized.ipcache, &desired.ipcache),
        exempt: exempt(desired, realized),
        not_exempt: exempt(realized, desired),
        sets: chains.iter().map(|key| key.set).collect(),
        chains,
        strays: strays(realized).collect(),
        met: Met::Whole {
            before: met(realized),
            after: met(desired),
        },
    }
    .plan()
}

/// The same where it is known which rows may differ; nothing else is looked at.
pub fn plan_delta(realized: &Rows, desired: &Rows, changes: &RowChanges) -> Plan {
    let exempt = changes.masquerade_exempt.iter().copied();
    let (exempt, not_exempt): (Vec<_>, Vec<_>) = exempt
        .filter(|key| {
            realized.masquerade_exempt.contains(key) != desired.masquerade_exempt.contains(key)
        })
        .partition(|key| desired.masquerade_exempt.contains(key));
    let chains = changes.policy.iter().copied();
    Order {
        realized,
        desired,
        nodes: Difference::among(&changes.nodes, &realized.nodes, &desired.nodes),
        endpoints: Difference::among(&changes.endpoints, &realized.endpoints, &desired.endpoints),
        ipcache: Difference::among(&changes.ipcache, &realized.ipcache, &desired.ipcache),
        exempt,
        not_exempt,
        sets: changes.sets.clone(),
        chains: chains
            .filter(|first| parts(realized, first).ne(parts(desired, first)))
            .collect(),
        strays: Vec::new(),
        met: Met::Delta {
            fresh: &changes.fresh,
            gone: &changes.gone,
        },
    }
    .plan()
}

/// By which numbers packets can meet policy rows.
enum Met<'a> {
    Whole {
        before: Numbers,
        after: Numbers,
    },
    Delta {
        fresh: &'a Numbers,
        gone: &'a Numbers,
    },
}

/// The numbers that addresses have.
fn met(rows: &Rows) -> Numbers {
    let mut numbers = Numbers::default();
    for row in rows.ipcache.values() {
        numbers.identities.insert(row.identity);
        numbers.groups.insert(row.blocks);
    }
    for row in rows.endpoints.values() {
        numbers.identities.insert(row.identity);
        numbers.groups.insert(row.blocks);
    }
    numbers
}

impl Met<'_> {
    /// Whether packets can meet rows about a peer: before the plan, and after it.
    fn ask(&self, key: &PolicyKey) -> (bool, bool) {
        let contains = |numbers: &Numbers| {
            if key.peer_kind == PeerKind::Blocks as u8 {
                numbers.groups.contains(&BlockGroup(key.peer))
            } else {
                numbers.identities.contains(&Identity(key.peer))
            }
        };
        let always = key.peer_kind == PeerKind::Any as u8
            || (key.peer_kind == PeerKind::Identity as u8
                && Identity(key.peer) < Identity::FIRST_POD);
        match self {
            _ if always => (true, true),
            Met::Whole { before, after } => (contains(before), contains(after)),
            Met::Delta { fresh, gone } => (!contains(fresh), !contains(gone)),
        }
    }
}

struct Order<'a> {
    realized: &'a Rows,
    desired: &'a Rows,
    nodes: Difference<NodeIndex, weir_abi::node::NodeRow>,
    endpoints: Difference<Address, EndpointRow>,
    ipcache: Difference<PrefixKey, IpcacheRow>,
    exempt: Vec<PrefixKey>,
    not_exempt: Vec<PrefixKey>,
    /// First keys of the policy rows that differ.
    chains: BTreeSet<PolicyKey>,
    /// Policy rows that nothing leads to.
    strays: Vec<PolicyKey>,
    /// Sets that decide otherwise.
    sets: BTreeSet<PolicySet>,
    met: Met<'a>,
}

/// The steps for policy rows and endpoints, each a list of operations.
#[derive(Default)]
struct Steps {
    prepare: Vec<Operation>,
    shrink: Vec<Operation>,
    endpoints: Vec<Operation>,
    new_endpoints: Vec<Operation>,
    grow: Vec<Operation>,
    remove: Vec<Operation>,
    /// Counters that start again.
    reset: BTreeSet<PolicyCookie>,
}

impl Order<'_> {
    fn plan(mut self) -> Plan {
        let mut steps = Steps::default();
        let enforced = (enforced(self.realized), enforced(self.desired));
        // One that is in the way of a longer chain is written over below.
        let strays = self.strays.iter();
        steps
            .prepare
            .extend(strays.map(|key| Operation::DeletePolicy(*key)));
        for first in &self.chains {
            self.chain(first, &enforced.0, &enforced.1, &mut steps);
        }
        for (address, row) in &self.endpoints.upserts {
            self.endpoint(address, row, &mut steps);
        }
        // Longest prefixes first, shortest removed first: see above.
        self.ipcache
            .upserts
            .sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        self.ipcache.deletes.sort();

        let mut operations = Vec::new();
        let nodes = self.nodes.upserts.iter();
        operations.extend(nodes.map(|(key, row)| Operation::UpsertNode(*key, *row)));
        operations.extend(
            steps
                .reset
                .iter()
                .map(|cookie| Operation::ResetHits(*cookie)),
        );
        operations.append(&mut steps.prepare);
        operations.append(&mut steps.shrink);
        operations.append(&mut steps.new_endpoints);
        let ipcache = self.ipcache.upserts.iter();
        operations.extend(ipcache.map(|(key, row)| Operation::UpsertIpcache(*key, *row)));
        let exempt = self.exempt.iter();
        operations.extend(exempt.map(|key| Operation::UpsertMasqueradeExempt(*key)));
        operations.extend(
            self.ipcache
                .deletes
                .iter()
                .map(|key| Operation::DeleteIpcache(*key)),
        );
        operations.append(&mut steps.endpoints);
        let gone = self.endpoints.deletes.iter();
        operations.extend(gone.map(|key| Operation::DeleteEndpoint(*key)));
        operations.append(&mut steps.grow);
        operations.append(&mut steps.remove);
        let not_exempt = self.not_exempt.iter();
        operations.extend(not_exempt.map(|key| Operation::DeleteMasqueradeExempt(*key)));
        operations.extend(
            self.nodes
                .deletes
                .iter()
                .map(|key| Operation::DeleteNode(*key)),
        );

        // A bump of everything covers the others.
        let bumps = self.bumps();
        if bumps.contains(&Slot::ALL) {
            operations.extend([Operation::Bump(Slot::ALL), Operation::Bump(Slot::ROUTES)]);
        } else {
            operations.extend(bumps.into_iter().map(Operation::Bump));
        }
        Plan { operations }
    }

    fn chain(
        &self,
        first: &PolicyKey,
        enforced_before: &BTreeSet<(PolicySet, u8)>,
        enforced_after: &BTreeSet<(PolicySet, u8)>,
        steps: &mut Steps,
    ) {
        let (old, new) = (rules(self.realized, first), rules(self.desired, first));
        let known: BTreeSet<_> = old.iter().map(|rule| rule.cookie).collect();
        let used = new.iter().map(|rule| rule.cookie);
        steps
            .reset
            .extend(used.filter(|cookie| !known.contains(cookie)));

        let way = (first.set, first.direction);
        let (met_before, met_after) = self.met.ask(first);
        let seen_before = met_before && enforced_before.contains(&way);
        let seen_after = met_after && enforced_after.contains(&way);
        let old_parts: Vec<_> = parts(self.realized, first).copied().collect();
        if new.is_empty() {
            let step = if seen_after {
                &mut steps.shrink
            } else {
                &mut steps.remove
            };
            write(first, &old_parts, &[], step);
        } else if !seen_before {
            write(first, &old_parts, &new, &mut steps.prepare);
        } else if is_within(&old, &new) {
            write(first, &old_parts, &new, &mut steps.grow);
        } else if is_within(&new, &old) {
            write(first, &old_parts, &new, &mut steps.shrink);
        } else {
            let between = write(first, &old_parts, &common(&old, &new), &mut steps.shrink);
            write(first, &between, &new, &mut steps.grow);
        }
    }

    fn endpoint(&self, address: &Address, new: &EndpointRow, steps: &mut Steps) {
        let Some(old) = self.realized.endpoints.get(address) else {
            // Before the rows that lead to it, so that no packet looks for it elsewhere.
            let operation = Operation::UpsertEndpoint(*address, *new);
            return steps.new_endpoints.push(operation);
        };
        const ENFORCE: u16 = ENFORCE_INGRESS | ENFORCE_EGRESS;
        let mut first = *new;
        first.flags |= old.flags & ENFORCE;
        if old.flags & READY == 0 {
            first.flags &= !READY;
        }
        if new.policy_set == PolicySet::NONE && first.flags & ENFORCE != 0 {
            first.policy_set = old.policy_set;
        }
        if first != *old {
            let operation = Operation::UpsertEndpoint(*address, first);
            steps.endpoints.push(operation);
        }
        if first != *new {
            steps.grow.push(Operation::UpsertEndpoint(*address, *new));
        }
    }

    /// The slots of everything that is decided otherwise.
    fn bumps(&self) -> BTreeSet<Slot> {
        let mut bumps = BTreeSet::new();
        // A node that was known under the index before: flows may hold the index.
        if self.nodes.replaced || !self.nodes.deletes.is_empty() {
            bumps.insert(Slot::ALL);
        }
        // A group that got another number is the same group to every set; those that are not so have
        // changed themselves.
        let same = |row: &EndpointRow| EndpointRow {
            blocks: BlockGroup::NONE,
            ..*row
        };
        for (address, row) in &self.endpoints.upserts {
            if self.realized.endpoints.get(address).map(same) != Some(same(row)) {
                bumps.insert(Slot::of_address(address));
            }
        }
        bumps.extend(self.endpoints.deletes.iter().map(Slot::of_address));
        for (key, row) in &self.ipcache.upserts {
            let old = self.realized.ipcache.get(key).copied();
            if !same_peer(&old.unwrap_or_else(|| around(self.realized, key)), row) {
                bumps.insert(slot_of_prefix(key));
            }
        }
        for key in &self.ipcache.deletes {
            let old = self.realized.ipcache.get(key).copied();
            if old.is_some_and(|old| !same_peer(&old, &around(self.desired, key))) {
                bumps.insert(slot_of_prefix(key));
            }
        }
        bumps.extend(
            self.exempt
                .iter()
                .chain(&self.not_exempt)
                .map(slot_of_prefix),
        );
        for rows in [self.realized, self.desired] {
            let endpoints = rows.endpoints.iter();
            let concerned = endpoints.filter(|(_, row)| self.sets.contains(&row.policy_set));
            bumps.extend(concerned.map(|(address, _)| Slot::of_address(address)));
        }
        bumps
    }
}

/// Brings the rows of a peer to a list of rules, the first row last and in one step: until then
/// packets read the old ones, or some of both. Gives the new rows back.
fn write(
    first: &PolicyKey,
    old: &[PolicyRow],
    rules: &[PortRule],
    step: &mut Vec<Operation>,
) -> Vec<PolicyRow> {
    let new: Vec<_> = PolicyRow::parts(*first, rules)
        .into_iter()
        .flatten()
        .collect();
    for (place, (key, row)) in new.iter().enumerate().rev() {
        if old.get(place) != Some(row) {
            step.push(Operation::UpsertPolicy(*key, *row));
        }
    }
    let mut part = *first;
    for place in 0..old.len() {
        if place >= new.len() {
            step.push(Operation::DeletePolicy(part));
        }
        part.part += 1;
    }
    new.into_iter().map(|(_, row)| row).collect()
}

/// The rows of a peer, from the first one on.
fn parts<'a>(rows: &'a Rows, first: &PolicyKey) -> impl Iterator<Item = &'a PolicyRow> {
    let first = *first;
    (0..).map_while(move |part| rows.policy.get(&PolicyKey { part, ..first }))
}

/// Rows that no other one leads to.
fn strays(rows: &Rows) -> impl Iterator<Item = PolicyKey> {
    let led_to = |key: &PolicyKey| {
        (0..key.part).all(|part| rows.policy.contains_key(&PolicyKey { part, ..*key }))
    };
    rows.policy.keys().filter(move |key| !led_to(key)).copied()
}

/// The port rules of a peer.
fn rules(rows: &Rows, first: &PolicyKey) -> Vec<PortRule> {
    let used = |row: &PolicyRow| row.rules.into_iter().take(usize::from(row.count));
    parts(rows, first).flat_map(used).collect()
}

/// Sets that decide about endpoints, by direction.
fn enforced(rows: &Rows) -> BTreeSet<(PolicySet, u8)> {
    let mut enforced = BTreeSet::new();
    for row in rows.endpoints.values() {
        if row.flags & ENFORCE_INGRESS != 0 {
            enforced.insert((row.policy_set, PolicyDirection::Ingress as u8));
        }
        if row.flags & ENFORCE_EGRESS != 0 {
            enforced.insert((row.policy_set, PolicyDirection::Egress as u8));
        }
    }
    enforced
}

/// A single address has its own slot; a range concerns flows that cannot be named.
fn slot_of_prefix(key: &PrefixKey) -> Slot {
    if key.length == 128 {
        Slot::of_address(&key.address)
    } else {
        Slot::ALL
    }
}

/// Whether two rows say the same about whom they are about.
fn same_peer(one: &IpcacheRow, other: &IpcacheRow) -> bool {
    (one.identity, one.node, one.flags) == (other.identity, other.node, other.flags)
}

/// What addresses of a prefix are without it.
fn around(rows: &Rows, key: &PrefixKey) -> IpcacheRow {
    let found = (0..key.length).rev().find_map(|length| {
        let mut address = key.address;
        for (place, byte) in (0_u32..).zip(&mut address.0) {
            let kept = length.saturating_sub(place * 8).min(8);
            *byte &= u8::try_from((0xff00_u32 >> kept) & 0xff).unwrap_or(0);
        }
        rows.ipcache.get(&PrefixKey { length, address })
    });
    let identity = if key.address.is_v4() && key.length >= 96 {
        Identity::WORLD_IPV4
    } else {
        Identity::WORLD_IPV6
    };
    found.copied().unwrap_or(IpcacheRow {
        identity,
        ..IpcacheRow::default()
    })
}

struct Difference<K, V> {
    upserts: Vec<(K, V)>,
    deletes: Vec<K>,
    /// One of the upserts takes the place of another value.
    replaced: bool,
}

impl<K: Copy + Ord, V: Copy + Eq> Difference<K, V> {
    fn of(realized: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Self {
        let gone = realized.keys().filter(|key| !desired.contains_key(key));
        Self::by_keys(desired.keys().chain(gone), realized, desired)
    }

    fn among(keys: &BTreeSet<K>, realized: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Self {
        Self::by_keys(keys.iter(), realized, desired)
    }

    fn by_keys<'k>(
        keys: impl Iterator<Item = &'k K>,
        realized: &BTreeMap<K, V>,
        desired: &BTreeMap<K, V>,
    ) -> Self
    where
        K: 'k,
    {
        let mut difference = Self {
            upserts: Vec::new(),
            deletes: Vec::new(),
            replaced: false,
        };
        for key in keys {
            match (realized.get(key), desired.get(key)) {
                (old, Some(new)) if old != Some(new) => {
                    difference.replaced |= old.is_some();
                    difference.upserts.push((*key, *new));
                }
                (Some(_), None) => difference.deletes.push(*key),
                (Some(_) | None, Some(_) | None) => {}
            }
        }
        difference
    }
}
