// SPDX-License-Identifier: Apache-2.0
//! Numbers for realized port rules, and the policies behind them.
//!
//! A cookie is the place of a counter, so numbers stay below the size of that map as long as any is
//! free; they are handed out in a circle, so that an event that is still on its way does not name
//! somebody else's policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::PolicyCookie;
use weir_abi::policy::PolicyDirection;
use weir_model::PolicyRef;

use super::cell::{PolicyNumber, RuleId};
use super::rules::Policies;

/// Who says that something is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// No policy: a pod always reaches the node that it runs on.
    OwnNode,
    /// A rule of a network policy.
    Rule {
        policy: PolicyRef,
        direction: PolicyDirection,
        /// Its place in the policy's list, from 0.
        rule: u32,
    },
}

impl std::fmt::Display for Origin {
    /// `shop/web ingress[0]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnNode => f.write_str("own node"),
            Self::Rule {
                policy,
                direction,
                rule,
            } => write!(f, "{policy} {}[{rule}]", direction.name()),
        }
    }
}

/// The rules behind a cookie, in order of their policies.
pub type Origins = Arc<[Origin]>;

/// Which cookie stands for what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cookies {
    origins: BTreeMap<PolicyCookie, Origins>,
    /// Equal origins are one.
    known: BTreeMap<(PolicyDirection, BTreeSet<RuleId>), Origins>,
    /// In the kernel from before a restart.
    avoided: BTreeSet<PolicyCookie>,
    /// What changed since [`Self::take_changes`].
    changes: BTreeMap<PolicyCookie, Option<Origins>>,
    last: u32,
    /// Counters that there are.
    places: u32,
    /// Entries of `known` after it was last cleaned up.
    cleaned: usize,
}

/// Sets of origins without a cookie that are kept for the next one.
const SPARE: usize = 1024;

impl Cookies {
    /// Takes note of numbers that rows in the kernel hold.
    pub(crate) fn avoid(&mut self, found: impl Iterator<Item = PolicyCookie>) {
        self.avoided.extend(found);
        self.last = self.avoided.last().map_or(0, |last| last.0);
    }

    /// How many counters there are, from now on.
    pub(crate) const fn set_places(&mut self, places: u32) {
        self.places = places;
    }

    /// The rules behind a cookie.
    pub(crate) fn get(&self, cookie: PolicyCookie) -> Option<&Origins> {
        self.origins.get(&cookie)
    }

    /// Rules that have no counter.
    pub(crate) fn uncounted(&self) -> usize {
        self.origins.range(PolicyCookie(self.places)..).count()
    }

    /// Every cookie with the rules behind it.
    pub(crate) const fn all(&self) -> &BTreeMap<PolicyCookie, Origins> {
        &self.origins
    }

    /// A number that nobody has.
    pub(crate) fn make(&mut self) -> PolicyCookie {
        let full = self.origins.len() + 1 >= usize::try_from(self.places).unwrap_or(usize::MAX);
        loop {
            self.last = self.last.wrapping_add(1);
            if !full && self.last >= self.places {
                self.last = 1;
            }
            let cookie = PolicyCookie(self.last.max(1));
            if !self.origins.contains_key(&cookie) && !self.avoided.contains(&cookie) {
                return cookie;
            }
            if !full && self.avoided.len() + self.origins.len() >= self.places as usize {
                // What was read back leaves no room: it is free again after the first plan.
                self.avoided.clear();
            }
        }
    }

    /// Says what a cookie stands for.
    pub(crate) fn set(
        &mut self,
        cookie: PolicyCookie,
        direction: PolicyDirection,
        rules: BTreeSet<RuleId>,
        policies: &Policies,
    ) {
        let key = (direction, rules);
        let origins = match self.known.get(&key) {
            Some(origins) => Arc::clone(origins),
            None => {
                let origins: Origins = name(&key.1, direction, policies).into();
                self.known.insert(key, Arc::clone(&origins));
                origins
            }
        };
        let same = self.origins.get(&cookie).is_some_and(|one| *one == origins);
        if !same {
            self.origins.insert(cookie, Arc::clone(&origins));
            self.changes.insert(cookie, Some(origins));
        }
    }

    /// Nothing is behind a cookie any more.
    pub(crate) fn retire(&mut self, cookie: PolicyCookie) {
        if self.origins.remove(&cookie).is_some() {
            self.changes.insert(cookie, None);
        }
    }

    /// What changed; numbers from before a restart are free from now on.
    pub(crate) fn take_changes(&mut self) -> Vec<(PolicyCookie, Option<Origins>)> {
        self.avoided.clear();
        if self.known.len() > SPARE + 2 * self.cleaned {
            self.known
                .retain(|_, origins| Arc::strong_count(origins) > 1);
            self.cleaned = self.known.len();
        }
        std::mem::take(&mut self.changes).into_iter().collect()
    }
}

fn name(rules: &BTreeSet<RuleId>, direction: PolicyDirection, policies: &Policies) -> Vec<Origin> {
    let mut origins: Vec<_> = rules
        .iter()
        .filter_map(|id| {
            if id.policy == PolicyNumber(0) {
                return Some(Origin::OwnNode);
            }
            Some(Origin::Rule {
                policy: policies.get(id.policy)?.source.reference.clone(),
                direction,
                rule: id.rule,
            })
        })
        .collect();
    origins.sort();
    origins
}
