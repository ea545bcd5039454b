// SPDX-License-Identifier: Apache-2.0
//! The order of a plan, in which no step allows what neither the state before nor the one after does.
//!
//! A packet meets a policy row if the endpoint's set is enforced and the peer's address has the
//! identity or group that the row is about. A connection passes two endpoints, so what one of them
//! may from now on must wait until the other one may no longer what it is to lose. So:
//!
//! 1. rows of sets that nothing enforces yet are written as they will be; rows that packets meet now,
//!    or will meet as soon as an address has another group, are cut down to what both states allow;
//! 2. addresses pass to their new identities and groups, each in one step: of prefixes the longest
//!    first, so that nobody falls to a shorter one that is not meant for him;
//! 3. endpoints become isolated;
//! 4. endpoints are freed (before the second step if none becomes isolated, since rows that they lean
//!    on may go with a group), and rows get what the new state allows beyond the old one;
//! 5. rows that nothing can meet any more are removed.
//!
//! What both states allow stays allowed on the way when a policy comes or goes. When rules and
//! addresses change places in one plan it may be refused for a moment.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PolicyRow, PortRule};
use weir_abi::{
    Address, BlockGroup, EndpointRow, Identity, NodeIndex, PolicyCookie, PolicySet, Slot,
};

use super::difference::{Difference, around, parts, rules, same_peer, slot_of_prefix, strays};
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
    new_endpoints: Vec<Operation>,
    free_at_once: Vec<Operation>,
    /// Endpoints that become something else.
    endpoints: Vec<Operation>,
    isolate: Vec<Operation>,
    grow: Vec<Operation>,
    remove: Vec<Operation>,
    /// Counters that start again.
    reset: BTreeSet<PolicyCookie>,
}

/// What is enforced, and which way groups go, by set and direction and by group.
struct Ways {
    before: BTreeSet<(PolicySet, u8)>,
    after: BTreeSet<(PolicySet, u8)>,
    sources: BTreeMap<BlockGroup, BTreeSet<BlockGroup>>,
    targets: BTreeMap<BlockGroup, BTreeSet<BlockGroup>>,
    /// Some endpoint becomes isolated.
    isolates: bool,
}

/// Whether policies isolate an endpoint that they did not isolate so before.
const fn isolates(old: &EndpointRow, new: &EndpointRow) -> bool {
    new.flags & ENFORCE & !old.flags != 0
}

const ENFORCE: u16 = ENFORCE_INGRESS | ENFORCE_EGRESS;

impl Order<'_> {
    fn plan(mut self) -> Plan {
        let mut steps = Steps::default();
        // One that is in the way of a longer chain is written over below.
        let strays = self.strays.iter().copied();
        steps.prepare.extend(strays.map(Operation::DeletePolicy));
        let ways = self.ways();
        for first in &self.chains {
            self.chain(first, &ways, &mut steps);
        }
        self.endpoint_steps(&ways, &mut steps);
        // Longest prefixes first, shortest removed first: see above.
        let upserts = &mut self.ipcache.upserts;
        upserts.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        self.ipcache.deletes.sort();
        let bumps = self.bumps();

        let mut operations = Vec::new();
        let nodes = self.nodes.upserts.into_iter();
        operations.extend(nodes.map(|(key, row)| Operation::UpsertNode(key, row)));
        operations.extend(steps.reset.into_iter().map(Operation::ResetHits));
        operations.append(&mut steps.prepare);
        operations.append(&mut steps.new_endpoints);
        operations.append(&mut steps.free_at_once);
        let ipcache = self.ipcache.upserts.into_iter();
        operations.extend(ipcache.map(|(key, row)| Operation::UpsertIpcache(key, row)));
        let exempt = self.exempt.into_iter();
        operations.extend(exempt.map(Operation::UpsertMasqueradeExempt));
        let gone = self.ipcache.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteIpcache));
        operations.append(&mut steps.endpoints);
        operations.append(&mut steps.isolate);
        let gone = self.endpoints.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteEndpoint));
        operations.append(&mut steps.grow);
        operations.append(&mut steps.remove);
        let not_exempt = self.not_exempt.into_iter();
        operations.extend(not_exempt.map(Operation::DeleteMasqueradeExempt));
        let gone = self.nodes.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteNode));

        // A bump of everything covers the others.
        if bumps.contains(&Slot::ALL) {
            operations.extend([Operation::Bump(Slot::ALL), Operation::Bump(Slot::ROUTES)]);
        } else {
            operations.extend(bumps.into_iter().map(Operation::Bump));
        }
        Plan { operations }
    }

    fn ways(&self) -> Ways {
        let mut ways = Ways {
            before: enforced(self.realized),
            after: enforced(self.desired),
            sources: BTreeMap::new(),
            targets: BTreeMap::new(),
            isolates: false,
        };
        let mut note = |source: BlockGroup, target: BlockGroup| {
            if source != target {
                ways.sources.entry(target).or_default().insert(source);
                ways.targets.entry(source).or_default().insert(target);
            }
        };
        for (key, new) in &self.ipcache.upserts {
            let old = self.realized.ipcache.get(key).copied();
            let old = old.unwrap_or_else(|| around(self.realized, key));
            note(old.blocks, new.blocks);
        }
        for key in &self.ipcache.deletes {
            if let Some(old) = self.realized.ipcache.get(key) {
                note(old.blocks, around(self.desired, key).blocks);
            }
        }
        for (address, new) in &self.endpoints.upserts {
            if let Some(old) = self.realized.endpoints.get(address) {
                note(old.blocks, new.blocks);
                ways.isolates |= isolates(old, new);
            }
        }
        ways
    }

    fn chain(&self, first: &PolicyKey, ways: &Ways, steps: &mut Steps) {
        let (old, new) = (rules(self.realized, first), rules(self.desired, first));
        let known: BTreeSet<_> = old.iter().map(|rule| rule.cookie).collect();
        let used = new.iter().map(|rule| rule.cookie);
        let unknown = used.filter(|cookie| !known.contains(cookie));
        steps.reset.extend(unknown);

        let way = (first.set, first.direction);
        let (met_before, met_after) = self.met.ask(first);
        let (before, after) = (ways.before.contains(&way), ways.after.contains(&way));
        let old_parts: Vec<_> = parts(self.realized, first).copied().collect();
        // What packets may meet until rights are given: at most that.
        let mut between = if met_before { old.clone() } else { new.clone() };
        let mut cut = |rules: &[PortRule]| {
            if !is_within(&between, rules) {
                between = common(&between, rules);
            }
        };
        let is_group = first.peer_kind == PeerKind::Blocks as u8;
        let of_group = |group: &BlockGroup| PolicyKey {
            peer: group.0,
            ..*first
        };
        let others = |ways: &BTreeMap<BlockGroup, BTreeSet<BlockGroup>>| {
            let others = ways.get(&BlockGroup(first.peer)).filter(|_| is_group);
            others.cloned().unwrap_or_default()
        };
        match (before, after) {
            (false, _) => between.clone_from(&new),
            // Freed, and at once if nobody becomes isolated: until then as it was.
            (true, false) if !ways.isolates => {}
            (true, true) if met_before && !met_after => {
                for group in others(&ways.targets) {
                    cut(&rules(self.desired, &of_group(&group)));
                }
            }
            (true, after) => {
                if after && met_before {
                    cut(&new);
                }
                // Who comes to the group brings no more rights than he had.
                if ways.isolates || !met_before {
                    for group in others(&ways.sources) {
                        cut(&rules(self.realized, &of_group(&group)));
                    }
                }
            }
        }
        if between == old || (is_within(&between, &old) && is_within(&old, &between)) {
            between = old;
        } else if is_within(&between, &new) && is_within(&new, &between) {
            between.clone_from(&new);
        }
        let parts = write(first, &old_parts, &between, &mut steps.prepare);
        let last = if new.is_empty() {
            &mut steps.remove
        } else {
            &mut steps.grow
        };
        write(first, &parts, &new, last);
    }

    fn endpoint_steps(&self, ways: &Ways, steps: &mut Steps) {
        let old = |address| self.realized.endpoints.get(address);
        // While groups change hands, rows are about addresses that they do not mean: endpoints whose
        // rows they are not, or not any more, wait.
        let groups_move = !ways.targets.is_empty();
        let wait = |row: &EndpointRow| EndpointRow {
            flags: row.flags & !READY,
            ..*row
        };
        for address in self.endpoints.deletes.iter().filter(|_| groups_move) {
            if let Some(old) = old(address).filter(|old| old.flags & ENFORCE != 0) {
                let operation = Operation::UpsertEndpoint(*address, wait(old));
                steps.free_at_once.push(operation);
            }
        }
        for (address, new) in &self.endpoints.upserts {
            let upsert = |row: &EndpointRow| Operation::UpsertEndpoint(*address, *row);
            let Some(old) = old(address) else {
                // Before the rows that lead to it, so that no packet looks for it elsewhere.
                if groups_move && new.flags & ENFORCE != 0 {
                    steps.new_endpoints.push(upsert(&wait(new)));
                    steps.grow.push(upsert(new));
                } else {
                    steps.new_endpoints.push(upsert(new));
                }
                continue;
            };
            let becomes_ready = new.flags & !old.flags & READY != 0;
            if !ways.isolates && !becomes_ready && old.flags & ENFORCE & !new.flags != 0 {
                // Another endpoint that is freed next still knows it by its old group.
                let blocks = if new.identity == old.identity {
                    old.blocks
                } else {
                    new.blocks
                };
                let freed = EndpointRow { blocks, ..*new };
                steps.free_at_once.push(upsert(&freed));
                if freed != *new {
                    steps.endpoints.push(upsert(new));
                }
                continue;
            }
            let other_set = old.policy_set != new.policy_set
                && old.flags & ENFORCE != 0
                && new.flags & ENFORCE != 0;
            let waits = groups_move && other_set;
            if waits {
                steps.free_at_once.push(upsert(&wait(old)));
            }
            let mut first = *new;
            first.flags |= old.flags & ENFORCE;
            if becomes_ready || waits {
                first.flags &= !READY;
            }
            if new.policy_set == PolicySet::NONE && first.flags & ENFORCE != 0 {
                first.policy_set = old.policy_set;
            }
            if isolates(old, new) {
                let grouped = EndpointRow {
                    blocks: new.blocks,
                    ..*old
                };
                if grouped != *old && new.identity == old.identity {
                    steps.endpoints.push(upsert(&grouped));
                }
                steps.isolate.push(upsert(&first));
            } else if first != *old {
                steps.endpoints.push(upsert(&first));
            }
            if first != *new {
                steps.grow.push(upsert(new));
            }
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
