// SPDX-License-Identifier: Apache-2.0
//! Which identities each peer selector means, kept up to date as pods and namespaces change.
//!
//! A selector that several rules use is looked at once, and a change of an identity or namespace
//! tells which selectors mean more or less than before.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::Identity;
use weir_abi::policy::PolicyDirection;
use weir_model::{LabelSelector, LabelSet, Namespace, Requirement, World};

use super::cell::PolicyNumber;

/// In which namespaces a selector looks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    One(Namespace),
    Matching(LabelSelector),
}

/// What makes two peers the same selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SelectorKey {
    pub(crate) scope: Scope,
    pub(crate) pods: LabelSelector,
}

/// A selector's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SelectorId(u32);

/// A rule in a set that asks a selector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct User {
    /// The identity that the set is for.
    pub(crate) set: Identity,
    pub(crate) direction: PolicyDirection,
    pub(crate) policy: PolicyNumber,
    pub(crate) rule: u32,
}

/// A selector with what it means.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) key: SelectorKey,
    pub(crate) matches: BTreeSet<Identity>,
    pub(crate) users: BTreeSet<User>,
    /// Compiled policies that hold the number.
    holders: u32,
}

impl Selector {
    fn means(&self, set: &LabelSet, world: &World) -> bool {
        let in_scope = match &self.key.scope {
            Scope::One(namespace) => *namespace == set.namespace,
            Scope::Matching(selector) => {
                selector.matches_namespace(&set.namespace, world.namespace(&set.namespace))
            }
        };
        in_scope && self.key.pods.matches(&set.labels)
    }
}

/// All identities and all selectors in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    identities: BTreeMap<Identity, LabelSet>,
    by_namespace: BTreeMap<Namespace, BTreeSet<Identity>>,
    by_label: BTreeMap<String, BTreeMap<String, BTreeSet<Identity>>>,
    numbers: BTreeMap<SelectorKey, SelectorId>,
    known: BTreeMap<SelectorId, Selector>,
    /// Selectors that look into one namespace.
    scoped: BTreeMap<Namespace, BTreeSet<SelectorId>>,
    /// The others.
    wide: BTreeSet<SelectorId>,
    last: u32,
}

impl Selectors {
    /// The label set of an identity.
    pub(crate) fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.identities.get(&identity)
    }

    /// Every identity with its label set.
    pub(crate) const fn identities(&self) -> &BTreeMap<Identity, LabelSet> {
        &self.identities
    }

    /// One selector.
    pub(crate) fn get(&self, id: SelectorId) -> Option<&Selector> {
        self.known.get(&id)
    }

    /// Notes or forgets that a rule in a set asks a selector.
    pub(crate) fn set_user(&mut self, id: SelectorId, user: User, uses: bool) {
        if let Some(selector) = self.known.get_mut(&id) {
            if uses {
                selector.users.insert(user);
            } else {
                selector.users.remove(&user);
            }
        }
    }

    /// The number of a selector, which is looked at if it is new.
    pub(crate) fn hold(&mut self, key: SelectorKey, world: &World) -> SelectorId {
        if let Some(id) = self.numbers.get(&key) {
            if let Some(selector) = self.known.get_mut(id) {
                selector.holders += 1;
            }
            return *id;
        }
        self.last += 1;
        let id = SelectorId(self.last);
        let mut selector = Selector {
            key: key.clone(),
            matches: BTreeSet::new(),
            users: BTreeSet::new(),
            holders: 1,
        };
        selector.matches = self.find(&selector, world);
        match &key.scope {
            Scope::One(namespace) => {
                let scoped = self.scoped.entry(namespace.clone()).or_default();
                scoped.insert(id);
            }
            Scope::Matching(_) => drop(self.wide.insert(id)),
        }
        self.numbers.insert(key, id);
        self.known.insert(id, selector);
        id
    }

    /// Gives a number back.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(selector) = self.known.get_mut(&id) else {
            return;
        };
        selector.holders -= 1;
        if selector.holders > 0 {
            return;
        }
        if let Some(selector) = self.known.remove(&id) {
            self.numbers.remove(&selector.key);
            self.wide.remove(&id);
            if let Scope::One(namespace) = &selector.key.scope {
                remove_from(&mut self.scoped, namespace, &id);
            }
        }
    }

    /// Looks at as few identities as the indices allow.
    fn find(&self, selector: &Selector, world: &World) -> BTreeSet<Identity> {
        let means = |id: &Identity| {
            let set = self.identities.get(id);
            set.is_some_and(|set| selector.means(set, world))
        };
        let listed = selector.key.pods.requirements().iter().filter_map(|one| {
            let Requirement::In(key, values) = one else {
                return None;
            };
            let found = |value| self.by_label.get(key)?.get(value);
            let lists: Vec<&BTreeSet<Identity>> = values.iter().filter_map(found).collect();
            Some(lists)
        });
        let size =
            |lists: &Vec<&BTreeSet<Identity>>| -> usize { lists.iter().map(|one| one.len()).sum() };
        let shortest = listed.min_by_key(size);
        if let Some(lists) = shortest {
            return lists.into_iter().flatten().copied().filter(means).collect();
        }
        if let Scope::One(namespace) = &selector.key.scope {
            let inside = self.by_namespace.get(namespace);
            return inside
                .into_iter()
                .flatten()
                .copied()
                .filter(means)
                .collect();
        }
        self.identities.keys().copied().filter(means).collect()
    }

    /// Takes an identity in; the selectors that mean it.
    pub(crate) fn add_identity(
        &mut self,
        identity: Identity,
        set: LabelSet,
        world: &World,
    ) -> Vec<SelectorId> {
        let candidates = self.scoped.get(&set.namespace).into_iter().flatten();
        let mut found = Vec::new();
        for id in candidates.chain(&self.wide) {
            if let Some(selector) = self.known.get_mut(id)
                && selector.means(&set, world)
                && selector.matches.insert(identity)
            {
                found.push(*id);
            }
        }
        let namespace = self.by_namespace.entry(set.namespace.clone()).or_default();
        namespace.insert(identity);
        for (key, value) in set.labels.iter() {
            let values = self.by_label.entry(key.to_owned()).or_default();
            values.entry(value.to_owned()).or_default().insert(identity);
        }
        self.identities.insert(identity, set);
        found
    }

    /// Forgets an identity; the selectors that meant it.
    pub(crate) fn remove_identity(&mut self, identity: Identity) -> Vec<SelectorId> {
        let Some(set) = self.identities.remove(&identity) else {
            return Vec::new();
        };
        remove_from(&mut self.by_namespace, &set.namespace, &identity);
        for (key, value) in set.labels.iter() {
            if let Some(values) = self.by_label.get_mut(key) {
                remove_from(values, value, &identity);
                if values.is_empty() {
                    self.by_label.remove(key);
                }
            }
        }
        let candidates = self.scoped.get(&set.namespace).into_iter().flatten();
        let mut found = Vec::new();
        for id in candidates.chain(&self.wide) {
            if let Some(selector) = self.known.get_mut(id)
                && selector.matches.remove(&identity)
            {
                found.push(*id);
            }
        }
        found
    }

    /// Looks at a namespace again, whose labels differ: who is meant from now on (`true`) or no
    /// longer.
    pub(crate) fn relabel_namespace(
        &mut self,
        namespace: &Namespace,
        world: &World,
    ) -> Vec<(SelectorId, Identity, bool)> {
        let mut found = Vec::new();
        for identity in self.by_namespace.get(namespace).into_iter().flatten() {
            let Some(set) = self.identities.get(identity) else {
                continue;
            };
            for id in &self.wide {
                let Some(selector) = self.known.get_mut(id) else {
                    continue;
                };
                let means = selector.means(set, world);
                if means && selector.matches.insert(*identity) {
                    found.push((*id, *identity, true));
                } else if !means && selector.matches.remove(identity) {
                    found.push((*id, *identity, false));
                }
            }
        }
        found
    }
}

/// Removes one value of a key, and the key with the last one.
pub(crate) fn remove_from<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized, V: Ord>(
    map: &mut BTreeMap<K, BTreeSet<V>>,
    key: &Q,
    value: &V,
) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
