// SPDX-License-Identifier: Apache-2.0
//! Network policies become rows (ADR 0006, ADR 0010).
//!
//! [`PolicyCompiler`] keeps what it has worked out, so that a changed policy or label costs what
//! depends on it and not what there is. Endpoints of one identity share a set; a set has a cell for
//! everybody, for each peer identity and for each `ipBlock` that rules speak of. Cells become rows as
//! they are, except that blocks overlap: addresses that lie in the same blocks form a group, and a
//! set has rows for each group.
//!
//! Read `update` for the order of things, then `sets`, `selectors`, `blocks` and `cell`.
//!
//! Files know each other in one direction. At the bottom are `cell`, `selectors` and `blocks`; `sets`, `rules`,
//! `groups` and `zones` are made of them; `prefixes` and `realize` make rows of all these; `update` drives them.

mod blocks;
mod cell;
mod changes;
mod cookies;
mod explain;
mod groups;
mod miss;
mod prefixes;
mod realize;
mod rules;
mod selectors;
mod sets;
mod update;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::{Address, BlockGroup, Identity, PolicyCookie, PolicySet};
use weir_model::{IdentityTable, PolicyRef, World};

use crate::{Compiled, Problem, Rows};
use blocks::Blocks;
use cookies::Cookies;
use groups::Groups;
use rules::Policies;
use selectors::Selectors;
use sets::Set;
use zones::Zones;

pub use cell::RULES_MAX;
pub use changes::{Numbers, RowChanges};
pub use cookies::{Origin, Origins};
pub use explain::{Explanation, Peer, Question, allowing, explain};
pub use miss::{Miss, NearMiss};

/// Sizes of the maps that policy fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    pub policy: u32,
    pub policy_hits: u32,
    pub ipcache: u32,
}

/// What rows of policy are made of.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInput<'a> {
    pub world: &'a World,
    /// What [`crate::compile()`] made of the same world. As long as it is the same `Arc`, pods,
    /// nodes and identities are taken for unchanged.
    pub base: &'a Arc<Compiled>,
    pub identities: &'a IdentityTable,
    /// Addresses whose rows in `ipcache` services write.
    pub service_addresses: &'a BTreeSet<Address>,
    pub limits: PolicyLimits,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyDelta {
    pub changes: RowChanges,
    /// Cookies that mean something new; `None`: nothing any more, but events about it may still come.
    pub cookies: Vec<(PolicyCookie, Option<Origins>)>,
    pub problems_changed: bool,
}

/// Keeps the policy rows of a node up to date.
#[derive(Clone, Debug, Default)]
pub struct PolicyCompiler {
    /// Of the last update; `None` before the first one.
    base: Option<Arc<Compiled>>,
    rows: Rows,
    selectors: Selectors,
    blocks: Blocks,
    zones: Zones,
    groups: Groups,
    policies: Policies,
    sets: BTreeMap<Identity, Set>,
    cookies: Cookies,
    problems: Vec<Problem>,
    /// Policies that some of their pods are cut off for, with why.
    unenforced: BTreeMap<PolicyRef, Problem>,
    last_set: u32,
    found: Found,
}

/// What was read back at the start.
#[derive(Clone, Debug, Default)]
struct Found {
    sets: BTreeMap<Identity, PolicySet>,
    policy: BTreeMap<PolicyKey, PolicyRow>,
    groups: BTreeMap<PrefixKey, BlockGroup>,
}

impl PolicyCompiler {
    /// A compiler for a kernel that holds no policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// A compiler that goes on with the numbers of rows that were read back, so that a restart
    /// changes as little as possible. Whatever does not fit is numbered anew; the plan is safe in
    /// any case.
    pub fn restore(found: &Rows) -> Self {
        let mut sets = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for row in found.endpoints.values() {
            if row.policy_set != PolicySet::NONE && taken.insert((row.policy_set, row.identity)) {
                let others = taken.range((row.policy_set, Identity(0))..);
                let mut others = others.take_while(|(set, _)| *set == row.policy_set);
                // A set that two identities have cannot be right for both.
                if others.all(|(_, identity)| *identity == row.identity) {
                    sets.entry(row.identity).or_insert(row.policy_set);
                }
            }
        }
        let in_rows = found.policy.keys().map(|key| key.set);
        let last_set = in_rows.chain(taken.iter().map(|(set, _)| *set)).max();
        let in_group = found
            .ipcache
            .iter()
            .filter(|(_, row)| row.blocks != BlockGroup::NONE);
        let groups: BTreeMap<_, _> = in_group.map(|(key, row)| (*key, row.blocks)).collect();
        let mut cookies = Cookies::default();
        cookies.avoid(found.policy.values().flat_map(|row| {
            let used = row.rules.iter().take(usize::from(row.count));
            used.map(|rule| rule.cookie)
        }));
        Self {
            groups: Groups::restore(groups.values().copied()),
            cookies,
            last_set: last_set.unwrap_or_default().0,
            found: Found {
                sets,
                policy: found.policy.clone(),
                groups,
            },
            ..Self::default()
        }
    }

    /// Everything that this node should hold, rows without policy among it.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// What could not be realized as it was written.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Policies that do not fit as they are written, each with the first reason: pods that they select are cut
    /// off.
    pub const fn unenforced(&self) -> &BTreeMap<PolicyRef, Problem> {
        &self.unenforced
    }

    /// The rules behind a cookie.
    pub fn origins(&self, cookie: PolicyCookie) -> Option<&Origins> {
        self.cookies.get(cookie)
    }

    /// The rules behind every cookie.
    pub const fn cookies(&self) -> &BTreeMap<PolicyCookie, Origins> {
        self.cookies.all()
    }
}
